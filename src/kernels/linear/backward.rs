//! The way back through linear maps: all gradients of a map, and of maps of one input, in one pass.

use candle_core::{Result, Tensor, bail};

use super::add;
use crate::buffers::{Slice, Target, from_vec, read, write_all};
use crate::kernels::activation::Activation;
use crate::kernels::bf16;
use crate::kernels::factor::{Factor, Open};
use crate::kernels::matrix::{Fresh, Matrix, MatrixMut, Shared};
use crate::kernels::parallel::{ColumnSums, PartialSums};
use crate::kernels::products::{Precision, Products, Tile, To};
use crate::kernels::profile::{Span, span};
use crate::kernels::simd::prefetch;

/// The gradient of a map's output [N, O].
#[derive(Debug)]
pub struct OutputGradient {
    pub(super) rows: Factor,
    /// Its column sums, where they are known.
    pub(super) sums: Option<Vec<f32>>,
}

impl From<Tensor> for OutputGradient {
    fn from(dy: Tensor) -> Self {
        Self {
            rows: Factor::from(dy),
            sums: None,
        }
    }
}

impl OutputGradient {
    /// Of rounded rows and their sums.
    pub(in crate::kernels) fn rounded(rows: bf16::Packed, sums: Vec<f32>) -> Self {
        Self {
            rows: Factor::from(rows),
            sums: Some(sums),
        }
    }

    /// The column sums, where the rows are rounded.
    #[cfg(test)]
    pub(in crate::kernels) fn known_sums(&self) -> Option<&[f32]> {
        self.sums.as_deref()
    }

    /// The values, rounded or not.
    #[cfg(test)]
    pub(in crate::kernels) fn to_tensor(&self) -> Result<Tensor> {
        self.rows.to_tensor()
    }

    /// The tensor that it was made of.
    #[cfg(feature = "cuda")]
    pub(in crate::kernels) fn tensor(&self) -> Result<&Tensor> {
        self.rows.tensor()
    }
}

/// One map on the way back.
#[derive(Debug, Clone, Copy)]
pub struct MapGradient<'a> {
    /// The weight [O, I].
    pub weight: &'a Tensor,
    /// The gradient of the output [N, O].
    pub dy: &'a OutputGradient,
    /// Where the weight's gradient goes: dyᵀ x.
    pub dweight: &'a Target,
    /// Where the bias's gradient goes: the column sums of dy.
    pub dbias: &'a Target,
}

/// What the gradient of the input becomes.
#[derive(Debug, Clone, Copy)]
pub enum InputGradient<'a> {
    /// A new tensor.
    New,
    /// Added to this one [N, I].
    Onto(&'a Tensor),
}

/// The gradient of x [N, I], which went through every one of `maps`: Σ dy W. Those of weights and
/// biases are left in their targets.
///
/// # Errors
/// As [`super::forward`].
pub fn backward(
    precision: Precision,
    x: &Factor,
    maps: &[MapGradient<'_>],
    to: InputGradient<'_>,
) -> Result<Tensor> {
    let (n, inner) = check_backward(x, maps)?;
    if let InputGradient::Onto(dx) = to
        && dx.dims() != [n, inner]
    {
        bail!("linear: gradient onto {:?}", dx.shape());
    }
    on_gpu!(x, {
        let _span = backward_span(maps, n);
        crate::kernels::cuda::linear_backward(x.tensor()?, maps, to)
    });
    match to {
        InputGradient::Onto(dx) => {
            let tensors = maps.iter().map(|map| &map.dweight.tensor).chain([dx]);
            write_all(&tensors.collect::<Vec<_>>(), |slices| {
                let mut slices: Vec<Shared<'_>> = slices.into_iter().map(Shared::new).collect();
                let Some(dx) = slices.pop() else {
                    return Ok(());
                };
                run_backward(precision, x, maps, &slices, To::Add(&dx), |_, _| ())
            })??;
            Ok(dx.clone())
        }
        InputGradient::New => {
            let mut fresh = Fresh::new(n * inner);
            write_dweights(maps, |dweights| {
                let dx = fresh.shared();
                run_backward(precision, x, maps, dweights, To::Write(&dx), |_, _| ())
            })?;
            // SAFETY: the tiles of the last job have covered it.
            from_vec(unsafe { fresh.written() }, (n, inner))
        }
    }
}

/// The gradient of `pre` [N, I], which went through an activation and then through `map`, for the
/// map whose output `pre` is.
///
/// # Errors
/// As [`super::forward`].
pub fn backward_through(
    precision: Precision,
    x: &Factor,
    map: MapGradient<'_>,
    (activation, pre): (Activation, &Tensor),
) -> Result<OutputGradient> {
    let (n, inner) = check_backward(x, &[map])?;
    if pre.dims() != [n, inner] {
        bail!("linear: through {:?}", pre.shape());
    }
    on_gpu!(x, {
        let span = backward_span(&[map], n);
        let dx = crate::kernels::cuda::linear_backward(x.tensor()?, &[map], InputGradient::New)?;
        drop(span);
        crate::kernels::activation::backward(activation, pre, dx).map(OutputGradient::from)
    });
    let pre = read::<f32>(pre)?;
    let back = |tile: &Tile, row: usize, values: &mut [f32]| {
        let at = (tile.rows.start + row) * inner + tile.columns.start;
        // Rows of a tile lie apart, so that the processor does not expect the next ones.
        let later = at + 2 * inner;
        prefetch(pre.get(later..later + values.len()).unwrap_or_default());
        activation.apply_backward(&pre[at..at + values.len()], values);
    };
    if precision != Precision::Bf16 {
        let mut fresh = Fresh::new(n * inner);
        write_dweights(&[map], |dweights| {
            let dx = To::Write(&fresh.shared());
            run_backward(precision, x, &[map], dweights, dx, |tile, values| {
                for row in 0..values.rows {
                    back(tile, row, values.row_mut(row, 0..tile.columns.len()));
                }
            })
        })?;
        // SAFETY: the tiles of the last job have covered it.
        let dx = from_vec(unsafe { fresh.written() }, (n, inner))?;
        return Ok(OutputGradient::from(dx));
    }
    let rows = bf16::Rows::new(n, inner);
    let sums = PartialSums::default();
    write_dweights(&[map], |dweights| {
        run_backward(
            precision,
            x,
            &[map],
            dweights,
            To::Finish,
            |tile, values| {
                let mut sum = vec![0.0; tile.columns.len()];
                for row in 0..values.rows {
                    let values = values.row_mut(row, 0..tile.columns.len());
                    back(tile, row, values);
                    add(&mut sum, values);
                    // SAFETY: these are the tile's places, which one thread has alone.
                    unsafe { rows.put(tile.rows.start + row, tile.columns.start, values) };
                }
                sums.take((tile.columns.start, tile.rows.start), sum);
            },
        )
    })?;
    // SAFETY: the tiles of the last job have covered it.
    let rows = unsafe { rows.written() };
    Ok(OutputGradient::rounded(rows, sums.done(inner)))
}

/// N and I of x, if the maps fit.
fn check_backward(x: &Factor, maps: &[MapGradient<'_>]) -> Result<(usize, usize)> {
    let (n, inner) = x.dims2()?;
    for map in maps {
        let (rows, outer) = map.dy.rows.dims2()?;
        let weight = [outer, inner];
        if rows != n || map.weight.dims() != weight || map.dweight.tensor.dims() != weight {
            bail!(
                "linear: gradient [{rows}, {outer}] for weight {:?} and input [{n}, {inner}]",
                map.weight.shape(),
            );
        }
    }
    Ok((n, inner))
}

/// Lends the weights' gradients.
fn write_dweights(
    maps: &[MapGradient<'_>],
    with: impl FnOnce(&[Shared<'_>]) -> Result<()>,
) -> Result<()> {
    let targets: Vec<&Tensor> = maps.iter().map(|map| &map.dweight.tensor).collect();
    write_all(&targets, |slices| {
        let slices: Vec<Shared<'_>> = slices.into_iter().map(Shared::new).collect();
        with(&slices)
    })?
}

fn backward_span(maps: &[MapGradient<'_>], n: usize) -> Span {
    let weights = maps.iter().map(|map| map.weight.elem_count());
    span("linear backward", 4 * n * weights.sum::<usize>())
}

/// Computes all products of a backward pass; `finish` gets the tiles of that of dx.
fn run_backward(
    precision: Precision,
    x: &Factor,
    maps: &[MapGradient<'_>],
    dweights: &[Shared<'_>],
    dx: To<'_>,
    finish: impl Fn(&Tile, &mut MatrixMut<'_>) + Sync,
) -> Result<()> {
    let (n, inner) = x.dims2()?;
    let outers = maps.iter().map(|map| map.weight.dim(0));
    let outers: Vec<usize> = outers.collect::<Result<_>>()?;
    let _span = backward_span(maps, n);
    let x = x.open()?;
    let dys = maps.iter().map(|map| map.dy.rows.open());
    let dys: Vec<Open<'_>> = dys.collect::<Result<_>>()?;
    let weights = maps.iter().map(|map| read::<f32>(map.weight));
    let weights: Vec<Slice<'_, f32>> = weights.collect::<Result<_>>()?;
    let mut products = Products::new(precision);
    let x = x.right(&mut products);
    let mut terms = Vec::with_capacity(maps.len());
    for (i, dy) in dys.iter().enumerate() {
        let weight = Matrix::new(&weights[i], outers[i], inner, inner);
        let weight = products.right(weight);
        terms.push((dy.left(&mut products), weight));
        let turned = dy.left_of_turned(&mut products);
        let to = match maps[i].dweight.add {
            true => To::Add(&dweights[i]),
            false => To::Write(&dweights[i]),
        };
        // SAFETY: each weight has its own gradient.
        unsafe { products.job(to, vec![(turned, x)]) };
    }
    if terms.is_empty() {
        bail!("linear: a backward pass of no map");
    }
    // SAFETY: dx is no weight's gradient.
    unsafe { products.job(dx, terms) };
    let sums: Vec<Option<ColumnSums<'_>>> = (dys.iter().zip(&outers))
        .map(|(dy, width)| dy.values().map(|dy| ColumnSums::new(dy, *width)))
        .collect();
    let num_tasks = |sums: &ColumnSums<'_>| sums.num_tasks();
    let num_sums = sums.iter().flatten().map(num_tasks).sum();
    let sum = |mut task: usize| {
        for sums in sums.iter().flatten() {
            match task.checked_sub(sums.num_tasks()) {
                None => return sums.act(task),
                Some(later) => task = later,
            }
        }
    };
    let last = maps.len();
    products.run_beside((num_sums, &sum), |tile, values| {
        if tile.job == last {
            finish(tile, values);
        }
    });
    for (map, sums) in maps.iter().zip(sums) {
        match (sums, &map.dy.sums) {
            (Some(sums), _) => map.dbias.put(&sums.done())?,
            (None, Some(sums)) => map.dbias.put(sums)?,
            (None, None) => bail!("linear: the sums of a rounded gradient are not known"),
        }
    }
    Ok(())
}
