//! Reads cells of a table: sorted, file by file, then put into the order asked for.

use std::collections::HashMap;

use rayon::prelude::*;

use super::view::ViewFile;
use super::{CellTable, Item};
use crate::loader::data_set::{by_source, merge_rows, read_rows};
use crate::loader::error::LoaderError;
use crate::tokenize::{Draw, Row};
use crate::vocab::NO_GENE;

impl CellTable {
    pub(super) fn read(&self, epoch: u64, cells: &[u64]) -> Result<Vec<Item>, LoaderError> {
        let num_cells = self.len();
        if let Some(&cell) = cells.iter().find(|cell| **cell >= num_cells) {
            return Err(LoaderError::NoCell { cell, num_cells });
        }
        let mut sorted = cells.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let read = |(file, cells): (usize, &[u64])| self.read_file(epoch, file, cells);
        let by_file: Vec<_> = by_source(&self.offsets, &sorted).collect();
        let items: Vec<Vec<Item>> = by_file
            .into_par_iter()
            .map(read)
            .collect::<Result<_, _>>()?;
        let mut items: Vec<Item> = items.into_iter().flatten().collect();
        if sorted == cells {
            return Ok(items);
        }
        let place: HashMap<u64, usize> = sorted.iter().copied().zip(0..).collect();
        if sorted.len() == cells.len() {
            // Each once, in another order: moved, not copied.
            let mut slots: Vec<Option<Item>> = items.drain(..).map(Some).collect();
            return Ok(cells
                .iter()
                .filter_map(|cell| slots[place[cell]].take())
                .collect());
        }
        Ok(cells
            .iter()
            .map(|cell| items[place[cell]].clone())
            .collect())
    }

    /// Ascending cells of one file.
    fn read_file(&self, epoch: u64, file: usize, cells: &[u64]) -> Result<Vec<Item>, LoaderError> {
        let code = |cell: u64| {
            self.obs
                .iter()
                .map(move |column| column.codes[cell as usize])
        };
        let item = |&cell: &u64| Item {
            cell,
            rows: Vec::with_capacity(self.views.len()),
            obs: code(cell).collect(),
        };
        let mut items: Vec<Item> = cells.iter().map(item).collect();
        let ranges = merge_rows(cells.iter().map(|cell| cell - self.offsets[file]));
        for view in &self.views {
            let view = &view.files[file];
            let block = read_rows(view.file.as_ref(), &ranges)?;
            for (item, row) in items.iter_mut().zip(block.outer_iterator()) {
                let draw = Draw {
                    seed: self.seed,
                    epoch,
                    cell: item.cell,
                    augments: true,
                };
                item.rows.push(view.row(row.indices(), row.data(), draw));
            }
        }
        Ok(items)
    }
}

impl ViewFile {
    /// A row of the file, transformed, in the columns of the view.
    fn row(&self, columns: &[u32], values: &[f32], draw: Draw) -> Row {
        let mut row = Row {
            columns: columns.to_vec(),
            values: values.to_vec(),
        };
        self.transform.apply(&mut row, draw);
        let column_of = |column: &u32| self.column_of.get(*column as usize).copied();
        let places = row
            .columns
            .iter()
            .map(|column| column_of(column).unwrap_or(NO_GENE));
        let entries = places.zip(row.values.iter().copied());
        let mut entries: Vec<(u32, f32)> =
            entries.filter(|(column, _)| *column != NO_GENE).collect();
        if !self.ascends {
            entries.sort_unstable_by_key(|(column, _)| *column);
        }
        (row.columns, row.values) = entries.into_iter().unzip();
        row
    }
}
