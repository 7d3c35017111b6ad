//! The settings of a run that goes on from a checkpoint. Where it is resumed, all settings of the
//! checkpoint's run stand below those given now; where it only starts from its weights, those that
//! make the tokens do.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::checkpoint;
use crate::config::{Dtype, Resume, RunConfig, RunFlags, Settings};
use crate::file::{FileError, read_string};
use crate::prepare::encoding::{self, Encoding};
use crate::tokenize::Bins;

/// The run's settings, and the checkpoint folder to continue from where one is asked for.
///
/// # Errors
/// Settings that cannot be read, no checkpoint to resume, or settings with which its run cannot go
/// on as if never interrupted.
pub fn settle(flags: &RunFlags) -> Result<(RunConfig, Option<PathBuf>)> {
    let folder = match flags.resume() {
        Resume::No => return Ok((with_tokens_of_checkpoint(flags)?, None)),
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
        config.output_dir = Some(folder_of(&checkpoint)?);
    }
    if saved_config.auto_find_batch_size {
        // The batch that was found is part of the run, whatever the command asks for again.
        config.per_device_train_batch_size = saved_config.per_device_train_batch_size;
    }
    if config.dtype == Some(Dtype::Auto) {
        config.dtype = saved_config.dtype;
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
    check_given(flags, &checkpoint)?;
    Ok((config, Some(checkpoint)))
}

/// The folder that a checkpoint lies in, however it is named (`.` has no parent by name).
fn folder_of(checkpoint: &Path) -> Result<PathBuf> {
    let wrong = |error| FileError::io("find its folder", checkpoint, error);
    let whole = checkpoint.canonicalize().map_err(wrong)?;
    Ok(whole.parent().unwrap_or(&whole).to_owned())
}

/// Bins and vocabulary are the checkpoint's, wherever the files that its run had them from are by
/// now; files that are named now may not say otherwise.
fn check_given(flags: &RunFlags, checkpoint: &Path) -> Result<()> {
    let given = RunConfig {
        gene_ranking: None,
        ..flags.resolve()?
    };
    Encoding::from_checkpoint(&given, checkpoint)?;
    Ok(())
}

/// The settings of a new run; how files are read and cells become tokens is, where not given, as in
/// the checkpoint whose weights it starts from.
fn with_tokens_of_checkpoint(flags: &RunFlags) -> Result<RunConfig> {
    let given = flags.resolve()?;
    let path = given.pretrained_model_path.as_deref();
    let Some(checkpoint) = path.filter(|path| path.is_dir()) else {
        return Ok(given);
    };
    let (_, saved) = encoding::load(checkpoint)?;
    let (bin_edges, quantile_bins) = match &saved.bins {
        _ if given.gives_bins() => (None, None),
        Bins::Shared(edges) => (Some(edges.clone()), None),
        Bins::Quantile(number) => (None, Some(*number)),
        Bins::PerGene(_) => (None, None),
    };
    let run = encoding::run_settings(checkpoint)?;
    let lower = Settings {
        matrix: run.matrix,
        gene_id_column: run.gene_id_column,
        gene_map: run.gene_map.filter(|map| map.is_file()),
        allow_scaled: run.allow_scaled,
        bin_edges,
        quantile_bins,
        transform: Some(saved.transform.clone()),
        gene_order: saved.gene_order,
        num_top_genes: saved.num_top_genes,
        max_length: Some(saved.max_length),
        compat: saved.compat,
        ..Settings::default()
    };
    let config = flags.resolve_over(lower)?;
    let taken = config.differences(&given);
    if !taken.is_empty() {
        eprintln!("As in {}: {}", checkpoint.display(), taken.join(", "));
    }
    if config.transform != saved.transform {
        eprintln!(
            "warning: transform is {}, but the weights of {} were trained with {}",
            config.transform,
            checkpoint.display(),
            saved.transform
        );
    }
    Ok(config)
}

/// The settings that a checkpoint was trained with.
///
/// # Errors
/// No `run.toml` in its folder, or one that cannot be read.
pub fn saved_settings(checkpoint: &Path) -> Result<Settings> {
    let path = checkpoint.join("run.toml");
    Ok(Settings::from_toml(&read_string(&path)?, &path)?)
}
