//! Rows of numbers out of bare bytes, put in order: columns ascend, none occurs twice, no value is
//! zero.

use super::header::ScalarType;

/// Appends little-endian elements as `f32`, the nearest where the stored type is wider.
pub(super) fn extend_values(scalar: ScalarType, raw: &[u8], out: &mut Vec<f32>) {
    macro_rules! each {
        ($t:ty, $n:literal) => {
            out.extend(
                raw.as_chunks::<$n>()
                    .0
                    .iter()
                    .map(|b| <$t>::from_le_bytes(*b) as f32),
            )
        };
    }
    match scalar {
        ScalarType::U8 => out.extend(raw.iter().map(|byte| f32::from(*byte))),
        ScalarType::U16 => each!(u16, 2),
        ScalarType::U32 => each!(u32, 4),
        ScalarType::U64 => each!(u64, 8),
        ScalarType::F32 => each!(f32, 4),
        ScalarType::F64 => each!(f64, 8),
        ScalarType::F16 => {
            let halves = raw.as_chunks::<2>().0.iter();
            out.extend(halves.map(|b| half(u16::from_le_bytes(*b))));
        }
    }
}

/// Appends little-endian integers; beyond `u64` there are none, floats are no integers.
pub(super) fn extend_integers(scalar: ScalarType, raw: &[u8], out: &mut Vec<u64>) {
    macro_rules! each {
        ($t:ty, $n:literal) => {
            out.extend(
                raw.as_chunks::<$n>()
                    .0
                    .iter()
                    .map(|b| <$t>::from_le_bytes(*b) as u64),
            )
        };
    }
    match scalar {
        ScalarType::U8 => out.extend(raw.iter().map(|byte| u64::from(*byte))),
        ScalarType::U16 => each!(u16, 2),
        ScalarType::U32 => each!(u32, 4),
        ScalarType::U64 => each!(u64, 8),
        ScalarType::F16 | ScalarType::F32 | ScalarType::F64 => {}
    }
}

/// IEEE 754 half precision.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 0x3ff));
    sign * match (exponent, fraction) {
        (0, _) => fraction * 2f32.powi(-24),
        (31, 0.0) => f32::INFINITY,
        (31, _) => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

/// An entry that cannot be taken.
#[derive(Debug, PartialEq)]
pub(super) enum Refused {
    /// A column that the row does not have.
    Column(u64),
    /// A negative value, NaN or infinity, at this column.
    Value(u64, f32),
}

/// Appends the entries of one row in order; duplicates are summed, zeros dropped.
pub(super) fn push_row(
    row_columns: &[u64],
    row_values: &[f32],
    num_genes: usize,
    columns: &mut Vec<u32>,
    values: &mut Vec<f32>,
) -> Result<(), Refused> {
    let mut entries: Vec<(u64, f32)> = Vec::with_capacity(row_columns.len());
    for (column, value) in row_columns.iter().zip(row_values) {
        if *column >= num_genes as u64 {
            return Err(Refused::Column(*column));
        }
        if !(0.0..f32::INFINITY).contains(value) {
            return Err(Refused::Value(*column, *value));
        }
        entries.push((*column, *value));
    }
    if !entries.is_sorted_by(|a, b| a.0 < b.0) {
        entries.sort_by_key(|(column, _)| *column);
    }
    for same in entries.chunk_by(|a, b| a.0 == b.0) {
        let value: f32 = same.iter().map(|(_, value)| value).sum();
        if let (Some((column, _)), true) = (same.first(), value != 0.0) {
            columns.push(*column as u32);
            values.push(value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_put_in_order() {
        let (mut columns, mut values) = (Vec::new(), Vec::new());
        let pushed = push_row(
            &[4, 1, 4, 0],
            &[1.0, 2.0, 3.0, 0.0],
            5,
            &mut columns,
            &mut values,
        );
        assert_eq!(pushed, Ok(()));
        assert_eq!((columns, values), (vec![1, 4], vec![2.0, 4.0]));
        let refused =
            |column, value| push_row(&[column], &[value], 5, &mut Vec::new(), &mut Vec::new());
        assert_eq!(refused(5, 1.0), Err(Refused::Column(5)));
        assert_eq!(refused(2, -1.0), Err(Refused::Value(2, -1.0)));
        assert!(refused(2, f32::NAN).is_err());
    }

    #[test]
    fn every_type_becomes_numbers() {
        let mut out = Vec::new();
        extend_values(ScalarType::F16, &0x3e00u16.to_le_bytes(), &mut out);
        extend_values(ScalarType::U16, &[1, 1], &mut out);
        extend_values(ScalarType::F64, &2.5f64.to_le_bytes(), &mut out);
        assert_eq!(out, [1.5, 257.0, 2.5]);
        let mut out = Vec::new();
        extend_integers(ScalarType::U32, &[1, 0, 1, 0], &mut out);
        extend_integers(ScalarType::F32, &[0; 4], &mut out);
        assert_eq!(out, [65_537]);
    }
}
