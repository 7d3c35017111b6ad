//! Graphs of cells: `obsp.<name>`, compressed by row, the neighbours of each cell in the order in
//! which the file has them.

use std::ops::Range;

use super::container::Node;
use super::sparse::{Sparse, orientation};
use super::{H5ad, H5adError};
use crate::cell::CellSource;

/// A graph of a file's cells.
pub struct CellGraph<'a> {
    file: &'a H5ad,
    key: String,
    sparse: Sparse,
}

/// Cells with their neighbours.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GraphRows {
    /// Where the neighbours of each cell begin, and where the last ones end.
    pub starts: Vec<usize>,
    /// The neighbours, as rows of the file.
    pub cells: Vec<u32>,
    /// The weight of each.
    pub weights: Vec<f32>,
}

impl H5ad {
    /// The graph `obsp.<name>`.
    ///
    /// # Errors
    /// No such graph (the error lists those there are), or one that is not compressed by row or
    /// not of this file's cells.
    pub fn graph(&self, name: &str) -> Result<CellGraph<'_>, H5adError> {
        let (container, key) = (&self.container, format!("obsp/{name}"));
        let node = container.node(&key)?;
        let Node::Group(_) = &node else {
            let known = self.members(&["obsp"])?.join(", ");
            let known = if known.is_empty() { "none" } else { &known };
            let what = format!("no sparse graph of this name\nhint: the file has {known}");
            return Err(container.invalid(&key, what));
        };
        let attributes = container.attributes(&key, &node)?;
        if orientation(&attributes) != Some(false) {
            let found = attributes.text("encoding-type").unwrap_or("no encoding");
            let what = format!(
                "expected a csr_matrix, found {found}\nhint: write it with .tocsr() in Python"
            );
            return Err(container.invalid(&key, what));
        }
        let shape = (self.num_cells(), self.num_cells());
        let sparse = Sparse::open(container, &key, &attributes, false, shape)?;
        if sparse.shape() != shape {
            let what = format!("expected a shape of {shape:?}, found {:?}", sparse.shape());
            return Err(container.invalid(&key, what));
        }
        let file = self;
        Ok(CellGraph { file, key, sparse })
    }
}

impl CellGraph<'_> {
    /// The cells `rows` with their neighbours.
    ///
    /// # Errors
    /// Rows that the file does not have; unreadable data; neighbours that are no cells.
    pub fn read(&self, rows: Range<u64>) -> Result<GraphRows, H5adError> {
        let (container, num_cells) = (&self.file.container, self.file.num_cells());
        let mut read = GraphRows::default();
        let (starts, window) = self.sparse.places(rows.clone()).ok_or_else(|| {
            container.invalid(
                &self.key,
                format!("there are no rows {rows:?} of {num_cells}"),
            )
        })?;
        read.starts = starts;
        self.sparse
            .read_window(container, &window, &mut read.cells, &mut read.weights)?;
        match read
            .cells
            .iter()
            .find(|cell| u64::from(**cell) >= num_cells)
        {
            None => Ok(read),
            Some(outside) => {
                let what = format!("an entry lies at {outside} of {num_cells}");
                Err(container.invalid(&self.key, what))
            }
        }
    }
}
