//! Which run folders there are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::file::FileError;

/// Run folders, and what could not be looked into.
#[derive(Debug, Default)]
pub struct Found {
    /// Run folders, by name.
    pub runs: Vec<PathBuf>,
    /// Folders that cannot be read, and why.
    pub unreadable: Vec<String>,
}

/// Whether `folder` is that of a run. A checkpoint, which has its run's settings too, is none.
pub fn is_run(folder: &Path) -> bool {
    folder.join("run.toml").is_file() && !folder.join("trainer_state.json").is_file()
}

/// The run folders among `folder` and those below it, at most `depth` folders down. Links below it
/// and hidden folders are not followed.
///
/// # Errors
/// `folder` is none, or cannot be read.
pub fn runs_below(folder: &Path, depth: usize) -> Result<Found> {
    if folder.is_file() {
        bail!(
            "{}: is a file\nhint: name a folder of runs, or none for the current one",
            folder.display()
        );
    }
    fs::read_dir(folder).map_err(|error| FileError::io("read this folder", folder, error))?;
    let mut found = Found::default();
    look(folder, depth, &mut found);
    Ok(found)
}

fn look(folder: &Path, depth: usize, found: &mut Found) {
    if folder.join("trainer_state.json").is_file() {
        return;
    }
    if is_run(folder) {
        found.runs.push(folder.to_owned());
    }
    if depth == 0 {
        return;
    }
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            let text = format!("{}: cannot be read: {error}", folder.display());
            return found.unreadable.push(text);
        }
    };
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let is_hidden =
        |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().first() == Some(&b'.');
    let entries = entries.flatten().filter(|e| is_folder(e) && !is_hidden(e));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        look(&path, depth - 1, found);
    }
}
