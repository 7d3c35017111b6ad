//! For the tests of this room: random values, comparison with a slow reference in f64, gradients
//! by finite differences, and runs on pools of different sizes.
#![allow(clippy::unwrap_used)]

use candle_core::Tensor;
use rand::Rng;
use rand_distr::StandardNormal;

use crate::buffers::{Target, from_vec, read};
use crate::rng::{ChaCha8Rng, Stream, stream};

/// Random values of one test.
pub(super) struct Random(ChaCha8Rng);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(stream(seed, Stream::Simulate, 0, 0))
    }

    /// Standard normal values.
    pub(super) fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let count = shape.iter().product();
        let values = (0..count).map(|_| self.0.sample(StandardNormal)).collect();
        from_vec(values, shape).unwrap()
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    /// `count` numbers below `end`.
    pub(super) fn ids(&mut self, count: usize, end: usize) -> Vec<u32> {
        (0..count).map(|_| self.below(end) as u32).collect()
    }
}

/// The values of a tensor in f64.
pub(super) fn wide(tensor: &Tensor) -> Vec<f64> {
    read::<f32>(tensor)
        .unwrap()
        .iter()
        .map(|x| f64::from(*x))
        .collect()
}

/// A place for a gradient that already holds `start`.
pub(super) fn target(shape: &[usize], start: f32) -> Target {
    let values = vec![start; shape.iter().product()];
    Target {
        tensor: from_vec(values, shape).unwrap(),
        add: start != 0.0,
    }
}

/// Fails unless every value is within 1e-5 of the reference, relative to its largest value or 1.
pub(super) fn assert_close(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    let size = expected.iter().fold(1.0, |size: f64, x| size.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(
            error <= 1e-5 * size,
            "{what}[{i}]: {found}, reference {expected}"
        );
    }
}

/// The gradient of `f` at `x` by central differences.
pub(super) fn slopes(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut x = x.to_vec();
    let at = |x: &mut Vec<f64>, i: usize, step: f64| {
        let old = x[i];
        x[i] = old + step;
        let value = f(x);
        x[i] = old;
        value
    };
    (0..x.len())
        .map(|i| (at(&mut x, i, STEP) - at(&mut x, i, -STEP)) / (2.0 * STEP))
        .collect()
}

/// Σ xᵢ yᵢ
pub(super) fn inner(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// Runs `act` on one thread and on three and fails unless both give the same bits.
pub(super) fn same_for_any_threads(act: impl Fn() -> Vec<Tensor> + Sync) {
    let run = |threads: usize| -> Vec<Vec<u32>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let tensors = pool.build().unwrap().install(&act);
        let bits = |t: &Tensor| {
            read::<f32>(t)
                .unwrap()
                .iter()
                .map(|x| x.to_bits())
                .collect()
        };
        tensors.iter().map(bits).collect()
    };
    assert!(
        run(1) == run(3),
        "the result depends on the number of threads"
    );
}
