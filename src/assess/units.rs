//! The values of an obs column over all evaluated cells: groups that figures are given for, and
//! that a bootstrap draws.

use anyhow::{Result, ensure};

use super::subject::Cells;
use crate::loader::DataSet;

/// Name of the group of cells without a value.
const MISSING: &str = "(missing)";

/// A group for every cell of a data set.
#[derive(Debug, Clone)]
pub(super) struct Units {
    /// Names of the groups, sorted.
    pub(super) names: Vec<String>,
    /// The group of each cell.
    pub(super) of_cell: Vec<u32>,
}

impl Units {
    /// The groups by the values of `column`, which every file must have.
    ///
    /// # Errors
    /// A file without the column, or with one that has no values to name.
    pub(super) fn new(data: &DataSet, column: &str) -> Result<Self> {
        let mut values: Vec<Option<String>> = Vec::with_capacity(data.len() as usize);
        for source in (0..data.num_sources()).filter_map(|index| data.source(index)) {
            let labels = source.labels(column).map_err(anyhow::Error::from_boxed)?;
            let rows = 0..source.num_cells() as usize;
            values.extend(rows.map(|row| labels.value(row).map(str::to_owned)));
        }
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| MISSING.to_owned());
        let mut names: Vec<String> = values.iter().map(value).collect();
        names.sort_unstable();
        names.dedup();
        let number = |name: String| names.partition_point(|other| *other < name) as u32;
        Ok(Self {
            of_cell: values.iter().map(|v| number(value(v))).collect(),
            names,
        })
    }

    /// The same, where at least two groups are needed among the evaluated cells.
    ///
    /// # Errors
    /// As [`Units::new`], and a column with a single value.
    pub(super) fn several(cells: &Cells, column: &str) -> Result<Self> {
        let units = Self::new(&cells.data, column)?;
        let mut seen = cells.selection.cells(cells.data.len());
        let first = seen.next().map(|cell| units.of_cell[cell as usize]);
        ensure!(
            seen.any(|cell| Some(units.of_cell[cell as usize]) != first),
            "--bootstrap-by {column}: all evaluated cells have the same value, so nothing can be \
             drawn\nhint: leave it out to draw cells, or name a column with several values"
        );
        Ok(units)
    }
}
