//! Dropout whose masks are counted, not drawn: a pure function of (seed, step, site, row, column).
//!
//! So the backward pass, a recomputation and a resumed run see the same mask without storing it,
//! and threads do not matter. The key of a site comes from [`crate::rng`]; within the site a mask
//! bit is a 32-bit integer hash of the row's key and the column, compared with p · 2³².
//!
//! Attention has a bit for every pair of tokens, so there four bits share a hash: those of queries
//! q and q + 8 and keys k and k + 8, where neither place has the bit 8. Each is the hash times
//! another odd number. Over all 2³² hashes two of them are dropped together p² of the time within
//! 10⁻⁵ of it, and three or four as often as they should within 2 ‰ (p from 0.02 to 0.5).

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

    #[inline(always)]
    fn row_key(&self, row: usize) -> u32 {
        let mixed = (row as u64 ^ self.key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        (mixed ^ (mixed >> 32)) as u32
    }

    /// What [`square`] knows a query by: that in `place` of the cell that begins at token `start`, of
    /// one of `num_heads` heads.
    #[inline(always)]
    pub(super) fn query_key(
        &self,
        (start, place): (usize, usize),
        (num_heads, head): (usize, usize),
    ) -> u32 {
        self.row_key((start + (place & !APART)) * num_heads + head)
    }

    /// Whether the probability of a query for a key is kept, by their [`square`] and
    /// [`multiplier`].
    #[inline(always)]
    pub(super) fn keeps(&self, square: u32, multiplier: u32) -> bool {
        square.wrapping_mul(multiplier) >= self.threshold
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

/// How far the queries, and the keys, of a square are apart.
pub(super) const APART: usize = 8;

/// The hash of four pairs of a query and a key: of queries `key` and of keys the place without
/// [`APART`].
#[inline(always)]
pub(super) fn square(query_key: u32, key: usize) -> u32 {
    let mut hash = ((key & !APART) as u32).wrapping_mul(0x9E37_79B1) ^ query_key;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x7FEB_352D);
    hash ^ (hash >> 15)
}

/// Which of a square's four bits is that of a query and a key, by their places in the cell.
#[inline(always)]
pub(super) const fn multiplier(query: usize, key: usize) -> u32 {
    const OF: [u32; 4] = [0x846C_A68B, 0x2C1B_3C6D, 0x297A_2D39, 0xD383_3E81];
    OF[query / APART % 2 * 2 + key / APART % 2]
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
    let _span = span("dropout", 0);
    on_gpu!(x, super::cuda::apply_dropout(&x, dropout).map(|()| x));
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
        let bits = |place| {
            let key = dropout.query_key((1000, place), (3, 1));
            let keeps = |i: usize| dropout.keeps(square(key, 5 * i), multiplier(place, 5 * i));
            (0..32).fold(0, |bits, i| bits | u32::from(keeps(i)) << i)
        };
        let expected = [
            0xFFEB_57FDu32,
            0xFFF5_FBB0,
            0x7F3F_3BFF,
            0xFBFF_55A7,
            0xDFFA_7BC9,
        ];
        assert_eq!([0, 7, 8, 15, 2003].map(bits), expected);
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

    /// Any two or four places of a mask that are near or 8 apart, and rows and columns whole.
    #[test]
    fn bits_that_share_a_hash_are_independent() {
        const SIDE: usize = 1 << 10;
        let key = DropoutKey { seed: 1, step: 2 };
        let dropout = Dropout::new(0.1, Some(key), 3).unwrap();
        let drops = |q: usize, k: usize| {
            let hash = square(dropout.query_key((7, q), (2, 1)), k);
            !dropout.keeps(hash, multiplier(q, k))
        };
        let dropped: Vec<bool> = (0..SIDE * SIDE)
            .map(|i| drops(i / SIDE, i % SIDE))
            .collect();
        // `expected` of `count` pairs, within five standard deviations.
        let likely = |found: usize, share: f64, count: usize| {
            let (mean, found) = (share * count as f64, found as f64);
            let allowed = 5.0 * (mean * (1.0 - share)).sqrt();
            assert!(
                (found - mean).abs() < allowed,
                "{found} of {count}, not {mean}"
            );
        };
        let both = |rows: usize, columns: usize| {
            let ends = (SIDE - rows, SIDE - columns);
            let pairs = (0..ends.0).flat_map(|q| (0..ends.1).map(move |k| q * SIDE + k));
            pairs
                .filter(|at| dropped[*at] && dropped[at + rows * SIDE + columns])
                .count()
        };
        likely(both(0, 0), 0.1, SIDE * SIDE);
        for apart in [1, 2, 4, 8, 16, 64, 512] {
            for (rows, columns) in [(0, apart), (apart, 0), (apart, apart)] {
                let count = (SIDE - rows) * (SIDE - columns);
                likely(both(rows, columns), 0.01, count);
            }
        }
        let squares = (0..SIDE - 8).flat_map(|q| (0..SIDE - 8).map(move |k| q * SIDE + k));
        let four = |at: &usize| {
            [0, 8, 8 * SIDE, 8 * SIDE + 8]
                .iter()
                .all(|by| dropped[at + by])
        };
        likely(squares.filter(four).count(), 1e-4, (SIDE - 8) * (SIDE - 8));
        for of in 0..SIDE {
            let row = dropped[of * SIDE..][..SIDE].iter().filter(|x| **x).count();
            let column = (0..SIDE).filter(|q| dropped[q * SIDE + of]).count();
            likely(row, 0.1, SIDE);
            likely(column, 0.1, SIDE);
        }
    }
}
