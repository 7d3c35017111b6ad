//! The run's own curves, from the `metrics.jsonl` of the folder that the checkpoint lies in.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::page::curves::{Points, chart};

/// What a run wrote down while it trained.
#[derive(Debug, Clone, Default)]
pub struct Training {
    loss: Points,
    eval_loss: Points,
    learning_rate: Points,
    /// Accuracy by what is predicted, and that of its baseline.
    accuracies: BTreeMap<String, (Points, Points)>,
}

impl Training {
    /// That of the run that `checkpoint` lies in; `None` where it lies in none.
    pub fn of(checkpoint: &Path) -> Option<Self> {
        let whole = checkpoint.canonicalize().ok()?;
        let text = fs::read_to_string(whole.parent()?.join("metrics.jsonl")).ok()?;
        let mut training = Self::default();
        // A line cut short by a crash is not counted.
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.for_each(|line: Value| training.add(&line));
        (!training.loss.is_empty() || !training.eval_loss.is_empty()).then_some(training)
    }

    fn add(&mut self, line: &Value) {
        let Some(step) = line["step"].as_f64() else {
            return;
        };
        let push = |points: &mut Points, value: &Value| {
            points.extend(value.as_f64().map(|value| (step, value)));
        };
        match line["event"].as_str() {
            Some("step") => {
                push(&mut self.loss, &line["loss"]);
                push(&mut self.learning_rate, &line["learning_rate"]);
            }
            Some("eval") => {
                push(&mut self.eval_loss, &line["eval_loss"]);
                let mut add = |name: &str, accuracy: &Value, baseline: &Value| {
                    let (own, other) = self.accuracies.entry(name.to_owned()).or_default();
                    push(own, accuracy);
                    push(other, baseline);
                };
                let phenotypes = line["phenotypes"].as_array();
                for one in phenotypes.into_iter().flatten() {
                    if one["setting"] != "others_visible" {
                        let name = one["category"].as_str().unwrap_or_default();
                        add(name, &one["accuracy"], &one["majority_accuracy"]);
                    }
                }
                let genes = &line["genes"];
                if !genes.is_null() {
                    add("gene bins", &genes["accuracy"], &genes["mode_accuracy"]);
                }
                let classes = &line["classification"];
                if let Some(name) = classes["category"].as_str() {
                    add(name, &classes["accuracy"], &classes["majority"]["accuracy"]);
                }
            }
            _ => {}
        }
    }

    /// Cards with the curves.
    pub(super) fn cards(&self) -> String {
        let losses = [("training", &self.loss), ("evaluation", &self.eval_loss)];
        let losses = losses.map(|(name, points)| {
            (
                name.to_owned(),
                points,
                false,
                usize::from(name == "evaluation"),
            )
        });
        let mut out = String::new();
        out += &chart("Loss", "loss, in nats", None, &losses);
        let mut lines = Vec::new();
        for (number, (name, (own, baseline))) in self.accuracies.iter().enumerate() {
            lines.push((name.clone(), own, false, number));
            lines.push((format!("{name}, constant answer"), baseline, true, number));
        }
        if !lines.is_empty() {
            out += &chart(
                "Accuracy on held-out cells",
                "accuracy",
                Some((0.0, 1.0)),
                &lines,
            );
        }
        if self.accuracies.is_empty() {
            let rate = [("learning rate".to_owned(), &self.learning_rate, false, 0)];
            out += &chart("Learning rate", "learning rate", None, &rate);
        }
        out
    }
}
