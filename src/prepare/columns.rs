//! What obs columns hold, counted over files: the values that become tokens, and those left out.

use std::collections::HashMap;
use std::sync::Arc;

use super::PrepareError;
use crate::cell::{CellSource, Labels};
use crate::loader::CellFile;
use crate::vocab::phenotype_token;

/// A column with more values than one in so many cells looks like numbers rather than labels.
const CELLS_PER_VALUE: u64 = 10;
/// But a column of at most so many values never does.
const FEW_VALUES: usize = 50;

/// One obs column over all files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnCounts {
    /// Its name.
    pub column: String,
    /// Each token and its cells, the most common first.
    pub tokens: Vec<(String, u64)>,
    /// Cells in all.
    pub num_cells: u64,
    /// Cells without a value.
    pub missing: u64,
    /// Cells whose value was left out.
    pub left_out: u64,
}

impl ColumnCounts {
    /// What looks odd about the column.
    pub(super) fn note(&self) -> Option<String> {
        let (column, num_tokens) = (&self.column, self.tokens.len());
        if num_tokens == 0 {
            return Some(format!("obs column `{column}` holds no value at all"));
        }
        let many = num_tokens as u64 > self.num_cells / CELLS_PER_VALUE;
        (many && num_tokens > FEW_VALUES).then(|| {
            format!(
                "obs column `{column}` has {num_tokens} values in {} cells: does it hold labels?",
                self.num_cells
            )
        })
    }
}

/// Values that get no token.
pub(super) struct LeftOut {
    /// As given, the column (none: every column), the token, and whether a column has it.
    values: Vec<(String, Option<String>, String, bool)>,
}

impl LeftOut {
    /// `given`: `VALUE`, or `COLUMN=VALUE` with one of `columns`; values as obs has them or as
    /// tokens.
    pub(super) fn new(given: &[String], columns: &[String]) -> Self {
        let parse = |given: &String| {
            let split = given.split_once('=');
            let split = split.filter(|(column, _)| columns.iter().any(|c| c == column));
            let (column, value) = match split {
                Some((column, value)) => (Some(column.to_owned()), value),
                None => (None, given.as_str()),
            };
            let is_token = value.starts_with('[') && value.ends_with(']');
            let token = if is_token {
                value.to_owned()
            } else {
                phenotype_token(value)
            };
            (given.clone(), column, token, false)
        };
        Self {
            values: given.iter().map(parse).collect(),
        }
    }

    fn has(&mut self, column: &str, token: &str) -> bool {
        let mut found = false;
        for (_, of, left_out, used) in &mut self.values {
            if left_out == token && of.as_deref().is_none_or(|of| of == column) {
                (found, *used) = (true, true);
            }
        }
        found
    }

    /// A note for each that no column has.
    pub(super) fn unused(&self) -> impl Iterator<Item = String> {
        let unused = self.values.iter().filter(|(_, _, _, used)| !used);
        unused.map(|(given, ..)| format!("--leave_out {given:?}: no column has this value"))
    }
}

/// The column's values over `files`, and its labels in each, without those left out.
///
/// # Errors
/// A file without the column, or whose column cannot be read.
pub(super) fn count(
    files: &[Arc<CellFile>],
    column: &str,
    left_out: &mut LeftOut,
) -> Result<(ColumnCounts, Vec<Labels>), PrepareError> {
    let mut counts = ColumnCounts {
        column: column.to_owned(),
        ..ColumnCounts::default()
    };
    let mut cells: HashMap<String, u64> = HashMap::new();
    let mut all = Vec::new();
    for file in files {
        let mut labels = file.labels(column).map_err(PrepareError::Source)?;
        counts.num_cells += file.num_cells();
        tally(&mut labels, &mut counts, &mut cells, left_out);
        all.push(labels);
    }
    counts.tokens = cells.into_iter().collect();
    counts
        .tokens
        .sort_unstable_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
    Ok((counts, all))
}

/// Adds the labels of one file, and marks those left out as missing.
fn tally(
    labels: &mut Labels,
    counts: &mut ColumnCounts,
    cells: &mut HashMap<String, u64>,
    left_out: &mut LeftOut,
) {
    let mut of_value = vec![0; labels.categories.len()];
    for &code in &labels.codes {
        match usize::try_from(code).ok().and_then(|c| of_value.get_mut(c)) {
            Some(number) => *number += 1,
            None => counts.missing += 1,
        }
    }
    for (code, (value, number)) in (0..).zip(labels.categories.iter().zip(of_value)) {
        let token = phenotype_token(value);
        if number > 0 && left_out.has(&counts.column, &token) {
            counts.left_out += number;
            labels
                .codes
                .iter_mut()
                .filter(|c| **c == code)
                .for_each(|c| *c = -1);
        } else if number > 0 {
            *cells.entry(token).or_default() += number;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn values_are_counted_and_left_out_by_column() {
        let columns = owned(&["sex", "stage"]);
        let given = owned(&["sex=unknown", "[n/a]", "a=b", "stage=unknown"]);
        let mut left_out = LeftOut::new(&given, &columns);
        let mut labels = Labels {
            categories: owned(&["unknown", "n/a", "male", "never", "a b", "a_b"]),
            codes: vec![0, 1, 2, 2, -1, 4, 5, 9],
        };
        let mut counts = ColumnCounts {
            column: "sex".to_owned(),
            ..ColumnCounts::default()
        };
        let mut cells = HashMap::new();
        tally(&mut labels, &mut counts, &mut cells, &mut left_out);
        assert_eq!(labels.codes, [-1, -1, 2, 2, -1, 4, 5, 9]);
        assert_eq!((counts.missing, counts.left_out), (2, 2));
        let expected = [("[male]".to_owned(), 2), ("[a_b]".to_owned(), 2)];
        assert_eq!(cells, expected.into());
        let unused: Vec<String> = left_out.unused().collect();
        assert_eq!(unused.len(), 2);
        assert!(unused[0].contains("a=b") && unused[1].contains("stage=unknown"));
    }

    #[test]
    fn a_column_of_numbers_is_noted() {
        let counts = |values: u64, num_cells| ColumnCounts {
            column: "n".to_owned(),
            tokens: (0..values).map(|i| (i.to_string(), 1)).collect(),
            num_cells,
            ..ColumnCounts::default()
        };
        assert!(counts(60, 100).note().unwrap().contains("60 values"));
        assert!(counts(60, 1000).note().is_none() && counts(50, 100).note().is_none());
        assert!(counts(0, 100).note().unwrap().contains("no value"));
    }
}
