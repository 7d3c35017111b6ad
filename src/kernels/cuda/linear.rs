//! Linear maps, their bias and activation, and the way back.
//!
//! Where the epilogues of cuBLASLt can, the product that makes y adds the bias, and that of the
//! weight's gradient sums the columns of dy on its way, which are the bias's gradient. Elsewhere a
//! pass of our own does so. Activations are always a pass: cuBLASLt's GELU is another one (tanh's),
//! and both sides of an activation are kept.

use candle_core::{DType, Result, Tensor};

use super::epilogue::{Ended, Epilogue};
use super::norm::add_parts;
use super::product::{Product, Side};
use super::{Argument, Gpu, Grid, Source, suffix};
use crate::buffers::Target;
use crate::kernels::activation::Activation;
use crate::kernels::linear::{InputGradient, Map, MapGradient};

/// Threads of a pass over all numbers, and the most blocks of it.
const PASS_THREADS: u32 = 256;
const MOST_BLOCKS: usize = 4096;
/// Rows whose column sums are one part.
const ROWS_PER_PART: usize = 128;

fn number(activation: Activation) -> Argument {
    Argument::Int(match activation {
        Activation::Gelu => 1,
        Activation::Relu => 2,
    })
}

fn pass(count: usize) -> Grid {
    let per_block = PASS_THREADS as usize * 8;
    Grid {
        threads: PASS_THREADS,
        ..Grid::of(count.div_ceil(per_block).min(MOST_BLOCKS))
    }
}

/// Who adds biases and sums their gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// The products, where they can.
    Products,
    /// Passes of our own: what tests and measurements compare with.
    #[cfg(test)]
    Passes,
}

/// As `linear::forward_activated`: x [N, I] → y [N, O] before and after the activation, if any.
pub(in crate::kernels) fn linear_forward(
    x: &Tensor,
    map: Map<'_>,
    activation: Option<Activation>,
) -> Result<(Tensor, Option<Tensor>)> {
    forward_by(By::Products, x, map, activation)
}

fn forward_by(
    by: By,
    x: &Tensor,
    map: Map<'_>,
    activation: Option<Activation>,
) -> Result<(Tensor, Option<Tensor>)> {
    let (gpu, n, outer) = (Gpu::of(x)?, x.dim(0)?, map.weight.dim(0)?);
    let y = gpu.fresh((n, outer), x.dtype())?;
    let weight = map.weight.to_dtype(x.dtype())?;
    let product = Product {
        left: Side::as_it_lies(x),
        right: Side::turned(&weight),
        to: &y,
        add: false,
    };
    let has_bias = by == By::Products && {
        let ended = Ended {
            product,
            epilogue: Epilogue::Bias,
            vector: &map.bias.to_dtype(x.dtype())?,
        };
        ended.run(&gpu)?
    };
    if !has_bias {
        product.run(&gpu)?;
    }
    let activated = activation
        .map(|_| gpu.fresh((n, outer), x.dtype()))
        .transpose()?;
    if has_bias && activated.is_none() {
        return Ok((y, None));
    }
    let arguments = [
        gpu.at(&y)?,
        gpu.at_some((!has_bias).then_some(map.bias))?,
        gpu.at_some(activated.as_ref())?,
        activation.map_or(Argument::Int(0), number),
        Argument::word(n * outer),
        Argument::int(outer),
    ];
    let name = format!("bias_activation_{}", suffix(x)?);
    gpu.launch(Source::Activation, &name, pass(n * outer), &arguments)?;
    Ok((y, activated))
}

/// As `linear::backward`.
pub(in crate::kernels) fn linear_backward(
    x: &Tensor,
    maps: &[MapGradient<'_>],
    to: InputGradient<'_>,
) -> Result<Tensor> {
    backward_by(By::Products, x, maps, to)
}

fn backward_by(
    by: By,
    x: &Tensor,
    maps: &[MapGradient<'_>],
    to: InputGradient<'_>,
) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let (dx, mut add) = match to {
        InputGradient::Onto(dx) => (dx.clone(), true),
        InputGradient::New => (gpu.fresh(x.shape(), x.dtype())?, false),
    };
    for map in maps {
        let dy = map.dy.tensor()?;
        parameter_gradients(&gpu, by, (x, dy), [map.dweight, map.dbias])?;
        let weight = map.weight.to_dtype(x.dtype())?;
        let product = Product {
            left: Side::as_it_lies(dy),
            right: Side::as_it_lies(&weight),
            to: &dx,
            add,
        };
        product.run(&gpu)?;
        add = true;
    }
    Ok(dx)
}

/// dyᵀ x, and the column sums of dy.
fn parameter_gradients(
    gpu: &Gpu,
    by: By,
    (x, dy): (&Tensor, &Tensor),
    [dweight, dbias]: [&Target; 2],
) -> Result<()> {
    let product = Product {
        left: Side::turned(dy),
        right: Side::as_it_lies(x),
        to: &dweight.tensor,
        add: dweight.add,
    };
    if by == By::Products {
        // An epilogue adds to nothing.
        let sums = match dbias.add {
            true => gpu.fresh(dbias.tensor.dims(), DType::F32)?,
            false => dbias.tensor.clone(),
        };
        let ended = Ended {
            product,
            epilogue: Epilogue::Sums,
            vector: &sums,
        };
        if ended.run(gpu)? {
            let width = sums.elem_count();
            return match dbias.add {
                true => add_parts(gpu, &sums.reshape((1, width))?, width, dbias, None),
                false => Ok(()),
            };
        }
    }
    bias_gradient(gpu, dy, dbias)?;
    product.run(gpu)
}

/// dy *= the slope at `pre`.
pub(in crate::kernels) fn activation_backward(
    activation: Activation,
    pre: &Tensor,
    dy: &Tensor,
) -> Result<()> {
    let (gpu, count) = (Gpu::of(dy)?, dy.elem_count());
    let (kind, count_word) = (number(activation), Argument::word(count));
    let arguments = [gpu.at(pre)?, gpu.at(dy)?, kind, count_word];
    let name = format!("activation_backward_{}", suffix(dy)?);
    gpu.launch(Source::Activation, &name, pass(count), &arguments)
}

fn bias_gradient(gpu: &Gpu, dy: &Tensor, dbias: &Target) -> Result<()> {
    let (n, width) = dy.dims2()?;
    let num_parts = n.div_ceil(ROWS_PER_PART);
    let parts = gpu.fresh((num_parts, width), DType::F32)?;
    let grid = Grid {
        blocks: (width.div_ceil(32), num_parts),
        threads: 256,
        shared: 0,
    };
    let arguments = [
        gpu.at(dy)?,
        gpu.at(&parts)?,
        Argument::word(n),
        Argument::int(width),
        Argument::int(ROWS_PER_PART),
    ];
    let name = format!("column_parts_{}", suffix(dy)?);
    gpu.launch(Source::Reduce, &name, grid, &arguments)?;
    add_parts(gpu, &parts, width, dbias, None)
}

#[cfg(test)]
mod tests;
