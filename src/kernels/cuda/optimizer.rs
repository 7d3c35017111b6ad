//! AdamW over all parameters in one launch, and the norm of all gradients in two.

use candle_core::{DType, Result, Tensor};

use super::{Argument, Gpu, Grid, Source};
use crate::kernels::adamw::{Gradient, Moved, Update};

/// Numbers of a block, as the kernels have it.
const CHUNK: usize = 16384;

/// As `adamw::step`: all of `parameters` have the same numbers but for the decay.
pub(in crate::kernels) fn adamw(parameters: &[Moved<'_>]) -> Result<()> {
    let Some(one) = parameters.first() else {
        return Ok(());
    };
    let gpu = Gpu::of(one.weights)?;
    // Eight words each, as `adamw.cu` has an entry.
    let (mut entries, mut num_chunks, mut kept) = (Vec::new(), 0, Vec::new());
    for moved in parameters {
        let (count, width) = (moved.weights.elem_count(), last_dim(moved.weights));
        let (gradient, slots) = match moved.gradient {
            Gradient::Dense(values) => (values, 0),
            Gradient::Rows { rows, values, .. } => {
                let slots = slots(&gpu, rows, count / width)?;
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
    let u = Update::new(one.settings);
    let numbers = [u.rate, u.beta1, u.beta2, u.inverse_root, u.eps, u.scale];
    let count = Argument::Index(parameters.len() as u32);
    let arguments = [gpu.at(&table)?, count, Argument::Floats6(numbers)];
    gpu.launch(Source::AdamW, "adamw", grid, &arguments)
}

/// For each of `height` rows which of `rows` it is, or −1.
fn slots(gpu: &Gpu, rows: &[u32], height: usize) -> Result<Tensor> {
    let none = vec![u32::MAX; height];
    let slots = gpu.upload(&none)?;
    let rows_there = gpu.upload(rows)?;
    let count = Argument::Index(rows.len() as u32);
    let arguments = [gpu.at(&rows_there)?, count, gpu.at(&slots)?];
    let grid = Grid::of(rows.len().div_ceil(super::THREADS as usize));
    gpu.launch(Source::AdamW, "fill_slots", grid, &arguments)?;
    Ok(slots)
}

fn last_dim(tensor: &Tensor) -> usize {
    tensor.dims().last().copied().unwrap_or(1).max(1)
}

/// The sum of the squares of the numbers of each tensor. Waits for the device.
pub(in crate::kernels) fn sums_of_squares(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    let counts = tensors
        .iter()
        .map(|tensor| tensor.elem_count().div_ceil(CHUNK));
    let counts: Vec<usize> = counts.collect();
    let num_chunks = counts.iter().sum();
    let filled = || tensors.iter().zip(&counts).filter(|(_, count)| **count > 0);
    let Some((first, _)) = filled().next() else {
        return Ok(vec![0.0; tensors.len()]);
    };
    let gpu = Gpu::of(first)?;
    let (mut spans, mut chunk) = (Vec::new(), 0);
    for (tensor, count) in filled() {
        spans.extend([
            gpu.address(tensor)?,
            tensor.elem_count() as u64,
            chunk as u64,
        ]);
        chunk += count;
    }
    let parts = gpu.fresh(num_chunks, DType::F64)?;
    let table = gpu.upload_words(&spans)?;
    let grid = Grid {
        threads: 256,
        ..Grid::of(num_chunks)
    };
    let count = Argument::Index((spans.len() / 3) as u32);
    let arguments = [gpu.at(&table)?, count, gpu.at(&parts)?];
    gpu.launch(Source::Reduce, "square_parts", grid, &arguments)?;
    let parts = parts.to_vec1::<f64>()?;
    let mut parts = parts.into_iter();
    Ok(counts
        .iter()
        .map(|count| parts.by_ref().take(*count).sum())
        .collect())
}
