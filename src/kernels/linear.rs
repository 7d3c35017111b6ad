//! Linear: y = x Wᵀ + b with W stored [out, in], as Hugging Face does; no transpose is copied.
//!
//! Maps of one input (query, key and value) are computed together, and so are all gradients of a
//! map: one pass of the threads each ([`super::products`]). Bias and activation are added to a tile
//! of the result while it is in cache.

use candle_core::{Result, Tensor, bail};

use super::activation::Activation;
use super::matrix::{Fresh, Matrix, Shared};
use super::parallel::ColumnSums;
use super::products::{Precision, Products};
use super::profile::span;
use super::simd::vectorized;
use crate::buffers::{Slice, Target, from_vec, read, write_all};

/// Weight `[O, I]` and bias `[O]` of a map.
#[derive(Debug, Clone, Copy)]
pub struct Map<'a> {
    /// The weight.
    pub weight: &'a Tensor,
    /// The bias.
    pub bias: &'a Tensor,
}

/// x `[N, I]` through each of `maps` → `[N, O]` each; all have the same O.
///
/// # Errors
/// Shapes that do not fit, or tensors that are not contiguous f32 on the CPU.
pub fn forward<const MAPS: usize>(
    precision: Precision,
    x: &Tensor,
    maps: [Map<'_>; MAPS],
) -> Result<[Tensor; MAPS]> {
    let outputs = run_forward(precision, x, &maps, None)?.0;
    match <[Tensor; MAPS]>::try_from(outputs) {
        Ok(outputs) => Ok(outputs),
        Err(_) => bail!("linear: as many outputs as maps"),
    }
}

/// x `[N, I]` through a map and an activation → before and after the activation, `[N, O]` both.
///
/// # Errors
/// As [`forward`].
pub fn forward_activated(
    precision: Precision,
    x: &Tensor,
    map: Map<'_>,
    activation: Activation,
) -> Result<(Tensor, Tensor)> {
    let (mut outputs, activated) = run_forward(precision, x, &[map], Some(activation))?;
    match (outputs.pop(), activated) {
        (Some(inner), Some(activated)) => Ok((inner, activated)),
        _ => bail!("linear: nothing was computed"),
    }
}

fn run_forward(
    precision: Precision,
    x: &Tensor,
    maps: &[Map<'_>],
    activation: Option<Activation>,
) -> Result<(Vec<Tensor>, Option<Tensor>)> {
    let (n, inner) = x.dims2()?;
    let outer = maps.first().map_or(Ok(0), |map| map.weight.dim(0))?;
    for map in maps {
        if map.weight.dims() != [outer, inner] || map.bias.dims() != [outer] {
            bail!(
                "linear: weight {:?} and bias {:?} for input {:?}",
                map.weight.shape(),
                map.bias.shape(),
                x.shape()
            );
        }
    }
    on_gpu!(x, {
        let pairs = maps
            .iter()
            .map(|map| super::cuda::linear_forward(x, *map, activation));
        let (outputs, mut activated): (Vec<_>, Vec<_>) =
            pairs.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok((outputs, activated.pop().flatten()))
    });
    let _span = span("linear forward", 2 * n * inner * outer * maps.len());
    let x = read::<f32>(x)?;
    let weights = maps.iter().map(|map| read::<f32>(map.weight));
    let weights: Vec<Slice<'_, f32>> = weights.collect::<Result<_>>()?;
    let biases = maps.iter().map(|map| read::<f32>(map.bias));
    let biases: Vec<Slice<'_, f32>> = biases.collect::<Result<_>>()?;
    let mut outputs: Vec<Fresh> = maps.iter().map(|_| Fresh::new(n * outer)).collect();
    let mut activated = activation.map(|_| Fresh::new(n * outer));
    {
        let to: Vec<Shared<'_>> = outputs.iter_mut().map(Fresh::shared).collect();
        let after = activated.as_mut().map(Fresh::shared);
        let mut products = Products::new(precision);
        let x = products.left(Matrix::new(&x, n, inner, inner));
        for (weight, to) in weights.iter().zip(&to) {
            let weight = Matrix::new(weight, outer, inner, inner);
            let weight = products.right(weight.transposed());
            // SAFETY: each job has its own output.
            unsafe { products.job(to, false, vec![(x, weight)]) };
        }
        products.run(|tile| {
            let bias = &biases[tile.job][tile.columns.clone()];
            // SAFETY: `finish` has the tile alone.
            for (row, values) in unsafe { tile.each_row(&to[tile.job], outer) } {
                add(values, bias);
                if let Some((activation, after)) = activation.zip(after.as_ref()) {
                    let at = row * outer;
                    let columns = at + tile.columns.start..at + tile.columns.end;
                    // SAFETY: these are the tile's places.
                    activation.apply(values, unsafe { after.slice(columns) });
                }
            }
        });
    }
    // SAFETY: the tiles of the jobs have covered them.
    let finished = |fresh: Fresh| from_vec(unsafe { fresh.written() }, (n, outer));
    let outputs = outputs.into_iter().map(finished).collect::<Result<_>>()?;
    Ok((outputs, activated.map(finished).transpose()?))
}

/// One map on the way back.
#[derive(Debug, Clone, Copy)]
pub struct MapGradient<'a> {
    /// The weight [O, I].
    pub weight: &'a Tensor,
    /// The gradient of the output [N, O].
    pub dy: &'a Tensor,
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
    /// A new tensor, taken back through the activation whose input [N, I] this is.
    Through(Activation, &'a Tensor),
}

/// The gradient of x [N, I], which went through every one of `maps`: Σ dy W. Those of weights and
/// biases are left in their targets.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    precision: Precision,
    x: &Tensor,
    maps: &[MapGradient<'_>],
    to: InputGradient<'_>,
) -> Result<Tensor> {
    let (n, inner) = x.dims2()?;
    for map in maps {
        let outer = map.dy.dims2()?.1;
        let weight = [outer, inner];
        if map.dy.dims() != [n, outer]
            || map.weight.dims() != weight
            || map.dweight.tensor.dims() != weight
        {
            bail!(
                "linear: gradient {:?} for weight {:?} and input {:?}",
                map.dy.shape(),
                map.weight.shape(),
                x.shape()
            );
        }
    }
    let targets: Vec<&Tensor> = maps.iter().map(|map| &map.dweight.tensor).collect();
    let wrong = |t: &Tensor| t.dims() != [n, inner];
    match to {
        InputGradient::Onto(dx) if wrong(dx) => bail!("linear: gradient onto {:?}", dx.shape()),
        InputGradient::Through(_, pre) if wrong(pre) => bail!("linear: through {:?}", pre.shape()),
        InputGradient::New | InputGradient::Onto(_) | InputGradient::Through(..) => {}
    }
    on_gpu!(x, super::cuda::linear_backward(x, maps, to));
    match to {
        InputGradient::Onto(dx) => {
            let tensors: Vec<&Tensor> = targets.into_iter().chain([dx]).collect();
            write_all(&tensors, |slices| {
                let mut slices: Vec<Shared<'_>> = slices.into_iter().map(Shared::new).collect();
                let Some(dx) = slices.pop() else {
                    return Ok(());
                };
                run_backward(precision, x, maps, &slices, (&dx, true), None)
            })??;
            Ok(dx.clone())
        }
        InputGradient::New | InputGradient::Through(..) => {
            let through = match to {
                InputGradient::Through(activation, pre) => Some((activation, read::<f32>(pre)?)),
                _ => None,
            };
            let mut fresh = Fresh::new(n * inner);
            write_all(&targets, |slices| {
                let slices: Vec<Shared<'_>> = slices.into_iter().map(Shared::new).collect();
                let through = through
                    .as_ref()
                    .map(|(activation, pre)| (*activation, &**pre));
                run_backward(
                    precision,
                    x,
                    maps,
                    &slices,
                    (&fresh.shared(), false),
                    through,
                )
            })??;
            // SAFETY: the tiles of the last job have covered it.
            from_vec(unsafe { fresh.written() }, (n, inner))
        }
    }
}

/// Computes all products of a backward pass; the last job is that of dx.
fn run_backward(
    precision: Precision,
    x: &Tensor,
    maps: &[MapGradient<'_>],
    dweights: &[Shared<'_>],
    (dx, add): (&Shared<'_>, bool),
    through: Option<(Activation, &[f32])>,
) -> Result<()> {
    let (n, inner) = x.dims2()?;
    let outer: usize = maps.iter().map(|map| map.dy.dims()[1]).sum();
    let _span = span("linear backward", 4 * n * inner * outer);
    let x = read::<f32>(x)?;
    let dys = maps.iter().map(|map| read::<f32>(map.dy));
    let dys: Vec<Slice<'_, f32>> = dys.collect::<Result<_>>()?;
    let weights = maps.iter().map(|map| read::<f32>(map.weight));
    let weights: Vec<Slice<'_, f32>> = weights.collect::<Result<_>>()?;
    let mut products = Products::new(precision);
    let x = products.right(Matrix::new(&x, n, inner, inner));
    let mut terms = Vec::with_capacity(maps.len());
    for (((map, dy), weight), dweight) in maps.iter().zip(&dys).zip(&weights).zip(dweights) {
        let outer = map.dy.dims()[1];
        let dy = Matrix::new(dy, n, outer, outer);
        let weight = products.right(Matrix::new(weight, outer, inner, inner));
        terms.push((products.left(dy), weight));
        let turned = products.left(dy.transposed());
        // SAFETY: each weight has its own gradient.
        unsafe { products.job(dweight, map.dweight.add, vec![(turned, x)]) };
    }
    if terms.is_empty() {
        bail!("linear: a backward pass of no map");
    }
    // SAFETY: dx is no weight's gradient.
    unsafe { products.job(dx, add, terms) };
    let last = maps.len();
    let widths = maps.iter().map(|map| map.dy.dims()[1]);
    let sums: Vec<ColumnSums<'_>> = (dys.iter().zip(widths))
        .map(|(dy, width)| ColumnSums::new(dy, width))
        .collect();
    let num_sums = sums.iter().map(ColumnSums::num_tasks).sum();
    let sum = |mut task: usize| {
        for sums in &sums {
            match task.checked_sub(sums.num_tasks()) {
                None => return sums.act(task),
                Some(later) => task = later,
            }
        }
    };
    products.run_beside((num_sums, &sum), |tile| {
        let Some((activation, pre)) = through.filter(|_| tile.job == last) else {
            return;
        };
        // SAFETY: `finish` has the tile alone.
        for (row, values) in unsafe { tile.each_row(dx, inner) } {
            let columns = row * inner + tile.columns.start..row * inner + tile.columns.end;
            activation.apply_backward(&pre[columns], values);
        }
    });
    for (map, sums) in maps.iter().zip(sums) {
        map.dbias.put(&sums.done())?;
    }
    Ok(())
}

vectorized! {
    fn add(values: &mut [f32], bias: &[f32]) {
        for (value, bias) in values.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}

#[cfg(test)]
mod tests;
