//! Asks for a checkpoint every `save_steps` and at each best evaluation, and deletes the oldest
//! beyond `save_total_limit`. `checkpoint-best` is a folder of its own and is never deleted.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{HookSettings, Request, RunStart, StepReport, TrainHook};
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
        let save_best = evaluation.improves(&self.metric, self.best)?;
        if save_best {
            self.best = Some(evaluation.figure(&self.metric)?);
        }
        Ok(Request {
            save_best,
            ..Request::none()
        })
    }

    fn on_save(&mut self, _: &Path) -> Result<()> {
        let saved = checkpoint::list(&self.output_dir)?;
        for old in saved.iter().rev().skip(self.save_total_limit) {
            fs::remove_dir_all(&old.path).with_context(|| {
                format!("{}: cannot delete the old checkpoint", old.path.display())
            })?;
        }
        Ok(())
    }

    fn state(&self) -> Value {
        json!({ "best": self.best })
    }

    fn restore(&mut self, state: Value) -> Result<()> {
        self.best = state["best"].as_f64();
        Ok(())
    }
}
