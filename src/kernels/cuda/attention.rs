//! Attention: on tensor cores for bf16 and f16 heads of 32, 64, 96 and 128, else row by row.

use candle_core::{DType, Result, Tensor, bail};

use super::sent::Lent;
use super::tiles::{Pass, Set, tiles};
use super::{Argument, Gpu, Grid, HeadsArgument, PackedArgument, Source, suffix};
use crate::kernels::attention::{Saved, Settings};

/// Rows of a block that goes row by row.
const ROWS: usize = 4;
/// The widest head there is a kernel for.
const WIDEST: usize = 256;

/// Which kernels, and what all of them are given.
struct Plan {
    gpu: Gpu,
    /// On tensor cores.
    set: Option<Set>,
    suffix: String,
    num_heads: usize,
    head_width: usize,
    /// Entries of the table, or blocks.
    num_blocks: usize,
    /// What the layout arguments read.
    table: Lent,
    layout: [Argument; 2],
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
        let set = has_tiles.then(|| Set::of(&gpu)).transpose()?;
        let kind = suffix(q)?;
        let (suffix, num_blocks, table, layout) = if set.is_some() {
            let heads = Argument::Heads(HeadsArgument {
                num_tokens: num_tokens as u64,
                num_heads: num_heads as i32,
                scale,
            });
            let cells = settings.cells;
            let tiles = match cells.tiles {
                Some(tiles) => tiles.clone(),
                None => tiles(cells.starts).into(),
            };
            let table = gpu.lend(&tiles)?;
            let layout = [table.at(), heads];
            let suffix = format!("{kind}_{head_width}");
            let num_tiles = tiles.len() / 3;
            (suffix, num_tiles, table, layout)
        } else {
            let starts = settings.cells.starts;
            let table = gpu.lend(starts)?;
            let packed = Argument::Packed(PackedArgument {
                cells: table.address,
                num_cells: starts.len() as u32 - 1,
                num_tokens: num_tokens as u64,
                num_heads: num_heads as i32,
                head_width: head_width as i32,
                scale,
            });
            let (suffix, blocks) = (format!("{kind}_any"), num_tokens.div_ceil(ROWS));
            (suffix, blocks, table, [packed; 2])
        };
        Ok(Self {
            gpu,
            set,
            suffix,
            num_heads,
            head_width,
            num_blocks,
            table,
            layout,
        })
    }

    fn launch(&self, pass: Pass, tensors: &[&Tensor], settings: Settings<'_>) -> Result<()> {
        let blocks = (self.num_blocks, self.num_heads);
        let (source, grid) = match self.set {
            Some(set) => (set.source(), set.grid(pass, self.head_width, blocks)),
            None => {
                let shared = 2 * ROWS * self.head_width * 4;
                let grid = Grid {
                    blocks,
                    shared,
                    ..Grid::of(0)
                };
                (Source::AttentionAny, grid)
            }
        };
        let addresses = tensors.iter().map(|tensor| self.gpu.at(tensor));
        let mut arguments: Vec<Argument> = addresses.collect::<Result<_>>()?;
        let layout = if self.set.is_some() { 2 } else { 1 };
        arguments.extend(&self.layout[..layout]);
        arguments.push(settings.dropout.into());
        let name = format!("attention_{}_{}", pass.name(), self.suffix);
        self.gpu.launch(source, &name, grid, &arguments)
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
    plan.launch(Pass::Forward, &[q, k, v, &context, &log_sums], settings)?;
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
    plan.launch(Pass::Keys, &keys, settings)?;
    let queries: Vec<&Tensor> = given.into_iter().chain([&dq]).collect();
    plan.launch(Pass::Queries, &queries, settings)?;
    drop(plan.table);
    Ok([dq, dk, dv])
}
