//! Linear: y = x Wᵀ + b with W stored [out, in], as Hugging Face does; no transpose is copied.
//!
//! Every product is cut into stripes of rows, one single-threaded product each, whose bias is
//! added while the stripe is in cache.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::matmul::{Matrix, MatrixMut, multiply, stripe_rows};
use super::parallel::column_sums;
use crate::buffers::{Target, from_vec, read, write};

/// x `[N, I]`, weight `[O, I]`, bias `[O]` → `[N, O]`.
///
/// # Errors
/// Shapes that do not fit, or tensors that are not contiguous f32 on the CPU.
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (n, inner, outer) = shapes(x, weight)?;
    let mut y = vec![0.0; n * outer];
    {
        let (x, weight) = (read::<f32>(x)?, read::<f32>(weight)?);
        let (x, weight) = (&*x, Matrix::new(&weight, outer, inner, inner));
        let bias = bias.map(read::<f32>).transpose()?;
        let bias = bias.as_deref();
        if bias.is_some_and(|b| b.len() != outer) {
            bail!("a bias of another length than the {outer} outputs");
        }
        let rows = stripe_rows(n);
        y.par_chunks_mut(rows * outer.max(1))
            .enumerate()
            .for_each(|(stripe, y)| {
                let count = y.len() / outer;
                let x = Matrix::new(&x[stripe * rows * inner..], count, inner, inner);
                let mut product = MatrixMut::new(y, count, outer, outer);
                multiply(1.0, x, weight.transposed(), false, &mut product);
                if let Some(bias) = bias {
                    add_to_rows(y, bias);
                }
            });
    }
    from_vec(y, (n, outer))
}

/// The gradient of x: dy [N, O] and weight [O, I] → [N, I].
///
/// # Errors
/// As [`forward`].
pub fn backward_input(dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (n, inner) = (dy.dims2()?.0, weight.dims2()?.1);
    let dx = from_vec(vec![0.0; n * inner], (n, inner))?;
    backward_input_to(
        dy,
        weight,
        &Target {
            tensor: dx.clone(),
            add: false,
        },
    )?;
    Ok(dx)
}

/// As [`backward_input`], into or onto a tensor [N, I] that is there already.
///
/// # Errors
/// As [`forward`].
pub fn backward_input_to(dy: &Tensor, weight: &Tensor, dx: &Target) -> Result<()> {
    let (n, outer) = dy.dims2()?;
    let (rows_of_weight, inner) = weight.dims2()?;
    if rows_of_weight != outer || dx.tensor.dims() != [n, inner] {
        bail!(
            "linear: gradient {:?} for weight {:?}",
            dy.shape(),
            weight.shape()
        );
    }
    let (dy, weight) = (read::<f32>(dy)?, read::<f32>(weight)?);
    let (dy, weight) = (&*dy, Matrix::new(&weight, outer, inner, inner));
    let rows = stripe_rows(n);
    write(&dx.tensor, |values| {
        values
            .par_chunks_mut(rows * inner.max(1))
            .enumerate()
            .for_each(|(stripe, values)| {
                let count = values.len() / inner;
                let dy = Matrix::new(&dy[stripe * rows * outer..], count, outer, outer);
                let mut product = MatrixMut::new(values, count, inner, inner);
                multiply(1.0, dy, weight, dx.add, &mut product);
            });
    })
}

/// The gradient of the weight: dyᵀ x, left in `dw` [O, I].
///
/// # Errors
/// As [`forward`].
pub fn backward_weight(dy: &Tensor, x: &Tensor, dw: &Target) -> Result<()> {
    let ((n, outer), (n_x, inner)) = (dy.dims2()?, x.dims2()?);
    if n != n_x || dw.tensor.dims() != [outer, inner] {
        bail!(
            "linear: gradient {:?} for input {:?}",
            dy.shape(),
            x.shape()
        );
    }
    let (dy, x) = (read::<f32>(dy)?, read::<f32>(x)?);
    let (dy, x) = (&*dy, Matrix::new(&x, n, inner, inner));
    let rows = weight_stripe_rows(outer);
    write(&dw.tensor, |values| {
        values
            .par_chunks_mut(rows * inner.max(1))
            .enumerate()
            .for_each(|(stripe, values)| {
                let count = values.len() / inner;
                let at = (stripe * rows).min(dy.len());
                let dy = Matrix::new(&dy[at..], n, count, outer);
                let mut product = MatrixMut::new(values, count, inner, inner);
                multiply(1.0, dy.transposed(), x, dw.add, &mut product);
            });
    })
}

/// The gradient of the bias: the column sums of dy `[N, O]`, left in `db` `[O]`.
///
/// # Errors
/// As [`forward`].
pub fn backward_bias(dy: &Tensor, db: &Target) -> Result<()> {
    let (_, outer) = dy.dims2()?;
    let sums = column_sums(&read::<f32>(dy)?, outer);
    db.put(&sums)
}

/// Weight gradients have few rows and a long inner side: thin stripes keep every thread busy.
fn weight_stripe_rows(rows: usize) -> usize {
    rows.div_ceil(16).next_multiple_of(16).clamp(32, 384)
}

fn add_to_rows(values: &mut [f32], bias: &[f32]) {
    for row in values.chunks_exact_mut(bias.len().max(1)) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}

fn shapes(x: &Tensor, weight: &Tensor) -> Result<(usize, usize, usize)> {
    let ((n, inner), (outer, weight_inner)) = (x.dims2()?, weight.dims2()?);
    if inner != weight_inner {
        bail!(
            "linear: input {:?} for weight {:?}",
            x.shape(),
            weight.shape()
        );
    }
    Ok((n, inner, outer))
}
