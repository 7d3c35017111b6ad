//! `gene-bert cells`: jobs on the cells of files.

use super::files::{FileFlags, OutputFlags};
use super::progress::Bar;
use crate::prepare::cell_qc::{Request, cell_qc};

/// Flags of `cells`.
#[derive(Debug, clap::Args)]
pub struct CellsArgs {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Figures of each cell for quality control, under scanpy's names
    Qc(QcArgs),
}

/// Flags of `cells qc`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Columns: cell, file, n_genes_by_counts, total_counts, \
                  pct_counts_in_top_N_genes, and total_counts_X and pct_counts_X for X = mt \
                  (MT-…; of man and mouse by Ensembl id too), ribo (RPS…, RPL…), hb (HB…, not \
                  HBP…); empty where a file has no such gene.")]
struct QcArgs {
    #[command(flatten)]
    files: FileFlags,
    /// Tell the share of the counts in so many of a cell's first genes
    #[arg(long, value_name = "GENES", num_args = 1.., default_values_t = [50, 100, 200, 500])]
    percent_top: Vec<usize>,
    /// Column of var with gene symbols [default: feature_name or the like, else the gene ids]
    #[arg(long, value_name = "COLUMN")]
    symbol_column: Option<String>,
    #[command(flatten)]
    output: OutputFlags,
}

/// Does the job and reports.
///
/// # Errors
/// Files or settings that cannot be used; an output that exists or cannot be written.
pub fn run(args: CellsArgs) -> anyhow::Result<()> {
    let Part::Qc(args) = args.part;
    args.output.check()?;
    let request = Request {
        choice: args.files.choice(false),
        percent_top: args.percent_top,
        symbol_column: args.symbol_column,
    };
    let mut bar = Bar::new("reading cells");
    let found = cell_qc(&request, &args.output.output, &mut |share| bar.show(share))?;
    drop(bar);
    for note in &found.notes {
        eprintln!("note: {note}");
    }
    println!("{} cells of {} files", found.num_cells, found.num_files);
    let names = ["n_genes_by_counts", "total_counts", "pct_counts_mt"];
    for (name, median) in names.into_iter().zip(found.medians) {
        if let Some(median) = median {
            println!("median {name}: {median:.4}");
        }
    }
    println!("written: {}", args.output.output.display());
    Ok(())
}
