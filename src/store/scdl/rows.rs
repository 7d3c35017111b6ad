//! Rows of numbers, put in order: columns ascend, none occurs twice, no value is
//! zero.

/// An entry that cannot be taken.
#[derive(Debug, PartialEq)]
pub(super) enum Refused {
    /// A column that the row does not have.
    Column(u32),
    /// A negative value, NaN or infinity, at this column.
    Value(u32, f32),
}

/// Appends the entries of one row in order; duplicates are summed, zeros dropped.
pub(super) fn push_row(
    row_columns: &[u32],
    row_values: &[f32],
    num_genes: usize,
    columns: &mut Vec<u32>,
    values: &mut Vec<f32>,
) -> Result<(), Refused> {
    let mut entries: Vec<(u32, f32)> = Vec::with_capacity(row_columns.len());
    for (column, value) in row_columns.iter().zip(row_values) {
        if *column as usize >= num_genes {
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
            columns.push(*column);
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
}
