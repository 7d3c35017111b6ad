//! Attention: on tensor cores for bf16 and f16 heads of 32, 64, 96 and 128, else row by row.

use std::sync::Mutex;

use candle_core::{DType, Result, Tensor, bail};

use super::{Argument, Gpu, Grid, HeadsArgument, PackedArgument, Source, THREADS, suffix};
use crate::kernels::attention::{Saved, Settings};

/// Queries (or keys) of a block on tensor cores.
const TILE: usize = 64;
/// Numbers between rows of a tile in shared memory, beside those of the row.
const PADDING: usize = 8;
/// Rows of a block otherwise.
const ROWS: usize = 4;
/// The widest head there is a kernel for.
const WIDEST: usize = 256;

/// Which kernels, and what all of them are given.
struct Plan {
    gpu: Gpu,
    source: Source,
    suffix: String,
    blocks: (usize, usize),
    /// What the layout arguments read.
    table: Tensor,
    layout: [Argument; 2],
    has_tiles: bool,
    head_width: usize,
    num_bytes: usize,
}

impl Plan {
    fn new(settings: Settings<'_>, q: &Tensor) -> Result<Self> {
        let (gpu, (num_tokens, width)) = (Gpu::of(q)?, q.dims2()?);
        let (num_heads, head_width) = (settings.num_heads, width / settings.num_heads);
        if head_width > WIDEST {
            bail!("attention: heads of {head_width} numbers; the kernels take up to {WIDEST}");
        }
        let scale = 1.0 / (head_width as f32).sqrt();
        let has_tiles = q.dtype() != DType::F32 && matches!(head_width, 32 | 64 | 96 | 128);
        let kind = suffix(q)?;
        let (source, suffix, num_blocks, table, layout) = if has_tiles {
            let heads = Argument::Heads(HeadsArgument {
                num_tokens: num_tokens as u64,
                num_heads: num_heads as i32,
                scale,
            });
            let table = tile_table(&gpu, settings.cu_seqlens)?;
            let layout = [gpu.at(&table)?, heads];
            let suffix = format!("{kind}_{head_width}");
            let num_tiles = table.elem_count() / 3;
            (Source::Attention, suffix, num_tiles, table, layout)
        } else {
            let table = gpu.upload(settings.cu_seqlens)?;
            let packed = Argument::Packed(PackedArgument {
                cells: gpu.address(&table)?,
                num_cells: settings.cu_seqlens.len() as u32 - 1,
                num_tokens: num_tokens as u64,
                num_heads: num_heads as i32,
                head_width: head_width as i32,
                scale,
            });
            let (suffix, blocks) = (format!("{kind}_any"), num_tokens.div_ceil(ROWS));
            (Source::AttentionAny, suffix, blocks, table, [packed; 2])
        };
        Ok(Self {
            gpu,
            source,
            suffix,
            blocks: (num_blocks, num_heads),
            table,
            layout,
            has_tiles,
            head_width,
            num_bytes: q.dtype().size_in_bytes(),
        })
    }

    /// Runs `what` with shared memory for so many tiles.
    fn launch(
        &self,
        what: &str,
        num_tiles: usize,
        tensors: &[&Tensor],
        settings: Settings<'_>,
    ) -> Result<()> {
        let shared = match self.has_tiles {
            true => num_tiles * TILE * (self.head_width + PADDING) * self.num_bytes,
            false => 2 * ROWS * self.head_width * 4,
        };
        let grid = Grid {
            blocks: self.blocks,
            threads: THREADS,
            shared,
        };
        let addresses = tensors.iter().map(|tensor| self.gpu.at(tensor));
        let mut arguments: Vec<Argument> = addresses.collect::<Result<_>>()?;
        let layout = if self.has_tiles { 2 } else { 1 };
        arguments.extend(&self.layout[..layout]);
        arguments.push(settings.dropout.into());
        let name = format!("attention_{what}_{}", self.suffix);
        self.gpu.launch(self.source, &name, grid, &arguments)
    }
}

/// As `attention::forward`: the context and the log-sums [H · T].
pub(in crate::kernels) fn attention_forward(
    settings: Settings<'_>,
    [q, k, v]: [&Tensor; 3],
) -> Result<(Tensor, Tensor)> {
    let plan = Plan::new(settings, q)?;
    let context = plan.gpu.fresh(q.shape(), q.dtype())?;
    let num_sums = q.dim(0)? * settings.num_heads;
    let log_sums = plan.gpu.fresh(num_sums, DType::F32)?;
    plan.launch("forward", 5, &[q, k, v, &context, &log_sums], settings)?;
    Ok((context, log_sums))
}

/// As `attention::backward`: the gradients of q, k and v.
pub(in crate::kernels) fn attention_backward(
    settings: Settings<'_>,
    saved: Saved<'_>,
    dcontext: &Tensor,
) -> Result<[Tensor; 3]> {
    let Saved { q, k, v, .. } = saved;
    let plan = Plan::new(settings, q)?;
    let gpu = &plan.gpu;
    let deltas = gpu.fresh(saved.log_sums.shape(), DType::F32)?;
    let num_tokens = q.dim(0)?;
    let grid = Grid {
        blocks: (num_tokens.div_ceil(ROWS), settings.num_heads),
        ..Grid::of(0)
    };
    let arguments = [
        gpu.at(saved.context)?,
        gpu.at(dcontext)?,
        gpu.at(&deltas)?,
        Argument::word(num_tokens),
        Argument::int(settings.num_heads),
        Argument::int(plan.head_width),
    ];
    let name = format!("attention_delta_{}", suffix(q)?);
    gpu.launch(Source::AttentionAny, &name, grid, &arguments)?;
    let fresh = || gpu.fresh(q.shape(), q.dtype());
    let (dq, dk, dv) = (fresh()?, fresh()?, fresh()?);
    let given = [q, k, v, dcontext, saved.log_sums, &deltas];
    let keys: Vec<&Tensor> = given.into_iter().chain([&dk, &dv]).collect();
    plan.launch("keys", 6, &keys, settings)?;
    let queries: Vec<&Tensor> = given.into_iter().chain([&dq]).collect();
    plan.launch("queries", 6, &queries, settings)?;
    drop(plan.table);
    Ok([dq, dk, dv])
}

/// [`tiles`] on the device. All blocks of a model ask for the same, so the last one is kept.
fn tile_table(gpu: &Gpu, cu_seqlens: &[u32]) -> Result<Tensor> {
    static LAST: Mutex<Option<(Vec<u32>, Tensor)>> = Mutex::new(None);
    let Ok(mut last) = LAST.lock() else {
        bail!("a thread failed while it made a table of tiles");
    };
    let is_same = |(starts, table): &&(Vec<u32>, Tensor)| {
        starts == cu_seqlens && table.device().same_device(&gpu.device)
    };
    if let Some((_, table)) = last.as_ref().filter(is_same) {
        return Ok(table.clone());
    }
    let table = gpu.upload(&tiles(cu_seqlens))?;
    *last = Some((cu_seqlens.to_vec(), table.clone()));
    Ok(table)
}

/// Start, length and first row of every tile of every cell, 3 numbers each, the longest cells first,
/// so that no block begins one when the others are through.
fn tiles(cu_seqlens: &[u32]) -> Vec<u32> {
    let cells = cu_seqlens.windows(2).map(|w| (w[0], w[1] - w[0]));
    let mut cells: Vec<(u32, u32)> = cells.collect();
    cells.sort_by_key(|(_, length)| std::cmp::Reverse(*length));
    let of_cell = |(start, length): (u32, u32)| {
        let firsts = (0..length).step_by(TILE);
        firsts.flat_map(move |first| [start, length, first])
    };
    cells.into_iter().flat_map(of_cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_cell_longest_first() {
        let expected = [
            [5, 130, 0],
            [5, 130, 64],
            [5, 130, 128],
            [0, 3, 0],
            [3, 2, 0],
        ];
        assert_eq!(tiles(&[0, 3, 3, 5, 135]), expected.concat());
        assert!(tiles(&[0]).is_empty());
    }
}
