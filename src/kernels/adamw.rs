//! One AdamW step, in one pass over all weights, moments and gradients, in place.
//!
//! As PyTorch's `AdamW`: decay is decoupled (w ← w (1 − lr·λ) first), both moments are corrected
//! for their start at zero. The gradient is multiplied by a scale on the way (clipping, the number
//! of labels). A gradient of some rows has dense semantics: the other rows' moments fade and their
//! weights move all the same; only rows that never had a gradient, whose moments are 0, need not be
//! looked at but for the decay.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::lists::Numbers;
use super::profile::span;
use super::simd::vectorized;
#[cfg(feature = "cuda")]
use crate::buffers::Number;
use crate::buffers::{Slice, read, write_all};

const CHUNK: usize = 16 * 1024;

/// The numbers of one step.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Learning rate.
    pub lr: f64,
    /// Fading of the first moment.
    pub beta1: f64,
    /// Fading of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decay λ, 0 for biases and LayerNorm.
    pub weight_decay: f64,
    /// Number of this step, from 1.
    pub step: u64,
    /// Multiplies the gradient.
    pub scale: f64,
}

/// The gradient of a parameter.
#[derive(Debug, Clone, Copy)]
pub enum Gradient<'a> {
    /// Of the parameter's shape.
    Dense(&'a Tensor),
    /// Some rows; zero elsewhere.
    Rows {
        /// Which, ascending.
        rows: &'a Numbers,
        /// Their gradients [R, D].
        values: &'a Tensor,
        /// Of each row of the parameter, whether it ever had a gradient, now included: the moments
        /// of the others are 0.
        seen: &'a [bool],
    },
}

/// A parameter and what moves it.
#[derive(Debug, Clone, Copy)]
pub struct Moved<'a> {
    /// The weights.
    pub weights: &'a Tensor,
    /// The gradient.
    pub gradient: Gradient<'a>,
    /// First moment, of the weights' shape.
    pub first: &'a Tensor,
    /// Second moment, of the weights' shape.
    pub second: &'a Tensor,
    /// The numbers.
    pub settings: Settings,
}

/// On a GPU: moves all of `parameters`, unless the step is not finite. What `decides` is as
/// `cuda/guard.cu` has it: a rule of seven numbers, a state of five. `gradients` are those whose norm
/// counts, `losses` what they are of. Returns the verdict, four f64; nothing is waited for.
///
/// # Errors
/// As [`step`].
#[cfg(feature = "cuda")]
pub fn guarded_step(
    parameters: &[Moved<'_>],
    gradients: &[&Tensor],
    losses: &[Number],
    rule: [f64; 7],
    state: &Tensor,
) -> Result<Tensor> {
    let _span = span("AdamW", 0);
    parameters.iter().try_for_each(check)?;
    super::cuda::guarded_adamw(parameters, gradients, losses, rule, state)
}

/// Moves the weights and the moments of all parameters.
///
/// # Errors
/// Shapes that do not fit, or tensors that are not contiguous f32 on the CPU, or one twice.
pub fn step(parameters: &[Moved<'_>]) -> Result<()> {
    let _span = span("AdamW", 0);
    #[cfg(feature = "cuda")]
    if parameters
        .iter()
        .any(|moved| moved.weights.device().is_cuda())
    {
        parameters.iter().try_for_each(check)?;
        return super::cuda::adamw(parameters);
    }
    let mut to = Vec::with_capacity(3 * parameters.len());
    let mut from: Vec<Slice<'_, f32>> = Vec::with_capacity(parameters.len());
    for moved in parameters {
        check(moved)?;
        to.extend([moved.weights, moved.first, moved.second]);
        from.push(match moved.gradient {
            Gradient::Dense(values) | Gradient::Rows { values, .. } => read::<f32>(values)?,
        });
    }
    write_all(&to, |to| {
        let mut to = to.into_iter();
        let mut tasks = Vec::new();
        for (moved, from) in parameters.iter().zip(&from) {
            if let (Some(weights), Some(first), Some(second)) = (to.next(), to.next(), to.next()) {
                add_tasks(moved, from, (weights, first, second), &mut tasks);
            }
        }
        tasks.into_par_iter().for_each(Task::act);
    })
}

/// Some whole rows of a parameter.
struct Task<'a> {
    update: Update,
    weights: &'a mut [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    from: From<'a>,
}

/// Where the gradient of a task's weights is.
enum From<'a> {
    Dense(&'a [f32]),
    Rows(RowList<'a>),
}

struct RowList<'a> {
    rows: &'a [u32],
    values: &'a [f32],
    seen: &'a [bool],
    width: usize,
    first_row: usize,
}

fn add_tasks<'a>(
    moved: &Moved<'a>,
    values: &'a [f32],
    (weights, first, second): (&'a mut [f32], &'a mut [f32], &'a mut [f32]),
    tasks: &mut Vec<Task<'a>>,
) {
    let update = Update::new(moved.settings);
    let width = moved.weights.dims().last().copied().unwrap_or(1).max(1);
    // A task holds whole rows, so that rows without a gradient can be told apart.
    let chunk = (CHUNK / width).max(1) * width;
    let moments = first.chunks_mut(chunk).zip(second.chunks_mut(chunk));
    let parts = weights.chunks_mut(chunk).zip(moments).enumerate();
    tasks.extend(parts.map(|(part, (weights, (first, second)))| {
        let at = part * chunk;
        let from = match moved.gradient {
            Gradient::Dense(_) => From::Dense(&values[at..]),
            Gradient::Rows { rows, seen, .. } => From::Rows(RowList {
                rows,
                values,
                seen,
                width,
                first_row: at / width,
            }),
        };
        Task {
            update,
            weights,
            first,
            second,
            from,
        }
    }));
}

impl Task<'_> {
    fn act(self) {
        let (weights, first, second) = (self.weights, self.first, self.second);
        match self.from {
            From::Dense(values) => update_dense(&self.update, weights, first, second, values),
            From::Rows(list) => update_rows(&self.update, weights, first, second, list),
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Update {
    pub(super) keep: f32,
    pub(super) rate: f32,
    pub(super) beta1: f32,
    pub(super) beta2: f32,
    pub(super) inverse_root: f32,
    pub(super) eps: f32,
    pub(super) scale: f32,
}

impl Update {
    pub(super) fn new(s: Settings) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(s.step as f64);
        Self {
            keep: (1.0 - s.lr * s.weight_decay) as f32,
            rate: (s.lr / correction(s.beta1)) as f32,
            beta1: s.beta1 as f32,
            beta2: s.beta2 as f32,
            inverse_root: (1.0 / correction(s.beta2).sqrt()) as f32,
            eps: s.eps as f32,
            scale: s.scale as f32,
        }
    }

    #[inline(always)]
    fn one(&self, weight: &mut f32, first: &mut f32, second: &mut f32, gradient: f32) {
        let gradient = gradient * self.scale;
        *first = self.beta1 * *first + (1.0 - self.beta1) * gradient;
        *second = self.beta2 * *second + (1.0 - self.beta2) * (gradient * gradient);
        let root = second.sqrt() * self.inverse_root + self.eps;
        *weight = *weight * self.keep - self.rate * (*first / root);
    }

    #[inline(always)]
    fn dense(&self, weights: &mut [f32], first: &mut [f32], second: &mut [f32], from: &[f32]) {
        let moments = first.iter_mut().zip(second);
        for ((weight, (first, second)), gradient) in weights.iter_mut().zip(moments).zip(from) {
            self.one(weight, first, second, *gradient);
        }
    }

    #[inline(always)]
    fn rows(&self, weights: &mut [f32], first: &mut [f32], second: &mut [f32], list: RowList<'_>) {
        let width = list.width;
        let mut next = list
            .rows
            .partition_point(|row| (*row as usize) < list.first_row);
        let moments = first
            .chunks_exact_mut(width)
            .zip(second.chunks_exact_mut(width));
        let rows = weights.chunks_exact_mut(width).zip(moments);
        for (row, (weights, (first, second))) in (list.first_row..).zip(rows) {
            if list.rows.get(next).is_some_and(|r| *r as usize == row) {
                self.dense(
                    weights,
                    first,
                    second,
                    &list.values[next * width..(next + 1) * width],
                );
                next += 1;
            } else if !list.seen[row] {
                if self.keep != 1.0 {
                    weights.iter_mut().for_each(|weight| *weight *= self.keep);
                }
            } else {
                for (weight, (first, second)) in
                    weights.iter_mut().zip(first.iter_mut().zip(second))
                {
                    self.one(weight, first, second, 0.0);
                }
            }
        }
    }
}

vectorized! {
    fn update_dense(
        update: &Update,
        weights: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
        gradient: &[f32],
    ) {
        update.dense(weights, first, second, gradient);
    }
}

vectorized! {
    fn update_rows(
        update: &Update,
        weights: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
        list: RowList<'_>,
    ) {
        update.rows(weights, first, second, list);
    }
}

fn check(moved: &Moved<'_>) -> Result<()> {
    let shape = moved.weights.dims();
    let fits = match moved.gradient {
        Gradient::Dense(values) => values.dims() == shape,
        Gradient::Rows { rows, values, seen } => {
            let height = rows.last().map_or(0, |row| *row as usize + 1);
            matches!(shape, [h, width] if height <= *h
                && values.dims() == [rows.len(), *width]
                && seen.len() == *h)
        }
    };
    if !fits || moved.first.dims() != shape || moved.second.dims() != shape {
        bail!("AdamW: gradient or moments do not fit weights of shape {shape:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kernels::testing::{Random, assert_close, same_for_any_threads, wide};

    fn settings(step: u64) -> Settings {
        Settings {
            lr: 0.01,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: 0.1,
            step,
            scale: 0.5,
        }
    }

    fn moved<'a>(
        settings: Settings,
        weights: &'a Tensor,
        gradient: Gradient<'a>,
        first: &'a Tensor,
        second: &'a Tensor,
    ) -> Moved<'a> {
        Moved {
            weights,
            gradient,
            first,
            second,
            settings,
        }
    }

    #[test]
    fn five_steps_agree_with_the_reference() {
        let mut random = Random::new(1);
        let weights = random.tensor(&[7, 5]);
        let (first, second) = (
            (weights.zeros_like()).unwrap(),
            weights.zeros_like().unwrap(),
        );
        let (mut w, mut m, mut v) = (wide(&weights), vec![0.0; 35], vec![0.0; 35]);
        for t in 1..=5 {
            let gradient = random.tensor(&[7, 5]);
            let s = settings(t);
            let gradient_of = Gradient::Dense(&gradient);
            step(&[moved(s, &weights, gradient_of, &first, &second)]).unwrap();
            for (i, gradient) in wide(&gradient).iter().enumerate() {
                let g = gradient * s.scale;
                w[i] -= s.lr * s.weight_decay * w[i];
                m[i] = s.beta1 * m[i] + (1.0 - s.beta1) * g;
                v[i] = s.beta2 * v[i] + (1.0 - s.beta2) * g * g;
                let mean = m[i] / (1.0 - s.beta1.powi(t as i32));
                let square: f64 = v[i] / (1.0 - s.beta2.powi(t as i32));
                w[i] -= s.lr * mean / (square.sqrt() + s.eps);
            }
        }
        assert_close("weights", &wide(&weights), &w);
        assert_close("first moments", &wide(&first), &m);
        assert_close("second moments", &wide(&second), &v);
    }

    #[test]
    fn rows_move_a_table_as_the_dense_gradient_does() {
        let mut random = Random::new(2);
        let (height, width) = (5000, 9);
        let start = random.tensor(&[height, width]);
        // Rows 7 and 1822 had a gradient once, the others, but for those of `rows`, never.
        let mut seen = vec![false; height];
        let had = [7, 1822];
        let rows = Numbers::from(&[0, 3, 1820, 1821, 4999]);
        (rows.iter().chain(&had)).for_each(|row| seen[*row as usize] = true);
        let faded: Vec<f32> = (0..height * width)
            .map(|at| f32::from(u8::from(had.contains(&((at / width) as u32)))) * 0.25)
            .collect();
        let values = random.tensor(&[rows.len(), width]);
        let mut dense = vec![0.0; height * width];
        for (row, values) in rows.iter().zip(read::<f32>(&values).unwrap().chunks(width)) {
            dense[*row as usize * width..][..width].copy_from_slice(values);
        }
        let table = |values: &[f32]| crate::buffers::from_vec(values.to_vec(), (height, width));
        let dense = table(&dense).unwrap();
        let run = |gradient: Gradient<'_>| {
            let weights = start.copy().unwrap();
            let (first, second) = (table(&faded).unwrap(), table(&faded).unwrap());
            for t in 1..=3 {
                step(&[moved(settings(t), &weights, gradient, &first, &second)]).unwrap();
            }
            vec![weights, first, second]
        };
        let by_rows = Gradient::Rows {
            rows: &rows,
            values: &values,
            seen: &seen,
        };
        for (a, b) in run(by_rows).iter().zip(&run(Gradient::Dense(&dense))) {
            assert_eq!(wide(a), wide(b));
        }
        same_for_any_threads(|| run(by_rows));
        let bad = Gradient::Rows {
            rows: &(&[5000]).into(),
            values: &values,
            seen: &seen,
        };
        assert!(step(&[moved(settings(1), &start, bad, &start, &start)]).is_err());
    }
}
