//! `gene-bert mlm`: masked pretraining.

use crate::config::{Job, RunFlags};
use crate::kernels::parallel::compute_with;
use crate::train::{pretrain, resume};

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
    args.run.validate_for(Job::Mlm)?;
    let (config, resumed) = resume::settle(&args.run)?;
    compute_with(config.threads);
    for note in config.notes() {
        eprintln!("note: {note}");
    }
    let overwrite = args.run.overwrite_output_dir && resumed.is_none();
    pretrain::pretrain(&config, resumed.as_deref(), overwrite).map(drop)
}
