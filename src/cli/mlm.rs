//! `gene-bert mlm`: masked pretraining.

use crate::config::{Job, RunFlags};
use crate::train::session;

/// Flags of `mlm`: those of a run.
#[derive(Debug, clap::Args)]
pub struct MlmArgs {
    #[command(flatten)]
    run: RunFlags,
}

impl MlmArgs {
    pub(super) fn flags(&self) -> &RunFlags {
        &self.run
    }
}

/// Trains.
///
/// # Errors
/// Settings that cannot work, and whatever keeps the run from its end.
pub fn run(args: MlmArgs) -> anyhow::Result<()> {
    session::train(&args.run, Job::Mlm)
}
