//! Rows of a matrix as the bytes of another number type, for writing them again.

use std::ops::Range;

use sprs::CsMatI;

use super::container::Node;
use super::number::Value;
use super::{H5ad, H5adError, ValuePolicy};
use crate::cell::CellSource;
use crate::numbers::{Kind, f32_to_half};

/// Beyond this, double precision does not hold every integer.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;

/// Where the columns of a file go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnMap {
    /// They stay where they are.
    Same,
    /// To these places, `None` for a column that is left out.
    To(Vec<Option<u32>>),
}

/// Rows as bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowBytes {
    /// Entries of each row.
    pub lengths: Vec<u32>,
    /// Columns as `i32`, little-endian, ascending in each row.
    pub columns: Vec<u8>,
    /// Values of the type asked for, little-endian.
    pub values: Vec<u8>,
    /// How many values the type does not hold exactly.
    pub num_changed: u64,
}

/// What numbers a matrix holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Survey {
    /// Entries that are not zero.
    pub num_entries: u64,
    /// The least value, at most 0.
    pub least: f64,
    /// The greatest value, at least 0.
    pub greatest: f64,
    /// Whether all are integers.
    pub whole: bool,
    /// Whether 32-bit floats hold all of them.
    pub single: bool,
}

impl Default for Survey {
    fn default() -> Self {
        Self {
            num_entries: 0,
            least: 0.0,
            greatest: 0.0,
            whole: true,
            single: true,
        }
    }
}

impl Survey {
    /// What two parts hold together.
    pub fn and(self, other: Self) -> Self {
        Self {
            num_entries: self.num_entries + other.num_entries,
            least: self.least.min(other.least),
            greatest: self.greatest.max(other.greatest),
            whole: self.whole && other.whole,
            single: self.single && other.single,
        }
    }

    /// The narrowest type that holds all values exactly: an unsigned integer, a signed one where
    /// there are negative values, a float where there are fractions.
    pub fn narrowest(self) -> Kind {
        let within = |least: f64, most: f64| self.least >= least && self.greatest <= most;
        match self {
            Self {
                whole: false,
                single: true,
                ..
            } => Kind::F32,
            Self { whole: false, .. } => Kind::F64,
            _ if within(0.0, f64::from(u8::MAX)) => Kind::U8,
            _ if within(0.0, f64::from(u16::MAX)) => Kind::U16,
            _ if within(0.0, f64::from(u32::MAX)) => Kind::U32,
            _ if within(f64::from(i8::MIN), f64::from(i8::MAX)) => Kind::I8,
            _ if within(f64::from(i16::MIN), f64::from(i16::MAX)) => Kind::I16,
            _ if within(f64::from(i32::MIN), f64::from(i32::MAX)) => Kind::I32,
            _ if within(-MOST_EXACT, MOST_EXACT) => Kind::I64,
            _ => Kind::F64,
        }
    }
}

impl H5ad {
    /// The type of the matrix's values; `None` where the file has no matrix.
    pub fn kind(&self) -> Option<Kind> {
        self.matrix.kind()
    }

    /// How many entries `rows` have in the file, zeros included; `None` where that is not known
    /// without reading them.
    pub fn num_entries(&self, rows: Range<u64>) -> Option<u64> {
        self.matrix.num_entries(rows)
    }

    /// Whether the matrix is compressed by column.
    pub fn is_by_column(&self) -> bool {
        self.matrix.by_column()
    }

    /// About how many entries a row has, for a matrix whose rows do not say.
    pub fn about_entries(&self) -> u32 {
        let all = self.matrix.entries_in_all().unwrap_or(0);
        let rows = self.num_cells().max(1);
        u32::try_from(all.div_ceil(rows)).unwrap_or(u32::MAX)
    }

    /// Entries of each of `rows`, counted.
    ///
    /// # Errors
    /// Rows that the matrix does not have; unreadable data.
    pub fn count_entries(&self, rows: Range<u64>) -> Result<Vec<u32>, H5adError> {
        Ok(self.read_bytes(rows, Kind::U8, &ColumnMap::Same)?.lengths)
    }

    /// The members of the groups `keys`, as `group.member`.
    ///
    /// # Errors
    /// Unreadable data.
    pub fn members(&self, keys: &[&str]) -> Result<Vec<String>, H5adError> {
        let mut names = Vec::new();
        for key in keys {
            if let Node::Group(group) = self.container.node(key)? {
                let members = self.container.members(key, &group)?;
                names.extend(members.iter().map(|name| format!("{key}.{name}")));
            }
        }
        Ok(names)
    }

    /// The rows as values of `kind`, their columns put where `map` says. Any value is let through.
    ///
    /// # Errors
    /// Rows that the matrix does not have; unreadable data.
    pub fn read_bytes(
        &self,
        rows: Range<u64>,
        kind: Kind,
        map: &ColumnMap,
    ) -> Result<RowBytes, H5adError> {
        if self.kind().is_some_and(fits_single) {
            let block = self.read_values::<f32>(&[rows], ValuePolicy::Any)?;
            return Ok(self.transcode(&block, kind, map));
        }
        let block = self.read_values::<f64>(&[rows], ValuePolicy::Any)?;
        Ok(self.transcode(&block, kind, map))
    }

    /// What numbers the rows hold.
    ///
    /// # Errors
    /// Rows that the matrix does not have; unreadable data.
    pub fn survey(&self, rows: Range<u64>) -> Result<Survey, H5adError> {
        if self.kind().is_some_and(fits_single) {
            return Ok(survey(
                self.read_values::<f32>(&[rows], ValuePolicy::Any)?.data(),
            ));
        }
        Ok(survey(
            self.read_values::<f64>(&[rows], ValuePolicy::Any)?.data(),
        ))
    }

    fn transcode<V: Value>(
        &self,
        block: &CsMatI<V, u32, usize>,
        kind: Kind,
        map: &ColumnMap,
    ) -> RowBytes {
        let mut out = RowBytes {
            lengths: Vec::with_capacity(block.rows()),
            columns: Vec::with_capacity(4 * block.nnz()),
            values: Vec::with_capacity(kind.size() * block.nnz()),
            num_changed: 0,
        };
        let long = matches!(self.kind(), Some(Kind::I64 | Kind::U64));
        if long {
            let inexact = |value: &&V| value.to_f64().abs() >= MOST_EXACT;
            out.num_changed = block.data().iter().filter(inexact).count() as u64;
        }
        let mut row: Vec<(u32, V)> = Vec::new();
        for at in 0..block.rows() {
            let within = block.indptr().outer_inds_sz(at);
            let entries = block
                .indices()
                .get(within.clone())
                .zip(block.data().get(within));
            let (columns, values) = entries.unwrap_or_default();
            match map {
                ColumnMap::Same => {
                    out.push(columns.iter().copied(), values.iter().copied(), kind);
                }
                ColumnMap::To(places) => {
                    row.clear();
                    row.extend(columns.iter().zip(values).filter_map(|(column, value)| {
                        let place = places.get(*column as usize).copied().flatten()?;
                        Some((place, *value))
                    }));
                    if !row.is_sorted_by_key(|(column, _)| *column) {
                        row.sort_unstable_by_key(|(column, _)| *column);
                    }
                    let columns = row.iter().map(|(column, _)| *column);
                    out.push(columns, row.iter().map(|(_, value)| *value), kind);
                }
            }
        }
        out
    }
}

impl RowBytes {
    fn push<V: Value>(
        &mut self,
        columns: impl ExactSizeIterator<Item = u32>,
        values: impl Iterator<Item = V>,
        kind: Kind,
    ) {
        self.lengths.push(columns.len() as u32);
        self.columns.extend(columns.flat_map(u32::to_le_bytes));
        self.num_changed += encode(values, kind, &mut self.values);
    }
}

/// Whether 32-bit floats hold every value of a type.
fn fits_single(kind: Kind) -> bool {
    use Kind::{Bool, F16, F32, I8, I16, U8, U16};
    matches!(kind, Bool | I8 | I16 | U8 | U16 | F16 | F32)
}

fn survey<V: Value>(values: &[V]) -> Survey {
    let start = Survey {
        num_entries: values.len() as u64,
        ..Survey::default()
    };
    values
        .iter()
        .map(|v| v.to_f64())
        .fold(start, |all, value| Survey {
            least: all.least.min(value),
            greatest: all.greatest.max(value),
            whole: all.whole & (value.trunc() == value) & value.is_finite(),
            single: all.single & (f64::from(value as f32) == value || value.is_nan()),
            ..all
        })
}

/// Appends values as elements of `kind` and returns how many that changes.
fn encode<V: Value>(values: impl Iterator<Item = V>, kind: Kind, out: &mut Vec<u8>) -> u64 {
    let mut changed = 0;
    macro_rules! each {
        ($t:ty) => {
            for value in values.map(V::to_f64) {
                let stored = value as $t;
                let kept = stored as f64 == value || (kind.is_float() && value.is_nan());
                changed += u64::from(!kept);
                out.extend_from_slice(&stored.to_le_bytes());
            }
        };
    }
    match kind {
        Kind::I8 => each!(i8),
        Kind::I16 => each!(i16),
        Kind::I32 => each!(i32),
        Kind::I64 => each!(i64),
        Kind::U8 => each!(u8),
        Kind::U16 => each!(u16),
        Kind::U32 => each!(u32),
        Kind::U64 => each!(u64),
        Kind::F32 => each!(f32),
        Kind::F64 => each!(f64),
        Kind::Bool => {
            for value in values.map(V::to_f64) {
                changed += u64::from(value != 1.0);
                out.push(u8::from(value != 0.0));
            }
        }
        Kind::F16 => {
            for value in values.map(V::to_f64) {
                let (stored, back) = f32_to_half(value as f32);
                let kept = f64::from(back) == value || (value.is_nan() && back.is_nan());
                changed += u64::from(!kept);
                out.extend_from_slice(&stored.to_le_bytes());
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_type_holds_everything() {
        let of = |values: &[f64]| survey(values).narrowest();
        assert_eq!(of(&[]), Kind::U8);
        assert_eq!(of(&[255.0]), Kind::U8);
        assert_eq!(of(&[256.0]), Kind::U16);
        assert_eq!(of(&[65_536.0]), Kind::U32);
        assert_eq!(of(&[-1.0, 127.0]), Kind::I8);
        assert_eq!(of(&[-1.0, 200.0]), Kind::I16);
        assert_eq!(of(&[-1.0, 70_000.0]), Kind::I32);
        assert_eq!(of(&[1e12]), Kind::I64);
        assert_eq!(of(&[0.5]), Kind::F32);
        assert_eq!(of(&[0.1]), Kind::F64);
        assert_eq!(of(&[f64::NAN]), Kind::F32);
        assert_eq!(of(&[1e300]), Kind::F64);
    }

    #[test]
    fn changed_values_are_counted() {
        let changed = |values: &[f64], kind| encode(values.iter().copied(), kind, &mut Vec::new());
        assert_eq!(
            changed(&[1.0, 255.0, 256.0, -1.0, 0.5, f64::NAN], Kind::U8),
            4
        );
        assert_eq!(
            changed(&[0.5, 0.1, f64::NAN, 65_504.0, 65_536.0], Kind::F16),
            2
        );
        assert_eq!(changed(&[0.5, 0.1, f64::INFINITY], Kind::F32), 1);
        assert_eq!(changed(&[1.0, 2.0], Kind::Bool), 1);
    }

    #[test]
    fn half_precision_rounds_to_the_nearest() {
        for (value, bits) in [
            (1.0, 0x3c00),
            (-2.0, 0xc000),
            (65_504.0, 0x7bff),
            (65_520.0, 0x7c00),
            (5.960_464_5e-8, 1),
            (1.0 / 3.0, 0x3555),
            (1e-9, 0),
        ] {
            assert_eq!(f32_to_half(value).0, bits, "{value}");
        }
    }
}
