//! AdamW over all parameters in one launch, the norm of all gradients, and whether a step is taken.

use candle_core::{DType, Result, Tensor};

use super::loss::on_device;
use super::{Argument, Gpu, Grid, Source};
use crate::buffers::Number;
use crate::kernels::adamw::{Gradient, Moved, Update};
use crate::kernels::lists::Numbers;

/// Numbers of a block, as the kernels have it.
const CHUNK: usize = 16384;
/// Words of f32 that `adamw.cu` takes for a step.
const UPDATE: usize = 7;

/// As `adamw::step`: all of `parameters` have the same numbers but for the decay.
pub(in crate::kernels) fn adamw(parameters: &[Moved<'_>]) -> Result<()> {
    let Some(one) = parameters.first() else {
        return Ok(());
    };
    let gpu = Gpu::of(one.weights)?;
    let u = Update::new(one.settings);
    let numbers = [u.rate, u.beta1, u.beta2, u.inverse_root, u.eps, u.scale];
    let words: Vec<u32> = numbers.into_iter().map(f32::to_bits).chain([1]).collect();
    move_all(&gpu, parameters, &gpu.upload(&words)?)
}

/// As `adamw::guarded_step`.
pub(in crate::kernels) fn guarded_adamw(
    parameters: &[Moved<'_>],
    gradients: &[&Tensor],
    losses: &[Number],
    rule: [f64; 7],
    state: &Tensor,
) -> Result<Tensor> {
    let gpu = Gpu::of(state)?;
    let losses = on_device(losses, &gpu.device)?;
    let addresses = losses.iter().map(|loss| gpu.address(loss));
    let addresses = gpu.upload_words(&addresses.collect::<Result<Vec<u64>>>()?)?;
    let (parts, _) = square_parts(&gpu, gradients)?;
    let update = gpu.fresh(UPDATE, DType::F32)?;
    let verdict = gpu.fresh(4, DType::F64)?;
    let grid = Grid {
        threads: 256,
        ..Grid::of(1)
    };
    let arguments = [
        gpu.at(&parts)?,
        Argument::word(parts.elem_count()),
        gpu.at(&addresses)?,
        Argument::Index(losses.len() as u32),
        Argument::Rule(rule),
        gpu.at(state)?,
        gpu.at(&update)?,
        gpu.at(&verdict)?,
    ];
    gpu.launch(Source::Guard, "decide", grid, &arguments)?;
    move_all(&gpu, parameters, &update)?;
    Ok(verdict)
}

/// Moves `parameters` by the numbers that `update` will hold.
fn move_all(gpu: &Gpu, parameters: &[Moved<'_>], update: &Tensor) -> Result<()> {
    // Eight words each, as `adamw.cu` has an entry.
    let (mut entries, mut num_chunks, mut kept) = (Vec::new(), 0, Vec::new());
    for moved in parameters {
        let (count, width) = (moved.weights.elem_count(), last_dim(moved.weights));
        let (gradient, slots) = match moved.gradient {
            Gradient::Dense(values) => (values, 0),
            Gradient::Rows { rows, values, .. } => {
                let slots = slots(gpu, rows, count / width)?;
                let address = gpu.address(&slots)?;
                kept.push(slots);
                (values, address)
            }
        };
        let keep = Update::new(moved.settings).keep;
        entries.extend([
            gpu.address(moved.weights)?,
            gpu.address(moved.first)?,
            gpu.address(moved.second)?,
            gpu.address(gradient)?,
            slots,
            count as u64,
            num_chunks as u64,
            width as u64 | u64::from(keep.to_bits()) << 32,
        ]);
        num_chunks += count.div_ceil(CHUNK);
    }
    let table = gpu.upload_words(&entries)?;
    let grid = Grid {
        threads: 256,
        ..Grid::of(num_chunks)
    };
    let count = Argument::Index(parameters.len() as u32);
    let arguments = [gpu.at(&table)?, count, gpu.at(update)?];
    gpu.launch(Source::AdamW, "adamw", grid, &arguments)
}

/// For each of `height` rows which of `rows` it is, or −1.
fn slots(gpu: &Gpu, rows: &Numbers, height: usize) -> Result<Tensor> {
    let slots = gpu.fresh(height, DType::U32)?;
    let grid = |count: usize| Grid::of(count.div_ceil(super::THREADS as usize));
    let arguments = [gpu.at(&slots)?, Argument::Index(height as u32)];
    gpu.launch(Source::AdamW, "empty_slots", grid(height), &arguments)?;
    let there = gpu.lend(rows)?;
    let count = Argument::Index(rows.len() as u32);
    let arguments = [there.at(), count, gpu.at(&slots)?];
    gpu.launch(Source::AdamW, "fill_slots", grid(rows.len()), &arguments)?;
    Ok(slots)
}

fn last_dim(tensor: &Tensor) -> usize {
    tensor.dims().last().copied().unwrap_or(1).max(1)
}

/// The sum of the squares of the numbers of each tensor. Waits for the device.
pub(in crate::kernels) fn sums_of_squares(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    let Some(first) = tensors.first() else {
        return Ok(Vec::new());
    };
    let (parts, counts) = square_parts(&Gpu::of(first)?, tensors)?;
    let mut parts = parts.to_vec1::<f64>()?.into_iter();
    let sums = counts.iter().map(|count| parts.by_ref().take(*count).sum());
    Ok(sums.collect())
}

/// Sums of the squares of chunks of the tensors, in order, and how many chunks each has.
fn square_parts(gpu: &Gpu, tensors: &[&Tensor]) -> Result<(Tensor, Vec<usize>)> {
    let counts = tensors
        .iter()
        .map(|tensor| tensor.elem_count().div_ceil(CHUNK));
    let counts: Vec<usize> = counts.collect();
    let (mut spans, mut chunk) = (Vec::new(), 0);
    for (tensor, count) in tensors.iter().zip(&counts).filter(|(_, count)| **count > 0) {
        let numbers = tensor.elem_count() as u64;
        spans.extend([gpu.address(tensor)?, numbers, chunk as u64]);
        chunk += count;
    }
    let parts = gpu.fresh(chunk, DType::F64)?;
    let table = gpu.upload_words(&spans)?;
    let grid = Grid {
        threads: 256,
        ..Grid::of(chunk)
    };
    let count = Argument::Index((spans.len() / 3) as u32);
    let arguments = [gpu.at(&table)?, count, gpu.at(&parts)?];
    gpu.launch(Source::Reduce, "square_parts", grid, &arguments)?;
    Ok((parts, counts))
}
