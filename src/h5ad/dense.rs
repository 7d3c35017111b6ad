//! Matrices stored as a plain array, contiguous or in chunks of any shape, read by bands of rows.

use std::ops::Range;

use super::array::Array;
use super::container::Container;
use super::number::Value;
use super::rows::{Rows, Stop};
use super::{H5adError, ValuePolicy};

/// Raw bytes read at a time, where chunks allow it.
const BAND_BYTES: u64 = 16 << 20;

/// A dense matrix of the file.
pub(super) struct Dense {
    data: Array,
    num_rows: u64,
    num_columns: u32,
}

impl Dense {
    /// Opens the array `key`. Old files store one column, or one row, without its second axis:
    /// `expected` tells which.
    pub(super) fn open(
        container: &Container,
        key: &str,
        expected: (u64, u64),
    ) -> Result<Dense, H5adError> {
        let data = container.array(key)?;
        let (num_rows, num_columns) = match data.shape.as_slice() {
            [rows, columns] => (*rows, *columns),
            [rows] if expected.1 == 1 => (*rows, 1),
            [columns] if expected.0 == 1 => (1, *columns),
            other => {
                let what = format!("expected an array of two dimensions, found shape {other:?}");
                return Err(container.invalid(key, what));
            }
        };
        let num_columns = u32::try_from(num_columns)
            .map_err(|_| container.invalid(key, "more columns than 2^32 are not supported"))?;
        Ok(Dense {
            data,
            num_rows,
            num_columns,
        })
    }

    pub(super) fn shape(&self) -> (u64, u64) {
        (self.num_rows, u64::from(self.num_columns))
    }

    pub(super) fn data(&self) -> &Array {
        &self.data
    }

    /// Every band of rows, in bounded pieces: (first row, the values of its rows).
    pub(super) fn scan_bands(
        &self,
        container: &Container,
        each: &mut dyn FnMut(u64, &[f32]),
    ) -> Result<(), H5adError> {
        let mut values = Vec::new();
        let mut start = 0;
        while start < self.num_rows && self.num_columns > 0 {
            let end = self.band_end(start).min(self.num_rows);
            values.clear();
            self.read_band(container, start..end, &mut values)?;
            each(start, &values);
            start = end;
        }
        Ok(())
    }

    /// The rows of `ranges`, which ascend and lie within the matrix.
    pub(super) fn read<V: Value>(
        &self,
        container: &Container,
        ranges: &[Range<u64>],
        policy: ValuePolicy,
    ) -> Result<Rows<V>, Stop> {
        let num_rows = ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum::<u64>() as usize;
        let mut rows = Rows::new(self.num_columns, policy, num_rows);
        let width = self.num_columns as usize;
        let mut values = Vec::new();
        for range in ranges {
            let mut start = range.start;
            while start < range.end {
                let end = self.band_end(start).min(range.end);
                values.clear();
                self.read_band(container, start..end, &mut values)?;
                for (row, at) in (start..end).zip(0usize..) {
                    let row_values = values.get(at * width..(at + 1) * width).unwrap_or_default();
                    rows.push_dense(row_values).map_err(|r| Stop::Row(row, r))?;
                }
                start = end;
            }
        }
        Ok(rows)
    }

    /// Where a band from `start` ends: after about [`BAND_BYTES`], on the edge of a chunk.
    fn band_end(&self, start: u64) -> u64 {
        let row_bytes = (u64::from(self.num_columns) * self.data.number.size() as u64).max(1);
        let rows = (BAND_BYTES / row_bytes).max(1);
        let chunk = match self.data.chunks.as_slice() {
            [rows, _] => (*rows).max(1),
            _ => 1,
        };
        let end = start.saturating_add(rows);
        // Down to the edge of a chunk, where that leaves any row at all.
        let edge = end - end % chunk;
        if edge > start { edge } else { end }
    }

    fn read_band<V: Value>(
        &self,
        container: &Container,
        rows: Range<u64>,
        values: &mut Vec<V>,
    ) -> Result<(), H5adError> {
        let squeezed_row = self.data.shape.len() == 1 && self.num_columns > 1;
        let (start, count) = if squeezed_row {
            (0, u64::from(self.num_columns))
        } else {
            (rows.start, rows.end - rows.start)
        };
        let raw = container.raw_rows(&self.data, start, count)?;
        V::extend(self.data.number, &raw, values);
        Ok(())
    }
}
