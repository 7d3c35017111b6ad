//! `gene-bert genes map`: what genes are called elsewhere.

use std::path::PathBuf;

use crate::cli::files::OutputFlags;
use crate::h5ad::{MatrixKey, OpenOptions, ValuePolicy};
use crate::prepare::gene_map::{Map, Naming, Request, map_genes};

/// Names that are shown.
const SHOWN: usize = 5;

/// Flags of `genes map`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Columns: gene (as the files have it, Ensembl ids without version), mapped_to \
                  (empty where there is no name, or more than one), status (same, mapped, missing, \
                  ambiguous), candidates (the names of an ambiguous gene).\n\n\
                  --gene-map MAP.csv, which every command that reads cells takes, uses the result; \
                  genes without a name keep theirs."
)]
pub(super) struct MapArgs {
    /// The h5ad files; brace patterns and globs are understood
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// What genes shall be called
    #[arg(long, value_name = "NAMING")]
    to: To,
    /// Table (.csv, .tsv) in whose lines symbols and Ensembl ids stand side by side; it goes before
    /// what the files say in the columns of var
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Matrix whose genes are meant: X, layers.NAME or raw.X
    #[arg(long, value_name = "MATRIX", default_value_t = MatrixKey::X)]
    matrix: MatrixKey,
    /// Column of var that holds the gene ids [default: the var index]
    #[arg(long, value_name = "COLUMN")]
    gene_id_column: Option<String>,
    #[command(flatten)]
    output: OutputFlags,
}

/// What genes shall be called.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum To {
    Ensembl,
    Symbol,
}

/// Names the genes, writes the table and reports.
pub(super) fn run(args: MapArgs) -> anyhow::Result<()> {
    args.output.check()?;
    let request = Request {
        files: args.files,
        open: OpenOptions {
            matrix: args.matrix,
            gene_id_column: args.gene_id_column,
            values: ValuePolicy::Any,
            ..OpenOptions::default()
        },
        to: match args.to {
            To::Ensembl => Naming::Ensembl,
            To::Symbol => Naming::Symbol,
        },
        table: args.table,
    };
    let map = map_genes(&request)?;
    map.save(&args.output.output)?;
    report(&map);
    println!("written: {}", args.output.output.display());
    Ok(())
}

fn report(map: &Map) {
    println!("{} genes of {} files", map.genes.len(), map.num_files);
    for (status, what) in [
        ("same", "are called so already"),
        ("mapped", "have another name"),
        ("ambiguous", "have several names and keep theirs"),
        ("missing", "have no other name and keep theirs"),
    ] {
        let count = map.with_status(status).count();
        let shown = map.with_status(status).take(SHOWN);
        let shown: Vec<&str> = shown.map(|gene| gene.gene.as_str()).collect();
        let shown = match count {
            0 => String::new(),
            n if n > SHOWN => format!(" ({}, …)", shown.join(", ")),
            _ => format!(" ({})", shown.join(", ")),
        };
        println!("  {count} {what}{shown}");
    }
    let repeated = map.repeated();
    for (name, genes) in repeated.iter().take(SHOWN) {
        let genes: Vec<&str> = genes.iter().copied().collect();
        let genes = genes.join(", ");
        eprintln!("note: {name} stands for {genes} of one file; only the first of them is read");
    }
    if repeated.len() > SHOWN {
        let more = repeated.len() - SHOWN;
        eprintln!("note: {more} more names stand for several genes of one file each");
    }
}
