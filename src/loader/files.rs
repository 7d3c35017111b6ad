//! The files that a run reads, h5ad files and SCDL archives alike.
//!
//! An archive whose cells have different genes is several sources, one for each run of cells with
//! the same. What only an h5ad file can tell is asked of [`CellFile::h5ad`].

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::LoaderError;
use crate::cell::{CellSource, CsrBlock, Labels, SourceError};
use crate::h5ad::{H5ad, H5adError, H5adSource, OpenFiles, OpenOptions, VarColumn};
use crate::store::{ScdlArchive, ScdlOptions};

/// A file, or the cells of an archive that have the same genes.
#[derive(Debug)]
pub enum CellFile {
    /// An h5ad file, opened when it is read.
    H5ad(Arc<H5adSource>),
    /// Cells of an archive.
    Scdl(ScdlArchive),
}

impl CellFile {
    /// The cells of `paths` in this order; a folder is an archive.
    ///
    /// # Errors
    /// A file or archive that cannot be opened.
    pub fn all(paths: &[PathBuf], options: &OpenOptions) -> Result<Vec<Arc<Self>>, LoaderError> {
        let (pool, mut files) = (OpenFiles::new(), Vec::new());
        for path in paths {
            if path.is_dir() {
                let gene_id_column = options.gene_id_column.clone();
                let parts = ScdlArchive::open(path, &ScdlOptions { gene_id_column })?;
                files.extend(parts.into_iter().map(|part| Arc::new(Self::Scdl(part))));
            } else {
                files.push(Arc::new(Self::H5ad(pool.file(path, options)?)));
            }
        }
        Ok(files)
    }

    /// What its genes have in the column `name` of var; `None` where there are no numbers of this
    /// name.
    ///
    /// # Errors
    /// Unreadable data.
    pub fn gene_numbers(&self, name: &str) -> Result<Option<Vec<f64>>, H5adError> {
        let file = match self {
            Self::H5ad(file) => file.open()?,
            Self::Scdl(part) => return Ok(part.gene_numbers(name)),
        };
        if !file.var_column_names().iter().any(|column| column == name) {
            return Ok(None);
        }
        Ok(match file.var_column(name)? {
            VarColumn::Numbers(numbers) => Some(numbers),
            _ => None,
        })
    }

    /// The file, open as long as the result is kept; `None` of an archive.
    ///
    /// # Errors
    /// A file that is not what it was.
    pub fn h5ad(&self) -> Result<Option<Arc<H5ad>>, H5adError> {
        match self {
            Self::H5ad(file) => file.open().map(Some),
            Self::Scdl(_) => Ok(None),
        }
    }

    fn source(&self) -> &dyn CellSource {
        match self {
            Self::H5ad(file) => file.as_ref(),
            Self::Scdl(part) => part,
        }
    }
}

impl CellSource for CellFile {
    fn path(&self) -> &Path {
        self.source().path()
    }

    fn num_cells(&self) -> u64 {
        self.source().num_cells()
    }

    fn gene_ids(&self) -> &[String] {
        self.source().gene_ids()
    }

    fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<CsrBlock, SourceError> {
        self.source().read_ranges(ranges)
    }

    fn obs_columns(&self) -> Result<Vec<String>, SourceError> {
        self.source().obs_columns()
    }

    fn labels(&self, column: &str) -> Result<Labels, SourceError> {
        self.source().labels(column)
    }

    fn cell_names(&self) -> Result<Vec<String>, SourceError> {
        self.source().cell_names()
    }
}
