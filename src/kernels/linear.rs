//! Linear: y = x Wᵀ + b with W stored [out, in], as Hugging Face does; no transpose is copied.
//!
//! Maps of one input (query, key and value) are computed together, and so are all gradients of a
//! map: one pass of the threads each ([`super::products`]). Bias and activation are added to a tile
//! of the result while it is in cache. In bf16, what only goes into products is rounded there too
//! ([`Factor`]): the activated rows of the feed-forward part and their gradient are never f32 in
//! memory.

mod backward;

use candle_core::{Result, Tensor, bail};

use super::activation::Activation;
use super::bf16;
use super::factor::Factor;
use super::matrix::{Fresh, Matrix, Shared};
use super::products::{Precision, Products, To};
use super::profile::span;
use super::simd::vectorized;
use crate::buffers::{Slice, from_vec, read};

pub use backward::{InputGradient, MapGradient, OutputGradient, backward, backward_through};

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
    x: &Factor,
    maps: [Map<'_>; MAPS],
) -> Result<[Tensor; MAPS]> {
    let outputs = run_forward(precision, x, &maps, After::Nothing)?.0;
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
    x: &Factor,
    map: Map<'_>,
    activation: Activation,
) -> Result<(Tensor, Tensor)> {
    let (inner, activated) = activated(precision, x, map, After::Values(activation))?;
    Ok((inner, activated.tensor()?.clone()))
}

/// As [`forward_activated`], where what comes after the activation goes into products only.
///
/// # Errors
/// As [`forward`].
pub fn forward_activated_factor(
    precision: Precision,
    x: &Factor,
    map: Map<'_>,
    activation: Activation,
) -> Result<(Tensor, Factor)> {
    activated(precision, x, map, After::Factor(activation))
}

fn activated(
    precision: Precision,
    x: &Factor,
    map: Map<'_>,
    after: After,
) -> Result<(Tensor, Factor)> {
    let (mut outputs, activated) = run_forward(precision, x, &[map], after)?;
    match (outputs.pop(), activated) {
        (Some(inner), Some(activated)) => Ok((inner, activated)),
        _ => bail!("linear: nothing was computed"),
    }
}

/// What follows a map.
#[derive(Clone, Copy)]
enum After {
    Nothing,
    Values(Activation),
    Factor(Activation),
}

impl After {
    fn activation(self) -> Option<Activation> {
        match self {
            Self::Nothing => None,
            Self::Values(activation) | Self::Factor(activation) => Some(activation),
        }
    }
}

/// Activated values that are rounded at a time: some tiles' width.
const PIECE: usize = 128;

/// Activated rows [N, O] while tiles fill them.
enum Activated {
    Values(Fresh),
    Tiles(bf16::Rows),
}

/// Takes the values of a row (its number) from a column on, through an activation.
type Taker<'a> = Box<dyn Fn(usize, usize, &[f32], Activation) + Sync + 'a>;

impl Activated {
    fn new(after: After, precision: Precision, (n, outer): (usize, usize)) -> Self {
        match (after, precision) {
            (After::Factor(_), Precision::Bf16) => Self::Tiles(bf16::Rows::new(n, outer)),
            _ => Self::Values(Fresh::new(n * outer)),
        }
    }

    /// What several threads may call, each for places of its own.
    fn taker(&mut self, outer: usize) -> Taker<'_> {
        match self {
            Self::Values(fresh) => {
                let to = fresh.shared();
                Box::new(move |row, column, values, activation| {
                    let at = row * outer + column;
                    // SAFETY: these are the places of a tile, which one thread has alone.
                    activation.apply(values, unsafe { to.slice(at..at + values.len()) });
                })
            }
            Self::Tiles(rows) => Box::new(move |row, column, values, activation| {
                for (i, values) in values.chunks(PIECE).enumerate() {
                    let mut activated = [0.0; PIECE];
                    let activated = &mut activated[..values.len()];
                    activation.apply(values, activated);
                    // SAFETY: as above.
                    unsafe { rows.put(row, column + i * PIECE, activated) };
                }
            }),
        }
    }

    /// # Safety
    /// Every value has been taken.
    unsafe fn done(self, shape: (usize, usize)) -> Result<Factor> {
        // SAFETY: the caller's promise.
        match self {
            Self::Values(fresh) => from_vec(unsafe { fresh.written() }, shape).map(Factor::from),
            Self::Tiles(rows) => Ok(Factor::from(unsafe { rows.written() })),
        }
    }
}

fn run_forward(
    precision: Precision,
    x: &Factor,
    maps: &[Map<'_>],
    after: After,
) -> Result<(Vec<Tensor>, Option<Factor>)> {
    let (n, inner) = x.dims2()?;
    let outer = maps.first().map_or(Ok(0), |map| map.weight.dim(0))?;
    for map in maps {
        if map.weight.dims() != [outer, inner] || map.bias.dims() != [outer] {
            bail!(
                "linear: weight {:?} and bias {:?} for input [{n}, {inner}]",
                map.weight.shape(),
                map.bias.shape(),
            );
        }
    }
    let _span = span("linear forward", 2 * n * inner * outer * maps.len());
    on_gpu!(x, {
        let x = x.tensor()?;
        let pairs = maps
            .iter()
            .map(|map| super::cuda::linear_forward(x, *map, after.activation()));
        let (outputs, mut activated): (Vec<_>, Vec<_>) =
            pairs.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok((outputs, activated.pop().flatten().map(Factor::from)))
    });
    let x = x.open()?;
    let weights = maps.iter().map(|map| read::<f32>(map.weight));
    let weights: Vec<Slice<'_, f32>> = weights.collect::<Result<_>>()?;
    let biases = maps.iter().map(|map| read::<f32>(map.bias));
    let biases: Vec<Slice<'_, f32>> = biases.collect::<Result<_>>()?;
    let mut outputs: Vec<Fresh> = maps.iter().map(|_| Fresh::new(n * outer)).collect();
    let mut activated = (after.activation())
        .map(|activation| (activation, Activated::new(after, precision, (n, outer))));
    {
        let to: Vec<Shared<'_>> = outputs.iter_mut().map(Fresh::shared).collect();
        let take = (activated.as_mut()).map(|(activation, to)| (*activation, to.taker(outer)));
        let mut products = Products::new(precision);
        let x = x.left(&mut products);
        for (weight, to) in weights.iter().zip(&to) {
            let weight = Matrix::new(weight, outer, inner, inner);
            let weight = products.right(weight.transposed());
            // SAFETY: each job has its own output.
            unsafe { products.job(To::Write(to), vec![(x, weight)]) };
        }
        products.run(|tile, values| {
            let bias = &biases[tile.job][tile.columns.clone()];
            for row in 0..values.rows {
                let values = values.row_mut(row, 0..bias.len());
                add(values, bias);
                if let Some((activation, take)) = &take {
                    take(
                        tile.rows.start + row,
                        tile.columns.start,
                        values,
                        *activation,
                    );
                }
            }
        });
    }
    // SAFETY: the tiles of the jobs have covered them.
    let finished = |fresh: Fresh| from_vec(unsafe { fresh.written() }, (n, outer));
    let outputs = outputs.into_iter().map(finished).collect::<Result<_>>()?;
    // SAFETY: as above.
    let activated = activated.map(|(_, activated)| unsafe { activated.done((n, outer)) });
    Ok((outputs, activated.transpose()?))
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
