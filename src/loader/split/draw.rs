//! Draws cells of one file, so many for each part, so that every stratum has its share.
//!
//! The cells are laid out in a line, stratum by stratum, at random within each. Along this line cells
//! are taken at even distances; so each stratum has its share up to one cell.

use rand::Rng;
use rand::seq::SliceRandom;

use super::Part;
use crate::rng::{self, Stream};

/// What is drawn of one file.
pub(super) struct Quota {
    /// Cells that validate.
    pub(super) val: u64,
    /// Cells that test; not used where there are folds.
    pub(super) test: u64,
    /// In one of several folds, those that test are the fold's.
    pub(super) fold: Option<FoldOf>,
}

/// One of several folds.
#[derive(Debug, Clone, Copy)]
pub(super) struct FoldOf {
    /// 0..num_folds.
    pub(super) fold: u64,
    /// Number of folds.
    pub(super) num_folds: u64,
    /// Cells of the files before: the folds go on where those end.
    pub(super) cells_before: u64,
}

impl FoldOf {
    /// Whether the cell at `place` of the line tests.
    fn has(self, place: usize) -> bool {
        (self.cells_before + place as u64) % self.num_folds == self.fold
    }

    /// How many of `num_cells` test.
    pub(super) fn len(self, num_cells: u64) -> u64 {
        (0..num_cells as usize)
            .filter(|place| self.has(*place))
            .count() as u64
    }
}

/// The part of every cell of file number `file`, whose cells are in `strata`.
pub(super) fn draw(seed: u64, file: u64, quota: &Quota, strata: &[i32]) -> Vec<Part> {
    let mut rng = rng::stream(seed, Stream::Split, 1, file);
    let mut line: Vec<usize> = (0..strata.len()).collect();
    line.shuffle(&mut rng);
    line.sort_by_key(|row| strata[*row]);
    let mut parts = vec![Part::Train; strata.len()];
    let tests = match quota.fold {
        Some(fold) => (0..line.len()).map(|place| fold.has(place)).collect(),
        None => evenly(quota.test, line.len(), &mut rng),
    };
    let mut rest = Vec::with_capacity(line.len());
    for (row, tests) in line.into_iter().zip(tests) {
        if tests {
            parts[row] = Part::Test;
        } else {
            rest.push(row);
        }
    }
    let validates = evenly(quota.val, rest.len(), &mut rng);
    for (row, _) in rest.into_iter().zip(validates).filter(|(_, val)| *val) {
        parts[row] = Part::Val;
    }
    parts
}

/// `wanted` of `len` places, at even distances from a random one on.
fn evenly(wanted: u64, len: usize, rng: &mut impl Rng) -> Vec<bool> {
    let (wanted, total) = (u128::from(wanted), (len as u128).max(1));
    let phase = rng.random_range(0..total as u64);
    let before = |place: usize| (u128::from(phase) + place as u128) * wanted / total;
    (0..len)
        .map(|place| before(place + 1) > before(place))
        .collect()
}

/// `wanted` cells, divided among files in proportion to their numbers of cells: exactly so many in
/// all, and in each file as many as its share, up to one.
pub(super) fn apportion(wanted: u64, num_cells: &[u64]) -> Vec<u64> {
    let total = num_cells
        .iter()
        .map(|n| u128::from(*n))
        .sum::<u128>()
        .max(1);
    let mut before = 0;
    let quota = num_cells.iter().map(|n| {
        let due = |cells: u128| cells * u128::from(wanted) / total;
        let start = before;
        before += u128::from(*n);
        (due(before) - due(start)) as u64
    });
    quota.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(parts: &[Part], part: Part) -> u64 {
        parts.iter().filter(|p| **p == part).count() as u64
    }

    #[test]
    fn shares_hold_in_every_stratum() {
        let stratum = |i| if i % 50 == 0 { -1 } else { i % 3 };
        let strata: Vec<i32> = (0..1000).map(stratum).collect();
        let quota = Quota {
            val: 100,
            test: 200,
            fold: None,
        };
        for seed in 0..20 {
            let parts = draw(seed, 0, &quota, &strata);
            assert_eq!(count(&parts, Part::Test), 200);
            assert_eq!(count(&parts, Part::Val), 100);
            for (stratum, len) in [(-1, 20.0), (0, 326.0), (1, 327.0), (2, 327.0)] {
                let within = parts.iter().zip(&strata).filter(|(_, s)| **s == stratum);
                let within: Vec<Part> = within.map(|(part, _)| *part).collect();
                assert!((count(&within, Part::Test) as f64 - 0.2 * len).abs() < 1.0);
                assert!((count(&within, Part::Val) as f64 - 0.1 * len).abs() < 2.0);
            }
            assert_eq!(parts, draw(seed, 0, &quota, &strata));
            assert_ne!(parts, draw(seed + 1, 0, &quota, &strata));
            assert_ne!(parts, draw(seed, 1, &quota, &strata));
        }
    }

    #[test]
    fn any_number_of_cells_can_be_drawn_of_any() {
        for (len, val, test) in [
            (0, 0, 0),
            (1, 1, 0),
            (1, 0, 1),
            (7, 3, 4),
            (9, 0, 9),
            (5, 0, 0),
        ] {
            let parts = draw(
                3,
                0,
                &Quota {
                    val,
                    test,
                    fold: None,
                },
                &vec![0; len],
            );
            assert_eq!(count(&parts, Part::Val), val);
            assert_eq!(count(&parts, Part::Test), test);
        }
    }

    #[test]
    fn each_cell_tests_in_one_fold() {
        let sizes = [1, 0, 30, 1, 2, 7];
        let mut of_fold = [0; 4];
        let mut cells_before = 0;
        for (file, size) in sizes.into_iter().enumerate() {
            let strata: Vec<i32> = (0..size).map(|i| i % 2).collect();
            let mut times = vec![0; size as usize];
            for fold in 0..4 {
                let place = FoldOf {
                    fold,
                    num_folds: 4,
                    cells_before,
                };
                let fold_quota = Quota {
                    val: 0,
                    test: 0,
                    fold: Some(place),
                };
                let parts = draw(1, file as u64, &fold_quota, &strata);
                assert_eq!(count(&parts, Part::Test), place.len(size as u64));
                of_fold[fold as usize] += place.len(size as u64);
                times
                    .iter_mut()
                    .zip(parts)
                    .for_each(|(n, p)| *n += i32::from(p == Part::Test));
            }
            assert!(times.iter().all(|n| *n == 1));
            cells_before += size as u64;
        }
        assert_eq!(of_fold, [11, 10, 10, 10]);
    }

    #[test]
    fn files_have_their_shares() {
        assert_eq!(apportion(7, &[10, 0, 20, 40]), [1, 0, 2, 4]);
        assert_eq!(apportion(0, &[3, 4]), [0, 0]);
        assert_eq!(apportion(7, &[3, 4]), [3, 4]);
        assert_eq!(apportion(300, &vec![1; 1000]).iter().sum::<u64>(), 300);
        assert!(apportion(5, &[]).is_empty());
    }
}
