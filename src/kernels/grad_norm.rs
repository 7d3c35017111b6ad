//! The sum of squares of a gradient, for the global norm: fixed chunks, added in order in f64.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::profile::span;
use super::simd::{dot, vectorized};
use crate::buffers::read;

const CHUNK: usize = 16 * 1024;

/// The sum of the squares of all elements of each tensor.
///
/// # Errors
/// One is not a contiguous f32 tensor on the CPU.
pub fn sums_of_squares(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    let _span = span("gradient norm", 0);
    #[cfg(feature = "cuda")]
    if tensors.iter().any(|tensor| tensor.device().is_cuda()) {
        return super::cuda::sums_of_squares(tensors);
    }
    let values: Vec<_> =
        (tensors.iter().map(|tensor| read::<f32>(tensor))).collect::<Result<_>>()?;
    let chunks: Vec<(usize, &[f32])> = (values.iter().enumerate())
        .flat_map(|(tensor, values)| values.chunks(CHUNK).map(move |chunk| (tensor, chunk)))
        .collect();
    let found: Vec<f32> = chunks.par_iter().map(|(_, chunk)| squares(chunk)).collect();
    let mut sums = vec![0.0; tensors.len()];
    for ((tensor, _), found) in chunks.iter().zip(found) {
        sums[*tensor] += f64::from(found);
    }
    Ok(sums)
}

vectorized! {
    fn squares(x: &[f32]) -> f32 {
        dot(x, x)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kernels::testing::{Random, same_for_any_threads, wide};

    #[test]
    fn agrees_with_the_reference_on_any_number_of_threads() {
        for count in [0, 1, 33, 100_001] {
            let x = Random::new(count as u64).tensor(&[count]);
            let expected: f64 = wide(&x).iter().map(|x| x * x).sum();
            let found = sums_of_squares(&[&x]).unwrap()[0];
            assert!((found - expected).abs() <= 1e-6 * expected.max(1.0));
            same_for_any_threads(|| {
                let sum = sums_of_squares(&[&x]).unwrap()[0];
                vec![crate::buffers::from_vec(vec![sum as f32], 1).unwrap()]
            });
        }
    }
}
