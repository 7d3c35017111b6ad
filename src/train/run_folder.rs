//! The run folder: never two runs in one, nothing of another run overwritten unasked.
//!
//! A run holds a lock on its `metrics.jsonl`, which ends with the process, however that ends.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use anyhow::{Result, bail};

use super::checkpoint;
use crate::file;
use crate::track;

const SETTINGS: &str = "run.toml";
/// What a run logs, and locks.
pub const METRICS: &str = "metrics.jsonl";

/// Whether `output_dir` may be used: it holds no run, or one that `may_hold_run` allows.
///
/// # Errors
/// It holds another run, or is a file.
pub fn check(output_dir: &Path, may_hold_run: bool) -> Result<()> {
    if output_dir.exists() && !output_dir.is_dir() {
        bail!(
            "{}: is a file, expected a run folder\nhint: choose another --output_dir",
            output_dir.display()
        );
    }
    if is_running(output_dir) {
        bail!(
            "{}: another process trains in this folder\nhint: wait for it, stop it with Ctrl-C, \
             or choose another --output_dir",
            output_dir.display()
        );
    }
    let holds_run = output_dir.join(SETTINGS).exists() || !checkpoint::list(output_dir)?.is_empty();
    if holds_run && !may_hold_run {
        bail!(
            "{0}: this folder holds another run\nhint: continue that run with --resume, choose \
             another --output_dir, or start anew with --overwrite-output-dir, which deletes the \
             checkpoints in {0}",
            output_dir.display()
        );
    }
    Ok(())
}

/// Whether a process works on the run in `output_dir`.
pub fn is_running(output_dir: &Path) -> bool {
    let file = File::open(output_dir.join(METRICS));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Whether `checkpoint` lies in `output_dir`.
pub fn holds(output_dir: &Path, checkpoint: &Path) -> bool {
    let whole = [output_dir, checkpoint].map(|path| path.canonicalize().ok());
    matches!(&whole, [Some(folder), Some(checkpoint)] if checkpoint.parent() == Some(folder))
}

/// Deletes the run in `output_dir`, and nothing else that stands there.
///
/// # Errors
/// A file that cannot be deleted.
pub fn clear(output_dir: &Path) -> Result<()> {
    for saved in checkpoint::list(output_dir)? {
        file::remove_dir(&saved.path)?;
    }
    let best = output_dir.join(checkpoint::BEST);
    if best.is_dir() {
        file::remove_dir(&best)?;
    }
    for name in track::FOLDERS {
        let path = output_dir.join(name);
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        }
    }
    for name in [METRICS, SETTINGS] {
        let path = output_dir.join(name);
        if path.is_file() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Creates the folder, clears it of what a killed run left half-written or half-deleted, and writes
/// the resolved settings into it.
///
/// # Errors
/// It cannot be created or written to.
pub fn create(output_dir: &Path, run_toml: &str) -> Result<()> {
    fs::create_dir_all(output_dir).map_err(|error| {
        anyhow::anyhow!(
            "{}: cannot create the run folder: {error}",
            output_dir.display()
        )
    })?;
    file::recover(output_dir)?;
    file::write_atomic(&output_dir.join(SETTINGS), run_toml.as_bytes())?;
    Ok(())
}
