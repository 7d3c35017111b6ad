//! The sum of squares of a gradient, for the global norm: fixed chunks, added in order in f64.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::simd::{dot, vectorized};
use crate::buffers::read;

const CHUNK: usize = 16 * 1024;

/// The sum of the squares of all elements.
///
/// # Errors
/// The tensor is not a contiguous f32 tensor on the CPU.
pub fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    let values = read::<f32>(tensor)?;
    let sums = values
        .par_chunks(CHUNK)
        .map(|chunk| f64::from(vectorized(|| dot(chunk, chunk))));
    Ok(sums.collect::<Vec<f64>>().iter().sum())
}
