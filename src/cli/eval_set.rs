//! `gene-bert eval-set`: cells that are masked once, for every later evaluation.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::progress::Bar;
use super::shown;
use crate::config::RunFlags;
use crate::file::expand_paths;
use crate::prepare::eval_set;

/// Flags of `eval-set`: those of a run count, as far as they concern tokens and masks.
#[derive(Debug, clap::Args)]
#[command(
    mut_args(shown::tokens_and_masks),
    after_help = "\
`gene-bert mlm --eval_data_paths SET.json` and `gene-bert eval SET.json` read the file, and so does
PerturbGene, which takes three such files at most. Tokens and masks are those of a run with the same
flags, or of the checkpoint given as --pretrained_model_path.

Example:
  gene-bert eval-set atlas_47.h5ad --pretrained_model_path RUN/checkpoint-best --output SET.json"
)]
pub struct EvalSetArgs {
    /// h5ad files, with braces ({0..43}, {a,b}) and globs
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
    /// JSON file to write
    #[arg(long, value_name = "PATH")]
    output: PathBuf,
    /// Replace a file of the same name
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    run: RunFlags,
}

/// Masks and writes.
///
/// # Errors
/// Settings or files that cannot be used, a place that cannot be written to.
pub fn run(args: &EvalSetArgs) -> Result<()> {
    let path = args.output.display();
    ensure!(
        args.overwrite || !args.output.exists(),
        "{path}: exists already\nhint: --overwrite replaces it"
    );
    ensure!(
        args.output.extension().is_some_and(|end| end == "json"),
        "{path}: pre-masked sets are told by their name's end\nhint: --output SET.json"
    );
    let files = expand_paths(&args.files)?;
    let mut bar = Bar::new("masking");
    let written = eval_set::write(&files, &args.run, &args.output, &mut |share| {
        bar.show(share)
    })?;
    drop(bar);
    println!(
        "{} cells, {} masked tokens",
        written.num_cells, written.num_labels
    );
    println!("{path}");
    Ok(())
}
