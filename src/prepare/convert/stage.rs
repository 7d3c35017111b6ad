//! Names of the output files: under construction, finished, in place.
//!
//! | name | what it is |
//! |---|---|
//! | `.NAME.partial` | being written: never looked at again |
//! | `.NAME.KEY.done` | whole; KEY stands for the inputs and settings that made it |
//! | `NAME` | in place, once every file of the conversion is whole |
//! | `.NAME.KEY.partial` | an archive (a folder) that is being written; gone on with by a resumed one |
//! | `.NAME.lock` | held while a conversion to `NAME` runs |

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::config::ConvertConfig;
use crate::file::{FileError, put_in_place};
use crate::prepare::PrepareError;

/// The output files of one conversion.
#[derive(Debug)]
pub(super) struct Stage {
    outputs: Vec<PathBuf>,
    key: String,
    lock: PathBuf,
    _held: File,
}

impl Stage {
    /// Claims the names of `num_files` outputs. Leftovers are cleared, but for finished files where
    /// `config` says to resume.
    pub(super) fn new(config: &ConvertConfig, num_files: usize) -> Result<Self, PrepareError> {
        let numbered = config.cells_per_file.is_some();
        let outputs: Vec<PathBuf> = (0..num_files)
            .map(|n| {
                if numbered {
                    nth(&config.output, n)
                } else {
                    config.output.clone()
                }
            })
            .collect();
        let more = nth(&config.output, num_files);
        if numbered && more.exists() {
            return Err(PrepareError::Convert(format!(
                "{}: is left of other files of this name; only {num_files} are to be written\n\
                 hint: remove it and those after it, or choose another name",
                more.display()
            )));
        }
        let lock = hidden(&config.output, "lock")?;
        let held = File::create(&lock).map_err(|e| FileError::io("create it", &lock, e))?;
        match held.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(PrepareError::Convert(format!(
                    "{}: is being written by another process\n\
                     hint: wait for it, or choose another name",
                    config.output.display()
                )));
            }
            // A file system without locks: nothing guards against two at once there.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let stage = Self {
            outputs,
            key: key_of(config),
            lock,
            _held: held,
        };
        for output in &stage.outputs {
            stage.clear(output, config.resume)?;
        }
        Ok(stage)
    }

    /// Removes what stands under the hidden names of `output`.
    fn clear(&self, output: &Path, keep_done: bool) -> Result<(), PrepareError> {
        let _ = fs::remove_file(hidden(output, "partial")?);
        let Some(name) = output.file_name().and_then(|name| name.to_str()) else {
            return Ok(());
        };
        let folder = match output.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let failed = |e| FileError::io("list it", folder, e);
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let found = entry.file_name();
            let rest = found
                .to_str()
                .and_then(|f| f.strip_prefix('.')?.strip_prefix(name));
            let key = rest.and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".done"));
            if key.is_some_and(|key| key.len() == self.key.len()) {
                if keep_done && key == Some(&self.key) {
                    continue;
                }
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Where output `n` is built.
    pub(super) fn partial(&self, n: usize) -> Result<PathBuf, PrepareError> {
        hidden(self.output(n), "partial")
    }

    fn output(&self, n: usize) -> &Path {
        self.outputs.get(n).map_or(Path::new(""), PathBuf::as_path)
    }

    /// Stands for the inputs and the settings.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    fn done(&self, n: usize) -> Result<PathBuf, PrepareError> {
        hidden(self.output(n), &format!("{}.done", self.key))
    }

    /// Whether output `n` is whole already.
    pub(super) fn is_done(&self, n: usize) -> Result<bool, PrepareError> {
        Ok(self.done(n)?.exists())
    }

    /// Output `n` is whole.
    pub(super) fn finish(&self, n: usize) -> Result<(), PrepareError> {
        Ok(put_in_place(&self.partial(n)?, &self.done(n)?)?)
    }

    /// Where rows of a shuffle are kept.
    pub(super) fn spill(&self) -> Result<PathBuf, PrepareError> {
        hidden(self.output(0), "spill")
    }

    /// Gives every output its name.
    pub(super) fn commit(self) -> Result<Vec<PathBuf>, PrepareError> {
        for n in 0..self.outputs.len() {
            put_in_place(&self.done(n)?, self.output(n))?;
        }
        Ok(self.outputs.clone())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for output in &self.outputs {
            if let Ok(partial) = hidden(output, "partial") {
                let _ = fs::remove_file(partial);
            }
        }
        let _ = fs::remove_file(&self.lock);
    }
}

/// `NAME_n.h5ad` for `NAME.h5ad`.
fn nth(output: &Path, n: usize) -> PathBuf {
    let stem = output.file_stem().unwrap_or_default().to_string_lossy();
    let extension = output.extension().map(|e| e.to_string_lossy());
    let extension = extension.map_or_else(String::new, |e| format!(".{e}"));
    output.with_file_name(format!("{stem}_{n}{extension}"))
}

fn hidden(path: &Path, suffix: &str) -> Result<PathBuf, PrepareError> {
    let name = path.file_name().ok_or(FileError::BadPath {
        path: path.to_owned(),
        problem: "has no name of its own: give the path of a file",
    })?;
    Ok(path.with_file_name(format!(".{}.{suffix}", name.to_string_lossy())))
}

/// Stands for inputs (with their sizes and times) and settings.
fn key_of(config: &ConvertConfig) -> String {
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    let ConvertConfig {
        inputs,
        output: _,
        open,
        cells_per_file,
        shuffle,
        storage,
        dtype,
        genes,
        neighbors,
        memory_bytes: _,
        resume: _,
    } = config;
    hash.update(format!(
        "{open:?} {cells_per_file:?} {shuffle:?} {storage:?} {dtype:?} {genes:?} {neighbors:?}"
    ));
    for input in inputs {
        let path = input.canonicalize().unwrap_or_else(|_| input.clone());
        let about = fs::metadata(&path).ok();
        let about = about.map(|about| (about.len(), about.modified().ok()));
        hash.update(format!("{} {about:?}\n", path.display()));
    }
    let digest = hash.finalize();
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_numbered_before_their_extension() {
        assert_eq!(nth(Path::new("a/b.c.h5ad"), 7), Path::new("a/b.c_7.h5ad"));
        assert_eq!(nth(Path::new("b"), 0), Path::new("b_0"));
    }
}
