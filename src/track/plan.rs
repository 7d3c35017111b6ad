//! Which trackers a run reports to, settled before any heavy work.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::environment::{Environment, of_process};
use super::error::TrackError;
use super::sink::Sink;
use super::{mlflow, tensorboard, wandb};

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
    /// An MLflow server.
    Mlflow,
}

/// A tracker as settings and environment have it.
#[derive(Debug, Clone)]
enum Destination {
    Wandb(wandb::Labels, wandb::Account),
    WandbOffline(wandb::Labels),
    Tensorboard,
    Mlflow(mlflow::Server),
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
                    wandb::Mode::Online => destinations.push(Destination::Wandb(
                        wandb::Labels::of(environment)?,
                        wandb::Account::of(environment)?,
                    )),
                    wandb::Mode::Offline => destinations
                        .push(Destination::WandbOffline(wandb::Labels::of(environment)?)),
                },
                ReportTo::Tensorboard => destinations.push(Destination::Tensorboard),
                ReportTo::Mlflow => {
                    destinations.push(Destination::Mlflow(mlflow::Server::of(environment)?));
                }
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
                Destination::Wandb(labels, account) => {
                    let (labels, account) = (labels.clone(), account.clone());
                    Box::new(wandb::Online::new(labels, account, folder))
                }
                Destination::WandbOffline(labels) => {
                    Box::new(wandb::Offline::new(labels.clone(), folder))
                }
                Destination::Tensorboard => Box::new(tensorboard::Events::new(folder)),
                Destination::Mlflow(server) => {
                    Box::new(mlflow::Mlflow::new(server.clone(), folder))
                }
            }
        };
        self.destinations.iter().map(open).collect()
    }
}
