//! What stands between the products of attention: the softmax over keys, and its way back.
//!
//! Scores lie key by key, a row of queries each. A strip of [`LANES`] queries is taken at a time,
//! through all keys, so that its sums and largest scores stay in registers. Loops here
//! are plain ones and functions inlined: closures would be compiled for the lowest instruction set.

use crate::kernels::dropout::{APART, Dropout, multiplier, square};
use crate::kernels::simd::{exp, vectorized};

/// Queries whose numbers stay in registers while keys go by; rows of scores are padded to as many.
pub(super) const LANES: usize = 16;
/// Keys whose exponentials are summed one by one; such sums are summed then.
const KEYS: usize = 64;

/// The dropout of a block's queries, with the key of each.
pub(super) struct Mask<'a>(pub(super) Option<(&'a Dropout, Vec<u32>)>);

/// As many values from place `first` on as there are, and zeros.
#[inline(always)]
fn lanes<T: Copy + Default>(values: &[T], first: usize) -> [T; LANES] {
    let mut lanes = [T::default(); LANES];
    let values = &values[first..];
    let count = values.len().min(LANES);
    lanes[..count].copy_from_slice(&values[..count]);
    lanes
}

/// The hashes of a strip of queries and of two keys, the first in place `key`.
#[inline(always)]
fn squares(query_keys: &[u32; LANES], key: usize) -> [u32; LANES] {
    let mut squares = [0; LANES];
    for lane in 0..LANES {
        squares[lane] = square(query_keys[lane], key);
    }
    squares
}

/// The multipliers of a strip of queries and the first, or the second, of two keys.
const MULTIPLIERS: [[u32; LANES]; 2] = {
    let mut all = [[0; LANES]; 2];
    let mut i = 0;
    while i < 2 * LANES {
        all[i / LANES][i % LANES] = multiplier(i % LANES, i / LANES * APART);
        i += 1;
    }
    all
};

/// `kept` for queries that see the first (0) or the second (1) of two keys, 0 for those that do not.
#[inline(always)]
fn seen(dropout: &Dropout, squares: &[u32; LANES], which: usize, kept: f32) -> [f32; LANES] {
    let multipliers = &MULTIPLIERS[which];
    let mut seen = [0.0; LANES];
    for lane in 0..LANES {
        let keeps = dropout.keeps(squares[lane], multipliers[lane]);
        seen[lane] = if keeps { kept } else { 0.0 };
    }
    seen
}

/// Groups of twice [`APART`] rows of scores, in two halves.
#[inline(always)]
fn groups(scores: &mut [f32], stride: usize) -> impl Iterator<Item = (&mut [f32], &mut [f32])> {
    let groups = scores.chunks_mut(2 * APART * stride);
    groups.map(move |rows| rows.split_at_mut(rows.len().min(APART * stride)))
}

/// The columns of some queries in rows of `stride` scores.
#[inline(always)]
fn columns(
    scores: &mut [f32],
    stride: usize,
    first: usize,
) -> impl Iterator<Item = &mut [f32; LANES]> {
    let rows = scores.chunks_exact_mut(stride);
    rows.filter_map(move |row| row[first..].first_chunk_mut())
}

/// Scores of a key become exponentials, which are added to `sums`, and those that are seen remain.
#[inline(always)]
fn exponential(
    scale: f32,
    row: &mut [f32; LANES],
    largest: &[f32; LANES],
    sums: &mut [f32; LANES],
    seen: &[f32; LANES],
) {
    for lane in 0..LANES {
        let e = exp(scale.mul_add(row[lane], -largest[lane]));
        sums[lane] += e;
        row[lane] = e * seen[lane];
    }
}

/// As [`gradients_of_scores`], of a key.
#[inline(always)]
fn gradient(
    scale: f32,
    p: &mut [f32; LANES],
    ds: &mut [f32; LANES],
    (log_sums, deltas): (&[f32; LANES], &[f32; LANES]),
    seen: &[f32; LANES],
) {
    for lane in 0..LANES {
        let probability = exp(scale.mul_add(p[lane], -log_sums[lane]));
        let slope = ds[lane].mul_add(seen[lane], -deltas[lane]);
        ds[lane] = probability * scale * slope;
        p[lane] = probability * seen[lane];
    }
}

vectorized! {
    /// Scores [n, m], before they are scaled, become exponentials of their distance to the largest of
    /// their query's, 0 where they are dropped; what they must be multiplied by to be dropped
    /// probabilities is left in `factors`, the log of each query's sum in `log_sums`.
    pub(super) fn exponentials(
        scale: f32,
        scores: &mut [f32],
        mask: &Mask<'_>,
        log_sums: &mut [f32],
        factors: &mut [f32],
    ) {
        let (m, stride) = (log_sums.len(), log_sums.len().next_multiple_of(LANES));
        let kept = mask.0.as_ref().map_or(1.0, |(dropout, _)| dropout.scale());
        for first in (0..m).step_by(LANES) {
            let mut largest = [f32::NEG_INFINITY; LANES];
            for row in columns(scores, stride, first) {
                for lane in 0..LANES {
                    let (score, so_far) = (row[lane], largest[lane]);
                    largest[lane] = if score > so_far { score } else { so_far };
                }
            }
            for score in &mut largest {
                *score *= scale;
            }
            let mut totals = [0.0; LANES];
            for (part, rows) in scores.chunks_mut(KEYS * stride).enumerate() {
                let mut sums = [0.0; LANES];
                if let Some((dropout, keys)) = &mask.0 {
                    let keys = lanes(keys, first);
                    for (group, (rows, others)) in groups(rows, stride).enumerate() {
                        let first_key = part * KEYS + group * 2 * APART;
                        let mut others = columns(others, stride, first);
                        for (key, row) in (first_key..).zip(columns(rows, stride, first)) {
                            let squares = squares(&keys, key);
                            let sees = seen(dropout, &squares, 0, 1.0);
                            exponential(scale, row, &largest, &mut sums, &sees);
                            if let Some(row) = others.next() {
                                let sees = seen(dropout, &squares, 1, 1.0);
                                exponential(scale, row, &largest, &mut sums, &sees);
                            }
                        }
                    }
                } else {
                    for row in columns(rows, stride, first) {
                        exponential(scale, row, &largest, &mut sums, &[1.0; LANES]);
                    }
                }
                for lane in 0..LANES {
                    totals[lane] += sums[lane];
                }
            }
            let to = log_sums[first..].iter_mut().zip(&mut factors[first..]);
            for ((log_sum, factor), (largest, total)) in to.zip(largest.iter().zip(totals)) {
                (*log_sum, *factor) = (largest + total.ln(), kept / total);
            }
        }
    }
}

vectorized! {
    /// See [`super::Heads::scores_backward`]; `deltas` are the products of each query's context and gradient.
    pub(super) fn gradients_of_scores(
        scale: f32,
        p: &mut [f32],
        ds: &mut [f32],
        mask: &Mask<'_>,
        log_sums: &[f32],
        deltas: &[f32],
    ) {
        let (m, stride) = (log_sums.len(), log_sums.len().next_multiple_of(LANES));
        for first in (0..m).step_by(LANES) {
            let queries = (&lanes(log_sums, first), &lanes(deltas, first));
            if let Some((dropout, keys)) = &mask.0 {
                let keys = lanes(keys, first);
                let groups = groups(p, stride).zip(groups(ds, stride));
                for (group, ((p, other_p), (ds, other_ds))) in groups.enumerate() {
                    let rows = columns(p, stride, first).zip(columns(ds, stride, first));
                    let others = columns(other_p, stride, first);
                    let mut others = others.zip(columns(other_ds, stride, first));
                    for (key, (p, ds)) in (group * 2 * APART..).zip(rows) {
                        let squares = squares(&keys, key);
                        let sees = seen(dropout, &squares, 0, dropout.scale());
                        gradient(scale, p, ds, queries, &sees);
                        if let Some((p, ds)) = others.next() {
                            let sees = seen(dropout, &squares, 1, dropout.scale());
                            gradient(scale, p, ds, queries, &sees);
                        }
                    }
                }
            } else {
                let rows = columns(p, stride, first).zip(columns(ds, stride, first));
                for (p, ds) in rows {
                    gradient(scale, p, ds, queries, &[1.0; LANES]);
                }
            }
        }
    }
}
