//! `gene-bert tokenize`: the tokens of single cells, as a run sees them.

use std::io::Write;
use std::path::PathBuf;

use super::shown;
use crate::config::RunFlags;
use crate::prepare::RowList;
use crate::prepare::tokens::Tokens;

/// Flags of `tokenize`: those of a run count, as far as they concern tokens.
#[derive(Debug, clap::Args)]
#[command(
    mut_args(shown::tokens_only),
    after_help = "The genes are those of --pretrained_model_path, else of --train_data_paths, \
                  else of FILE itself. Every flag of mlm is accepted: those that do not concern \
                  tokens change nothing."
)]
pub struct TokenizeArgs {
    /// The h5ad file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Rows from 0, in this order: 0,5,7 or 0-4 (both ends) or 0..5 (without 5) [default: the
    /// first 3]
    #[arg(long, value_name = "ROWS", allow_hyphen_values = true)]
    rows: Option<RowList>,
    /// One line per cell: {"row", "obs_name", "input_ids", "token_type_ids"}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunFlags,
}

/// Prints the tokens of the cells.
///
/// # Errors
/// Settings, files or rows that cannot be used.
pub fn run(args: &TokenizeArgs) -> anyhow::Result<()> {
    let tokens = Tokens::open(&args.file, &args.run)?;
    let rows = tokens.rows(args.rows.as_ref())?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if !args.json {
        writeln!(out, "{}", tokens.describe())?;
    }
    tokens.visit(&rows, &mut |cell| match (args.json, cell.to_json()) {
        (true, Some(line)) => writeln!(out, "{line}"),
        (true, None) => {
            eprint!("note: {cell}");
            Ok(())
        }
        (false, _) => write!(out, "\n{cell}"),
    })?;
    Ok(out.flush()?)
}
