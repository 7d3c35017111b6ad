//! Rows picked and put back, and dropout by itself.

use candle_core::{Result, Tensor};

use super::{Argument, Gpu, Grid, Source, suffix};
use crate::kernels::dropout::Dropout;
use crate::kernels::lists::Numbers;

/// The rows at `positions` of x [T, D] → [N, D].
pub(in crate::kernels) fn gather(x: &Tensor, positions: &Numbers) -> Result<Tensor> {
    let (gpu, width) = (Gpu::of(x)?, x.dim(1)?);
    let y = gpu.fresh((positions.len(), width), x.dtype())?;
    move_rows("gather", &gpu, x, positions, &y)?;
    Ok(y)
}

/// The rows of dy [N, D] at their `positions` of a matrix [height, D] of zeros; none stands twice.
pub(in crate::kernels) fn scatter(
    dy: &Tensor,
    positions: &Numbers,
    height: usize,
) -> Result<Tensor> {
    let (gpu, width) = (Gpu::of(dy)?, dy.dim(1)?);
    let dx = Tensor::zeros((height, width), dy.dtype(), &gpu.device)?;
    move_rows("scatter", &gpu, dy, positions, &dx)?;
    Ok(dx)
}

/// As `rows::add_rows`.
pub(in crate::kernels) fn add_rows(table: &Tensor, rows: &Numbers, values: &Tensor) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let (gpu, width) = (Gpu::of(table)?, Argument::int(table.dim(1)?));
    let positions = gpu.lend(rows)?;
    let arguments = [gpu.at(values)?, positions.at(), gpu.at(table)?, width];
    gpu.launch(Source::Gather, "add_rows", Grid::of(rows.len()), &arguments)
}

fn move_rows(what: &str, gpu: &Gpu, from: &Tensor, rows: &Numbers, to: &Tensor) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let (positions, width) = (gpu.lend(rows)?, Argument::int(to.dim(1)?));
    let arguments = [gpu.at(from)?, positions.at(), gpu.at(to)?, width];
    let name = format!("{what}_{}", suffix(to)?);
    gpu.launch(Source::Gather, &name, Grid::of(rows.len()), &arguments)
}

/// Dropout of x [N, D] in place.
pub(in crate::kernels) fn apply_dropout(x: &Tensor, dropout: &Dropout) -> Result<()> {
    let (gpu, (n, width)) = (Gpu::of(x)?, x.dims2()?);
    let arguments = [gpu.at(x)?, Some(dropout).into(), Argument::int(width)];
    let name = format!("dropout_{}", suffix(x)?);
    gpu.launch(Source::Gather, &name, Grid::of(n), &arguments)
}
