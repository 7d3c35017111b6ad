//! The sum of squares of a gradient, for the global norm: fixed chunks, added in order in f64.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::profile::span;
use super::simd::{dot, vectorized};
use crate::buffers::read;

const CHUNK: usize = 16 * 1024;

/// The sum of the squares of all elements.
///
/// # Errors
/// The tensor is not a contiguous f32 tensor on the CPU.
pub fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    let _span = span("gradient norm", 0);
    let values = read::<f32>(tensor)?;
    let sums = values
        .par_chunks(CHUNK)
        .map(|chunk| f64::from(squares(chunk)));
    Ok(sums.collect::<Vec<f64>>().iter().sum())
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
            let found = sum_of_squares(&x).unwrap();
            assert!((found - expected).abs() <= 1e-6 * expected.max(1.0));
            same_for_any_threads(|| {
                let sum = sum_of_squares(&x).unwrap();
                vec![crate::buffers::from_vec(vec![sum as f32], 1).unwrap()]
            });
        }
    }
}
