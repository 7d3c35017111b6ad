//! Cells of any number of files by their number, for programs in Rust: a data set to index into.
//!
//! A [`CellTable`] numbers the cells of all files from 0. An [`Item`] is one cell: a row of each
//! matrix asked for (X, layers, raw.X, arrays of obsm), transformed as its [`View`] says, and its
//! codes in the obs columns asked for. Genes are matched by id, so that a column is the same gene
//! whichever file a cell is of. Rows are sparse; [`CellTable::dense`] makes them dense.
//!
//! Cells are read when they are asked for, many together in one pass over each file
//! ([`CellTable::get_many`]). For batches that are read ahead see [`super::Loader`].
//!
//! ```
//! # use gene_bert::loader::table::{CellTable, TableConfig, View};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let files = gene_bert::prepare::simulate::simulate(folder.path(), 1, 100)?;
//! let config = TableConfig {
//!     views: vec![
//!         View::of("X".parse()?),
//!         View { transform: "normalize_total:1e4+log1p".parse()?, ..View::default() },
//!     ],
//!     obs: vec!["cell_type".into(), "donor_id".into()],
//!     ..TableConfig::default()
//! };
//! let cells = CellTable::open(&files, &config)?;
//! assert_eq!(cells.len(), 100);
//!
//! let cell = cells.get(17)?;
//! let counts = cells.dense(&cell, 0); // one value for each of cells.columns(0)
//! assert_eq!(counts.len(), cells.columns(0).len());
//! println!("a {:?} with {} genes", cells.value(&cell, 0), cell.rows[0].values.len());
//!
//! let parts = cells.random_split(&[0.8, 0.2], 42)?;
//! for batch in parts[1].chunks(16) {
//!     let items = cells.get_many(batch)?;
//!     let cell_type = &cells.obs_columns()[0];
//!     assert_eq!(cell_type.one_hot(items[0].cell).iter().sum::<f32>(), 1.0);
//! }
//! # Ok(())
//! # }
//! ```

mod open;
mod read;
mod view;

use serde::{Deserialize, Serialize};

use super::column::CellColumn;
use super::error::LoaderError;
use super::random_split::random_split;
use crate::cell::CellSource;
use crate::h5ad::MatrixKey;
use crate::tokenize::{Row, Transform};
use crate::vocab::GenesFrom;
use view::OpenView;

/// What a [`CellTable`] holds of each cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableConfig {
    /// The matrices (default X as it is).
    pub views: Vec<View>,
    /// obs columns (default none).
    pub obs: Vec<String>,
    /// Genes of several files: those that every file has, or those of any, not expressed where a
    /// file lacks them (default: any).
    pub genes: GenesFrom,
    /// The column of var that holds the gene ids (default: its index).
    pub gene_id_column: Option<String>,
    /// Seed of steps that draw (default 42).
    pub seed: u64,
}

/// One matrix of a [`CellTable`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct View {
    /// The matrix (default X).
    pub matrix: MatrixKey,
    /// What is done to each row, over all columns of its file (default: nothing).
    pub transform: Transform,
}

impl View {
    /// A matrix as it is.
    pub fn of(matrix: MatrixKey) -> Self {
        Self {
            matrix,
            ..Self::default()
        }
    }
}

impl Default for TableConfig {
    fn default() -> Self {
        Self {
            views: vec![View::default()],
            obs: Vec::new(),
            genes: GenesFrom::Union,
            gene_id_column: None,
            seed: 42,
        }
    }
}

/// The cells of several files.
#[derive(Debug)]
pub struct CellTable {
    views: Vec<OpenView>,
    obs: Vec<CellColumn>,
    /// First cell of each file, and one past the last: [files + 1].
    offsets: Vec<u64>,
    seed: u64,
}

/// One cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its number.
    pub cell: u64,
    /// Its row of each view; columns are places in [`CellTable::columns`].
    pub rows: Vec<Row>,
    /// Its code in each obs column, `None` where it has no value.
    pub obs: Vec<Option<u32>>,
}

impl CellTable {
    /// Number of cells.
    pub fn len(&self) -> u64 {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Whether there is no cell.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The columns of a view: gene ids, or numbers for an array of obsm. Empty beyond the last
    /// view.
    pub fn columns(&self, view: usize) -> &[String] {
        self.views.get(view).map_or(&[], OpenView::columns)
    }

    /// The obs columns over all cells, as in the settings.
    pub fn obs_columns(&self) -> &[CellColumn] {
        &self.obs
    }

    /// An item's value in an obs column, by its place in the settings.
    pub fn value(&self, item: &Item, column: usize) -> Option<&str> {
        let code = item.obs.get(column).copied().flatten()?;
        let values = &self.obs.get(column)?.values;
        values.get(code as usize).map(String::as_str)
    }

    /// An item's row of a view, zeros included.
    pub fn dense(&self, item: &Item, view: usize) -> Vec<f32> {
        let row = item.rows.get(view);
        row.map_or_else(Vec::new, |row| row.dense(self.columns(view).len()))
    }

    /// The files, as sources of the first view.
    pub fn sources(&self) -> impl Iterator<Item = &dyn CellSource> {
        self.views.first().into_iter().flat_map(OpenView::sources)
    }

    /// One cell.
    ///
    /// # Errors
    /// No such cell, or one that cannot be read.
    pub fn get(&self, cell: u64) -> Result<Item, LoaderError> {
        let mut items = self.get_many(&[cell])?;
        items.pop().ok_or(LoaderError::NoCell {
            cell,
            num_cells: self.len(),
        })
    }

    /// Cells in the order asked for; one that is asked for twice is read once.
    ///
    /// # Errors
    /// No such cell, or one that cannot be read.
    pub fn get_many(&self, cells: &[u64]) -> Result<Vec<Item>, LoaderError> {
        self.get_many_in(0, cells)
    }

    /// As [`CellTable::get_many`], with the draws of another epoch.
    ///
    /// # Errors
    /// As [`CellTable::get_many`].
    pub fn get_many_in(&self, epoch: u64, cells: &[u64]) -> Result<Vec<Item>, LoaderError> {
        self.read(epoch, cells)
    }

    /// Divides all cells at random into parts of these shares, which add up to 1: the cells of each
    /// part, ascending.
    ///
    /// # Errors
    /// Shares that are negative or do not add up to 1.
    pub fn random_split(&self, shares: &[f64], seed: u64) -> Result<Vec<Vec<u64>>, LoaderError> {
        random_split(self.len(), shares, seed)
    }
}
