//! `gene-bert cls` and `gene-bert bincls`: training a classifier of cells.

use crate::config::{Job, RunFlags};
use crate::train::session;

/// Flags of `cls` and `bincls`: those of a run.
#[derive(Debug, clap::Args)]
pub struct ClsArgs {
    #[command(flatten)]
    run: RunFlags,
}

impl ClsArgs {
    pub(super) fn flags(&self) -> &RunFlags {
        &self.run
    }
}

/// Trains.
///
/// # Errors
/// Settings that cannot work, and whatever keeps the run from its end.
pub fn run(args: ClsArgs, job: Job) -> anyhow::Result<()> {
    session::train(&args.run, job)
}
