//! `gene-bert quickstart`: a small pretraining run, from nothing or from the user's cells.

use std::path::PathBuf;

use crate::kernels::parallel::compute_with;
use crate::quickstart::{Quickstart, run as run_quickstart};

/// Pretrain a small model in about a minute, on simulated cells or on yours
#[derive(Debug, Clone, clap::Args)]
pub struct QuickstartArgs {
    /// h5ad files; without any, cells are simulated
    #[arg(long, value_name = "FILE", num_args = 1..)]
    data: Vec<PathBuf>,
    /// obs columns to predict, such as cell_type; needed with --data
    #[arg(long, value_name = "COLUMN", num_args = 1..)]
    phenotypes: Vec<String>,
    /// Run folder; a number is appended where it exists
    #[arg(long, value_name = "FOLDER", default_value = "quickstart-run")]
    output_dir: PathBuf,
    /// Passes over the cells
    #[arg(long, value_name = "EPOCHS", default_value_t = 10.0)]
    num_train_epochs: f64,
    /// Most tokens per cell
    #[arg(long, value_name = "TOKENS", default_value_t = 96)]
    max_length: usize,
    /// Seed of everything random
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Compute threads [default: one per core]
    #[arg(long)]
    threads: Option<usize>,
}

/// Runs the subcommand.
///
/// # Errors
/// Whatever keeps the run from its end.
pub fn run(args: QuickstartArgs) -> anyhow::Result<()> {
    let QuickstartArgs {
        data,
        phenotypes,
        output_dir,
        num_train_epochs,
        max_length,
        seed,
        threads,
    } = args;
    compute_with(threads);
    let quickstart = Quickstart {
        data,
        phenotypes,
        output_dir,
        num_train_epochs,
        max_length,
        seed,
        threads,
    };
    run_quickstart(&quickstart).map(drop)
}
