//! Lists of rows as a command line gives them: `0,5,7`, `0-4` (both ends), `0..5` (without 5).

use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use super::PrepareError;

/// Rows in the order given; a row may occur more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowList(Vec<Range<u64>>);

impl RowList {
    /// The first `count` rows of a file that has `num_cells`, or all where there are fewer.
    pub fn first(count: u64, num_cells: u64) -> Self {
        Self(vec![0..count.min(num_cells)])
    }

    /// Every row, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().cloned().flatten()
    }

    /// Checks that a file has all of the rows.
    ///
    /// # Errors
    /// The first row beyond the file's `num_cells`.
    pub fn check(&self, path: &Path, num_cells: u64) -> Result<(), PrepareError> {
        let Some(range) = self.0.iter().find(|range| range.end > num_cells) else {
            return Ok(());
        };
        Err(PrepareError::NoSuchRow {
            path: path.to_owned(),
            row: range.start.max(num_cells),
            num_cells,
        })
    }
}

impl FromStr for RowList {
    type Err = PrepareError;

    fn from_str(given: &str) -> Result<Self, PrepareError> {
        let wrong = |problem| PrepareError::Rows {
            given: given.to_owned(),
            problem,
        };
        let parts = given.split(',').map(str::trim);
        Ok(Self(
            parts.map(range).collect::<Result<_, _>>().map_err(wrong)?,
        ))
    }
}

/// One part between commas.
fn range(part: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| {
        let number = text.trim().parse::<u64>().ok().filter(|&n| n < u64::MAX);
        number.ok_or_else(|| format!("expected a row number, found `{text}`"))
    };
    let range = if part.starts_with('-') {
        return Err(format!("expected a row number, found `{part}`"));
    } else if let Some((first, end)) = part.split_once("..") {
        number(first)?..number(end)?
    } else if let Some((first, last)) = part.split_once('-') {
        number(first)?..number(last)? + 1
    } else {
        let row = number(part)?;
        row..row + 1
    };
    if range.is_empty() {
        return Err(format!("the range `{part}` is empty"));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rows(given: &str) -> Result<Vec<u64>, String> {
        let list = given.parse::<RowList>().map_err(|e| e.to_string())?;
        Ok(list.iter().collect())
    }

    #[test]
    fn numbers_and_ranges_in_the_order_given() {
        assert_eq!(rows("5"), Ok(vec![5]));
        assert_eq!(rows("7,0, 5,0"), Ok(vec![7, 0, 5, 0]));
        assert_eq!(rows("0-2,9"), Ok(vec![0, 1, 2, 9]));
        assert_eq!(rows("1..3"), Ok(vec![1, 2]));
    }

    #[test]
    fn what_is_no_row_is_named() {
        for given in [
            "", "a", "1,,2", "-1", "1-", "3-1", "2..2", "1.5", "0x1", "..3",
        ] {
            let error = rows(given).unwrap_err();
            assert!(error.contains("hint: ") && error.contains(given), "{error}");
        }
        let huge = format!("{}", u64::MAX);
        assert!(rows(&huge).is_err() && rows(&format!("0-{huge}")).is_err());
    }

    #[test]
    fn the_first_row_beyond_the_file_is_named() {
        let error = |given: &str| {
            let list = given.parse::<RowList>().unwrap();
            list.check(Path::new("f.h5ad"), 10)
                .map_err(|e| e.to_string())
        };
        assert_eq!(error("9,0"), Ok(()));
        assert!(
            error("3,12,99")
                .unwrap_err()
                .contains("f.h5ad: there is no row 12")
        );
        assert!(
            error("0..99999999999")
                .unwrap_err()
                .contains("row 10\nhint: ")
        );
    }
}
