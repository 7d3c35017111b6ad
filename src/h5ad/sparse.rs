//! Matrices of `data`, `indices` and `indptr`, compressed by row or by column.
//!
//! By row: the pointer stays in memory, a range of rows is one window of `data` and one of
//! `indices`, decoded straight into the block; a chunk that two ranges share is decoded once. By
//! column: the entries of a range of rows are spread over the whole file, so the matrix is turned
//! round once and held by rows where that fits the memory allowed, and scanned in bounded pieces
//! at every read where it does not.

use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::array::Array;
use super::container::{Attributes, Container};
use super::number::Value;
use super::rows::{Rows, Stop};
use super::turned::{Turned, Wanted, push_all};
use super::{H5adError, ValuePolicy};

/// Entries of one piece of a scan.
const PIECE: u64 = 1 << 20;

/// A sparse matrix of the file.
pub(super) struct Sparse {
    data: Array,
    indices: Array,
    /// Where each row (or column) begins; one more than there are.
    indptr: Vec<u64>,
    by_column: bool,
    num_rows: u64,
    num_columns: u32,
    /// A column-compressed matrix by rows, once it has been turned round.
    pub(super) turned: OnceLock<Turned<f32>>,
    /// The same in double precision, where that was asked for.
    pub(super) turned_wide: OnceLock<Turned<f64>>,
    /// Held while it is turned round, so that one thread does it and the others wait.
    turning: Mutex<()>,
}

/// Whether a group's attributes say that it is sparse, and which way: `true` by column.
pub(super) fn orientation(attributes: &Attributes) -> Option<bool> {
    let text = attributes
        .text("encoding-type")
        .or_else(|| attributes.text("h5sparse_format"))?;
    match text {
        "csr_matrix" | "csr" => Some(false),
        "csc_matrix" | "csc" => Some(true),
        _ => None,
    }
}

impl Sparse {
    /// Opens the group `key`; `expected` is the shape that the tables tell, where the group does
    /// not store its own.
    pub(super) fn open(
        container: &Container,
        key: &str,
        attributes: &Attributes,
        by_column: bool,
        expected: (u64, u64),
    ) -> Result<Sparse, H5adError> {
        let stored = attributes
            .sizes("shape")
            .or_else(|| attributes.sizes("h5sparse_shape"));
        let (num_rows, num_columns) = match stored.as_deref() {
            Some([rows, columns]) => (*rows, *columns),
            Some(other) => {
                let what = format!("expected a shape of two dimensions, found {other:?}");
                return Err(container.invalid(key, what));
            }
            None => expected,
        };
        let num_columns = u32::try_from(num_columns)
            .ok()
            .filter(|columns| *columns < u32::MAX);
        let num_columns = num_columns
            .ok_or_else(|| container.invalid(key, "more columns than 2^32 are not supported"))?;
        let data = container.array(&format!("{key}/data"))?;
        let indices = container.array(&format!("{key}/indices"))?;
        let major = if by_column {
            u64::from(num_columns)
        } else {
            num_rows
        };
        let indptr = read_pointer(container, key, major, data.len().min(indices.len()))?;
        let flat = data.shape.len() == 1 && indices.shape.len() == 1;
        if !flat || data.len() != indices.len() || indices.number.kind.is_float() {
            let what = format!(
                "expected as many integer indices as values, found {:?} indices of {} for {:?} \
                 values",
                indices.shape,
                indices.number.kind.name(),
                data.shape
            );
            return Err(container.invalid(key, what));
        }
        Ok(Sparse {
            data,
            indices,
            indptr,
            by_column,
            num_rows,
            num_columns,
            turned: OnceLock::new(),
            turned_wide: OnceLock::new(),
            turning: Mutex::new(()),
        })
    }

    pub(super) fn shape(&self) -> (u64, u64) {
        (self.num_rows, u64::from(self.num_columns))
    }

    pub(super) fn by_column(&self) -> bool {
        self.by_column
    }

    /// Entries stored, zeros included.
    pub(super) fn num_entries(&self) -> u64 {
        self.indptr.last().copied().unwrap_or(0)
    }

    /// Entries stored of `rows`; `None` by column.
    pub(super) fn entries_of(&self, rows: Range<u64>) -> Option<u64> {
        let at = |row: u64| self.indptr.get(usize::try_from(row).ok()?).copied();
        at(rows.end)?
            .checked_sub(at(rows.start)?)
            .filter(|_| !self.by_column)
    }

    pub(super) fn data(&self) -> &Array {
        &self.data
    }

    pub(super) fn indices(&self) -> &Array {
        &self.indices
    }

    /// The rows of `ranges`, which ascend and lie within the matrix.
    pub(super) fn read<V: Value>(
        &self,
        container: &Container,
        ranges: &[Range<u64>],
        policy: ValuePolicy,
        memory_bytes: u64,
    ) -> Result<Rows<V>, Stop> {
        let num_rows = ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum::<u64>() as usize;
        let rows: Rows<V> = Rows::new(self.num_columns, policy, num_rows);
        if !self.by_column {
            return self.read_by_row(container, ranges, rows);
        }
        // 4 bytes of column and those of value for each entry, 8 of pointer for each row.
        let entry_bytes = 4 + size_of::<V>() as u64;
        let needed =
            self.num_entries().saturating_mul(entry_bytes) + self.num_rows.saturating_mul(8);
        if needed > memory_bytes {
            let turned = self.turn(container, ranges)?;
            return push_all(&turned, ranges, 0..num_rows, rows);
        }
        let turned = self.whole(container)?;
        let mut rows = rows;
        for range in ranges {
            let within = range.start as usize..range.end as usize;
            rows = push_all(turned, std::slice::from_ref(range), within, rows)?;
        }
        Ok(rows)
    }

    /// The whole matrix by rows, turned round by the first thread that asks.
    fn whole<V: Value>(&self, container: &Container) -> Result<&Turned<V>, Stop> {
        let _one = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = V::turned(self);
        if let Some(turned) = kept.get() {
            return Ok(turned);
        }
        let whole = 0..self.num_rows;
        let turned = self.turn(container, std::slice::from_ref(&whole))?;
        Ok(kept.get_or_init(|| turned))
    }

    fn read_by_row<V: Value>(
        &self,
        container: &Container,
        ranges: &[Range<u64>],
        mut rows: Rows<V>,
    ) -> Result<Rows<V>, Stop> {
        let at = |row: u64| self.indptr.get(row as usize).copied().unwrap_or(0);
        let entries = ranges
            .iter()
            .map(|range| at(range.end) - at(range.start))
            .sum::<u64>();
        rows.reserve(entries as usize);
        for range in ranges {
            let window = at(range.start)..at(range.end);
            let lengths = range.clone().map(|row| (at(row + 1) - at(row)) as usize);
            let filled = rows.push_filled(lengths, |columns, values| {
                self.read_window(container, &window, columns, values)
            });
            filled.map_err(|stop| match stop {
                Stop::Row(row, refused) => Stop::Row(range.start + row, refused),
                file @ Stop::File(_) => file,
            })?;
        }
        Ok(rows)
    }

    /// Where each of `rows` begins among their entries, and where those lie; `None` for rows that
    /// the matrix does not have, and by column.
    pub(super) fn places(&self, rows: Range<u64>) -> Option<(Vec<usize>, Range<u64>)> {
        let (first, last) = (
            usize::try_from(rows.start).ok()?,
            usize::try_from(rows.end).ok()?,
        );
        let starts = self.indptr.get(first..=last).filter(|_| !self.by_column)?;
        let (start, end) = (*starts.first()?, *starts.last()?);
        let within = starts.iter().map(|at| (at - start) as usize);
        Some((within.collect(), start..end))
    }

    /// Appends entries `window` to the two buffers.
    pub(super) fn read_window<V: Value>(
        &self,
        container: &Container,
        window: &Range<u64>,
        minors: &mut Vec<u32>,
        values: &mut Vec<V>,
    ) -> Result<(), H5adError> {
        let (indices, data) = (&self.indices, &self.data);
        container.read_elements(indices, window, minors, |raw, out| {
            indices.number.extend_columns(raw, out);
        })?;
        container.read_elements(data, window, values, |raw, out| {
            V::extend(data.number, raw, out);
        })?;
        Ok(())
    }

    /// Turns the rows of `ranges` of a column-compressed matrix round: one scan counts the entries
    /// of each row, a second puts them in their places.
    fn turn<V: Value>(
        &self,
        container: &Container,
        ranges: &[Range<u64>],
    ) -> Result<Turned<V>, Stop> {
        let wanted = Wanted::new(ranges);
        let mut indptr = vec![0usize; wanted.num_rows() + 1];
        self.scan::<V>(container, |row, _, _| {
            if let Some(count) = wanted.place(row).and_then(|at| indptr.get_mut(at + 1)) {
                *count += 1;
            }
        })?;
        for at in 1..indptr.len() {
            indptr[at] += indptr[at - 1];
        }
        let entries = indptr.last().copied().unwrap_or(0);
        let (mut columns, mut values) = (vec![0u32; entries], vec![V::ZERO; entries]);
        let mut next = indptr.clone();
        self.scan(container, |row, column, value| {
            let Some(at) = wanted.place(row).and_then(|place| next.get_mut(place)) else {
                return;
            };
            if let (Some(c), Some(v)) = (columns.get_mut(*at), values.get_mut(*at)) {
                (*c, *v) = (column, value);
            }
            *at += 1;
        })?;
        Ok(Turned {
            indptr,
            columns,
            values,
        })
    }

    /// Every entry in the file's order, in bounded pieces: (row, column, value).
    fn scan<V: Value>(
        &self,
        container: &Container,
        mut each: impl FnMut(u64, u32, V),
    ) -> Result<(), H5adError> {
        self.scan_pieces(container, &mut |piece| {
            for ((major, minor), value) in piece {
                match self.by_column {
                    true => each(u64::from(minor), major as u32, value),
                    false => each(major as u64, minor, value),
                }
            }
        })
    }

    /// Every entry in the file's order, in bounded pieces: ((major, minor), value), where a major
    /// is a row, or a column of a matrix compressed by column.
    pub(super) fn scan_pieces<V: Value>(
        &self,
        container: &Container,
        each: &mut dyn FnMut(&mut dyn Iterator<Item = Entry<V>>),
    ) -> Result<(), H5adError> {
        let (mut minors, mut values) = (Vec::new(), Vec::<V>::new());
        let num_minors = if self.by_column {
            self.num_rows
        } else {
            u64::from(self.num_columns)
        };
        let mut major = 0usize;
        let mut start = 0;
        while start < self.num_entries() {
            let window = start..self.num_entries().min(start + PIECE);
            minors.clear();
            values.clear();
            self.read_window(container, &window, &mut minors, &mut values)?;
            if let Some(outside) = minors.iter().find(|minor| u64::from(**minor) >= num_minors) {
                let what = format!("an entry lies at {outside} of {num_minors}");
                return Err(container.invalid(&self.indices.key, what));
            }
            let mut piece =
                (start..)
                    .zip(minors.iter().zip(&values))
                    .map(|(at, (minor, value))| {
                        while self.indptr.get(major + 1).is_some_and(|end| *end <= at) {
                            major += 1;
                        }
                        ((major, *minor), *value)
                    });
            each(&mut piece);
            start = window.end;
        }
        Ok(())
    }
}

/// ((major, minor), value).
pub(super) type Entry<V> = ((usize, u32), V);

/// The pointer, checked: as long as it must be, ascending from 0, within the entries.
fn read_pointer(
    container: &Container,
    group: &str,
    major: u64,
    entries: u64,
) -> Result<Vec<u64>, H5adError> {
    let array = container.array(&format!("{group}/indptr"))?;
    let key = &array.key;
    if array.shape.len() != 1
        || array.number.kind.is_float()
        || Some(array.len()) != major.checked_add(1)
    {
        let what = format!(
            "expected {} integers, one more than the matrix has rows (or columns, by column), \
             found {:?} of {}",
            major.saturating_add(1),
            array.shape,
            array.number.kind.name()
        );
        return Err(container.invalid(key, what));
    }
    let mut signed = Vec::new();
    array
        .number
        .extend_i64(&container.raw_rows(&array, 0, array.len())?, &mut signed);
    let mut pointer = Vec::with_capacity(signed.len());
    let mut last = 0u64;
    for (at, value) in signed.into_iter().enumerate() {
        let value = u64::try_from(value).ok();
        let ascends = value.filter(|v| *v >= last && *v <= entries && (at > 0 || *v == 0));
        let Some(value) = ascends else {
            let what = format!(
                "expected numbers that ascend from 0 to at most {entries}, found {value:?} after \
                 {last} at {at}"
            );
            return Err(container.invalid(key, what));
        };
        pointer.push(value);
        last = value;
    }
    Ok(pointer)
}
