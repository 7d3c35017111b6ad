//! One trial: where it lies in the space, how far it is, what came of it; and what its run folder
//! tells.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::study::Metric;
use crate::train::figures::Evaluation;
use crate::train::trainer::INTERRUPTED;

/// The metric that is the training loss of the logged steps.
const TRAIN_LOSS: &str = "train_loss";

/// How a trial stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It runs, or was interrupted.
    Running,
    /// It came to its end.
    Finished,
    /// Early termination ended it.
    Stopped,
    /// It ended with an error.
    Failed,
}

impl State {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "unfinished",
            Self::Finished => "finished",
            Self::Stopped => "stopped early",
            Self::Failed => "failed",
        }
    }
}

/// A trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Its number, from 1.
    pub number: usize,
    /// How it stands.
    pub state: State,
    /// Its place in 0..1 for each parameter: what its values are made from.
    pub point: Vec<f64>,
    /// Its parameters, for people.
    pub parameters: serde_json::Map<String, Value>,
    /// The results of so many of the first trials were known when it was chosen.
    pub seen: usize,
    /// Step and value of each logged value of the metric; up to where it was stopped early.
    pub history: Vec<(u64, f64)>,
    /// Wall time of all its tries, in seconds.
    pub seconds: f64,
    /// Times it was started.
    pub tries: u32,
    /// Why it failed or was stopped.
    pub reason: Option<String>,
    /// Where it ran last, if the sweep was asked to say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl Trial {
    /// Its folder's name.
    pub fn folder(&self) -> String {
        format!("trial-{:03}", self.number)
    }

    /// Whether it has come to an end.
    pub fn has_ended(&self) -> bool {
        self.state != State::Running
    }

    /// Its best value and that value's step; none if it failed.
    pub fn best(&self, metric: &Metric) -> Option<(u64, f64)> {
        if self.state == State::Failed {
            return None;
        }
        self.history.iter().copied().reduce(|best, one| {
            if metric.is_better(one.1, best.1) {
                one
            } else {
                best
            }
        })
    }

    /// Its values so that lower is better.
    pub fn scores(&self, metric: &Metric) -> Vec<f64> {
        let scores = self.history.iter().map(|(_, value)| metric.score(*value));
        scores.collect()
    }
}

/// What a run folder's `metrics.jsonl` tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Logged {
    /// Step and value of the metric.
    pub history: Vec<(u64, f64)>,
    /// Whether the run came to its own end.
    pub is_complete: bool,
    /// The figures there are, if not the metric.
    pub others: Vec<String>,
    /// Whether its evaluations have no figure of the metric's name, now or later.
    pub is_hopeless: bool,
}

/// Reads the metric from a run folder; nothing where there is none yet.
pub fn read_logged(folder: &Path, metric: &Metric) -> Logged {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
    let mut logged = Logged::default();
    let mut figures: BTreeMap<String, f64> = BTreeMap::new();
    // A line being written, or cut short by a crash, is not counted.
    for line in text
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok())
    {
        let step = line["step"].as_u64().unwrap_or_default();
        let value = match line["event"].as_str() {
            Some("step") if metric.name == TRAIN_LOSS => line["loss"].as_f64(),
            Some("eval") => {
                logged.is_hopeless =
                    metric.name != TRAIN_LOSS && !Evaluation::line_may_have(&line, &metric.name);
                figures = Evaluation::figures_of_line(&line);
                figures.get(&metric.name).copied()
            }
            Some("end") => {
                logged.is_complete = line["stopped"] != INTERRUPTED;
                None
            }
            _ => None,
        };
        logged.history.extend(value.map(|value| (step, value)));
    }
    logged.others = figures.into_keys().collect();
    logged
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn metric(name: &str, maximize: bool) -> Metric {
        Metric {
            name: name.to_owned(),
            maximize,
            target: None,
        }
    }

    #[test]
    fn a_run_folder_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for (step, loss, accuracy) in [(5, 2.0, 0.5), (10, 1.5, 0.75)] {
            text += &format!(
                "{{\"event\":\"step\",\"step\":{step},\"loss\":{}}}\n{{\"event\":\"eval\",\
                 \"step\":{step},\"eval_loss\":{loss},\"genes\":null,\"phenotypes\":[{{\
                 \"category\":\"tissue\",\"setting\":\"all_hidden\",\"accuracy\":{accuracy}}},{{\
                 \"category\":\"tissue\",\"setting\":\"others_visible\",\"accuracy\":1.0}}]}}\n",
                loss + 1.0
            );
        }
        let path = dir.path().join("metrics.jsonl");
        fs::write(
            &path,
            format!("{text}{{\"event\":\"end\",\"step\":10,\"stopped\":null}}\n{{\"ev"),
        )
        .unwrap();
        let loss = read_logged(dir.path(), &metric("eval_loss", false));
        assert_eq!(loss.history, [(5, 2.0), (10, 1.5)]);
        assert!(loss.is_complete);
        let accuracy = read_logged(dir.path(), &metric("tissue_accuracy", true));
        assert_eq!(accuracy.history, [(5, 0.5), (10, 0.75)]);
        let train = read_logged(dir.path(), &metric("train_loss", false));
        assert_eq!(train.history, [(5, 3.0), (10, 2.5)]);
        let absent = read_logged(dir.path(), &metric("auroc", true));
        assert_eq!(absent.others, ["eval_loss", "tissue_accuracy"]);
        let is_hopeless = |name| read_logged(dir.path(), &metric(name, true)).is_hopeless;
        for name in ["eval_loss", "train_loss", "tissue_auroc", "gene_mcc"] {
            assert!(!is_hopeless(name), "{name} is there, or may come");
        }
        for name in ["auroc", "tissue_acuracy", "cell_type_accuracy", "gene_"] {
            assert!(is_hopeless(name), "{name} never comes");
        }
        let stopped = "{\"event\":\"end\",\"step\":10,\"stopped\":\"interrupted\"}\n";
        fs::write(&path, text + stopped).unwrap();
        assert!(!read_logged(dir.path(), &metric("auroc", true)).is_complete);
        assert_eq!(
            read_logged(Path::new("nowhere"), &metric("x", true)),
            Logged::default()
        );
    }
}
