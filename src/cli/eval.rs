//! `gene-bert eval`: how good a checkpoint is.

use std::path::PathBuf;

use anyhow::Result;

use super::progress::Bar;
use super::reading::ModelFlags;
use crate::assess::{self, Question, output};
use crate::file::expand_paths;
use crate::infer::embed::Pooling;

/// Flags of `eval`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without files, the cells that the run itself held out are evaluated: the figures are those of the
run's own evaluation; with --part, the run's files are. With files, a value that the model never learned is left out and counted.

Examples:
  gene-bert eval --checkpoint RUN --output EVAL
  gene-bert eval --checkpoint RUN --split-file SPLIT.json --part test --output EVAL
  gene-bert eval 'new_*.h5ad' --checkpoint RUN --group-by donor_id --bootstrap 1000 \\
      --bootstrap-by donor_id --output EVAL")]
pub struct EvalArgs {
    /// h5ad files (or pre-masked sets of `gene-bert eval-set`, .json), with braces ({0..43}, {a,b}) and globs [default: what the run held out]
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    #[command(flatten)]
    model: ModelFlags,
    /// Phenotypes to predict [default: all that the model was trained with and a file has]
    #[arg(long, value_name = "COLUMN", num_args = 1..)]
    phenotypes: Vec<String>,
    /// Give all figures for each value of this obs column too
    #[arg(long, value_name = "COLUMN")]
    group_by: Option<String>,
    /// Give 95 % confidence intervals, by so many resamples of the cells [without a number: 1000]
    #[arg(long, value_name = "RESAMPLES", num_args = 0..=1, default_missing_value = "1000")]
    bootstrap: Option<u64>,
    /// Draw whole groups of cells, by this obs column, where cells of one are alike (donor_id)
    #[arg(long, value_name = "COLUMN")]
    bootstrap_by: Option<String>,
    /// Probability that a gene is masked [default: as in training]
    #[arg(long, value_name = "P")]
    gene_mask_prob: Option<f64>,
    /// Seed of masks and resamples [default: the run's]
    #[arg(long)]
    seed: Option<u64>,
    /// Evaluate at most this many cells, drawn at random
    #[arg(long, value_name = "CELLS")]
    max_cells: Option<u64>,
    /// Compare with simple methods too, which learn from the training cells: logistic regression
    /// on principal components of variable genes, and a vote of the nearest embeddings
    #[arg(long)]
    baselines: bool,
    /// Embed at most this many cells for the map in report.html; 0: none
    #[arg(long, value_name = "CELLS", default_value_t = 3000)]
    map_cells: u64,
    /// What stands for a cell in the map: cls, mean, or a phenotype, as in `gene-bert embed`
    #[arg(long, value_name = "POOLING", default_value = "cls")]
    pooling: Pooling,
    /// The training files, where the paths in run.toml do not lead to them: what constant answers
    /// reach is counted on their cells
    #[arg(long, value_name = "FILE", num_args = 1..)]
    train_data_paths: Vec<String>,
    /// Folder to make: report.html, metrics.json, per_class.csv, confusion_*.csv
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    /// Replace an evaluation of the same name
    #[arg(long)]
    overwrite: bool,
}

/// Evaluates, writes and shows.
///
/// # Errors
/// A checkpoint or files that cannot be used, a folder that cannot be written to.
pub fn run(args: EvalArgs) -> Result<()> {
    output::check(&args.output, args.overwrite)?;
    let question = Question {
        files: expand_paths(&args.files)?,
        reading: args.model.reading()?,
        phenotypes: args.phenotypes,
        group_by: args.group_by,
        num_resamples: match (args.bootstrap, &args.bootstrap_by) {
            (Some(number), _) => number,
            (None, Some(_)) => 1000,
            (None, None) => 0,
        },
        bootstrap_by: args.bootstrap_by,
        seed: args.seed,
        gene_mask_prob: args.gene_mask_prob,
        max_cells: args.max_cells,
        baselines: args.baselines,
        map_cells: args.map_cells,
        pooling: args.pooling,
        train_data_paths: args.train_data_paths,
    };
    let checkpoint = args.model.open()?;
    let mut bar = Bar::new("evaluating");
    let assessed = assess::assess(&checkpoint, &question, &mut |what, share| {
        bar.set_message(what);
        bar.show(share);
    })?;
    drop(bar);
    output::write(&args.output, &assessed)?;
    print!("{}", assessed.summary.table());
    println!("{}", args.output.display());
    Ok(())
}
