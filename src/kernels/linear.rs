//! Linear: y = x Wᵀ + b with W stored [out, in], as Hugging Face does; no transpose is copied.
//!
//! Every product is cut into stripes of rows, one single-threaded product each, whose bias is
//! added while the stripe is in cache.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::matmul::{Matrix, MatrixMut, Shared, multiply, stripe_rows};
use super::parallel::column_sums;
use super::profile::span;
use crate::buffers::{Target, from_vec, read, write};

/// x `[N, I]`, weight `[O, I]`, bias `[O]` → `[N, O]`.
///
/// # Errors
/// Shapes that do not fit, or tensors that are not contiguous f32 on the CPU.
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (n, inner, outer) = shapes(x, weight)?;
    let _span = span("linear forward", 2 * n * inner * outer);
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
    let _span = span("linear input gradient", 2 * n * inner * outer);
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
    let _span = span("linear weight gradient", 2 * n * inner * outer);
    let (dy, x) = (read::<f32>(dy)?, read::<f32>(x)?);
    let (dy, x) = (&*dy, &*x);
    let columns = weight_tile_columns(outer, inner);
    let starts = (0..outer).step_by(WEIGHT_TILE_ROWS);
    let tiles: Vec<(usize, usize)> = starts
        .flat_map(|row| (0..inner).step_by(columns).map(move |column| (row, column)))
        .collect();
    write(&dw.tensor, |values| {
        let values = Shared::new(values);
        tiles
            .into_par_iter()
            .with_max_len(1)
            .for_each(|(row, column)| {
                let (height, width) = (
                    WEIGHT_TILE_ROWS.min(outer - row),
                    columns.min(inner - column),
                );
                let dy = Matrix::new(&dy[row.min(dy.len())..], n, height, outer);
                let x = Matrix::new(&x[column.min(x.len())..], n, width, inner);
                // SAFETY: no two tiles share an element.
                let mut tile = unsafe { values.matrix(row * inner + column, height, width, inner) };
                multiply(1.0, dy.transposed(), x, dw.add, &mut tile);
            });
    })
}

/// The gradient of the bias: the column sums of dy `[N, O]`, left in `db` `[O]`.
///
/// # Errors
/// As [`forward`].
pub fn backward_bias(dy: &Tensor, db: &Target) -> Result<()> {
    let (_, outer) = dy.dims2()?;
    let _span = span("linear bias gradient", 0);
    let sums = column_sums(&read::<f32>(dy)?, outer);
    db.put(&sums)
}

/// Weight gradients are small and have a long inner side: they are cut into tiles, square enough
/// for little to be packed twice, and enough of them for every thread.
const WEIGHT_TILE_ROWS: usize = 128;

fn weight_tile_columns(rows: usize, columns: usize) -> usize {
    if rows * columns > 256 * 256 { 256 } else { 128 }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kernels::testing::{
        Random, assert_close, inner, same_for_any_threads, slopes, target, wide,
    };

    /// x [n, i], w [o, i], b [o] → [n, o]
    fn reference(x: &[f64], w: &[f64], b: &[f64], i: usize) -> Vec<f64> {
        let rows = x.chunks(i);
        let row =
            |x: &[f64]| -> Vec<f64> { w.chunks(i).zip(b).map(|(w, b)| inner(x, w) + b).collect() };
        rows.flat_map(row).collect()
    }

    #[test]
    fn agrees_with_the_reference_and_with_finite_differences() {
        for (n, i, o) in [(1, 1, 1), (3, 5, 2), (2, 4, 7), (9, 3, 33)] {
            let mut random = Random::new((n * 100 + i * 10 + o) as u64);
            let (x, w, b) = (
                random.tensor(&[n, i]),
                random.tensor(&[o, i]),
                random.tensor(&[o]),
            );
            let dy = random.tensor(&[n, o]);
            let y = forward(&x, &w, Some(&b)).unwrap();
            let (x64, w64, b64, dy64) = (wide(&x), wide(&w), wide(&b), wide(&dy));
            assert_close("y", &wide(&y), &reference(&x64, &w64, &b64, i));
            let dx = backward_input(&dy, &w).unwrap();
            let loss = |x: &[f64], w: &[f64], b: &[f64]| inner(&reference(x, w, b, i), &dy64);
            assert_close("dx", &wide(&dx), &slopes(&x64, |x| loss(x, &w64, &b64)));
            let (dw, db) = (target(&[o, i], 0.0), target(&[o], 1.0));
            backward_weight(&dy, &x, &dw).unwrap();
            backward_bias(&dy, &db).unwrap();
            assert_close(
                "dw",
                &wide(&dw.tensor),
                &slopes(&w64, |w| loss(&x64, w, &b64)),
            );
            let expected: Vec<f64> = slopes(&b64, |b| loss(&x64, &w64, b))
                .iter()
                .map(|x| x + 1.0)
                .collect();
            assert_close("db onto ones", &wide(&db.tensor), &expected);
        }
    }

    #[test]
    fn no_rows_give_no_rows_and_zero_gradients() {
        let mut random = Random::new(1);
        let (x, w, b) = (
            random.tensor(&[0, 4]),
            random.tensor(&[3, 4]),
            random.tensor(&[3]),
        );
        let y = forward(&x, &w, Some(&b)).unwrap();
        assert_eq!(y.dims(), [0, 3]);
        let (dw, db) = (target(&[3, 4], 0.0), target(&[3], 0.0));
        backward_weight(&y, &x, &dw).unwrap();
        backward_bias(&y, &db).unwrap();
        assert_eq!(backward_input(&y, &w).unwrap().dims(), [0, 4]);
        assert_eq!(
            (wide(&dw.tensor), wide(&db.tensor)),
            (vec![0.0; 12], vec![0.0; 3])
        );
        assert!(forward(&x, &random.tensor(&[3, 5]), None).is_err());
        assert!(forward(&x, &w, Some(&random.tensor(&[4]))).is_err());
    }

    #[test]
    fn threads_do_not_matter() {
        let mut random = Random::new(2);
        let (x, w, b) = (
            random.tensor(&[701, 65]),
            random.tensor(&[130, 65]),
            random.tensor(&[130]),
        );
        let dy = random.tensor(&[701, 130]);
        same_for_any_threads(|| {
            let (dw, db) = (target(&[130, 65], 0.0), target(&[130], 0.0));
            backward_weight(&dy, &x, &dw).unwrap();
            backward_bias(&dy, &db).unwrap();
            let (y, dx) = (forward(&x, &w, Some(&b)), backward_input(&dy, &w));
            vec![y.unwrap(), dx.unwrap(), dw.tensor, db.tensor]
        });
    }
}
