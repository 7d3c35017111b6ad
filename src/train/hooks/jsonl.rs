//! `metrics.jsonl` in the run folder: one JSON object per line, `event` = `step`, `eval` or `end`;
//! the figures of these lines go to the run's trackers as well, as `train/<name>` and `eval/<name>`.
//!
//! A `step` line stands for `logging_steps` steps: loss is their mean over labelled positions (those
//! of steps without a finite loss left out; null where there is no other), `grad_norm` and
//! `learning_rate` are the last step's, rates count the wall time of all of them, `skipped_steps`
//! those of the whole run that had no finite loss or gradient.
//! Resuming drops the lines beyond the checkpoint's step, so that each step stands there once.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{HookSettings, Request, RunEnd, RunStart, StepReport, TrainHook};
use crate::file::{self, FileError};
use crate::track::{About, Plan, State, Tracker};
use crate::train::figures::Evaluation;
use crate::train::run_folder::METRICS;

/// The steps since the last line.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Window {
    loss_sum: f64,
    num_labels: u64,
    num_cells: u64,
    num_tokens: u64,
    num_padded_tokens: u64,
    seconds: f64,
}

/// The writer of `metrics.jsonl`, and of what trackers get.
#[derive(Debug)]
pub struct JsonLines {
    logging_steps: u64,
    window: Window,
    file: Option<(PathBuf, File)>,
    trackers: Plan,
    about: About,
    tracker: Tracker,
}

impl JsonLines {
    /// A line every `logging_steps` steps.
    pub fn new(settings: &HookSettings) -> Self {
        Self {
            logging_steps: settings.logging_steps.max(1),
            window: Window::default(),
            file: None,
            trackers: settings.trackers.clone(),
            about: settings.about.clone(),
            tracker: Tracker::none(),
        }
    }

    fn write(&mut self, line: &Value) -> Result<()> {
        match &mut self.file {
            Some((path, file)) => append(path, file, &format!("{line}\n")),
            None => Ok(()),
        }
    }
}

/// Appends a line whole or not at all.
fn append(path: &Path, file: &mut File, line: &str) -> Result<()> {
    let wrong = |error| FileError::io("append a line to it", path, error);
    let whole = file.metadata().map_err(wrong)?.len();
    file.write_all(line.as_bytes()).map_err(|error| {
        // A part of it may have been written.
        let _ = file.set_len(whole);
        wrong(error)
    })?;
    Ok(())
}

/// Keeps the whole lines up to `step`; a line cut short by a crash is dropped as well.
fn lines_up_to(text: &str, step: u64) -> String {
    let keep = |line: &&str| {
        serde_json::from_str::<Value>(line)
            .is_ok_and(|v| v["step"].as_u64().is_some_and(|s| s <= step) && v["event"] != "end")
    };
    text.lines()
        .filter(keep)
        .flat_map(|line| [line, "\n"])
        .collect()
}

impl TrainHook for JsonLines {
    fn name(&self) -> &'static str {
        "jsonl"
    }

    fn on_start(&mut self, start: &RunStart) -> Result<()> {
        let path = start.output_dir.join(METRICS);
        let before = fs::read_to_string(&path).unwrap_or_default();
        crate::file::write_atomic(&path, lines_up_to(&before, start.first_step).as_bytes())?;
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.with_context(|| format!("{}: cannot open", path.display()))?;
        // For as long as the run goes on. Where files cannot be locked, nobody can tell whether it does.
        file::lock_soon(&file);
        self.file = Some((path, file));
        let about = self.about.clone();
        self.tracker = Tracker::start(&self.trackers, &start.output_dir, about);
        Ok(())
    }

    fn on_step(&mut self, report: &StepReport) -> Result<Request> {
        let window = &mut self.window;
        if report.loss.is_finite() {
            window.loss_sum += report.loss * report.num_labels as f64;
            window.num_labels += report.num_labels;
        }
        window.num_cells += report.num_cells;
        window.num_tokens += report.num_tokens;
        window.num_padded_tokens += report.num_padded_tokens;
        window.seconds += report.seconds;
        if report.step.is_multiple_of(self.logging_steps) {
            let w = std::mem::take(&mut self.window);
            let per_second = |count: u64| count as f64 / w.seconds.max(1e-9);
            let line = json!({
                "event": "step",
                "step": report.step,
                "epoch": report.epoch,
                "loss": (w.num_labels > 0).then(|| w.loss_sum / w.num_labels as f64),
                "grad_norm": report.grad_norm,
                "learning_rate": report.learning_rate,
                "skipped_steps": report.skipped_steps,
                "num_labels": w.num_labels,
                "num_cells": w.num_cells,
                "num_tokens": w.num_tokens,
                "num_padded_tokens": w.num_padded_tokens,
                "cells_per_second": per_second(w.num_cells),
                "tokens_per_second": per_second(w.num_tokens),
                "padded_tokens_per_second": per_second(w.num_padded_tokens),
            });
            self.write(&line)?;
            let numbers = [
                ("loss", w.loss_sum / (w.num_labels as f64).max(1.0)),
                ("grad_norm", report.grad_norm),
                ("learning_rate", report.learning_rate),
                ("epoch", report.epoch),
                ("cells_per_second", per_second(w.num_cells)),
                ("tokens_per_second", per_second(w.num_tokens)),
                ("padded_tokens_per_second", per_second(w.num_padded_tokens)),
            ];
            let numbers = numbers.map(|(name, value)| (name.to_owned(), value));
            self.tracker.log("train", report.step, numbers);
        }
        Ok(Request::none())
    }

    fn on_evaluation(&mut self, evaluation: &Evaluation) -> Result<Request> {
        let mut line = serde_json::to_value(evaluation)?;
        line["event"] = "eval".into();
        self.write(&line)?;
        let figures = evaluation.figures().into_iter();
        let figures = figures.chain(evaluation.baselines()).map(|(name, value)| {
            let short = name.strip_prefix("eval_").map(str::to_owned);
            (short.unwrap_or(name), value)
        });
        self.tracker.log("eval", evaluation.step, figures);
        Ok(Request::none())
    }

    fn on_end(&mut self, end: &RunEnd) -> Result<()> {
        self.write(&json!({ "event": "end", "step": end.step, "stopped": end.stopped }))?;
        self.tracker.end(if end.interrupted {
            State::Interrupted
        } else {
            State::Finished
        });
        Ok(())
    }

    fn state(&self) -> Value {
        serde_json::to_value(self.window).unwrap_or_default()
    }

    fn restore(&mut self, state: Value) -> Result<()> {
        self.window = serde_json::from_value(state).context("the state of metrics.jsonl")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A step without a finite loss spoils neither the line nor the state of a checkpoint.
    #[test]
    fn a_loss_that_is_not_finite_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut hook = JsonLines::new(&HookSettings {
            logging_steps: 3,
            save_steps: 6,
            save_total_limit: 1,
            metric: "loss".to_owned(),
            patience: None,
            trackers: Plan::none(),
            about: About {
                name: "run".to_owned(),
                command: "mlm".to_owned(),
                config: Value::Null,
            },
        });
        let start = RunStart {
            output_dir: dir.path().to_owned(),
            total_steps: 6,
            first_step: 0,
            num_train_cells: 9,
        };
        hook.on_start(&start).unwrap();
        for (step, loss) in (1..=6).zip([2.0, f64::NAN, 4.0, f64::NAN, f64::NAN, f64::NAN]) {
            let report = StepReport {
                step,
                epoch: 0.0,
                loss,
                grad_norm: loss,
                learning_rate: 1e-3,
                num_labels: 5,
                num_cells: 1,
                num_tokens: 7,
                num_padded_tokens: 7,
                skipped_steps: u64::from(loss.is_nan()),
                seconds: 0.5,
            };
            hook.on_step(&report).unwrap();
            let state = serde_json::to_string(&hook.state()).unwrap();
            hook.restore(serde_json::from_str(&state).unwrap()).unwrap();
        }
        let text = fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["loss"], 3.0);
        assert_eq!(
            (&lines[0]["num_labels"], &lines[0]["num_cells"]),
            (&json!(10), &json!(3))
        );
        assert_eq!(
            (&lines[1]["loss"], &lines[1]["skipped_steps"]),
            (&Value::Null, &json!(1))
        );
    }

    #[test]
    fn resuming_drops_later_and_broken_lines() {
        let text = "{\"event\":\"step\",\"step\":1}\n{\"event\":\"step\",\"step\":3}\n\
                    {\"event\":\"end\",\"step\":1}\n{\"event\":\"st";
        assert_eq!(lines_up_to(text, 2), "{\"event\":\"step\",\"step\":1}\n");
    }
}
