//! One pass over a matrix that finds out what kind of values it holds and what is odd about it.
//!
//! Memory: one piece of the matrix, one counter for each cell, one mark for each row or column.

use super::container::Container;
use super::matrix::Matrix;
use super::report::{Spread, ValueKind};
use super::{H5adError, dense::Dense, sparse::Sparse};

/// Logarithms of expression stay below this: log2 of a million is 20.
const MOST_LOG: f32 = 25.0;

/// What a pass has found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    per_cell: Vec<u32>,
    pub(super) num_nan: u64,
    pub(super) num_infinite: u64,
    pub(super) num_negative: u64,
    pub(super) num_fractional: u64,
    pub(super) num_explicit_zeros: u64,
    pub(super) num_duplicates: u64,
    pub(super) num_unsorted: u64,
    least: f32,
    most: f32,
    num_finite: u64,
}

impl Scan {
    /// Nothing looked at yet.
    pub(super) fn empty() -> Scan {
        Scan {
            least: f32::INFINITY,
            most: f32::NEG_INFINITY,
            ..Scan::default()
        }
    }

    /// Reads the whole matrix; `progress` is told the share that is done.
    pub(super) fn of(
        container: &Container,
        matrix: &Matrix,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Scan, H5adError> {
        let mut scan = Scan::empty();
        match matrix {
            Matrix::Absent { .. } => {}
            Matrix::Sparse { sparse, .. } => scan.sparse(container, sparse, progress)?,
            Matrix::Dense { dense, .. } => scan.dense(container, dense, progress)?,
        }
        Ok(scan)
    }

    fn sparse(
        &mut self,
        container: &Container,
        sparse: &Sparse,
        progress: &mut dyn FnMut(f64),
    ) -> Result<(), H5adError> {
        let (rows, columns) = sparse.shape();
        let by_column = sparse.by_column();
        self.per_cell = vec![0; rows as usize];
        let num_minors = if by_column { rows } else { columns };
        // The last major in which each minor occurred, plus one.
        let mut seen = vec![0usize; num_minors as usize];
        let mut last = (usize::MAX, 0u32);
        let mut sorted = true;
        let mut done = 0u64;
        sparse.scan_pieces(container, &mut |piece| {
            for ((major, minor), value) in piece {
                done += 1;
                if last.0 != major {
                    sorted = true;
                } else if sorted && minor < last.1 {
                    sorted = false;
                    self.num_unsorted += 1;
                }
                last = (major, minor);
                let mark = seen
                    .get_mut(minor as usize)
                    .map(|at| std::mem::replace(at, major + 1));
                let duplicate = mark == Some(major + 1);
                self.num_duplicates += u64::from(duplicate);
                self.num_explicit_zeros += u64::from(value == 0.0);
                let row = if by_column { minor as usize } else { major };
                if value != 0.0 && !duplicate {
                    self.count(row);
                }
                self.value(value);
            }
            progress(done as f64 / sparse.num_entries() as f64);
        })
    }

    fn dense(
        &mut self,
        container: &Container,
        dense: &Dense,
        progress: &mut dyn FnMut(f64),
    ) -> Result<(), H5adError> {
        let (rows, columns) = dense.shape();
        self.per_cell = vec![0; rows as usize];
        dense.scan_bands(container, &mut |first, values| {
            let rows_of_band = values.chunks(columns.max(1) as usize);
            for (row, row_values) in (first as usize..).zip(rows_of_band) {
                for value in row_values.iter().filter(|value| **value != 0.0) {
                    self.count(row);
                    self.value(*value);
                }
            }
            progress(first as f64 / rows as f64);
        })
    }

    fn count(&mut self, row: usize) {
        if let Some(count) = self.per_cell.get_mut(row) {
            *count += 1;
        }
    }

    /// Looks at one value.
    pub(super) fn value(&mut self, value: f32) {
        if !value.is_finite() {
            self.num_nan += u64::from(value.is_nan());
            self.num_infinite += u64::from(value.is_infinite());
            return;
        }
        self.num_finite += 1;
        self.least = self.least.min(value);
        self.most = self.most.max(value);
        self.num_negative += u64::from(value < 0.0);
        self.num_fractional += u64::from(value.fract() != 0.0);
    }

    pub(super) fn kind(&self) -> ValueKind {
        if self.num_finite == 0 || (self.least == 0.0 && self.most == 0.0) {
            ValueKind::Empty
        } else if self.num_negative > 0 {
            ValueKind::Negative
        } else if self.num_fractional == 0 {
            ValueKind::IntegerCounts
        } else if self.most < MOST_LOG {
            ValueKind::Log
        } else {
            ValueKind::Fractional
        }
    }

    pub(super) fn range(&self) -> Option<(f32, f32)> {
        (self.num_finite > 0).then_some((self.least, self.most))
    }

    pub(super) fn num_nonzero(&self) -> u64 {
        self.per_cell.iter().map(|count| u64::from(*count)).sum()
    }

    pub(super) fn num_empty_cells(&self) -> usize {
        self.per_cell.iter().filter(|count| **count == 0).count()
    }

    pub(super) fn spread(&self) -> Option<Spread> {
        let mut counts = self.per_cell.clone();
        counts.sort_unstable();
        let (min, max) = (*counts.first()?, *counts.last()?);
        Some(Spread {
            min,
            median: *counts.get((counts.len() - 1) / 2)?,
            max,
        })
    }
}
