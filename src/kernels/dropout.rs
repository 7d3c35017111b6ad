//! Dropout whose masks are counted, not drawn: a pure function of (seed, step, site, row, column).
//!
//! So the backward pass, a recomputation and a resumed run see the same mask without storing it,
//! and threads do not matter. The key of a site comes from [`crate::rng`]; within the site a mask
//! bit is a 32-bit integer hash of the row's key and the column, compared with p · 2³².

use candle_core::{Result, Tensor};
use rand::RngCore;
use rayon::prelude::*;

use super::parallel::rows_per_task;
use super::profile::span;
use super::simd::vectorized;
use crate::buffers;
use crate::rng::{Stream, stream};

/// Names the masks of one forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutKey {
    /// The run's seed (another one on every rank).
    pub seed: u64,
    /// Counts forward passes: every batch of an accumulated step has its own number.
    pub step: u64,
}

/// The dropout of one place in the model, for one forward pass.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    key: u64,
    threshold: u32,
    scale: f32,
}

impl Dropout {
    /// Dropout with probability `probability` (0 ≤ p < 1) at the place numbered `site`; `None`
    /// where nothing is dropped.
    pub fn new(probability: f64, key: Option<DropoutKey>, site: u64) -> Option<Self> {
        let key = key.filter(|_| probability > 0.0)?;
        Some(Self {
            key: stream(key.seed, Stream::Dropout, key.step, site).next_u64(),
            threshold: (probability * (1u64 << 32) as f64).round() as u32,
            scale: (1.0 / (1.0 - probability)) as f32,
        })
    }

    /// What kept values are multiplied by: 1 / (1 − p).
    pub(super) fn scale(&self) -> f32 {
        self.scale
    }

    /// The key of all masks, and the hash from which on numbers are kept.
    #[cfg(feature = "cuda")]
    pub(super) fn key(&self) -> u64 {
        self.key
    }

    /// See [`Dropout::key`].
    #[cfg(feature = "cuda")]
    pub(super) fn threshold(&self) -> u32 {
        self.threshold
    }

    /// The mask of row `row`.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> RowMask {
        RowMask {
            key: self.row_key(row),
            threshold: self.threshold,
        }
    }

    /// What [`Dropout::keeps`] knows row `row` by.
    #[inline(always)]
    pub(super) fn row_key(&self, row: usize) -> u32 {
        let mixed = (row as u64 ^ self.key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        (mixed ^ (mixed >> 32)) as u32
    }

    /// Whether the element in `column` of a row is kept.
    #[inline(always)]
    pub(super) fn keeps(&self, row_key: u32, column: usize) -> bool {
        let (key, threshold) = (row_key, self.threshold);
        RowMask { key, threshold }.keeps(column)
    }

    /// Multiplies kept values of row `row` by the scale and zeroes the others.
    #[inline(always)]
    pub(super) fn apply(&self, row: usize, values: &mut [f32]) {
        let mask = self.row(row);
        for (column, value) in values.iter_mut().enumerate() {
            *value *= if mask.keeps(column) { self.scale } else { 0.0 };
        }
    }
}

/// The mask of one row.
#[derive(Clone, Copy)]
pub(super) struct RowMask {
    key: u32,
    threshold: u32,
}

impl RowMask {
    /// Whether the element in `column` is kept.
    #[inline(always)]
    pub(super) fn keeps(self, column: usize) -> bool {
        let mut hash = (column as u32).wrapping_mul(0x9E37_79B1) ^ self.key;
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x7FEB_352D);
        hash = (hash ^ (hash >> 15)).wrapping_mul(0x846C_A68B);
        (hash ^ (hash >> 16)) >= self.threshold
    }
}

/// Applies dropout to `x` ([N, D]) in place; its backward pass is the same, applied to the
/// gradient.
///
/// # Errors
/// `x` is not a contiguous f32 matrix on the CPU.
pub fn apply(x: Tensor, dropout: Option<&Dropout>) -> Result<Tensor> {
    let Some(dropout) = dropout else {
        return Ok(x);
    };
    on_gpu!(x, super::cuda::apply_dropout(&x, dropout).map(|()| x));
    let _span = span("dropout", 0);
    let (_, width) = x.dims2()?;
    let rows = rows_per_task(width);
    buffers::write(&x, |x| {
        let tasks = x.par_chunks_mut(rows * width.max(1)).enumerate();
        tasks.for_each(|(task, values)| apply_rows(dropout, task * rows, values, width));
    })?;
    Ok(x)
}

vectorized! {
    fn apply_rows(dropout: &Dropout, first_row: usize, values: &mut [f32], width: usize) {
        for (row, values) in (first_row..).zip(values.chunks_exact_mut(width)) {
            dropout.apply(row, values);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::buffers::{from_vec, read};

    fn mask(key: DropoutKey, site: u64, shape: (usize, usize)) -> Vec<f32> {
        let dropout = Dropout::new(0.25, Some(key), site);
        let ones = from_vec(vec![1.0; shape.0 * shape.1], shape).unwrap();
        read::<f32>(&apply(ones, dropout.as_ref()).unwrap())
            .unwrap()
            .to_vec()
    }

    /// The bits that `scripts/cuda-simulate` expects of the CUDA kernels.
    #[test]
    fn masks_are_those_of_the_kernels_for_cuda() {
        let dropout = Dropout {
            key: 0x0123_4567_89AB_CDEF,
            threshold: 1 << 30,
            scale: 4.0 / 3.0,
        };
        let bits = |row| {
            let mask = dropout.row(row);
            (0..32).fold(0, |bits, i| bits | u32::from(mask.keeps(37 * i)) << i)
        };
        let expected = [
            0x6BFB_DEF2u32,
            0x69FA_F133,
            0xF1DD_CD9C,
            0xFDBF_6D7F,
            0xFFFE_BFCC,
        ];
        assert_eq!([0, 1, 2, 1_000_003, (1 << 40) + 5].map(bits), expected);
    }

    #[test]
    fn masks_follow_from_seed_step_site_and_have_the_right_share() {
        let key = DropoutKey { seed: 1, step: 2 };
        let first = mask(key, 3, (301, 257));
        assert_eq!(first, mask(key, 3, (301, 257)));
        assert_eq!(
            first[..100 * 257],
            mask(key, 3, (100, 257)),
            "rows do not depend on others"
        );
        assert_ne!(first, mask(key, 4, (301, 257)));
        assert_ne!(first, mask(DropoutKey { step: 3, ..key }, 3, (301, 257)));
        let kept = first.iter().filter(|x| **x > 0.0).count() as f64;
        let share = kept / first.len() as f64;
        assert!((share - 0.75).abs() < 0.006, "{share}");
        let mean: f32 = first.iter().sum::<f32>() / first.len() as f32;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        for column in 0..257 {
            let kept = (0..301)
                .filter(|row| first[row * 257 + column] > 0.0)
                .count();
            assert!((170..280).contains(&kept), "column {column}: {kept} of 301");
        }
        assert!(Dropout::new(0.0, Some(key), 1).is_none() && Dropout::new(0.5, None, 1).is_none());
    }
}
