//! What kind of values a matrix holds, told from a few rows spread over the file: what a run says
//! of each file before it starts. `inspect` looks at every value instead.

use std::ops::Range;

use super::report::ValueKind;
use super::scan::Scan;
use super::{H5ad, H5adError, ValuePolicy};
use crate::cell::{CellSource, CsrBlock, SourceError};

/// Stretches of rows that are read, evenly spread from the first row to the last.
const NUM_STRETCHES: u64 = 16;
/// Rows of a stretch.
const STRETCH_ROWS: u64 = 4;

/// What a few rows of a matrix hold.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueSample {
    /// The kind of the values.
    pub kind: ValueKind,
    /// Rows looked at.
    pub num_cells: u64,
    /// Values looked at, zeros not counted.
    pub num_values: u64,
    /// How many of them are negative.
    pub num_negative: u64,
    /// The first negative one.
    pub first_negative: Option<NegativeValue>,
}

/// A negative value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct NegativeValue {
    /// The row, from 0.
    pub row: u64,
    /// The gene id of the column.
    pub gene: String,
    /// The value.
    pub value: f32,
}

impl H5ad {
    /// Reads at most 64 rows, whatever they hold, and tells what kind of values they are.
    ///
    /// # Errors
    /// Rows that cannot be read.
    pub fn sample_values(&self) -> Result<ValueSample, H5adError> {
        let stretches = stretches(self.num_cells());
        let block = self.read_values::<f32>(&stretches, ValuePolicy::Any)?;
        Ok(ValueSample::of_rows(&block, stretches, self.gene_ids()))
    }
}

impl ValueSample {
    /// As [`H5ad::sample_values`], of any source.
    ///
    /// # Errors
    /// Rows that cannot be read.
    pub fn of(source: &dyn CellSource) -> Result<Self, SourceError> {
        let stretches = stretches(source.num_cells());
        let block = source.read_ranges(&stretches)?;
        Ok(Self::of_rows(&block, stretches, source.gene_ids()))
    }

    fn of_rows(block: &CsrBlock, stretches: Vec<Range<u64>>, gene_ids: &[String]) -> Self {
        let mut scan = Scan::empty();
        let mut first_negative = None;
        for (values, row) in block.outer_iterator().zip(stretches.into_iter().flatten()) {
            for (column, &value) in values.iter() {
                scan.value(value);
                if value < 0.0 && first_negative.is_none() {
                    let gene = gene_ids.get(column).cloned().unwrap_or_default();
                    first_negative = Some(NegativeValue { row, gene, value });
                }
            }
        }
        Self {
            kind: scan.kind(),
            num_cells: block.rows() as u64,
            num_values: block.nnz() as u64,
            num_negative: scan.num_negative,
            first_negative,
        }
    }
}

/// Ascending, disjoint ranges of rows out of `num_cells`; all of them where they are few.
fn stretches(num_cells: u64) -> Vec<Range<u64>> {
    if num_cells <= NUM_STRETCHES * STRETCH_ROWS {
        return std::iter::once(0..num_cells).collect();
    }
    let last = num_cells - STRETCH_ROWS;
    let first = |n| (u128::from(last) * n / u128::from(NUM_STRETCHES - 1)) as u64;
    let starts = (0..u128::from(NUM_STRETCHES)).map(first);
    starts.map(|start| start..start + STRETCH_ROWS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_disjoint_and_reach_both_ends() {
        for num_cells in [0, 1, 63, 64, 65, 100, 12_345, u64::MAX / 2] {
            let ranges = stretches(num_cells);
            assert_eq!(ranges.first().map(|r| r.start), Some(0));
            assert_eq!(ranges.last().map(|r| r.end), Some(num_cells));
            let apart = ranges.windows(2).all(|w| w[0].end <= w[1].start);
            assert!(apart, "{num_cells}: {ranges:?}");
        }
    }
}
