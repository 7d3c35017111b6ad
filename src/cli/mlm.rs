//! `gene-bert mlm`: masked pretraining.

use std::path::Path;

use anyhow::Context;

use crate::config::{Resume, RunConfig, RunFlags, Settings};
use crate::file::read_string;
use crate::train::{checkpoint, pretrain};

/// Flags of `mlm`: those of a run.
#[derive(Debug, clap::Args)]
pub struct MlmArgs {
    #[command(flatten)]
    run: RunFlags,
}

/// Resolves the settings, with a checkpoint's own below the rest where one is resumed, and trains.
///
/// # Errors
/// Settings that cannot work, and whatever keeps the run from its end.
pub fn run(args: MlmArgs) -> anyhow::Result<()> {
    let flags = args.run;
    let folder = match flags.resume() {
        Resume::No => None,
        Resume::From(path) => Some(path),
        Resume::Latest => Some(
            flags
                .resolve()?
                .output_dir
                .context("--resume: no run folder was given\nhint: name it: --resume FOLDER")?,
        ),
    };
    let Some(folder) = folder else {
        let config = flags.resolve()?;
        notes(&config);
        return pretrain::pretrain(&config, None, flags.overwrite_output_dir).map(drop);
    };
    let checkpoint = checkpoint::to_resume(&folder)?;
    let (saved, saved_config) = saved_settings(&checkpoint)?;
    let mut config = flags.resolve_over(saved)?;
    if flags.settings.output_dir.is_none() {
        // The folder may have been moved since.
        config.output_dir = checkpoint.parent().map(Path::to_owned);
    }
    let hindering = config.hinders_resume(&saved_config);
    if !hindering.is_empty() {
        anyhow::bail!(
            "{}: the run cannot be continued with another value of {}\nhint: leave these flags \
             out, or start a new run from the checkpoint with --pretrained_model_path",
            checkpoint.display(),
            hindering.join(", ")
        );
    }
    notes(&config);
    pretrain::pretrain(&config, Some(&checkpoint), false).map(drop)
}

fn saved_settings(checkpoint: &Path) -> anyhow::Result<(Settings, RunConfig)> {
    let path = checkpoint.join("run.toml");
    let settings = Settings::from_toml(&read_string(&path)?, &path)?;
    Ok((settings.clone(), settings.with_defaults()))
}

fn notes(config: &RunConfig) {
    for note in config.notes() {
        eprintln!("note: {note}");
    }
}
