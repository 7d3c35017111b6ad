//! The run's own curves, from the `metrics.jsonl` of the folder that the checkpoint lies in.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::html::{card, colour, legend};
use super::svg::Frame;

/// Points of a curve that are drawn; more are averaged.
const DRAWN: usize = 300;

type Points = Vec<(f64, f64)>;

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

type Line<'a> = (String, &'a Points, bool, usize);

fn chart(
    title: &str,
    y_label: &'static str,
    range: Option<(f64, f64)>,
    lines: &[Line<'_>],
) -> String {
    let lines: Vec<(&str, Points, bool, String)> = lines
        .iter()
        .filter(|line| !line.1.is_empty())
        .map(|(name, points, dashed, number)| {
            (name.as_str(), thinned(points), *dashed, colour(*number))
        })
        .collect();
    let all = || lines.iter().flat_map(|line| &line.1);
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        let values = || all().map(of);
        (
            values().fold(f64::INFINITY, f64::min),
            values().fold(f64::NEG_INFINITY, f64::max),
        )
    };
    let (low, high) = bounds(|point| point.1);
    let frame = Frame {
        width: 540.0,
        height: 330.0,
        x: (0.0, bounds(|point| point.0).1.max(1.0)),
        y: range.unwrap_or((low - (high - low) * 0.05, high + (high - low) * 0.05)),
        x_label: "step",
        y_label,
    };
    let mut inside = String::new();
    for (_, points, dashed, colour) in &lines {
        inside += &frame.curve(points, colour, *dashed);
        if points.len() <= 30 && !dashed {
            for &(x, y) in points {
                let (x, y) = (frame.at_x(x), frame.at_y(y));
                inside += &format!("<circle cx={x:.1} cy={y:.1} r=3 fill=\"{colour}\" />");
            }
        }
    }
    let names = legend(
        lines
            .iter()
            .map(|(name, _, dashed, colour)| (*name, colour.clone(), *dashed)),
    );
    card(false, title, &(names + &frame.svg(title, &inside)), "")
}

/// At most [`DRAWN`] points, each the mean of neighbours.
fn thinned(points: &Points) -> Points {
    let together = points.len().div_ceil(DRAWN).max(1);
    let mean = |part: &[(f64, f64)]| {
        let num = part.len() as f64;
        let sum = part
            .iter()
            .fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / num, sum.1 / num)
    };
    points.chunks(together).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_thinned_to_means() {
        let points: Points = (0..1000).map(|n| (f64::from(n), 1.0)).collect();
        let thin = thinned(&points);
        assert_eq!((thin.len(), thin[0]), (250, (1.5, 1.0)));
        assert!(thinned(&Vec::new()).is_empty());
    }
}
