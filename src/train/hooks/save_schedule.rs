//! Asks for a checkpoint every `save_steps` and at each best evaluation, and deletes the oldest
//! beyond `save_total_limit`. `checkpoint-best` is a folder of its own and is never deleted.
//!
//! A run that was resumed from an earlier checkpoint may find later ones in its folder: of a course
//! that it left, as the lines of `metrics.jsonl`. They go when it first saves.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{HookSettings, Request, RunStart, StepReport, TrainHook};
use crate::file;
use crate::train::checkpoint;
use crate::train::figures::Evaluation;

/// When to save, and what to keep.
#[derive(Debug)]
pub struct SaveSchedule {
    save_steps: u64,
    save_total_limit: usize,
    metric: String,
    best: Option<f64>,
    output_dir: PathBuf,
}

impl SaveSchedule {
    /// The schedule of `settings`.
    pub fn new(settings: &HookSettings) -> Self {
        Self {
            save_steps: settings.save_steps.max(1),
            save_total_limit: settings.save_total_limit.max(1),
            metric: settings.metric.clone(),
            best: None,
            output_dir: PathBuf::new(),
        }
    }
}

fn delete(checkpoint: &Path) -> Result<()> {
    file::remove_dir(checkpoint)
        .with_context(|| format!("{}: cannot delete the checkpoint", checkpoint.display()))
}

impl TrainHook for SaveSchedule {
    fn name(&self) -> &'static str {
        "save_schedule"
    }

    fn on_start(&mut self, start: &RunStart) -> Result<()> {
        self.output_dir.clone_from(&start.output_dir);
        Ok(())
    }

    fn on_step(&mut self, report: &StepReport) -> Result<Request> {
        let save = report.step.is_multiple_of(self.save_steps);
        Ok(Request {
            save,
            ..Request::none()
        })
    }

    fn on_evaluation(&mut self, evaluation: &Evaluation) -> Result<Request> {
        if evaluation.figure(&self.metric).is_none() {
            let (metric, step) = (&self.metric, evaluation.step);
            eprintln!(
                "note: the held-out cells do not tell {metric} at step {step}: no better \
                 checkpoint by it"
            );
        }
        let better = evaluation.better(&self.metric, self.best);
        self.best = better.or(self.best);
        Ok(Request {
            save_best: better.is_some(),
            ..Request::none()
        })
    }

    fn on_save(&mut self, path: &Path) -> Result<()> {
        let saved = checkpoint::list(&self.output_dir)?;
        let Some(newest) = saved.iter().position(|saved| saved.path == path) else {
            return Ok(()); // the best one
        };
        for later in &saved[newest + 1..] {
            let path = later.path.display();
            eprintln!("note: deleted {path}, which the run had reached before it was taken back");
            delete(&later.path)?;
        }
        let too_many = (newest + 1).saturating_sub(self.save_total_limit);
        saved[..too_many]
            .iter()
            .try_for_each(|old| delete(&old.path))
    }

    fn state(&self) -> Value {
        json!({ "best": self.best })
    }

    fn restore(&mut self, state: Value) -> Result<()> {
        self.best = state["best"].as_f64();
        Ok(())
    }
}
