//! Rows under construction: sorted, duplicates summed, zeros dropped, values checked.

use sprs::CsMatI;

use super::number::Value;
use super::{H5adError, ValuePolicy};

/// Why a row cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Refused {
    /// A value that the policy refuses.
    Value { column: u32, value: f64 },
    /// A column that the matrix does not have.
    Column,
}

/// Why a read stopped: the file, or a row that cannot be taken.
pub(super) enum Stop {
    File(H5adError),
    Row(u64, Refused),
}

impl From<H5adError> for Stop {
    fn from(error: H5adError) -> Stop {
        Stop::File(error)
    }
}

/// A block being built row by row.
pub(super) struct Rows<V = f32> {
    num_columns: u32,
    policy: ValuePolicy,
    indptr: Vec<usize>,
    indices: Vec<u32>,
    values: Vec<V>,
    scratch: Vec<(u32, V)>,
}

impl<V: Value> Rows<V> {
    pub(super) fn new(num_columns: u32, policy: ValuePolicy, num_rows: usize) -> Self {
        let mut indptr = Vec::with_capacity(num_rows + 1);
        indptr.push(0);
        let (indices, values, scratch) = (Vec::new(), Vec::new(), Vec::new());
        Rows {
            num_columns,
            policy,
            indptr,
            indices,
            values,
            scratch,
        }
    }

    /// Makes room for that many more entries.
    pub(super) fn reserve(&mut self, entries: usize) {
        self.indices.reserve(entries);
        self.values.reserve(entries);
    }

    /// Adds rows of `lengths` entries each, which `fill` appends to columns and values; nothing is
    /// copied where they are clean, as those of nearly every file are.
    ///
    /// `Err` holds which of these rows cannot be taken.
    pub(super) fn push_filled(
        &mut self,
        lengths: impl Iterator<Item = usize>,
        fill: impl FnOnce(&mut Vec<u32>, &mut Vec<V>) -> Result<(), H5adError>,
    ) -> Result<(), Stop> {
        let mut start = self.indices.len();
        fill(&mut self.indices, &mut self.values)?;
        let mut rest: Option<(Vec<u32>, Vec<V>, usize)> = None;
        for (row, len) in lengths.enumerate() {
            let refuse = |refused| Stop::Row(row as u64, refused);
            if let Some((columns, values, at)) = &mut rest {
                let within = *at..*at + len;
                let row = columns.get(within.clone()).zip(values.get(within));
                let (columns, values) = row.ok_or(refuse(Refused::Column))?;
                self.push_sparse(columns, values).map_err(refuse)?;
                *at += len;
                continue;
            }
            let within = start..start + len;
            let entries = self
                .indices
                .get(within.clone())
                .zip(self.values.get(within));
            let (columns, values) = entries.ok_or(refuse(Refused::Column))?;
            if self.is_clean(columns, values) {
                start += len;
                self.indptr.push(start);
                continue;
            }
            // From here on everything moves.
            let tail = (self.indices.split_off(start), self.values.split_off(start));
            let row = tail.0.get(..len).zip(tail.1.get(..len));
            let (columns, values) = row.ok_or(refuse(Refused::Column))?;
            self.push_sparse(columns, values).map_err(refuse)?;
            rest = Some((tail.0, tail.1, len));
        }
        Ok(())
    }

    /// Columns ascend and exist, values are positive and finite.
    fn is_clean(&self, columns: &[u32], values: &[V]) -> bool {
        // Without early exit, so that the compiler compares many at once.
        let ascend = columns
            .iter()
            .zip(columns.iter().skip(1))
            .fold(true, |ok, (a, b)| ok & (a < b));
        let allowed = values
            .iter()
            .fold(true, |ok, v| ok & (*v > V::ZERO) & (*v < V::INFINITY));
        ascend && allowed && columns.last().is_none_or(|last| *last < self.num_columns)
    }

    /// Adds a row of entries in any order.
    pub(super) fn push_sparse(&mut self, columns: &[u32], values: &[V]) -> Result<(), Refused> {
        if !self.is_clean(columns, values) {
            return self.push_unclean(columns, values);
        }
        self.indices.extend_from_slice(columns);
        self.values.extend_from_slice(values);
        self.indptr.push(self.indices.len());
        Ok(())
    }

    fn push_unclean(&mut self, columns: &[u32], values: &[V]) -> Result<(), Refused> {
        self.scratch.clear();
        for (column, value) in columns.iter().zip(values) {
            if *column >= self.num_columns {
                return Err(Refused::Column);
            }
            self.check(*column, *value)?;
            self.scratch.push((*column, *value));
        }
        // Stable, so that duplicates are summed in the file's order.
        self.scratch.sort_by_key(|(column, _)| *column);
        for same in self.scratch.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((column, _)) = same.first().copied() else {
                continue;
            };
            let value = same.iter().map(|(_, value)| *value).sum::<V>();
            self.check(column, value)?;
            if value != V::ZERO {
                self.indices.push(column);
                self.values.push(value);
            }
        }
        self.indptr.push(self.indices.len());
        Ok(())
    }

    /// Adds a row that holds a value for every column.
    pub(super) fn push_dense(&mut self, values: &[V]) -> Result<(), Refused> {
        for (column, value) in (0u32..).zip(values) {
            if *value != V::ZERO {
                self.check(column, *value)?;
                self.indices.push(column);
                self.values.push(*value);
            }
        }
        self.indptr.push(self.indices.len());
        Ok(())
    }

    fn check(&self, column: u32, value: V) -> Result<(), Refused> {
        let allowed = match self.policy {
            ValuePolicy::Any => true,
            ValuePolicy::NonNegative => (V::ZERO..V::INFINITY).contains(&value),
        };
        if allowed {
            Ok(())
        } else {
            let value = value.to_f64();
            Err(Refused::Value { column, value })
        }
    }

    /// The block; `Err` with the reason where the rows do not make one.
    pub(super) fn finish(self) -> Result<CsMatI<V, u32, usize>, String> {
        let shape = (self.indptr.len() - 1, self.num_columns as usize);
        CsMatI::try_new(shape, self.indptr, self.indices, self.values)
            .map_err(|(_, _, _, error)| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_are_sorted_summed_and_freed_of_zeros() {
        let mut rows: Rows = Rows::new(9, ValuePolicy::NonNegative, 3);
        rows.push_sparse(&[1, 4], &[1.0, 2.0]).unwrap();
        rows.push_sparse(&[4, 1, 4, 0, 7], &[2.0, 1.0, 3.0, 0.0, 1.5])
            .unwrap();
        rows.push_dense(&[0.0, -0.0, 3.0]).unwrap();
        let block = rows.finish().unwrap();
        assert_eq!(block.indptr().raw_storage(), [0, 2, 5, 6]);
        assert_eq!(block.indices(), [1, 4, 1, 4, 7, 2]);
        assert_eq!(block.data(), [1.0, 2.0, 1.0, 5.0, 1.5, 3.0]);
    }

    #[test]
    fn rows_filled_in_place_are_the_same_rows() {
        let (columns, values) = ([1, 4, 2, 0, 3, 3], [1.0, 2.0, 5.0, 0.0, 1.0, 2.0]);
        let mut rows: Rows = Rows::new(9, ValuePolicy::NonNegative, 4);
        let filled = rows.push_filled([2, 0, 3, 1].into_iter(), |all_columns, all_values| {
            all_columns.extend_from_slice(&columns);
            all_values.extend_from_slice(&values);
            Ok(())
        });
        assert!(filled.is_ok());
        let block = rows.finish().unwrap();
        assert_eq!(block.indptr().raw_storage(), [0, 2, 2, 4, 5]);
        assert_eq!(block.indices(), [1, 4, 2, 3, 3]);
        assert_eq!(block.data(), [1.0, 2.0, 5.0, 1.0, 2.0]);
    }

    #[test]
    fn the_policy_refuses_negative_and_infinite_values() {
        for bad in [-1.0, f32::INFINITY, f32::NEG_INFINITY] {
            let mut rows: Rows = Rows::new(3, ValuePolicy::NonNegative, 1);
            let refused = Refused::Value {
                column: 2,
                value: f64::from(bad),
            };
            assert_eq!(rows.push_sparse(&[0, 2], &[1.0, bad]), Err(refused));
            assert_eq!(rows.push_dense(&[0.0, 0.0, bad]), Err(refused));
            let mut rows: Rows = Rows::new(3, ValuePolicy::Any, 1);
            rows.push_sparse(&[0, 2], &[1.0, bad]).unwrap();
            assert_eq!(rows.finish().unwrap().data(), [1.0, bad]);
        }
        let mut rows: Rows = Rows::new(3, ValuePolicy::NonNegative, 1);
        assert!(rows.push_sparse(&[1], &[f32::NAN]).is_err());
        let mut rows: Rows = Rows::new(3, ValuePolicy::Any, 1);
        assert_eq!(rows.push_sparse(&[1, 3], &[1.0, 1.0]), Err(Refused::Column));
        assert_eq!(
            rows.push_sparse(&[u32::MAX, 1], &[1.0, 1.0]),
            Err(Refused::Column)
        );
    }
}
