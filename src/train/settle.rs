//! What came of steps: asked for in their order, told to the hooks, and the end of a run whose steps
//! are lost one after the other.

use std::time::Instant;

use anyhow::{Result, bail};

use super::ahead::Ready;
use super::hooks::{Request, StepReport};
use super::trainer::Trainer;
use crate::optim::{MOST_LOST, Outcome, Verdict};

/// Cells of a batch that a warning names.
const NAMED_CELLS: usize = 5;

/// A step that hooks have not heard of.
pub(super) struct Unsettled {
    /// All but its loss and norm.
    pub report: StepReport,
    pub outcome: Outcome,
    /// Some of its cells.
    pub cells: Vec<u64>,
}

/// The first cells of each batch.
pub(super) fn some_cells(batches: &[Ready]) -> Vec<u64> {
    let of_batch = |ready: &Ready| {
        ready
            .batch
            .cells
            .iter()
            .copied()
            .take(NAMED_CELLS)
            .collect()
    };
    batches.iter().flat_map::<Vec<u64>, _>(of_batch).collect()
}

impl Trainer {
    /// Tells the hooks of all steps that they have not heard of, where it is time; returns what they
    /// ask for.
    ///
    /// # Errors
    /// Three steps in a row were lost; the hooks' errors.
    pub(super) fn settle(&mut self) -> Result<Request> {
        let mut request = Request::none();
        if !self.is_time_to_settle() {
            return Ok(request);
        }
        let began = Instant::now();
        let steps = std::mem::take(&mut self.unsettled);
        let verdicts = steps.iter().map(|step| step.outcome.wait());
        let verdicts: Vec<Verdict> = verdicts.collect::<candle_core::Result<_>>()?;
        let waited = began.elapsed().as_secs_f64();
        let last = steps.len().saturating_sub(1);
        for (i, (step, verdict)) in steps.into_iter().zip(verdicts).enumerate() {
            self.last_norm = verdict.norm;
            if verdict.skipped {
                self.skipped(&step, verdict)?;
            }
            let report = StepReport {
                loss: verdict.loss,
                grad_norm: verdict.norm,
                skipped_steps: self.state.skipped_steps,
                seconds: step.report.seconds + if i == last { waited } else { 0.0 },
                ..step.report
            };
            request = request.and(self.each(|hook| hook.on_step(&report))?);
        }
        Ok(request)
    }

    fn is_time_to_settle(&self) -> bool {
        let step = self.state.step;
        let is_known = |of: &Unsettled| matches!(of.outcome, Outcome::Known(_));
        self.unsettled.last().is_some_and(is_known)
            || self.interrupted
            || self.ahead.batches_left() == 0
            || step == self.settings.total_steps
            || self.is_evaluation_due()
            || (self.settings.settle_steps.iter()).any(|every| step.is_multiple_of(*every))
    }

    fn skipped(&mut self, step: &Unsettled, verdict: Verdict) -> Result<()> {
        self.state.skipped_steps += 1;
        let Verdict {
            loss,
            norm,
            lost_in_a_row,
            ..
        } = verdict;
        let (rank, number, cells) = (self.ranks.rank(), step.report.step, &step.cells);
        if lost_in_a_row >= MOST_LOST {
            bail!(
                "step {number}: loss {loss} and gradient norm {norm} are not finite, as in the \
                 steps before, {lost_in_a_row} in a row (rank {rank}, cells {cells:?} …)\nhint: lower \
                 --learning_rate, lengthen --warmup_ratio, or look at these cells' values"
            );
        }
        let why = match lost_in_a_row {
            0 => "; beyond the range of f16, so the loss scale is halved",
            _ => "",
        };
        eprintln!(
            "warning: step {number} left out: loss {loss}, gradient norm {norm} (rank {rank}, \
             cells {cells:?} …){why}"
        );
        Ok(())
    }
}
