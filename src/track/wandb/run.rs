//! What W&B knows of a run, online or offline: how it began, and figures as its lines.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::labels::Labels;
use crate::track::entry::{Entry, Figures, Row, Start, System};

/// A run, from its first start on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Run {
    /// The last start.
    pub(super) start: Option<Start>,
    /// When the first one was, in seconds since 1970.
    began: f64,
    /// The last value of every figure.
    summary: Figures,
}

impl Run {
    /// Takes note of an entry.
    pub(super) fn see(&mut self, entry: &Entry) {
        match entry {
            Entry::Start(start) => {
                if self.start.is_none() {
                    self.began = start.time;
                }
                self.start = Some(start.clone());
            }
            Entry::Row(row) => {
                let figures = row.figures.iter();
                self.summary
                    .extend(figures.map(|(name, number)| (name.clone(), *number)));
            }
            Entry::System(_) | Entry::End(_) => {}
        }
    }

    /// Seconds from the first start to `time`.
    pub(super) fn runtime(&self, time: f64) -> f64 {
        (time - self.began).max(0.0)
    }

    /// What W&B adds to a line of figures.
    fn clock(&self, time: f64) -> Map<String, Value> {
        let mut line = Map::new();
        line.insert("_runtime".to_owned(), json!(self.runtime(time)));
        line.insert("_timestamp".to_owned(), json!(time));
        line
    }

    /// A line of the history.
    pub(super) fn history(&self, row: &Row) -> Map<String, Value> {
        let mut line = self.clock(row.time);
        line.insert("_step".to_owned(), json!(row.step));
        line.extend(values(&row.figures));
        line
    }

    /// The last value of every figure at `time` and `step`.
    pub(super) fn summary(&self, time: f64, step: u64) -> Map<String, Value> {
        let mut line = self.clock(time);
        line.insert("_step".to_owned(), json!(step));
        line.insert(
            "_wandb".to_owned(),
            json!({ "runtime": self.runtime(time) as u64 }),
        );
        line.extend(values(&self.summary));
        line
    }
}

/// Figures of the machine, by W&B's names without `system.`.
pub(super) fn system(system: &System) -> Map<String, Value> {
    values(&system.figures).collect()
}

fn values(figures: &Figures) -> impl Iterator<Item = (String, Value)> {
    let figures = figures.iter();
    figures.map(|(name, number)| (name.clone(), json!(number)))
}

/// The name by which W&B knows the run in its addresses.
pub(super) fn run_id<'a>(labels: &'a Labels, start: &'a Start) -> &'a str {
    labels.run_id.as_deref().unwrap_or(&start.id)
}

/// Name of the file of [`metadata`].
pub(super) const METADATA: &str = "wandb-metadata.json";

/// What W&B shows of machine and program.
pub(super) fn metadata(start: &Start) -> Value {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    json!({
        "os": std::env::consts::OS,
        "host": start.host,
        "program": "gene-bert",
        "args": arguments,
        "cpu_count_logical": start.num_cpus,
    })
}
