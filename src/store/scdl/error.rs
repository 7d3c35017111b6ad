//! What can be wrong with an SCDL folder.

use std::io;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;

use crate::file::FileError;

/// The error of SCDL folders.
#[derive(Debug, thiserror::Error)]
pub enum ScdlError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not what the format says.
    #[error("{}: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        what: String,
    },
    /// A table cannot be read or written.
    #[error("{}: not a table that can be read or written", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: ParquetError,
    },
}

impl ScdlError {
    pub(super) fn invalid(path: &Path, what: impl Into<String>) -> Self {
        Self::Invalid {
            path: path.to_owned(),
            what: what.into(),
        }
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| FileError::io(action, &path, source).into()
    }

    pub(super) fn table(path: &Path) -> impl Fn(ParquetError) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Table {
            path: path.clone(),
            source,
        }
    }
}
