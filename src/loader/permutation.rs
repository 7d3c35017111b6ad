//! A keyed pseudo-random permutation of 0..len, any entry of it at once and in no memory.
//!
//! A number is a place in a grid of `rows` × `columns` cells, about as high as wide. One round
//! moves it along its row by an amount that depends on the row, then along its column by one that
//! depends on the column (a Feistel network over residues instead of bits; Black and Rogaway,
//! 2002). Each step can be undone, so the whole grid is permuted. The grid has fewer than `rows`
//! places too many; from one of those the walk goes on until it is back inside.

use rand::Rng;

use crate::rng::ChaCha8Rng;

/// Rounds, each of two keys.
const ROUNDS: usize = 6;

/// A permutation of 0..len.
#[derive(Debug, Clone)]
pub(super) struct Permutation {
    len: u64,
    rows: u64,
    columns: u64,
    keys: [(u64, u64); ROUNDS],
}

impl Permutation {
    pub(super) fn new(len: u64, rng: &mut ChaCha8Rng) -> Self {
        let rows = len.isqrt().max(1);
        Self {
            len,
            rows,
            columns: len.div_ceil(rows).max(1),
            keys: std::array::from_fn(|_| rng.random()),
        }
    }

    /// Entry `place`, which must be below len.
    pub(super) fn at(&self, place: u64) -> u64 {
        let mut at = self.moved(place);
        while at >= self.len {
            at = self.moved(at);
        }
        at
    }

    fn moved(&self, place: u64) -> u64 {
        let (mut row, mut column) = (place % self.rows, place / self.rows);
        for (along_row, along_column) in &self.keys {
            column = (column + below(self.columns, mix(row ^ along_row))) % self.columns;
            row = (row + below(self.rows, mix(column ^ along_column))) % self.rows;
        }
        column * self.rows + row
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every bit depends on every bit.
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Random bits as a number below `end`.
fn below(end: u64, bits: u64) -> u64 {
    ((u128::from(bits) * u128::from(end)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, stream};

    fn permutation(len: u64, seed: u64) -> Permutation {
        Permutation::new(len, &mut stream(seed, Stream::Permute, 0, 0))
    }

    #[test]
    fn every_number_occurs_once() {
        for len in (0..130).chain([1000, 4095, 4096, 4097, 99_991]) {
            let permutation = permutation(len, len);
            let mut seen: Vec<u64> = (0..len).map(|place| permutation.at(place)).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..len), "{len}");
        }
    }

    #[test]
    fn sizes_beyond_32_bits_stay_inside() {
        for len in [u64::from(u32::MAX) + 2, (1 << 40) + 7] {
            let permutation = permutation(len, 3);
            let entries: Vec<u64> = (len - 100..len)
                .map(|place| permutation.at(place))
                .collect();
            assert!(entries.iter().all(|entry| *entry < len));
            assert!(entries.iter().any(|entry| *entry < len / 2));
        }
    }

    /// Each entry is equally likely at each place, and neighbours are as far apart as by chance.
    #[test]
    fn entries_are_spread_evenly() {
        for len in [2, 3, 7, 16, 50] {
            let runs = 400 * len;
            let mut counts = vec![0u64; (len * len) as usize];
            for seed in 0..runs {
                let permutation = permutation(len, seed);
                for place in 0..len {
                    counts[(place * len + permutation.at(place)) as usize] += 1;
                }
            }
            let chi: f64 = counts
                .iter()
                .map(|n| (*n as f64 - 400.0).powi(2) / 400.0)
                .sum();
            let freedom = ((len - 1) * (len - 1)) as f64;
            assert!(
                chi < freedom + 5.0 * (2.0 * freedom).sqrt() + 3.0,
                "{len}: {chi}"
            );
        }
        let permutation = permutation(100_000, 1);
        let distance = |place| permutation.at(place).abs_diff(permutation.at(place + 1)) as f64;
        let mean = (0..99_999).map(distance).sum::<f64>() / 99_999.0;
        assert!((mean / 33_333.0 - 1.0).abs() < 0.02, "{mean}");
    }
}
