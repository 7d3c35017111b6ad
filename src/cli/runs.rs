//! `gene-bert runs`: which runs there are, how they stand, how two of them differ.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Subcommand, ValueEnum};

use super::failure::describe;
use crate::runs::diff::compare;
use crate::runs::find::runs_below;
use crate::runs::run::Run;
use crate::runs::table::{self, Order};
use crate::runs::trials;

/// Flags of `runs`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
States: running; finished; stopped early (by --early_stopping_patience or its study); interrupted
(Ctrl-C or SIGTERM; --resume goes on); broken off (killed or crashed; --resume goes on from the last
checkpoint). Time is that of steps and evaluations.

Examples:
  gene-bert runs
  gene-bert runs learning_rate --sort best
  gene-bert runs --metric cell_type_macro_f1 --json
  gene-bert runs diff run-a run-b")]
pub struct RunsArgs {
    #[command(subcommand)]
    command: Option<RunsCommand>,
    /// A folder with run folders in it or further down, or a run folder
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// The figure to tell the best of [default: each run's --metric_for_best_model]
    #[arg(long, value_name = "FIGURE")]
    metric: Option<String>,
    /// Order of the runs
    #[arg(long, value_enum, default_value_t = SortBy::Name)]
    sort: SortBy,
    /// How many folders down to look
    #[arg(long, value_name = "FOLDERS", default_value_t = 4)]
    depth: usize,
    /// One JSON object per run and line instead of a table
    #[arg(long)]
    json: bool,
}

/// What else can be done with runs.
#[derive(Debug, Subcommand)]
enum RunsCommand {
    /// Compare two runs: settings that differ, and the figures of their best evaluations
    Diff(DiffArgs),
}

/// Flags of `runs diff`.
#[derive(Debug, clap::Args)]
struct DiffArgs {
    /// A run folder
    #[arg(value_name = "FOLDER")]
    first: PathBuf,
    /// The run folder to compare it with
    #[arg(value_name = "FOLDER")]
    second: PathBuf,
    /// The figure whose best evaluations are compared [default: each run's --metric_for_best_model]
    #[arg(long, value_name = "FIGURE")]
    metric: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SortBy {
    /// By folder
    Name,
    /// The best first
    Best,
    /// What changed last first
    Changed,
}

/// Lists runs, or compares two.
///
/// # Errors
/// A folder that cannot be read or holds no run, a figure that no run has.
pub fn run(args: &RunsArgs) -> Result<()> {
    if let Some(RunsCommand::Diff(diff)) = &args.command {
        let mut both = [Run::read(&diff.first)?, Run::read(&diff.second)?];
        trials::note(&mut both);
        if let Some(metric) = &diff.metric {
            table::check_metric(&both, metric)?;
        }
        print!("{}", compare(&both[0], &both[1], diff.metric.as_deref())?);
        return Ok(());
    }
    let found = runs_below(&args.folder, args.depth)?;
    for what in &found.unreadable {
        eprintln!("warning: {what}");
    }
    let mut runs = Vec::new();
    for path in &found.runs {
        match Run::read(path) {
            Ok(run) => runs.push(run),
            Err(error) => eprintln!("{}", describe(&error).replacen("error: ", "warning: ", 1)),
        }
    }
    if runs.is_empty() {
        bail!(
            "{}: there is no run here\nhint: runs are folders with run.toml, made by mlm, cls, \
             quickstart and sweep; --depth looks further down",
            args.folder.display()
        );
    }
    trials::note(&mut runs);
    let metric = args.metric.as_deref();
    if let Some(metric) = metric {
        table::check_metric(&runs, metric)?;
    }
    let order = match args.sort {
        SortBy::Name => Order::Name,
        SortBy::Best => Order::Best,
        SortBy::Changed => Order::Changed,
    };
    table::sort(&mut runs, order, metric)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        for run in &runs {
            writeln!(out, "{}", table::json(run, metric))?;
        }
        return Ok(());
    }
    let root = if args.folder.as_os_str() == "." {
        "."
    } else {
        ""
    };
    write!(out, "{}", table::table(&runs, root.as_ref(), metric))?;
    for line in table::errors(&runs) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}
