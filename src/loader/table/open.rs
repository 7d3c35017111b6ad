//! Opens the files of a table.

use std::path::PathBuf;

use super::view::OpenView;
use super::{CellTable, TableConfig};
use crate::h5ad::OpenFiles;
use crate::loader::column::CellColumn;
use crate::loader::error::LoaderError;

impl CellTable {
    /// Opens files as one table. Nothing of the matrices is read yet; obs columns are, and kept as
    /// codes.
    ///
    /// # Errors
    /// No view; a file that cannot be read, or lacks a matrix or an obs column; a transform that
    /// does not fit; arrays of obsm of different widths.
    pub fn open(paths: &[PathBuf], config: &TableConfig) -> Result<Self, LoaderError> {
        if config.views.is_empty() {
            return Err(LoaderError::setting("views", "at least one matrix", "none"));
        }
        let (views, pool) = (config.views.iter(), OpenFiles::new());
        let views = views.map(|view| OpenView::open(view, (paths, &pool), config));
        let views = views.collect::<Result<Vec<_>, _>>()?;
        let sources = || views[0].sources();
        let obs = config
            .obs
            .iter()
            .map(|column| CellColumn::read(sources(), column));
        let obs = obs.collect::<Result<_, _>>()?;
        let mut offsets = vec![0];
        let mut end = 0;
        for source in sources() {
            end += source.num_cells();
            offsets.push(end);
        }
        Ok(Self {
            views,
            obs,
            offsets,
            seed: config.seed,
        })
    }
}
