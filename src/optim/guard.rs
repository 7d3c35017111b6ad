//! Whether a step is taken: not where its loss or its gradient norm is not finite, and never again
//! after [`MOST_LOST`] such steps in a row. On a GPU the same rule is a kernel
//! (`kernels/cuda/guard.cu`), so that the host need not wait for a step before it begins the next.
//!
//! In f16 gradients are computed of the loss times a scale: halved whenever a norm is not finite,
//! which then is no fault of the step's, doubled after [`GROWTH_STEPS`] steps in which it was.

use candle_core::{Result, Tensor, bail};

use super::clip_scale;

/// Steps in a row that may be lost; with the last of them a run ends.
pub const MOST_LOST: u64 = 3;
/// Steps with a finite norm after which the loss scale is doubled.
pub const GROWTH_STEPS: u64 = 2000;
/// Where the loss scale starts, and how far it rises.
const FIRST_SCALE: f64 = 65_536.0;
const LARGEST_SCALE: f64 = 16_777_216.0;

/// What is known of a step before its loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepRule {
    /// Learning rate.
    pub lr: f64,
    /// Multiplies loss and gradients: 1 / labels.
    pub mean: f64,
    /// The norm that gradients are clipped to; 0: none.
    pub max_norm: f64,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Mean loss.
    pub loss: f64,
    /// Norm of the mean gradient, before clipping.
    pub norm: f64,
    /// Whether the weights stayed as they were.
    pub skipped: bool,
    /// Steps in a row, this one included, that were lost; 0 where the loss scale alone was at fault.
    pub lost_in_a_row: u64,
}

/// A verdict, or where it will be.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is known.
    Known(Verdict),
    /// Four f64 on a device that may not have come to it yet.
    OnDevice(Tensor),
}

impl Outcome {
    /// The verdict; waits for the device.
    ///
    /// # Errors
    /// The device fails.
    pub fn wait(&self) -> Result<Verdict> {
        let tensor = match self {
            Self::Known(verdict) => return Ok(*verdict),
            Self::OnDevice(tensor) => tensor,
        };
        match tensor.to_vec1::<f64>()?[..] {
            [loss, norm, skipped, lost] => Ok(Verdict {
                loss,
                norm,
                skipped: skipped != 0.0,
                lost_in_a_row: lost as u64,
            }),
            _ => bail!("a verdict of {} numbers", tensor.elem_count()),
        }
    }
}

/// What lives on from step to step; five f64 on a GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct State {
    pub loss_scale: f64,
    /// Since the loss scale last changed.
    pub good_steps: u64,
    pub applied: u64,
    pub skipped: u64,
    pub lost_in_a_row: u64,
}

impl State {
    pub fn new(scales: bool) -> Self {
        Self {
            loss_scale: if scales { FIRST_SCALE } else { 1.0 },
            good_steps: 0,
            applied: 0,
            skipped: 0,
            lost_in_a_row: 0,
        }
    }

    #[cfg(feature = "cuda")]
    pub fn to_numbers(self) -> [f64; 5] {
        let counts = [
            self.good_steps,
            self.applied,
            self.skipped,
            self.lost_in_a_row,
        ];
        let [good, applied, skipped, lost] = counts.map(|count| count as f64);
        [self.loss_scale, good, applied, skipped, lost]
    }

    pub fn from_numbers(numbers: &[f64]) -> Option<Self> {
        let &[loss_scale, good, applied, skipped, lost] = numbers else {
            return None;
        };
        Some(Self {
            loss_scale,
            good_steps: good as u64,
            applied: applied as u64,
            skipped: skipped as u64,
            lost_in_a_row: lost as u64,
        })
    }

    /// The verdict on a step of this summed loss and this norm of the summed gradients, and what
    /// multiplies the latter if it is taken.
    pub fn decide(
        &mut self,
        scales: bool,
        rule: StepRule,
        (loss, norm): (f64, f64),
    ) -> (Verdict, Option<f64>) {
        let (loss, norm) = (loss * rule.mean, norm * rule.mean / self.loss_scale);
        let factor = rule.mean / self.loss_scale * clip_scale(norm, rule.max_norm);
        let is_finite = loss.is_finite() && norm.is_finite();
        let applies = is_finite && self.lost_in_a_row < MOST_LOST;
        if is_finite {
            if applies {
                self.applied += 1;
                self.lost_in_a_row = 0;
            }
            self.good_steps += 1;
            if scales && self.good_steps >= GROWTH_STEPS {
                self.good_steps = 0;
                self.loss_scale = (2.0 * self.loss_scale).min(LARGEST_SCALE);
            }
        } else {
            let shrinks = scales && loss.is_finite() && self.loss_scale > 1.0;
            self.lost_in_a_row += u64::from(!shrinks);
            self.good_steps = 0;
            if scales {
                self.loss_scale = (0.5 * self.loss_scale).max(1.0);
            }
        }
        self.skipped += u64::from(!applies);
        let verdict = Verdict {
            loss,
            norm,
            skipped: !applies,
            lost_in_a_row: self.lost_in_a_row,
        };
        (verdict, applies.then_some(factor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: StepRule = StepRule {
        lr: 0.1,
        mean: 0.5,
        max_norm: 1.0,
    };

    #[test]
    fn steps_that_are_not_finite_are_skipped_and_after_three_in_a_row_all_are() {
        let mut state = State::new(false);
        let mut run = |loss, norm| state.decide(false, RULE, (loss, norm));
        let (verdict, factor) = run(6.0, 1.0);
        assert_eq!((verdict.loss, verdict.norm, factor), (3.0, 0.5, Some(0.5)));
        let (_, factor) = run(1.0, 8.0);
        assert!(factor.is_some_and(|factor| (factor - 0.125).abs() < 1e-6));
        for (loss, norm, lost) in [
            (f64::NAN, 1.0, 1),
            (1.0, f64::INFINITY, 2),
            (1.0, 1.0, 0),
            (1.0, f64::NAN, 1),
            (f64::INFINITY, 1.0, 2),
            (f64::NAN, f64::NAN, 3),
            (1.0, 1.0, 3),
        ] {
            let (verdict, factor) = run(loss, norm);
            let skips = lost > 0;
            assert_eq!((verdict.lost_in_a_row, verdict.skipped), (lost, skips));
            assert_eq!(factor.is_none(), skips);
        }
        assert_eq!((state.applied, state.skipped), (3, 6));
        assert_eq!(state.loss_scale, 1.0);
    }

    #[test]
    fn the_loss_scale_shrinks_where_norms_overflow_and_grows_where_they_do_not() {
        let mut state = State::new(true);
        let overflows = (1.0, f64::INFINITY);
        for _ in 0..5 {
            let (verdict, factor) = state.decide(true, RULE, overflows);
            assert_eq!((verdict.lost_in_a_row, factor), (0, None));
        }
        assert_eq!((state.loss_scale, state.skipped), (2048.0, 5));
        // A norm of the scaled gradients comes back to its size.
        let (verdict, factor) = state.decide(true, RULE, (1.0, 2048.0));
        assert_eq!((verdict.norm, factor), (0.5, Some(0.5 / 2048.0)));
        for _ in 1..GROWTH_STEPS {
            state.decide(true, RULE, (1.0, 1.0));
        }
        assert_eq!((state.loss_scale, state.good_steps), (4096.0, 0));
        for _ in 0..12 {
            state.decide(true, RULE, overflows);
        }
        assert_eq!((state.loss_scale, state.lost_in_a_row), (1.0, 0));
        // Now the scale is not to blame any more, and neither is it for a loss that is not finite.
        state.decide(true, RULE, overflows);
        assert_eq!(state.lost_in_a_row, 1);
        state.loss_scale = 8.0;
        state.decide(true, RULE, (f64::NAN, 1.0));
        assert_eq!((state.loss_scale, state.lost_in_a_row), (4.0, 2));
    }
}
