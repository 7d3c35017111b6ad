//! An open h5ad file as a source of cells.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use sprs::CsMatI;

use crate::cell::{CellSource, CsrBlock, Labels, SourceError};

use super::column::VarColumn;
use super::container::Container;
use super::matrix::Matrix;
use super::number::Value;
use super::rows::{Refused, Stop};
use super::table::Table;
use super::{H5adError, MatrixKey, OpenOptions, ValuePolicy};

/// An open h5ad file: one matrix, the genes of its columns, the columns of `obs`.
pub struct H5ad {
    pub(super) container: Arc<Container>,
    key: MatrixKey,
    pub(super) matrix: Matrix,
    pub(super) obs: Table,
    pub(super) var: Table,
    gene_ids: Vec<String>,
    num_cells: u64,
    values: ValuePolicy,
    csc_memory_bytes: u64,
}

impl std::fmt::Debug for H5ad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("H5ad")
            .field("path", &self.container.path())
            .field("matrix", &self.key.to_string())
            .field("num_cells", &self.num_cells)
            .field("num_genes", &self.gene_ids.len())
            .finish_non_exhaustive()
    }
}

impl H5ad {
    /// Opens `path` and reads what describes it: the row pointer and the gene ids.
    ///
    /// A file without `X` opens; reading its rows is an error that lists the matrices there are.
    ///
    /// # Errors
    /// The file is missing, damaged or not an AnnData file; it lacks the matrix or the gene id
    /// column asked for; its parts contradict each other.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<H5ad, H5adError> {
        let container = Arc::new(Container::open(path)?);
        let obs = Table::open(&container, "obs")?;
        let var = Table::open(&container, &Matrix::var_key(&container, &options.matrix)?)?;
        let is_obsm = matches!(options.matrix, MatrixKey::Obsm(_));
        let names = match &options.gene_id_column {
            _ if is_obsm => None,
            None => var.index()?,
            Some(column) => Some(Self::gene_id_column(&container, &var, column)?),
        };
        let named_cells = obs.num_rows()?;
        let expected = (
            named_cells.unwrap_or(0),
            names.as_ref().map_or(0, Vec::len) as u64,
        );
        let matrix = Matrix::open(&container, &options.matrix, expected)?;
        // Rows or columns that nothing but an attribute counts are not to be trusted.
        let (num_cells, num_genes) = matrix.shape().unwrap_or(expected);
        let names = names.or_else(|| is_obsm.then(|| numbers(num_genes)));
        if names.is_none() && num_genes > 0 {
            let what = "there is no index, so that the genes have no names\n\
                        hint: name the column of var that holds the gene ids";
            return Err(container.invalid(var.key(), what));
        }
        if named_cells.is_none() && matrix.by_column() {
            return Err(
                container.invalid("obs", "there is no index, so that the cells are not known")
            );
        }
        let mut gene_ids = names.unwrap_or_default();
        if let Some(map) = &options.gene_map {
            map.apply(&mut gene_ids)?;
        }
        let counts = [
            ("obs", named_cells, num_cells),
            (var.key(), Some(gene_ids.len() as u64), num_genes),
        ];
        for (table, named, found) in counts {
            if named.is_some_and(|named| named != found) {
                let what = format!(
                    "expected one row for each of the {found} {} of {}, found {}",
                    if table == "obs" { "rows" } else { "columns" },
                    options.matrix,
                    named.unwrap_or(0)
                );
                return Err(container.invalid(table, what));
            }
        }
        Ok(H5ad {
            container,
            key: options.matrix.clone(),
            matrix,
            obs,
            var,
            gene_ids,
            num_cells,
            values: options.values,
            csc_memory_bytes: options.csc_memory_bytes,
        })
    }

    fn gene_id_column(
        container: &Container,
        var: &Table,
        name: &str,
    ) -> Result<Vec<String>, H5adError> {
        match var.column(name)? {
            Some(column) => Ok(column.into_names()),
            None if name == "index" => match var.index()? {
                Some(names) => Ok(names),
                None => Err(missing_column(container, var, name)),
            },
            None => Err(missing_column(container, var, name)),
        }
    }

    /// Which matrix is read.
    pub fn matrix(&self) -> &MatrixKey {
        &self.key
    }

    /// The names of all matrices of the file, as [`MatrixKey`] spells them.
    ///
    /// # Errors
    /// Unreadable data.
    pub fn matrices(&self) -> Result<Vec<String>, H5adError> {
        Matrix::available(&self.container)
    }

    /// Names of the columns of `obs`, without its index, in the file's order.
    pub fn obs_column_names(&self) -> &[String] {
        self.obs.column_names()
    }

    /// Names of the columns of `var` (of `raw.var` for `raw.X`), without its index.
    pub fn var_column_names(&self) -> &[String] {
        self.var.column_names()
    }

    /// A column of `var` (of `raw.var` for `raw.X`): numbers or texts, one for each gene.
    ///
    /// # Errors
    /// No such column; unreadable data; not one entry for each gene.
    pub fn var_column(&self, name: &str) -> Result<VarColumn, H5adError> {
        let Some(column) = self.var.column(name)? else {
            return Err(missing_column(&self.container, &self.var, name));
        };
        self.check_length(&self.var, name, column.len(), self.gene_ids.len())?;
        Ok(column.into_var_column())
    }

    /// One obs column as categories and codes.
    ///
    /// # Errors
    /// No such column; unreadable data; not one entry for each cell.
    pub fn obs_labels(&self, name: &str) -> Result<Labels, H5adError> {
        let Some(column) = self.obs.column(name)? else {
            return Err(missing_column(&self.container, &self.obs, name));
        };
        self.check_length(&self.obs, name, column.len(), self.num_cells as usize)?;
        Ok(column.into_labels())
    }

    pub(super) fn check_length(
        &self,
        table: &Table,
        name: &str,
        found: usize,
        expected: usize,
    ) -> Result<(), H5adError> {
        if found == expected {
            return Ok(());
        }
        let key = format!("{}/{name}", table.key());
        Err(self
            .container
            .invalid(&key, format!("expected {expected} entries, found {found}")))
    }

    /// The names of all cells; numbers where the file names none.
    pub(super) fn names(&self) -> Result<Vec<String>, H5adError> {
        match self.obs.index()? {
            Some(names) => {
                let index = self.obs.index_name().unwrap_or_default();
                self.check_length(&self.obs, index, names.len(), self.num_cells as usize)?;
                Ok(names)
            }
            None => Ok((0..self.num_cells).map(|row| row.to_string()).collect()),
        }
    }

    /// The rows of `ranges`, one under the other.
    ///
    /// # Errors
    /// Ranges that do not ascend or leave the matrix; unreadable data; a refused value.
    pub fn read(&self, ranges: &[Range<u64>]) -> Result<CsrBlock, H5adError> {
        self.read_values(ranges, self.values)
    }

    /// The rows of `ranges` with values as `V`.
    pub(super) fn read_values<V: Value>(
        &self,
        ranges: &[Range<u64>],
        policy: ValuePolicy,
    ) -> Result<CsMatI<V, u32, usize>, H5adError> {
        let key = self.matrix.key();
        let mut last = 0;
        for range in ranges {
            if range.start < last || range.end < range.start || range.end > self.num_cells {
                let what = format!(
                    "rows {}..{} after row {last} are not ascending rows of {}",
                    range.start, range.end, self.num_cells
                );
                return Err(self.container.invalid(key, what));
            }
            last = range.end;
        }
        let ranges: Vec<Range<u64>> = ranges
            .iter()
            .filter(|range| !range.is_empty())
            .cloned()
            .collect();
        let read = self
            .matrix
            .read::<V>(&self.container, &ranges, policy, self.csc_memory_bytes);
        let rows = read.map_err(|stop| match stop {
            Stop::File(error) => error,
            Stop::Row(row, refused) => self.refused(row, refused),
        })?;
        rows.finish()
            .map_err(|what| self.container.invalid(key, what))
    }

    fn refused(&self, row: u64, refused: Refused) -> H5adError {
        let key = self.matrix.key();
        let Refused::Value { column, value } = refused else {
            let what = format!(
                "row {row} has an entry outside of the {} columns of the matrix",
                self.gene_ids.len()
            );
            return self.container.invalid(key, what);
        };
        let names = self.names().unwrap_or_default();
        H5adError::Value {
            path: self.container.path().to_owned(),
            key: self.key.to_string(),
            row,
            cell: names.get(row as usize).cloned().unwrap_or_default(),
            gene: self
                .gene_ids
                .get(column as usize)
                .cloned()
                .unwrap_or_default(),
            value: value as f32,
        }
    }
}

/// Names of columns that have none.
fn numbers(num_columns: u64) -> Vec<String> {
    (0..num_columns).map(|column| column.to_string()).collect()
}

/// The error of a column that a table does not have.
fn missing_column(container: &Container, table: &Table, name: &str) -> H5adError {
    let (what, hint) = match table.key() {
        "obs" => (
            "column of obs",
            "`gene-bert info` lists the columns of a file",
        ),
        _ => (
            "column of var",
            "gene ids come from the index of var where no column is named",
        ),
    };
    let names = table.column_names();
    H5adError::Missing {
        path: container.path().to_owned(),
        what,
        name: name.to_owned(),
        available: if names.is_empty() {
            "none".into()
        } else {
            names.join(", ")
        },
        hint,
    }
}

impl CellSource for H5ad {
    fn path(&self) -> &Path {
        self.container.path()
    }

    fn num_cells(&self) -> u64 {
        self.num_cells
    }

    fn gene_ids(&self) -> &[String] {
        &self.gene_ids
    }

    fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<CsrBlock, SourceError> {
        Ok(self.read(ranges)?)
    }

    fn obs_columns(&self) -> Result<Vec<String>, SourceError> {
        Ok(self.obs_column_names().to_vec())
    }

    fn labels(&self, column: &str) -> Result<Labels, SourceError> {
        Ok(self.obs_labels(column)?)
    }

    fn cell_names(&self) -> Result<Vec<String>, SourceError> {
        Ok(self.names()?)
    }
}
