//! `gene-bert track`: send to trackers what they missed of a run.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::named;
use crate::track::{self, Plan, ReportTo};
use crate::train::resume;

/// Flags of `track`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What a run's trackers missed while they were down, and reports that `gene-bert eval` wrote into
folders of the run folder since. Trackers are set by the environment variables of their own
clients: WANDB_API_KEY, WANDB_BASE_URL, WANDB_MODE, …; MLFLOW_TRACKING_URI, …

Example:
  WANDB_API_KEY=… gene-bert track run")]
pub struct TrackArgs {
    /// Folder of a run that was started with --report-to
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The trackers: wandb, tensorboard, mlflow [default: those of the run]
    #[arg(
        long, value_name = "TRACKER", value_delimiter = ',',
        value_parser = named::<ReportTo>
    )]
    report_to: Vec<ReportTo>,
    /// Seconds to try
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    wait: u32,
}

/// Sends, and says to whom.
///
/// # Errors
/// No tracked run, one that is still going, or a tracker that does not answer in time.
pub fn run(args: TrackArgs) -> anyhow::Result<()> {
    let trackers = if args.report_to.is_empty() {
        let saved = resume::saved_settings(&args.folder)?;
        saved.with_defaults().report_to
    } else {
        args.report_to
    };
    let plan = Plan::new(&trackers, Duration::from_secs(args.wait.into()))?;
    if plan.is_empty() {
        anyhow::bail!(
            "{}: the run reports to no tracker\nhint: name one: --report-to wandb",
            args.folder.display()
        );
    }
    for name in track::send(&plan, &args.folder)? {
        println!("{name}: everything has arrived");
    }
    Ok(())
}
