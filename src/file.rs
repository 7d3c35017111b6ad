//! Read and write whose errors name the path; atomic files and folders; path patterns.
//!
//! Owns the promise that nothing half-written ever stands under its final name: [`write_atomic`]
//! for a file, [`StagedFile`] for one too large to hold in memory, [`StagedDir`] for a folder (a
//! checkpoint). All write a hidden sibling, flush it to the disk and rename it; what a killed
//! process left behind is cleared by [`recover`].
//! [`Spool`] keeps numbers on the disk that are too many for memory.
//! [`expand_paths`] turns the patterns of a command line (`x_{0..43}.h5ad`, `{a,b}`, globs) into
//! files. Knows no format but JSON, tables and text.
//!
//! Errors: the text of every [`FileError`] names the path; where the remedy is known, a last line
//! `hint: …` says it (`main` prints hints after the chain of causes).

mod atomic;
mod patterns;
mod positioned;
mod spool;
mod table;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use atomic::{StagedDir, StagedFile, create_parent, put_in_place, recover, remove_dir};
pub use atomic::{write_atomic, write_synced};
pub use patterns::expand_paths;
pub use positioned::{read_exact_at, write_all_at};
pub use spool::Spool;
pub use table::{TableWriter, read_table};

/// What can go wrong with a path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// No such file or folder.
    #[error("{}: no such file or folder{}", path.display(), hint_line(.hint))]
    NotFound {
        /// The path that is absent.
        path: PathBuf,
        /// What to do, empty where unknown.
        hint: String,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}{}", path.display(), hint_line(&io_hint(.source)))]
    Io {
        /// What was being done: a verb phrase after "cannot".
        action: &'static str,
        /// The path it was done to.
        path: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
    /// The file is not the JSON that was expected.
    #[error("{}: not the expected JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// A text file whose bytes are not UTF-8.
    #[error("{}: not text: byte {at} is not UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Offset of the first bad byte.
        at: usize,
    },
    /// A path pattern that cannot be read as one.
    #[error("{pattern}: bad path pattern: {problem}{}", hint_line(.hint))]
    Pattern {
        /// The pattern as given.
        pattern: String,
        /// What is wrong with it.
        problem: String,
        /// What to do, empty where unknown.
        hint: String,
    },
    /// The same file twice in one list.
    #[error("{}: given twice (once by `{first}`, again by `{second}`)\n\
             hint: every cell counts once per epoch; name each file once", path.display())]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The pattern that named it first.
        first: String,
        /// The pattern that named it again.
        second: String,
    },
    /// A path that cannot be written to because of what it is.
    #[error("{}: {problem}", path.display())]
    BadPath {
        /// The path.
        path: PathBuf,
        /// Why it cannot be used.
        problem: &'static str,
    },
}

impl FileError {
    /// An I/O error with its path; "no such file" becomes [`FileError::NotFound`] for reads.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    fn reading(path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::NotFound {
            let hint = "check the spelling; the path is taken from the current folder".to_owned();
            return Self::NotFound {
                path: path.to_owned(),
                hint,
            };
        }
        Self::io("read it", path, source)
    }
}

fn hint_line(hint: &str) -> String {
    if hint.is_empty() {
        String::new()
    } else {
        format!("\nhint: {hint}")
    }
}

/// The remedy for an error of the operating system, empty where there is none to name.
pub fn io_hint(error: &io::Error) -> String {
    use io::ErrorKind as K;
    match error.kind() {
        K::StorageFull => {
            "the disk is full: free some space or choose another folder, then run \
                           again; nothing half-written was kept"
        }
        K::QuotaExceeded => "your disk quota is used up: free some space or choose another folder",
        K::FileTooLarge => {
            "the file would be larger than this system or shell allows (see \
                            `ulimit -f`); nothing half-written was kept"
        }
        K::PermissionDenied => "check who may read and write there, or choose another folder",
        K::ReadOnlyFilesystem => "this disk is mounted read-only: choose another folder",
        _ => "",
    }
    .to_owned()
}

/// The whole file as text.
///
/// # Errors
/// Absent, unreadable or not UTF-8.
pub fn read_string(path: &Path) -> Result<String, FileError> {
    let bytes = std::fs::read(path).map_err(|e| FileError::reading(path, e))?;
    String::from_utf8(bytes).map_err(|e| FileError::NotText {
        path: path.to_owned(),
        at: e.utf8_error().valid_up_to(),
    })
}

/// The whole file as JSON of type `T`.
///
/// # Errors
/// Absent, unreadable, or not the JSON of a `T`.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let text = read_string(path)?;
    serde_json::from_str(&text).map_err(|source| FileError::Json {
        path: path.to_owned(),
        source,
    })
}

/// Locks a file that others lock for a moment only, if at all; whether no one else has it locked.
/// Where files cannot be locked, nobody has.
pub fn lock_soon(file: &File) -> bool {
    for _ in 0..50 {
        if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return true;
        }
        // Whoever looks at a run has its file for a moment; a process that is about to start has
        // the files of the one that starts it.
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn errors_name_the_path_and_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("absent.json");
        let text = read_string(&absent).unwrap_err().to_string();
        assert!(
            text.contains("absent.json") && text.contains("\nhint: "),
            "{text}"
        );

        let bad = dir.path().join("bad.json");
        std::fs::write(&bad, "{\n  \"a\": }").unwrap();
        let error = read_json::<serde_json::Value>(&bad).unwrap_err();
        assert!(error.to_string().contains("bad.json"), "{error}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("line 2"), "{cause}");

        std::fs::write(&bad, b"ab\xff").unwrap();
        let text = read_string(&bad).unwrap_err().to_string();
        assert!(text.contains("byte 2"), "{text}");
    }
}
