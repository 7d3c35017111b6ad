//! Cells in memory: for small data that are read many times, and for tests.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::cell::{CellSource, CsrBlock, Labels, SourceError};

/// Cells, genes and labels in memory.
#[derive(Debug, Clone)]
pub struct MemorySource {
    name: PathBuf,
    matrix: CsrBlock,
    gene_ids: Vec<String>,
    labels: BTreeMap<String, Labels>,
}

/// Something does not fit in a [`MemorySource`].
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", name.display())]
pub struct MemoryError {
    name: PathBuf,
    what: String,
}

impl MemorySource {
    /// Cells called `name` in messages: rows of `matrix` [cells, genes], obs columns `labels`.
    ///
    /// # Errors
    /// Numbers of genes or cells that do not agree.
    pub fn new(
        name: &str,
        matrix: CsrBlock,
        gene_ids: Vec<String>,
        labels: BTreeMap<String, Labels>,
    ) -> Result<Self, MemoryError> {
        let source = Self {
            name: name.into(),
            matrix,
            gene_ids,
            labels,
        };
        let (rows, columns) = (source.matrix.rows(), source.matrix.cols());
        if columns != source.gene_ids.len() {
            let what = format!("{columns} columns, but {} gene ids", source.gene_ids.len());
            return Err(source.error(what));
        }
        let odd = source
            .labels
            .iter()
            .find(|(_, labels)| labels.codes.len() != rows);
        if let Some((column, labels)) = odd {
            let what = format!(
                "{rows} cells, but obs column {column} has {}",
                labels.codes.len()
            );
            return Err(source.error(what));
        }
        Ok(source)
    }

    fn error(&self, what: String) -> MemoryError {
        MemoryError {
            name: self.name.clone(),
            what,
        }
    }
}

impl CellSource for MemorySource {
    fn path(&self) -> &Path {
        &self.name
    }

    fn num_cells(&self) -> u64 {
        self.matrix.rows() as u64
    }

    fn gene_ids(&self) -> &[String] {
        &self.gene_ids
    }

    fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<CsrBlock, SourceError> {
        let mut indptr = vec![0];
        let (mut indices, mut values) = (Vec::new(), Vec::new());
        for row in ranges.iter().cloned().flatten() {
            let Some(cell) = self.matrix.outer_view(row as usize) else {
                let what = format!("row {row} of {}", self.matrix.rows());
                return Err(Box::new(self.error(what)));
            };
            indices.extend_from_slice(cell.indices());
            values.extend_from_slice(cell.data());
            indptr.push(indices.len());
        }
        let shape = (indptr.len() - 1, self.matrix.cols());
        let block = CsrBlock::try_new(shape, indptr, indices, values);
        block.map_err(|(_, _, _, e)| self.error(e.to_string()).into())
    }

    fn obs_columns(&self) -> Result<Vec<String>, SourceError> {
        Ok(self.labels.keys().cloned().collect())
    }

    fn labels(&self, column: &str) -> Result<Labels, SourceError> {
        self.labels.get(column).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.labels.keys().map(String::as_str).collect();
            self.error(format!(
                "no obs column {column}; there are {}",
                known.join(", ")
            ))
            .into()
        })
    }

    fn cell_names(&self) -> Result<Vec<String>, SourceError> {
        Ok((0..self.num_cells()).map(|row| row.to_string()).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_are_read_by_ranges() {
        let matrix = CsrBlock::try_new((3, 2), vec![0, 1, 1, 3], vec![1, 0, 1], vec![5., 6., 7.]);
        let genes = vec!["A".to_owned(), "B".to_owned()];
        let source = MemorySource::new("m", matrix.unwrap(), genes, BTreeMap::new()).unwrap();
        let block = source.read_ranges(&[0..1, 2..3]).unwrap();
        assert_eq!((block.rows(), block.data()), (2, &[5., 6., 7.][..]));
        assert!(source.read_ranges(&[2..4]).is_err());
        assert!(source.labels("sex").is_err());
    }
}
