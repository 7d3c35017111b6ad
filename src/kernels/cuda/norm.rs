//! LayerNorm with what is fused into it, and the gradient of a table of embeddings.

use candle_core::{DType, Result, Tensor};

use super::{Argument, Gpu, Grid, Source, suffix};
use crate::buffers::Target;
use crate::kernels::dropout::Dropout;
use crate::kernels::embedding::{Order, Tables};
use crate::kernels::layer_norm::Norm;
use crate::kernels::lists::Numbers;

/// Rows of a block forward: a warp each.
const ROWS: usize = 4;
/// Rows whose sums for weight and bias are one part.
const ROWS_PER_PART: usize = 64;
/// Tokens of one id that a block sums.
const PIECE: u32 = 128;

/// Numbers that a row of `width` takes in shared memory, as `rows.cuh` has it.
fn placed(width: usize) -> usize {
    width.next_multiple_of(256)
}

/// As `layer_norm::forward`; x [N, D] becomes x̂. Returns y and 1/σ.
pub(in crate::kernels) fn layer_norm_forward(
    norm: Norm<'_>,
    x: &Tensor,
    residual: Option<&Tensor>,
    dropout: Option<&Dropout>,
) -> Result<(Tensor, Tensor)> {
    let (gpu, (n, width)) = (Gpu::of(x)?, x.dims2()?);
    let (y, inverse) = (gpu.fresh((n, width), x.dtype())?, gpu.fresh(n, DType::F32)?);
    let grid = Grid {
        shared: ROWS * placed(width) * 4,
        ..Grid::of(n.div_ceil(ROWS))
    };
    let arguments = [
        gpu.at(x)?,
        gpu.at_some(residual)?,
        gpu.at(norm.weight)?,
        gpu.at(norm.bias)?,
        Argument::Float(norm.eps as f32),
        gpu.at(&y)?,
        gpu.at(&inverse)?,
        dropout.into(),
        Argument::word(n),
        Argument::int(width),
    ];
    let name = format!("layer_norm_forward_{}", suffix(x)?);
    gpu.launch(Source::LayerNorm, &name, grid, &arguments)?;
    Ok((y, inverse))
}

/// As `layer_norm::backward`; dy becomes the residual's gradient. Returns that of x, if x was
/// dropped.
pub(in crate::kernels) fn layer_norm_backward(
    weight: &Tensor,
    (normalized, inverse): (&Tensor, &Tensor),
    dy: &Tensor,
    dropout: Option<&Dropout>,
    [dweight, dbias]: [&Target; 2],
) -> Result<Option<Tensor>> {
    let (gpu, (n, width)) = (Gpu::of(dy)?, dy.dims2()?);
    let dropped = dropout
        .map(|_| gpu.fresh((n, width), dy.dtype()))
        .transpose()?;
    let num_parts = n.div_ceil(ROWS_PER_PART);
    let parts = gpu.fresh((num_parts, 2 * width), DType::F32)?;
    let grid = Grid {
        shared: 2 * ROWS * placed(width) * 4,
        ..Grid::of(num_parts)
    };
    let arguments = [
        gpu.at(dy)?,
        gpu.at(normalized)?,
        gpu.at(inverse)?,
        gpu.at(weight)?,
        gpu.at_some(dropped.as_ref())?,
        gpu.at(&parts)?,
        dropout.into(),
        Argument::word(n),
        Argument::int(width),
        Argument::int(ROWS_PER_PART),
    ];
    let name = format!("layer_norm_backward_{}", suffix(dy)?);
    gpu.launch(Source::LayerNorm, &name, grid, &arguments)?;
    add_parts(&gpu, &parts, width, dweight, Some(dbias))?;
    Ok(dropped)
}

/// The column sums of `parts`, in order: the first `split` to `left`, the others to `right`.
pub(super) fn add_parts(
    gpu: &Gpu,
    parts: &Tensor,
    split: usize,
    left: &Target,
    right: Option<&Target>,
) -> Result<()> {
    let (count, width) = parts.dims2()?;
    let grid = Grid {
        threads: 256,
        ..Grid::of(width.div_ceil(32))
    };
    let arguments = [
        gpu.at(parts)?,
        Argument::word(count),
        Argument::int(width),
        Argument::int(split),
        gpu.at(&left.tensor)?,
        gpu.at_some(right.map(|right| &right.tensor))?,
        Argument::Int(left.add.into()),
        Argument::Int(right.is_some_and(|right| right.add).into()),
    ];
    gpu.launch(Source::Reduce, "add_parts", grid, &arguments)
}

/// LayerNorm of the sums of word and type rows, then dropout: x̂, y (both of type `dtype`), 1/σ.
pub(in crate::kernels) fn embed(
    tables: Tables<'_>,
    norm: Norm<'_>,
    dropout: Option<&Dropout>,
    dtype: DType,
) -> Result<[Tensor; 3]> {
    let (gpu, n, width) = (Gpu::of(tables.word)?, tables.ids.len(), tables.word.dim(1)?);
    let normalized = gpu.fresh((n, width), dtype)?;
    let (y, inverse) = (gpu.fresh((n, width), dtype)?, gpu.fresh(n, DType::F32)?);
    let (ids, type_ids) = (gpu.lend(tables.ids)?, gpu.lend(tables.type_ids)?);
    let grid = Grid {
        shared: ROWS * placed(width) * 4,
        ..Grid::of(n.div_ceil(ROWS))
    };
    let arguments = [
        gpu.at(tables.word)?,
        gpu.at(tables.types)?,
        ids.at(),
        type_ids.at(),
        gpu.at(norm.weight)?,
        gpu.at(norm.bias)?,
        Argument::Float(norm.eps as f32),
        gpu.at(&normalized)?,
        gpu.at(&y)?,
        gpu.at(&inverse)?,
        dropout.into(),
        Argument::word(n),
        Argument::int(width),
    ];
    let name = format!("embedding_forward_{}", suffix(&y)?);
    gpu.launch(Source::Embedding, &name, grid, &arguments)?;
    Ok([normalized, y, inverse])
}

/// The rows of dx [T, D] summed by runs of `order`, as `cut`: values [R, D] in f32.
pub(in crate::kernels) fn scatter_embedding(
    dx: &Tensor,
    order: &Order,
    cut: &Cut,
) -> Result<Tensor> {
    let (gpu, width) = (Gpu::of(dx)?, dx.dim(1)?);
    let values = gpu.fresh((order.rows.len(), width), DType::F32)?;
    let parts = gpu.fresh((cut.num_parts, width), DType::F32)?;
    let (tokens, pieces) = (gpu.lend(&order.tokens)?, gpu.lend(&cut.pieces)?);
    let arguments = [
        gpu.at(dx)?,
        tokens.at(),
        pieces.at(),
        gpu.at(&values)?,
        gpu.at(&parts)?,
        Argument::int(width),
    ];
    let name = format!("embedding_scatter_{}", suffix(dx)?);
    let grid = Grid::of(cut.pieces.len() / 4);
    gpu.launch(Source::Embedding, &name, grid, &arguments)?;
    if !cut.runs.is_empty() {
        let (parts, runs) = (gpu.at(&parts)?, gpu.lend(&cut.runs)?);
        let arguments = [parts, runs.at(), gpu.at(&values)?, Argument::int(width)];
        let grid = Grid::of(cut.runs.len() / 3);
        gpu.launch(Source::Embedding, "embedding_join", grid, &arguments)?;
    }
    Ok(values)
}

/// Runs of equal ids, cut into pieces of at most [`PIECE`] tokens: the tables that
/// `embedding.cu` reads, number by number.
#[derive(Debug, Clone)]
pub(in crate::kernels) struct Cut {
    /// First, count, row, whether it is one of several: 4 numbers each.
    pub(in crate::kernels) pieces: Numbers,
    /// First part, number of parts, row: 3 numbers for each run of several pieces.
    pub(in crate::kernels) runs: Numbers,
    num_parts: usize,
}

impl Cut {
    /// The pieces of runs that end at `ends`, one for each row.
    pub(in crate::kernels) fn new(ends: &[u32]) -> Self {
        let (mut pieces, mut runs, mut num_parts, mut first) = (Vec::new(), Vec::new(), 0, 0);
        for (row, &end) in (0..).zip(ends) {
            let length = end - first;
            let several = length > PIECE;
            if several {
                runs.extend([num_parts, length.div_ceil(PIECE), row]);
            }
            for start in (first..end).step_by(PIECE as usize) {
                let to = if several { num_parts } else { row };
                pieces.extend([start, PIECE.min(end - start), to, several.into()]);
                num_parts += u32::from(several);
            }
            first = end;
        }
        Self {
            pieces: pieces.into(),
            runs: runs.into(),
            num_parts: num_parts as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_are_cut_and_short_ones_go_straight_to_their_row() {
        let end = 2 * PIECE;
        let cut = Cut::new(&[2, 3 + end, 4 + end]);
        let pieces = [
            [0, 2, 0, 0],
            [2, PIECE, 0, 1],
            [2 + PIECE, PIECE, 1, 1],
            [2 + end, 1, 2, 1],
            [3 + end, 1, 2, 0],
        ];
        assert_eq!((&*cut.pieces, cut.num_parts), (pieces.as_flattened(), 3));
        assert_eq!(&*cut.runs, &[0, 3, 1]);
        let none = Cut::new(&[]);
        assert!(none.pieces.is_empty() && none.runs.is_empty() && none.num_parts == 0);
    }
}
