//! `gene-bert vocab`: vocabularies as files of their own.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::files::genes_from;
use super::shown;
use crate::config::RunFlags;
use crate::prepare::vocabulary::{Request, build};
use crate::vocab::GenesFrom;

/// Flags of `vocab`.
#[derive(Debug, clap::Args)]
pub struct VocabArgs {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Build a vocabulary from the obs columns and genes of h5ad files
    Build(Box<BuildArgs>),
}

/// Flags of `vocab build`; of a run's, those count that say where gene ids are and what bins are.
#[derive(Debug, clap::Args)]
#[command(
    mut_args(shown::vocabulary_only),
    after_help = "Example: gene-bert vocab build 'atlas_{0..43}.h5ad' --phenotypes cell_type sex \
                  --leave-out unknown --output atlas.json"
)]
struct BuildArgs {
    /// The h5ad files; brace patterns and globs are understood
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Columns of obs whose values become tokens
    #[arg(long, value_name = "COLUMN", num_args = 1..)]
    phenotypes: Vec<String>,
    /// FILE.json: phenotypes only, what --vocab_path reads; or a folder: vocab.json, tokenizer.json
    /// and gene_bert.json, with genes and bins (which must be given then)
    #[arg(long, value_name = "PATH", default_value = "vocab.json")]
    output: PathBuf,
    /// Start from this vocabulary (JSON); new values come behind its own
    #[arg(long, value_name = "FILE")]
    start_from: Option<PathBuf>,
    /// Values that get no token, such as unknown, or sex=unknown for one column only
    #[arg(long, value_name = "VALUE", num_args = 1..)]
    leave_out: Vec<String>,
    /// Genes of several files: all of them, or those that every file has
    #[arg(
        long, value_name = "WHICH", default_value = "union",
        value_parser = PossibleValuesParser::new(["union", "intersection"]).map(genes_from)
    )]
    genes: GenesFrom,
    /// Replace an output that exists
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    run: RunFlags,
}

/// Builds, writes and reports.
///
/// # Errors
/// Files, columns or settings that cannot be used; an output that exists or cannot be written.
pub fn run(args: VocabArgs) -> anyhow::Result<()> {
    let Part::Build(args) = args.part;
    args.run.refuse_actions()?;
    let config = args.run.resolve()?;
    let request = Request {
        files: args.files,
        phenotypes: args.phenotypes,
        start_from: args.start_from,
        leave_out: args.leave_out,
        genes: args.genes,
        output: args.output,
        overwrite: args.overwrite,
    };
    let built = build(&request, &config)?;
    for note in &built.notes {
        eprintln!("note: {note}");
    }
    print!("{built}");
    println!("written: {}", request.output.display());
    Ok(())
}
