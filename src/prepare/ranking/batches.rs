//! Which cells belong together: the values of an obs column over all files.

use std::collections::{BTreeMap, HashMap};

use crate::cell::CellSource;
use crate::h5ad::H5ad;
use crate::prepare::{GenesError, PrepareError};

/// The batches of all files, by the values of an obs column.
pub(super) struct Batches {
    column: Option<String>,
    /// Cells of each batch.
    pub(super) cells: BTreeMap<String, u64>,
}

impl Batches {
    /// By `column`; `None`: all cells are one batch.
    pub(super) fn new(column: Option<&str>) -> Self {
        Self {
            column: column.map(str::to_owned),
            cells: BTreeMap::new(),
        }
    }

    /// Counts the cells of each batch of a file.
    pub(super) fn look(&mut self, file: &H5ad) -> Result<(), PrepareError> {
        let Some(column) = &self.column else {
            *self.cells.entry(String::new()).or_default() += file.num_cells();
            return Ok(());
        };
        let labels = file.obs_labels(column)?;
        let mut counts = vec![0; labels.categories.len()];
        for (row, code) in labels.codes.iter().enumerate() {
            let count = usize::try_from(*code).ok().and_then(|c| counts.get_mut(c));
            *count.ok_or_else(|| self.no_batch(file, column, row))? += 1;
        }
        let counted = labels.categories.into_iter().zip(counts);
        for (name, count) in counted.filter(|(_, count)| *count > 0) {
            *self.cells.entry(name).or_default() += count;
        }
        Ok(())
    }

    /// Refuses a batch that is too small for a variance.
    pub(super) fn check(&self, num_cells: u64) -> Result<(), PrepareError> {
        let least = self.cells.iter().min_by_key(|(_, cells)| **cells);
        let (name, found) = least.map_or(("", 0), |(name, cells)| (name.as_str(), *cells));
        if found >= 2 && num_cells >= 2 {
            return Ok(());
        }
        let place = self.place(name);
        Err(GenesError::FewCells { place, found }.into())
    }

    /// How a batch is called in messages.
    pub(super) fn place(&self, name: &str) -> String {
        match &self.column {
            Some(column) => format!("batch {name:?} of the obs column `{column}`"),
            None => "all files together".to_owned(),
        }
    }

    /// What can be done about a batch in which hardly anything varies.
    pub(super) fn remedy(&self) -> &'static str {
        match &self.column {
            Some(_) => "merge or remove small batches, or name another column with --batch-key",
            None => "a larger --span fits fewer genes; `gene-bert info` says what the files hold",
        }
    }

    /// The batch of each cell of a file, by its place among all.
    pub(super) fn of(&self, file: &H5ad) -> Result<Option<Vec<u32>>, PrepareError> {
        let Some(column) = &self.column else {
            return Ok(None);
        };
        let labels = file.obs_labels(column)?;
        let places: HashMap<&str, u32> = self.cells.keys().map(String::as_str).zip(0..).collect();
        let number = |name: &String| places.get(name.as_str()).copied();
        let numbers: Vec<Option<u32>> = labels.categories.iter().map(number).collect();
        let mut batches = Vec::with_capacity(labels.codes.len());
        for (row, code) in labels.codes.iter().enumerate() {
            let number = usize::try_from(*code).ok().and_then(|c| *numbers.get(c)?);
            let Some(number) = number else {
                return Err(self.no_batch(file, column, row).into());
            };
            batches.push(number);
        }
        Ok(Some(batches))
    }

    fn no_batch(&self, file: &H5ad, column: &str, row: usize) -> GenesError {
        GenesError::NoBatch {
            path: file.path().to_owned(),
            column: column.to_owned(),
            row: row as u64,
        }
    }
}
