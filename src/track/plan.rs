//! Which trackers a run reports to, settled before any heavy work.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::environment::{Environment, of_process};
use super::error::TrackError;
use super::sink::Sink;
use super::{tensorboard, wandb};

/// Where a run reports to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportTo {
    /// `metrics.jsonl` in the run folder: always written, whether named or not.
    Jsonl,
    /// Weights & Biases.
    Wandb,
    /// Event files in the run folder.
    Tensorboard,
}

/// A tracker as settings and environment have it.
#[derive(Debug, Clone)]
enum Destination {
    WandbOffline(wandb::Labels),
    Tensorboard,
}

/// The trackers of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    destinations: Vec<Destination>,
    /// How long a run's end waits for them.
    pub(super) wait: Duration,
}

impl Plan {
    /// No tracker.
    pub fn none() -> Self {
        Self {
            destinations: Vec::new(),
            wait: Duration::ZERO,
        }
    }

    /// The trackers named, as the environment sets them; a run's end waits `wait` for them.
    ///
    /// # Errors
    /// What a tracker needs is absent from the environment, or makes no sense.
    pub fn new(report_to: &[ReportTo], wait: Duration) -> Result<Self, TrackError> {
        Self::in_environment(report_to, wait, &Environment::new(&of_process))
    }

    fn in_environment(
        report_to: &[ReportTo],
        wait: Duration,
        environment: &Environment<'_>,
    ) -> Result<Self, TrackError> {
        let mut named = report_to.to_vec();
        named.sort_unstable();
        named.dedup();
        let mut destinations = Vec::new();
        for tracker in named {
            match tracker {
                ReportTo::Jsonl => {}
                ReportTo::Wandb => match wandb::Mode::of(environment)? {
                    wandb::Mode::Disabled => {}
                    wandb::Mode::Offline | wandb::Mode::Online => {
                        let labels = wandb::Labels::of(environment)?;
                        destinations.push(Destination::WandbOffline(labels));
                    }
                },
                ReportTo::Tensorboard => destinations.push(Destination::Tensorboard),
            }
        }
        Ok(Self { destinations, wait })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.destinations.is_empty()
    }

    /// The trackers of the run in `folder`.
    pub(super) fn sinks(&self, folder: &Path) -> Vec<Box<dyn Sink>> {
        let open = |destination: &Destination| -> Box<dyn Sink> {
            match destination {
                Destination::WandbOffline(labels) => {
                    Box::new(wandb::Offline::new(labels.clone(), folder))
                }
                Destination::Tensorboard => Box::new(tensorboard::Events::new(folder)),
            }
        };
        self.destinations.iter().map(open).collect()
    }
}
