//! The order of `weighted`: cells drawn with replacement, each as often as its weight says.
//!
//! The weights of all selected cells lie end to end on a line, those of a class side by side. With N
//! draws in an epoch the line is cut into N equal pieces, and each piece gives one draw, at a random
//! point of it; the pieces come in random order. So a cell, or a class, is drawn as often as its
//! share of the N draws says, rounded up or down, rather than by the luck of independent draws.

use std::ops::Range;
use std::sync::Arc;

use rand::Rng;
use sha2::{Digest, Sha256};

use super::groups::Groups;
use super::permutation::{Permutation, mix};
use crate::rng::{self, Stream};

/// The weights of all selected cells.
#[derive(Debug, Clone)]
pub struct Weights {
    num_cells: u64,
    line: Line,
}

#[derive(Debug, Clone)]
enum Line {
    Each {
        /// Sum of the weights up to and with each cell.
        sums: Arc<[f64]>,
        /// The last cell of weight above 0.
        last: u64,
    },
    /// Pieces of equal length, one for each class.
    Classes {
        groups: Groups,
        members: Arc<[Range<u64>]>,
    },
}

impl Weights {
    /// `weights` of the selected cells, in their order. `None` where one is negative or not
    /// finite, or none is above 0.
    pub fn new(weights: impl IntoIterator<Item = f64>) -> Option<Self> {
        let (mut sums, mut sum, mut last) = (Vec::new(), 0.0, None);
        for weight in weights {
            if !weight.is_finite() || weight < 0.0 {
                return None;
            }
            if weight > 0.0 {
                last = Some(sums.len() as u64);
            }
            sum += weight;
            sums.push(sum);
        }
        let last = last.filter(|_| sum.is_finite())?;
        let num_cells = sums.len() as u64;
        let sums = sums.into();
        let line = Line::Each { sums, last };
        Some(Self { num_cells, line })
    }

    /// Weights under which every class is drawn equally often, and within a class every cell.
    /// `classes` are those of the selected cells; a cell of no class is never drawn. `None` where
    /// no cell has a class.
    pub fn balanced(classes: &[Option<u32>]) -> Option<Self> {
        let groups = Groups::new(classes);
        let members: Arc<[Range<u64>]> = groups.members().collect();
        let line = Line::Classes { groups, members };
        let is_empty = matches!(&line, Line::Classes { members, .. } if members.is_empty());
        let num_cells = classes.len() as u64;
        (!is_empty).then_some(Self { num_cells, line })
    }

    /// Number of cells.
    pub(super) fn len(&self) -> u64 {
        self.num_cells
    }

    /// SHA-256 of the weights.
    pub(super) fn hash(&self) -> Sha256 {
        match &self.line {
            Line::Each { sums, .. } => {
                let mut hash = Sha256::new();
                sums.iter().for_each(|sum| hash.update(sum.to_le_bytes()));
                hash
            }
            Line::Classes { groups, .. } => groups.hash(),
        }
    }

    /// The cell at `point` of the line, whose length is 1.
    fn at(&self, point: f64) -> u64 {
        match &self.line {
            Line::Each { sums, last } => {
                let point = point * sums.last().copied().unwrap_or(0.0);
                let place = sums.partition_point(|sum| *sum <= point) as u64;
                place.min(*last)
            }
            Line::Classes { groups, members } => {
                let point = point * members.len() as f64;
                let class = (point as usize).min(members.len() - 1);
                let Range { start, end } = members[class];
                let within = (point - class as f64) * (end - start) as f64;
                groups.place((start + within as u64).min(end - 1))
            }
        }
    }
}

/// The draws of one epoch.
#[derive(Debug, Clone)]
pub(super) struct WeightedOrder {
    weights: Weights,
    pieces: Permutation,
    /// Key of the points within the pieces.
    key: u64,
}

impl WeightedOrder {
    pub(super) fn new(seed: u64, epoch: u64, weights: Weights) -> Self {
        let mut rng = rng::stream(seed, Stream::Permute, epoch, 0);
        let pieces = Permutation::new(weights.len(), &mut rng);
        let key = rng.random();
        Self {
            weights,
            pieces,
            key,
        }
    }

    /// The place drawn at `position`.
    pub(super) fn place(&self, position: u64) -> u64 {
        let piece = self.pieces.at(position) as f64;
        let within = (mix(position ^ self.key) >> 11) as f64 / (1u64 << 53) as f64;
        self.weights
            .at((piece + within) / self.weights.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn counts(weights: &Weights, epoch: u64) -> Vec<u64> {
        let order = WeightedOrder::new(9, epoch, weights.clone());
        let mut counts = vec![0; weights.len() as usize];
        (0..weights.len()).for_each(|position| counts[order.place(position) as usize] += 1);
        counts
    }

    #[test]
    fn each_cell_is_drawn_by_its_weight() {
        let raw: Vec<f64> = (0..500).map(|i| f64::from(i % 7) * 0.3).collect();
        let weights = Weights::new(raw.clone()).unwrap();
        let total: f64 = raw.iter().sum();
        let mut sums = vec![0; 500];
        for epoch in 0..200 {
            for (place, count) in counts(&weights, epoch).into_iter().enumerate() {
                let expected = raw[place] / total * 500.0;
                assert!(
                    (count as f64 - expected).abs() < 2.0,
                    "{place}: {count}, {expected}"
                );
                sums[place] += count;
            }
        }
        for (sum, weight) in sums.into_iter().zip(raw) {
            let expected = weight / total * 500.0 * 200.0;
            assert!((sum as f64 - expected).abs() < 60.0, "{sum} of {expected}");
            assert!(weight > 0.0 || sum == 0);
        }
    }

    #[test]
    fn classes_have_equal_shares_of_every_epoch() {
        let class = |i: u32| match i {
            0..5 => Some(2),
            5..50 => Some(0),
            50..60 => None,
            _ => Some(1),
        };
        // Mixed with one another.
        let classes: Vec<_> = (0..900).map(|i| class(i * 7 % 900)).collect();
        let weights = Weights::balanced(&classes).unwrap();
        for epoch in 0..5 {
            let mut shares = [0; 4];
            for (count, class) in counts(&weights, epoch).into_iter().zip(&classes) {
                shares[class.map_or(3, |class| class as usize)] += count;
            }
            assert!(
                shares[..3].iter().all(|share| share.abs_diff(300) <= 2),
                "{shares:?}"
            );
            assert_eq!(shares[3], 0);
        }
    }

    #[test]
    fn weights_that_cannot_be_drawn_by_are_refused() {
        for bad in [
            &[][..],
            &[0.0, 0.0],
            &[1.0, -1.0],
            &[f64::NAN],
            &[f64::MAX, f64::MAX],
        ] {
            assert!(Weights::new(bad.iter().copied()).is_none(), "{bad:?}");
        }
        assert!(Weights::balanced(&[None, None]).is_none());
        let last = Weights::new([1.0, 0.0, 0.0]).unwrap();
        assert_eq!(counts(&last, 0), [3, 0, 0]);
    }
}
