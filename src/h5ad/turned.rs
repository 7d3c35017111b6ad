//! Rows of a column-compressed matrix that have been turned round, and which rows those are.

use std::ops::Range;

use super::number::Value;
use super::rows::{Refused, Rows, Stop};

/// A matrix by rows, in memory.
pub(super) struct Turned<V> {
    pub(super) indptr: Vec<usize>,
    pub(super) columns: Vec<u32>,
    pub(super) values: Vec<V>,
}

/// Adds the rows `within` of a turned matrix; `ranges` names them for errors.
pub(super) fn push_all<V: Value>(
    turned: &Turned<V>,
    ranges: &[Range<u64>],
    within: Range<usize>,
    mut rows: Rows<V>,
) -> Result<Rows<V>, Stop> {
    for (at, row) in within.zip(ranges.iter().cloned().flatten()) {
        let entries = match turned.indptr.get(at..at + 2) {
            Some([start, end]) => *start..*end,
            _ => return Err(Stop::Row(row, Refused::Column)),
        };
        match (
            turned.columns.get(entries.clone()),
            turned.values.get(entries),
        ) {
            (Some(columns), Some(values)) => {
                rows.push_sparse(columns, values)
                    .map_err(|r| Stop::Row(row, r))?;
            }
            _ => return Err(Stop::Row(row, Refused::Column)),
        }
    }
    Ok(rows)
}

/// The rows asked for, and the place of each among them.
pub(super) struct Wanted<'a> {
    ranges: &'a [Range<u64>],
    /// Rows before each range.
    before: Vec<u64>,
}

impl Wanted<'_> {
    pub(super) fn new(ranges: &[Range<u64>]) -> Wanted<'_> {
        let mut before = vec![0];
        for range in ranges {
            before.push(before.last().copied().unwrap_or(0) + (range.end - range.start));
        }
        Wanted { ranges, before }
    }

    pub(super) fn num_rows(&self) -> usize {
        self.before.last().copied().unwrap_or(0) as usize
    }

    pub(super) fn place(&self, row: u64) -> Option<usize> {
        let at = self.ranges.partition_point(|range| range.end <= row);
        let range = self.ranges.get(at).filter(|range| range.start <= row)?;
        Some((self.before.get(at)? + (row - range.start)) as usize)
    }
}
