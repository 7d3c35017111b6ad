//! `gene-bert cls` and `gene-bert bincls`: training a classifier of cells.

use crate::config::{Job, RunFlags};
use crate::kernels::parallel::compute_with;
use crate::train::{classify, resume};

/// Flags of `cls` and `bincls`: those of a run.
#[derive(Debug, clap::Args)]
pub struct ClsArgs {
    #[command(flatten)]
    run: RunFlags,
}

/// Resolves the settings, with a checkpoint's own below the rest, and trains.
///
/// # Errors
/// Settings that cannot work, and whatever keeps the run from its end.
pub fn run(args: ClsArgs, job: Job) -> anyhow::Result<()> {
    args.run.validate_for(job)?;
    let (config, resumed) = resume::settle(&args.run)?;
    compute_with(config.threads);
    for note in config.notes() {
        eprintln!("note: {note}");
    }
    let overwrite = args.run.overwrite_output_dir && resumed.is_none();
    classify::classify(&config, job, resumed.as_deref(), overwrite).map(drop)
}
