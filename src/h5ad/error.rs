//! What can be wrong with an h5ad file. Every text names the file, the place in it, what was
//! expected and what was found; the cause from below is the error's source, not part of its text.

use std::io;
use std::path::PathBuf;

use crate::file::io_hint;

/// The error of this room.
#[derive(Debug, thiserror::Error)]
pub enum H5adError {
    /// The file cannot be opened or read at all.
    #[error("{path}: cannot be read{}", hint_line(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not a whole HDF5 file.
    #[error("{path}: {what}\nhint: {hint}")]
    NotHdf5 {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: String,
        /// The remedy.
        hint: String,
    },
    /// HDF5 structures that cannot be followed.
    #[error("{path}: {key}: cannot be read")]
    Hdf5 {
        /// The file.
        path: PathBuf,
        /// The place in it.
        key: String,
        /// The cause.
        source: Box<hdf5_pure::Error>,
    },
    /// A data set compressed with something we do not decode.
    #[error(
        "{path}: {key}: compressed with the HDF5 filter {filter}, which is not supported\n\
         hint: write the file again with gzip: \
         adata = anndata.read_h5ad(F); adata.write_h5ad(G, compression=\"gzip\")"
    )]
    Filter {
        /// The file.
        path: PathBuf,
        /// The place in it.
        key: String,
        /// The filter's name or number.
        filter: String,
    },
    /// The file is sound HDF5, but not what anndata writes.
    #[error("{path}: {key}: {what}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The place in it.
        key: String,
        /// What was expected and what was found.
        what: String,
    },
    /// Something asked for by name is not there.
    #[error("{path}: there is no {what} {name:?}; there is: {available}\nhint: {hint}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
        /// What there is instead.
        available: String,
        /// The remedy.
        hint: &'static str,
    },
    /// A value that expression data cannot hold.
    #[error(
        "{path}: {key}: row {row} (cell {cell:?}), gene {gene:?}: the value is {value}; expected \
         finite numbers that are not negative\n\
         hint: `gene-bert info {path}` says where the file holds counts; \
         choose that matrix (for example layers.counts or raw.X)"
    )]
    Value {
        /// The file.
        path: PathBuf,
        /// The matrix.
        key: String,
        /// The row, from 0.
        row: u64,
        /// The name of the cell.
        cell: String,
        /// The name of the gene.
        gene: String,
        /// What was found.
        value: f32,
    },
    /// A table of other gene names that is none.
    #[error(
        "{}: is no map of genes: {what}\nhint: a table with the columns gene and mapped_to; \
         `gene-bert genes map` writes one", path.display()
    )]
    GeneMap {
        /// The table.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A table beside the files could not be read.
    #[error(transparent)]
    Table(#[from] crate::file::FileError),
    /// A file to which nothing could be added.
    #[error(
        "{path}: {key}: cannot be added to; the file is as it was\n\
         hint: where the file's own structure is in the way, write it anew: adata = \
         anndata.read_h5ad(F); adata.write_h5ad(G); or ask for CSV"
    )]
    Edit {
        /// The file.
        path: PathBuf,
        /// The place in it.
        key: String,
        /// The cause.
        source: Box<hdf5_pure::Error>,
    },
    /// A file could not be written.
    #[error("{path}: cannot be written{}", write_hint(&**source))]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The remedy for an error of the operating system, on a line of its own.
fn hint_line(error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            "check the spelling; the path is taken from the current folder".to_owned()
        }
        io::ErrorKind::ResourceBusy => {
            "close what has it open (a notebook, perhaps), or write a copy".to_owned()
        }
        _ => io_hint(error),
    };
    if hint.is_empty() {
        hint
    } else {
        format!("\nhint: {hint}")
    }
}

/// As [`hint_line`]; nothing for errors that are not the operating system's, which have their own.
fn write_hint(error: &(dyn std::error::Error + 'static)) -> String {
    error.downcast_ref().map_or_else(String::new, hint_line)
}
