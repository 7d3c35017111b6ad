//! Softmax cross entropy.

use candle_core::{DType, Device, Result, Tensor};

use super::{Argument, Gpu, Grid, Source, suffix};
use crate::buffers::Number;
use crate::kernels::lists::Numbers;

/// The loss of logits [N, V] summed over rows; the logits become the gradient where there is a
/// `scale`: times its first number, if it has one. `shares`: 1 − ε, ε / V, ε, and ε / V · Σ w where
/// what is spread weighs by class, else −1.
pub(in crate::kernels) fn cross_entropy(
    logits: &Tensor,
    labels: &Numbers,
    weights: Option<&[f32]>,
    shares: [f32; 4],
    scale: Option<Option<&Tensor>>,
) -> Result<Number> {
    let (gpu, (n, width)) = (Gpu::of(logits)?, logits.dims2()?);
    if n == 0 {
        return Ok(Number::Here(0.0));
    }
    let labels = gpu.lend(labels)?;
    let weights = weights
        .map(|weights| gpu.upload_floats(weights))
        .transpose()?;
    let losses = gpu.fresh(n, DType::F64)?;
    let arguments = [
        gpu.at(logits)?,
        labels.at(),
        gpu.at_some(weights.as_ref())?,
        Argument::Floats4(shares),
        gpu.at_some(scale.flatten())?,
        gpu.at(&losses)?,
        Argument::Int(scale.is_some().into()),
        Argument::int(width),
    ];
    let name = format!("cross_entropy_{}", suffix(logits)?);
    gpu.launch(Source::CrossEntropy, &name, Grid::of(n), &arguments)?;
    Ok(Number::There(sum_of(&gpu, &losses)?))
}

/// As `cross_entropy::sum_of_losses`.
pub(in crate::kernels) fn sum_of_losses(losses: &[Number], device: &Device) -> Result<Tensor> {
    match losses.is_empty() {
        true => Tensor::zeros(1, DType::F64, device),
        false => sum_of(
            &Gpu::new(device)?,
            &Tensor::cat(&on_device(losses, device)?, 0)?,
        ),
    }
}

/// Each of `losses` as one f64 of the device.
pub(super) fn on_device(losses: &[Number], device: &Device) -> Result<Vec<Tensor>> {
    let losses = losses.iter().map(|loss| match loss {
        Number::There(tensor) => Ok(tensor.clone()),
        Number::Here(number) => Tensor::new(&[*number], device),
    });
    losses.collect()
}

/// The sum of some f64, as one.
fn sum_of(gpu: &Gpu, numbers: &Tensor) -> Result<Tensor> {
    let sum = gpu.fresh(1, DType::F64)?;
    let grid = Grid {
        threads: 256,
        ..Grid::of(1)
    };
    let count = Argument::word(numbers.elem_count());
    let arguments = [gpu.at(numbers)?, count, gpu.at(&sum)?];
    gpu.launch(Source::Reduce, "sum_parts", grid, &arguments)?;
    Ok(sum)
}
