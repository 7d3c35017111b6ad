//! One matrix over all files.

use std::path::PathBuf;
use std::sync::Arc;

use super::{TableConfig, View};
use crate::cell::CellSource;
use crate::h5ad::{H5adSource, MatrixKey, OpenFiles, OpenOptions, ValuePolicy};
use crate::loader::error::LoaderError;
use crate::tokenize::BoundTransform;
use crate::vocab::{NO_GENE, build_genes};

/// One matrix of every file.
#[derive(Debug)]
pub(super) struct OpenView {
    columns: Vec<String>,
    pub(super) files: Vec<ViewFile>,
}

/// One matrix of one file.
#[derive(Debug)]
pub(super) struct ViewFile {
    pub(super) file: Arc<H5adSource>,
    pub(super) transform: BoundTransform,
    /// The view's column of each of the file's, or none.
    pub(super) column_of: Vec<u32>,
    /// Whether the two are in the same order.
    pub(super) ascends: bool,
}

impl OpenView {
    pub(super) fn open(
        view: &View,
        (paths, pool): (&[PathBuf], &Arc<OpenFiles>),
        config: &TableConfig,
    ) -> Result<Self, LoaderError> {
        let options = OpenOptions {
            matrix: view.matrix.clone(),
            gene_id_column: match view.matrix {
                MatrixKey::Obsm(_) => None,
                _ => config.gene_id_column.clone(),
            },
            values: ValuePolicy::Any,
            ..OpenOptions::default()
        };
        let files = paths.iter().map(|path| pool.file(path, &options));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let sources: Vec<&dyn CellSource> = files.iter().map(|file| file.as_ref() as _).collect();
        if let MatrixKey::Obsm(_) = view.matrix {
            same_width(&view.matrix, &files)?;
        }
        let genes = build_genes(&sources, config.genes)?;
        let bind = |file: Arc<H5adSource>| {
            let column_of = genes.of_columns(file.gene_ids());
            let shown = || column_of.iter().filter(|column| **column != NO_GENE);
            Ok(ViewFile {
                ascends: shown().is_sorted(),
                transform: view.transform.bind(file.gene_ids())?,
                column_of,
                file,
            })
        };
        Ok(Self {
            files: files
                .into_iter()
                .map(bind)
                .collect::<Result<_, LoaderError>>()?,
            columns: genes.ids().to_vec(),
        })
    }

    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = &dyn CellSource> {
        self.files.iter().map(|file| file.file.as_ref() as _)
    }
}

/// Arrays of obsm have no names to match their columns by.
fn same_width(matrix: &MatrixKey, files: &[Arc<H5adSource>]) -> Result<(), LoaderError> {
    let Some(first) = files.first() else {
        return Ok(());
    };
    let width = |file: &Arc<H5adSource>| file.gene_ids().len();
    match files.iter().find(|file| width(file) != width(first)) {
        None => Ok(()),
        Some(other) => Err(LoaderError::ObsmWidth {
            name: matrix.to_string(),
            first: first.path().to_path_buf(),
            expected: width(first),
            path: other.path().to_path_buf(),
            found: width(other),
        }),
    }
}
