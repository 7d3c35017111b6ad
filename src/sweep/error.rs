//! Why a study cannot be run.

use std::path::PathBuf;

use crate::file::FileError;

/// What is wrong in a study file: where, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The key, with those above it: `parameters.learning_rate.min`; empty: the whole file.
    pub key: String,
    /// What was expected, and what was found.
    pub what: String,
    /// The remedy.
    pub hint: String,
}

impl Fault {
    pub(super) fn new(
        line: usize,
        key: impl Into<String>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            line,
            key: key.into(),
            what: what.into(),
            hint: hint.into(),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.key.is_empty() {
            write!(out, "{}: ", self.key)?;
        }
        write!(out, "{}\nhint: {}", self.what, self.hint)
    }
}

/// Why a study cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// The study file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The study file says something that cannot be done.
    #[error("{}:{}: {fault}", path.display(), fault.line)]
    Study {
        /// The study file.
        path: PathBuf,
        /// What is wrong.
        fault: Fault,
    },
}
