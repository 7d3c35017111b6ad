//! Softmax cross entropy.

use candle_core::{DType, Result, Tensor};

use super::{Argument, Gpu, Grid, Source, suffix};

/// The loss of logits [N, V] summed over rows; the logits become the gradient if `write_gradient`.
/// `shares`: 1 − ε, ε / V, ε, and ε / V · Σ w where what is spread weighs by class, else −1.
pub(in crate::kernels) fn cross_entropy(
    logits: &Tensor,
    labels: &[u32],
    weights: Option<&[f32]>,
    shares: [f32; 4],
    write_gradient: bool,
) -> Result<f64> {
    let (gpu, (n, width)) = (Gpu::of(logits)?, logits.dims2()?);
    if n == 0 {
        return Ok(0.0);
    }
    let labels = gpu.upload(labels)?;
    let weights = weights.map(|weights| Tensor::from_slice(weights, width, &gpu.device));
    let weights = weights.transpose()?;
    let losses = gpu.fresh(n, DType::F64)?;
    let arguments = [
        gpu.at(logits)?,
        gpu.at(&labels)?,
        gpu.at_some(weights.as_ref())?,
        Argument::Floats4(shares),
        gpu.at(&losses)?,
        Argument::Int(write_gradient.into()),
        Argument::int(width),
    ];
    let name = format!("cross_entropy_{}", suffix(logits)?);
    gpu.launch(Source::CrossEntropy, &name, Grid::of(n), &arguments)?;
    sum_of_parts(&gpu, &losses)
}

/// The sum of some f64, in a fixed order. Waits for the device.
fn sum_of_parts(gpu: &Gpu, parts: &Tensor) -> Result<f64> {
    let sum = gpu.fresh(1, DType::F64)?;
    let grid = Grid {
        threads: 256,
        ..Grid::of(1)
    };
    let count = Argument::word(parts.elem_count());
    let arguments = [gpu.at(parts)?, count, gpu.at(&sum)?];
    gpu.launch(Source::Reduce, "sum_parts", grid, &arguments)?;
    Ok(sum.to_vec1::<f64>()?.into_iter().sum())
}
