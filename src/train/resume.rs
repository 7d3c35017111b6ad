//! The settings of a run that is resumed: those of its checkpoint below those given now.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::checkpoint;
use crate::config::{Resume, RunConfig, RunFlags, Settings};
use crate::file::read_string;

/// The run's settings, and the checkpoint folder to continue from where one is asked for.
///
/// # Errors
/// Settings that cannot be read, no checkpoint to resume, or settings with which its run cannot go
/// on as if never interrupted.
pub fn settle(flags: &RunFlags) -> Result<(RunConfig, Option<PathBuf>)> {
    let folder = match flags.resume() {
        Resume::No => return Ok((flags.resolve()?, None)),
        Resume::From(path) => path,
        Resume::Latest => flags
            .resolve()?
            .output_dir
            .context("--resume: no run folder was given\nhint: name it: --resume FOLDER")?,
    };
    let checkpoint = checkpoint::to_resume(&folder)?;
    let saved = saved_settings(&checkpoint)?;
    let saved_config = saved.clone().with_defaults();
    let mut config = flags.resolve_over(saved)?;
    if flags.settings.output_dir.is_none() {
        // The folder may have been moved since.
        config.output_dir = checkpoint.parent().map(Path::to_owned);
    }
    let hindering = config.hinders_resume(&saved_config);
    if !hindering.is_empty() {
        bail!(
            "{}: the run cannot be continued with another value of {}\nhint: leave these flags \
             out, or start a new run from the checkpoint with --pretrained_model_path",
            checkpoint.display(),
            hindering.join(", ")
        );
    }
    Ok((config, Some(checkpoint)))
}

fn saved_settings(checkpoint: &Path) -> Result<Settings> {
    let path = checkpoint.join("run.toml");
    Ok(Settings::from_toml(&read_string(&path)?, &path)?)
}
