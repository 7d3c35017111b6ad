//! LayerNorm with weight and bias, with an optional dropout and residual in front:
//! y = LayerNorm(residual + dropout(x)), each row for itself.
//!
//! The forward pass turns x's memory into the normalised rows x̂, which is what the backward pass
//! needs together with 1/σ of each row.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::bf16;
use super::dropout::Dropout;
use super::linear::OutputGradient;
use super::matrix::filled;
use super::parallel::{SUM_ROWS, add_in_order, rows_per_task};
use super::products::Precision;
use super::profile::span;
use super::simd::{dot, sum, vectorized};
use crate::buffers::{Target, from_vec, read, write};

/// What the backward pass needs.
#[derive(Debug)]
pub struct Saved {
    /// The normalised rows, [N, D].
    normalized: Tensor,
    /// 1 / σ of each row, `[N]`.
    inverse_deviation: Tensor,
}

impl Saved {
    /// Of the normalised rows [N, D] and 1 / σ of each, `[N]`.
    pub(super) fn new(normalized: Tensor, inverse_deviation: Tensor) -> Self {
        Self {
            normalized,
            inverse_deviation,
        }
    }
}

/// Weight, bias and ε of a LayerNorm.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// Multiplies the normalised row, `[D]`.
    pub weight: &'a Tensor,
    /// Is added to it, `[D]`.
    pub bias: &'a Tensor,
    /// Added to the variance.
    pub eps: f64,
}

/// x [N, D] (its memory is reused) and an optional residual [N, D] → y [N, D].
///
/// # Errors
/// Shapes that do not fit, or tensors that are not contiguous f32 on the CPU.
pub fn forward(
    norm: Norm<'_>,
    x: Tensor,
    residual: Option<&Tensor>,
    dropout: Option<&Dropout>,
) -> Result<(Tensor, Saved)> {
    let _span = span("LayerNorm forward", 0);
    let (n, width) = x.dims2()?;
    if norm.weight.dims() != [width] || norm.bias.dims() != [width] {
        bail!(
            "LayerNorm of width {:?} on rows of {width}",
            norm.weight.shape()
        );
    }
    if residual.is_some_and(|r| r.dims() != x.dims()) {
        bail!("LayerNorm: the residual has another shape than the input");
    }
    on_gpu!(x, {
        let (y, inverse) = super::cuda::layer_norm_forward(norm, &x, residual, dropout)?;
        Ok((y, Saved::new(x, inverse)))
    });
    let mut inverse_deviation = vec![0.0; n];
    let y = {
        let (weight, bias) = (read::<f32>(norm.weight)?, read::<f32>(norm.bias)?);
        let residual = residual.map(read::<f32>).transpose()?;
        let row = RowForward {
            weight: &weight,
            bias: &bias,
            eps: norm.eps as f32,
            residual: residual.as_deref(),
            dropout,
        };
        let rows = rows_per_task(width);
        write(&x, |x| {
            let chunk = rows * width.max(1);
            let tasks = x.par_chunks_mut(chunk);
            let tasks = tasks
                .zip(inverse_deviation.par_chunks_mut(rows))
                .enumerate();
            filled((n * width, chunk), tasks, |y, (task, (x, inverse))| {
                rows_forward(&row, task * rows, x, y, inverse);
            })
        })?
    };
    let saved = Saved::new(x, from_vec(inverse_deviation, n)?);
    Ok((from_vec(y, (n, width))?, saved))
}

struct RowForward<'a> {
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
    residual: Option<&'a [f32]>,
    dropout: Option<&'a Dropout>,
}

impl RowForward<'_> {
    /// Row `row`: x becomes x̂, y is written, 1/σ is returned.
    #[inline(always)]
    fn compute(&self, row: usize, x: &mut [f32], y: &mut [f32]) -> f32 {
        let width = x.len();
        if let Some(dropout) = self.dropout {
            dropout.apply(row, x);
        }
        if let Some(residual) = self.residual {
            for (x, residual) in x.iter_mut().zip(&residual[row * width..(row + 1) * width]) {
                *x += residual;
            }
        }
        let mean = sum(x) / width as f32;
        for x in x.iter_mut() {
            *x -= mean;
        }
        let variance = dot(x, x) / width as f32;
        let inverse = 1.0 / (variance + self.eps).sqrt();
        let affine = self.weight.iter().zip(self.bias);
        for ((x, y), (weight, bias)) in x.iter_mut().zip(y).zip(affine) {
            *x *= inverse;
            *y = x.mul_add(*weight, *bias);
        }
        inverse
    }
}

vectorized! {
    /// Some rows, from `first_row` on.
    fn rows_forward(
        norm: &RowForward<'_>,
        first_row: usize,
        x: &mut [f32],
        y: &mut [f32],
        inverse: &mut [f32],
    ) {
        let width = norm.weight.len();
        let rows = x.chunks_exact_mut(width).zip(y.chunks_exact_mut(width));
        for ((row, (x, y)), inverse) in (first_row..).zip(rows).zip(inverse) {
            *inverse = norm.compute(row, x, y);
        }
    }
}

/// The gradients of what went into the norm.
#[derive(Debug)]
pub struct InputGradients {
    /// Of the residual, [N, D].
    pub residual: Tensor,
    /// Of x, [N, D]: the same values (and memory) where nothing was dropped.
    pub x: Tensor,
}

/// dy [N, D] (its memory becomes the residual's gradient) → the inputs' gradients; those of weight
/// and bias are left in their targets.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    weight: &Tensor,
    saved: &Saved,
    dy: Tensor,
    dropout: Option<&Dropout>,
    dweight: &Target,
    dbias: &Target,
) -> Result<InputGradients> {
    let _span = span("LayerNorm backward", 0);
    let (n, width) = dy.dims2()?;
    check_backward(saved, &dy)?;
    on_gpu!(dy, {
        let kept = (&saved.normalized, &saved.inverse_deviation);
        let targets = [dweight, dbias];
        let x = super::cuda::layer_norm_backward(weight, kept, &dy, dropout, targets)?;
        let x = x.unwrap_or_else(|| dy.clone());
        Ok(InputGradients { residual: dy, x })
    });
    let sums = run_backward(weight, saved, &dy, None)?;
    dweight.put(&sums[..width])?;
    dbias.put(&sums[width..])?;
    let x = match dropout {
        Some(dropout) => {
            let dropped = drop_rows(dropout, &read::<f32>(&dy)?, width);
            from_vec(dropped, (n, width))?
        }
        None => dy.clone(),
    };
    Ok(InputGradients { residual: dy, x })
}

/// As [`backward`], where x came out of a linear map: the residual's gradient, and x's as that map
/// takes it, which in bf16 is rounded row by row as it is found.
///
/// # Errors
/// As [`forward`].
pub fn backward_to_map(
    (weight, precision): (&Tensor, Precision),
    saved: &Saved,
    dy: Tensor,
    dropout: Option<&Dropout>,
    [dweight, dbias]: [&Target; 2],
) -> Result<(Tensor, OutputGradient)> {
    if precision != Precision::Bf16 || !dy.device().is_cpu() {
        let found = backward(weight, saved, dy, dropout, dweight, dbias)?;
        return Ok((found.residual, OutputGradient::from(found.x)));
    }
    let _span = span("LayerNorm backward", 0);
    let (n, width) = dy.dims2()?;
    check_backward(saved, &dy)?;
    let rows = bf16::Rows::new(n, width);
    let to_map = ToMap {
        dropout,
        rows: &rows,
    };
    let sums = run_backward(weight, saved, &dy, Some(to_map))?;
    dweight.put(&sums[..width])?;
    dbias.put(&sums[width..2 * width])?;
    // SAFETY: every row has been put.
    let rows = unsafe { rows.written() };
    let x = OutputGradient::rounded(rows, sums[2 * width..].to_vec());
    Ok((dy, x))
}

/// Where the gradient of x goes, rounded.
#[derive(Clone, Copy)]
struct ToMap<'a> {
    dropout: Option<&'a Dropout>,
    rows: &'a bf16::Rows,
}

fn check_backward(saved: &Saved, dy: &Tensor) -> Result<()> {
    if saved.normalized.dims() != dy.dims() {
        bail!(
            "LayerNorm: gradient {:?} for {:?}",
            dy.shape(),
            saved.normalized.shape()
        );
    }
    Ok(())
}

/// dy becomes the gradient of the norm's input; the sums for weight and bias, and those of x's
/// gradient where it goes somewhere.
fn run_backward(
    weight: &Tensor,
    saved: &Saved,
    dy: &Tensor,
    to_map: Option<ToMap<'_>>,
) -> Result<Vec<f32>> {
    let weight = read::<f32>(weight)?;
    let inverse_deviation = read::<f32>(&saved.inverse_deviation)?;
    let normalized = read::<f32>(&saved.normalized)?;
    let (weight, normalized) = (&*weight, &*normalized);
    let width = weight.len();
    let num_sums = if to_map.is_some() { 3 } else { 2 };
    write(dy, |dy| {
        let chunk = SUM_ROWS * width.max(1);
        let tasks = dy.par_chunks_mut(chunk).zip(normalized.par_chunks(chunk));
        let tasks = tasks.zip(inverse_deviation.par_chunks(SUM_ROWS));
        let parts: Vec<Vec<f32>> = tasks
            .enumerate()
            .map(|(task, ((dy, normalized), inverse))| {
                let mut sums = vec![0.0; num_sums * width];
                let first_row = task * SUM_ROWS;
                rows_backward(
                    weight, first_row, dy, normalized, inverse, to_map, &mut sums,
                );
                sums
            })
            .collect();
        add_in_order(parts, num_sums * width)
    })
}

vectorized! {
    /// Some rows: dy becomes the gradient of the norm's input; the sums for weight and bias, and of
    /// x's gradient, are added to.
    fn rows_backward(
        weight: &[f32],
        first_row: usize,
        dy: &mut [f32],
        normalized: &[f32],
        inverse: &[f32],
        to_map: Option<ToMap<'_>>,
        sums: &mut [f32],
    ) {
        let width = weight.len();
        let (dweight, sums) = sums.split_at_mut(width);
        let (dbias, dx_sums) = sums.split_at_mut(width);
        let mut dx = vec![0.0; dx_sums.len()];
        let rows = dy
            .chunks_exact_mut(width)
            .zip(normalized.chunks_exact(width));
        for (row, ((dy, normalized), inverse)) in (first_row..).zip(rows.zip(inverse)) {
            for column in 0..width {
                dweight[column] = dy[column].mul_add(normalized[column], dweight[column]);
                dbias[column] += dy[column];
                dy[column] *= weight[column];
            }
            let mean = sum(dy) / width as f32;
            let slope = dot(dy, normalized) / width as f32;
            for (dy, normalized) in dy.iter_mut().zip(normalized) {
                *dy = inverse * (*dy - mean - normalized * slope);
            }
            if let Some(to_map) = to_map {
                dx.copy_from_slice(dy);
                if let Some(dropout) = to_map.dropout {
                    dropout.apply(row, &mut dx);
                }
                for (sum, dx) in dx_sums.iter_mut().zip(&dx) {
                    *sum += dx;
                }
                // SAFETY: this task alone has these rows.
                unsafe { to_map.rows.put(row, 0, &dx) };
            }
        }
    }
}

fn drop_rows(dropout: &Dropout, from: &[f32], width: usize) -> Vec<f32> {
    let rows = rows_per_task(width);
    let chunk = rows * width.max(1);
    let tasks = from.par_chunks(chunk).enumerate();
    filled((from.len(), chunk), tasks, |to, (task, from)| {
        drop_some(dropout, task * rows, from, to, width);
    })
}

vectorized! {
    fn drop_some(dropout: &Dropout, first_row: usize, from: &[f32], to: &mut [f32], width: usize) {
        let pairs = to.chunks_exact_mut(width).zip(from.chunks_exact(width));
        for (row, (to, from)) in (first_row..).zip(pairs) {
            to.copy_from_slice(from);
            dropout.apply(row, to);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kernels::dropout::DropoutKey;
    use crate::kernels::testing::{
        Random, assert_close, inner, same_for_any_threads, slopes, target, wide,
    };

    const EPS: f64 = 1e-6;

    fn reference(x: &[f64], residual: &[f64], w: &[f64], b: &[f64], mask: &[f64]) -> Vec<f64> {
        let width = w.len();
        let mut y = Vec::new();
        for row in 0..x.len() / width {
            let at = row * width..(row + 1) * width;
            let z: Vec<f64> = at.map(|i| residual[i] + x[i] * mask[i]).collect();
            let mean = z.iter().sum::<f64>() / width as f64;
            let variance = z.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / width as f64;
            let deviation = (variance + EPS).sqrt();
            y.extend((0..width).map(|i| (z[i] - mean) / deviation * w[i] + b[i]));
        }
        y
    }

    fn mask(dropout: Option<&Dropout>, n: usize, width: usize) -> Vec<f64> {
        let mut mask = vec![1.0f32; n * width];
        if let Some(dropout) = dropout {
            for (row, mask) in mask.chunks_exact_mut(width).enumerate() {
                dropout.apply(row, mask);
            }
        }
        mask.into_iter().map(f64::from).collect()
    }

    fn case(n: usize, width: usize, dropout: Option<&Dropout>) {
        let mut random = Random::new((n * 1000 + width) as u64);
        let (x, residual) = (random.tensor(&[n, width]), random.tensor(&[n, width]));
        let (w, b) = (random.tensor(&[width]), random.tensor(&[width]));
        let dy = random.tensor(&[n, width]);
        let [x64, r64, w64, b64, dy64] = [&x, &residual, &w, &b, &dy].map(wide);
        let mask = mask(dropout, n, width);
        let norm = Norm {
            weight: &w,
            bias: &b,
            eps: EPS,
        };
        let (y, saved) = forward(norm, x, Some(&residual), dropout).unwrap();
        assert_close("y", &wide(&y), &reference(&x64, &r64, &w64, &b64, &mask));
        let (dw, db) = (target(&[width], 2.0), target(&[width], 0.0));
        let gradients = backward(&w, &saved, dy, dropout, &dw, &db).unwrap();
        let loss = |x: &[f64], r: &[f64], w: &[f64], b: &[f64]| {
            inner(&reference(x, r, w, b, &mask), &dy64)
        };
        let expected = slopes(&x64, |x| loss(x, &r64, &w64, &b64));
        assert_close("dx", &wide(&gradients.x), &expected);
        let expected = slopes(&r64, |r| loss(&x64, r, &w64, &b64));
        assert_close("dresidual", &wide(&gradients.residual), &expected);
        let expected = slopes(&w64, |w| loss(&x64, &r64, w, &b64));
        let expected: Vec<f64> = expected.iter().map(|x| x + 2.0).collect();
        assert_close("dweight onto twos", &wide(&dw.tensor), &expected);
        let expected = slopes(&b64, |b| loss(&x64, &r64, &w64, b));
        assert_close("dbias", &wide(&db.tensor), &expected);
    }

    /// For a map in bf16: the same, x's gradient rounded and with its sums.
    #[test]
    fn gradients_for_a_map_are_the_same_rounded() {
        let dropout = Dropout::new(0.3, Some(DropoutKey { seed: 3, step: 4 }), 5);
        for (n, width) in [(0, 3), (1, 2), (130, 70), (33, 64)] {
            let mut random = Random::new((n * 1000 + width) as u64);
            let [x, dy] = [(); 2].map(|()| random.tensor(&[n, width]));
            let [w, b] = [(); 2].map(|()| random.tensor(&[width]));
            let norm = Norm {
                weight: &w,
                bias: &b,
                eps: EPS,
            };
            let (_, saved) = forward(norm, x, None, None).unwrap();
            let run = |precision, dropout: Option<&Dropout>| {
                let targets = [(); 2].map(|()| target(&[width], 1.0));
                let dy = dy.copy().unwrap();
                let norm = (&w, precision);
                let (residual, x) =
                    backward_to_map(norm, &saved, dy, dropout, targets.each_ref()).unwrap();
                let targets = targets.map(|target| wide(&target.tensor));
                (wide(&residual), targets, x)
            };
            for dropout in [None, dropout.as_ref()] {
                let (exact, rounded) =
                    (run(Precision::F32, dropout), run(Precision::Bf16, dropout));
                assert_eq!((exact.0, exact.1), (rounded.0, rounded.1));
                let (exact, sums) = (wide(&exact.2.to_tensor().unwrap()), rounded.2.known_sums());
                for (column, sum) in sums.unwrap().iter().enumerate() {
                    let exact: f64 = exact.iter().skip(column).step_by(width).sum();
                    assert!((f64::from(*sum) - exact).abs() < 1e-4, "{sum} for {exact}");
                }
                let rounded = wide(&rounded.2.to_tensor().unwrap());
                for (rounded, exact) in rounded.iter().zip(&exact) {
                    assert!(
                        (rounded - exact).abs() <= exact.abs() / 256.0,
                        "{rounded} for {exact}"
                    );
                }
            }
        }
    }

    #[test]
    fn agrees_with_the_reference_and_with_finite_differences() {
        let key = DropoutKey { seed: 3, step: 4 };
        let dropout = Dropout::new(0.3, Some(key), 5);
        for (n, width) in [(0, 3), (1, 2), (5, 7), (3, 33)] {
            case(n, width, None);
            case(n, width, dropout.as_ref());
        }
    }

    #[test]
    fn threads_do_not_matter() {
        let mut random = Random::new(6);
        let (x, dy) = (random.tensor(&[901, 40]), random.tensor(&[901, 40]));
        let (w, b) = (random.tensor(&[40]), random.tensor(&[40]));
        same_for_any_threads(|| {
            let norm = Norm {
                weight: &w,
                bias: &b,
                eps: EPS,
            };
            let (y, saved) = forward(norm, x.copy().unwrap(), None, None).unwrap();
            let (dw, db) = (target(&[40], 0.0), target(&[40], 0.0));
            let dx = backward(&w, &saved, dy.copy().unwrap(), None, &dw, &db).unwrap();
            vec![y, dx.x, dw.tensor, db.tensor]
        });
    }
}
