//! Activations: exact GELU, x Φ(x), and ReLU.
//!
//! The forward pass belongs to the linear map before it ([`super::linear`]), which keeps its input
//! (the pre-activation); the backward pass works in place on the gradient.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;
use std::f32::consts::FRAC_1_SQRT_2;

use super::parallel::rows_per_task;
use super::profile::span;
use super::simd::{erf, exp, vectorized};
use crate::buffers::{read, write};

/// Which activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// x Φ(x) with the exact Φ (by erf, not tanh).
    #[default]
    Gelu,
    /// max(x, 0).
    Relu,
}

/// 1 / √(2π)
const DENSITY_AT_ZERO: f32 = 0.398_942_3;

#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2))
}

#[inline(always)]
fn gelu_slope(x: f32) -> f32 {
    let density = DENSITY_AT_ZERO * exp(-0.5 * x * x);
    x.mul_add(density, 0.5 * (1.0 + erf(x * FRAC_1_SQRT_2)))
}

impl Activation {
    /// y = the activation of x.
    pub(super) fn apply(self, x: &[f32], y: &mut [f32]) {
        match self {
            Self::Gelu => gelu_forward(x, y),
            Self::Relu => relu_forward(x, y),
        }
    }

    /// dy *= the activation's slope at x.
    pub(super) fn apply_backward(self, x: &[f32], dy: &mut [f32]) {
        match self {
            Self::Gelu => gelu_backward(x, dy),
            Self::Relu => relu_backward(x, dy),
        }
    }
}

/// The gradient of the input, from the gradient of the output (overwritten) and the input.
///
/// # Errors
/// Shapes differ, or a tensor is not contiguous f32 on the CPU.
pub fn backward(activation: Activation, x: &Tensor, dy: Tensor) -> Result<Tensor> {
    let _span = span("activation backward", 0);
    if x.shape() != dy.shape() {
        bail!(
            "activation: gradient {:?} for input {:?}",
            dy.shape(),
            x.shape()
        );
    }
    on_gpu!(
        x,
        super::cuda::activation_backward(activation, x, &dy).map(|()| dy)
    );
    {
        let x = read::<f32>(x)?;
        let x = &*x;
        let task = rows_per_task(1);
        write(&dy, |dy| {
            let tasks = dy.par_chunks_mut(task).zip(x.par_chunks(task));
            tasks.for_each(|(dy, x)| activation.apply_backward(x, dy));
        })?;
    }
    Ok(dy)
}

vectorized! {
    fn gelu_forward(x: &[f32], y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = gelu(*x);
        }
    }
}

vectorized! {
    fn gelu_backward(x: &[f32], dy: &mut [f32]) {
        for (dy, x) in dy.iter_mut().zip(x) {
            *dy *= gelu_slope(*x);
        }
    }
}

vectorized! {
    fn relu_forward(x: &[f32], y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = x.max(0.0);
        }
    }
}

vectorized! {
    fn relu_backward(x: &[f32], dy: &mut [f32]) {
        for (dy, x) in dy.iter_mut().zip(x) {
            *dy = if *x > 0.0 { *dy } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kernels::testing::{Random, assert_close, same_for_any_threads, slopes, wide};

    /// Φ by Simpson's rule from 0.
    fn normal_cdf(x: f64) -> f64 {
        const STEPS: usize = 2000;
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let h = x / STEPS as f64;
        let sum: f64 = (0..=STEPS)
            .map(|i| match i {
                0 | STEPS => density(i as f64 * h),
                _ if i % 2 == 1 => 4.0 * density(i as f64 * h),
                _ => 2.0 * density(i as f64 * h),
            })
            .sum();
        0.5 + sum * h / 3.0
    }

    fn reference(activation: Activation, x: f64) -> f64 {
        match activation {
            Activation::Gelu => x * normal_cdf(x),
            Activation::Relu => x.max(0.0),
        }
    }

    #[test]
    fn agrees_with_the_reference_and_with_finite_differences() {
        for activation in [Activation::Gelu, Activation::Relu] {
            for n in [0, 1, 7, 130] {
                let mut random = Random::new(n as u64);
                let x = (random.tensor(&[n, 1]) * 3.0).unwrap();
                let dy = random.tensor(&[n, 1]);
                let (x64, dy64) = (wide(&x), wide(&dy));
                let expected: Vec<f64> = x64.iter().map(|x| reference(activation, *x)).collect();
                let mut y = vec![0.0; n];
                activation.apply(&crate::buffers::read::<f32>(&x).unwrap(), &mut y);
                let y: Vec<f64> = y.into_iter().map(f64::from).collect();
                assert_close("y", &y, &expected);
                let dx = wide(&backward(activation, &x, dy).unwrap());
                for ((dx, x), dy) in dx.iter().zip(x64).zip(dy64) {
                    let slope = slopes(&[x], |x| reference(activation, x[0]))[0];
                    assert_close("dx", &[*dx], &[slope * dy]);
                }
            }
        }
    }

    #[test]
    fn threads_do_not_matter() {
        let mut random = Random::new(3);
        let (x, dy) = (random.tensor(&[70_000]), random.tensor(&[70_000]));
        same_for_any_threads(|| vec![backward(Activation::Gelu, &x, dy.copy().unwrap()).unwrap()]);
    }
}
