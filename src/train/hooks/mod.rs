//! What happens around the training loop without the loop knowing of it: progress, `metrics.jsonl`
//! and trackers, the checkpoint schedule, early stopping. Each is a [`TrainHook`] in a file of
//! its own; [`standard`] lists those of every run. To add one: a file here and a line in `standard`.
//!
//! Hooks never write checkpoints themselves: they ask for one with [`Request`], because a
//! checkpoint holds the state of all hooks.

pub mod early_stopping;
pub mod jsonl;
pub mod progress;
pub mod save_schedule;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::figures::Evaluation;
use crate::track::{About, Plan};

/// What is known before the first step.
#[derive(Debug, Clone)]
pub struct RunStart {
    /// The run folder.
    pub output_dir: PathBuf,
    /// Optimizer steps of the whole run.
    pub total_steps: u64,
    /// Steps already done (0, or those of the checkpoint that is resumed).
    pub first_step: u64,
    /// Cells of one training epoch.
    pub num_train_cells: u64,
}

/// What one optimizer step did.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Number of steps done, this one included.
    pub step: u64,
    /// Epochs done, as a fraction.
    pub epoch: f64,
    /// Mean loss over the labelled positions, in nats.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Labelled positions.
    pub num_labels: u64,
    /// Cells.
    pub num_cells: u64,
    /// Real tokens.
    pub num_tokens: u64,
    /// Tokens there would be if every cell were padded to the longest of its batch.
    pub num_padded_tokens: u64,
    /// Steps of the run so far that were left out, as loss or gradient was not finite.
    pub skipped_steps: u64,
    /// Wall time of the step, waiting for data included, in seconds.
    pub seconds: f64,
}

/// What came of an epoch.
#[derive(Debug, Clone, Copy)]
pub struct EpochReport {
    /// Epochs done, this one included.
    pub epochs: u64,
    /// Cells of it that were skipped, as a phenotype is unknown.
    pub skipped_cells: u64,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct RunEnd {
    /// Steps done in all.
    pub step: u64,
    /// Why it ended before its last step, if it did.
    pub stopped: Option<String>,
    /// Whether it was a signal that ended it.
    pub interrupted: bool,
}

/// What a hook asks of the loop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Write `checkpoint-<step>`.
    pub save: bool,
    /// Write `checkpoint-best`.
    pub save_best: bool,
    /// End the run after this step, for this reason.
    pub stop: Option<String>,
}

impl Request {
    /// Nothing is asked.
    pub fn none() -> Self {
        Self::default()
    }

    /// Both requests in one; the first reason to stop wins.
    pub fn and(self, other: Self) -> Self {
        Self {
            save: self.save || other.save,
            save_best: self.save_best || other.save_best,
            stop: self.stop.or(other.stop),
        }
    }
}

/// A user of the training loop's events; every method but `name` may be left out.
pub trait TrainHook {
    /// Key of its state in the checkpoint.
    fn name(&self) -> &'static str;

    /// Before the first step.
    ///
    /// # Errors
    /// Ends the run; likewise below.
    fn on_start(&mut self, _: &RunStart) -> Result<()> {
        Ok(())
    }

    /// After every optimizer step.
    ///
    /// # Errors
    /// Ends the run.
    fn on_step(&mut self, _: &StepReport) -> Result<Request> {
        Ok(Request::none())
    }

    /// After every evaluation.
    ///
    /// # Errors
    /// Ends the run.
    fn on_evaluation(&mut self, _: &Evaluation) -> Result<Request> {
        Ok(Request::none())
    }

    /// After the last step of an epoch.
    ///
    /// # Errors
    /// Ends the run.
    fn on_epoch(&mut self, _: &EpochReport) -> Result<Request> {
        Ok(Request::none())
    }

    /// After a checkpoint was written.
    ///
    /// # Errors
    /// Ends the run.
    fn on_save(&mut self, _checkpoint: &Path) -> Result<()> {
        Ok(())
    }

    /// Once, when the run ends without an error.
    ///
    /// # Errors
    /// The command's.
    fn on_end(&mut self, _: &RunEnd) -> Result<()> {
        Ok(())
    }

    /// What a resumed run must know; stored in every checkpoint.
    fn state(&self) -> Value {
        Value::Null
    }

    /// Takes back what `state` gave.
    ///
    /// # Errors
    /// A state that this hook did not write.
    fn restore(&mut self, _: Value) -> Result<()> {
        Ok(())
    }
}

/// What the standard hooks need to know.
#[derive(Debug, Clone)]
pub struct HookSettings {
    /// A line in `metrics.jsonl` every so many steps.
    pub logging_steps: u64,
    /// A checkpoint every so many steps, and at the end.
    pub save_steps: u64,
    /// Checkpoints kept, the best one not counted.
    pub save_total_limit: usize,
    /// The evaluation figure that tells the best checkpoint.
    pub metric: String,
    /// Evaluations without a better figure before the run ends; `None`: never.
    pub patience: Option<u64>,
    /// The trackers.
    pub trackers: Plan,
    /// What they are told before the first step.
    pub about: About,
}

/// The hooks of every run, in the order in which they are called.
pub fn standard(settings: &HookSettings) -> Vec<Box<dyn TrainHook>> {
    vec![
        Box::new(jsonl::JsonLines::new(settings)),
        Box::new(save_schedule::SaveSchedule::new(settings)),
        Box::new(early_stopping::EarlyStopping::new(
            &settings.metric,
            settings.patience,
        )),
        Box::new(progress::Progress::default()),
    ]
}
