//! The norm of all gradients together, and the clipping that follows from it.

use candle_core::{Result, Tensor};

use crate::kernels::grad_norm::sums_of_squares;
use crate::parameters::{Gradient, Gradients};

/// √ of the sum of squares over every gradient, the same for any number of threads.
///
/// # Errors
/// A gradient cannot be read.
pub fn global_norm(gradients: &Gradients) -> Result<f64> {
    Ok(sums_of_squares(&all_of(gradients))?
        .iter()
        .sum::<f64>()
        .sqrt())
}

/// The numbers of all gradients.
pub(super) fn all_of(gradients: &Gradients) -> Vec<&Tensor> {
    gradients
        .iter()
        .filter_map(|(_, gradient)| gradient)
        .map(|gradient| match gradient {
            Gradient::Dense(tensor) => tensor,
            Gradient::Rows(rows) => &rows.values,
        })
        .collect()
}

/// What to multiply gradients of norm `norm` by so that it does not exceed `max_norm`, as PyTorch's
/// `clip_grad_norm_`; 1 where `max_norm` is not above 0 (no clipping).
pub fn clip_scale(norm: f64, max_norm: f64) -> f64 {
    if max_norm > 0.0 {
        (max_norm / (norm + 1e-6)).min(1.0)
    } else {
        1.0
    }
}
