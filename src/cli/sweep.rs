//! `gene-bert sweep`: a study of many runs.

use std::path::PathBuf;

use anyhow::Result;

use super::progress::Bar;
use crate::sweep::dry;
use crate::sweep::folder::{Asked, PAGE, plan};
use crate::sweep::place::{Spot, Wanted};
use crate::sweep::runner::{self, Said};

/// Flags of `sweep`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A study file is W&B's sweep file; `program` is mlm, cls or bincls, and the metric a figure of the
runs' evaluations, as --metric_for_best_model names them (eval_loss, gene_accuracy, tissue_accuracy,
macro_f1, ...), or train_loss:

  program: mlm
  method: bayes                  # or grid, random
  metric: {name: eval_loss, goal: minimize}
  run_cap: 24
  early_terminate: {type: hyperband, min_iter: 2, eta: 3}
  parameters:
    learning_rate: {distribution: log_uniform_values, min: 1e-5, max: 1e-2}
    per_device_train_batch_size: {values: [8, 16, 32]}
    bin_edges: {value: [0.1]}

The same command, or `gene-bert sweep FOLDER`, goes on after any interruption. With one seed and one
--parallel a study gives the same trials each time.

Examples:
  gene-bert sweep study.yaml --dry-run
  gene-bert sweep study.yaml --parallel 2 -- --train_data_paths CELLS.h5ad
  gene-bert sweep study.yaml --devices cuda:0,cuda:1 -- --train_data_paths CELLS.h5ad")]
pub struct SweepArgs {
    /// The study file (YAML), or the folder of a study to go on with
    #[arg(value_name = "STUDY")]
    study: PathBuf,
    /// Folder of the study: a run folder for each trial, study.csv, study.html [default: the study file's name without its ending]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Trials at a time; each gets its share of the cores [default: one, or one for each of --devices]
    #[arg(long, value_name = "TRIALS", value_parser = clap::value_parser!(u16).range(1..))]
    parallel: Option<u16>,
    /// Where trials compute, one at a time on each: cuda:0,cuda:1 (GPUs), cpu,cpu (two that share the cores), cpu:0-3,cpu:4-7 (bound to these cores); named twice: two at a time
    #[arg(long, value_name = "DEVICE", value_delimiter = ',')]
    devices: Vec<Spot>,
    /// Compute threads of each trial [default: its cores, or the cores divided by the trials at a time]
    #[arg(long, value_name = "THREADS")]
    threads: Option<usize>,
    /// Seed of the search; that of the runs is a setting of theirs [default: 1]
    #[arg(long)]
    seed: Option<u64>,
    /// The most trials, in place of the study's run_cap
    #[arg(long, value_name = "TRIALS")]
    run_cap: Option<u64>,
    /// Print the trials that would run, and what is wrong with them; run nothing
    #[arg(long)]
    dry_run: bool,
    /// Run the trials again that failed
    #[arg(long)]
    retry_failed: bool,
    /// Delete the study in the folder, with its runs, and begin anew
    #[arg(long)]
    overwrite: bool,
    /// Flags for every trial, behind --; they win over the study's values
    #[arg(last = true, value_name = "FLAGS")]
    more: Vec<String>,
}

/// Runs the study, and says where its report is.
///
/// # Errors
/// A study file that cannot be used, a folder in use, the first trials all fail.
pub fn run(args: SweepArgs) -> Result<()> {
    let asked = Asked {
        study: args.study,
        output: args.output,
        seed: args.seed,
        more: args.more,
        run_cap: args.run_cap,
        overwrite: args.overwrite,
        retry_failed: args.retry_failed,
    };
    let plan = plan(&asked)?;
    let wanted = Wanted {
        devices: args.devices,
        parallel: args.parallel.map(usize::from),
        threads: args.threads,
    };
    let places = wanted.places(&plan.study)?;
    if args.dry_run {
        print!("{}", dry::trials(&plan.study, plan.seed, &places));
        return Ok(());
    }
    let mut folder = plan.open(&asked)?;
    let mut bar = Bar::new("");
    runner::run(&mut folder, &places, &mut |said| match said {
        Said::Line(line) => bar.print(&line),
        Said::Status(text, share) => {
            bar.set_message(text);
            bar.show(share);
        }
    })?;
    drop(bar);
    println!("{}", folder.closing());
    println!("{}", folder.path.join(PAGE).display());
    Ok(())
}
