//! `gene-bert embed`: embeddings of cells, or of genes.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::reading::{OutputFlags, Place, ReadingFlags};
use crate::infer::embed::{self, Pooling};
use crate::infer::{Reading, output};

/// Flags of `embed`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gene-bert embed CELLS.h5ad --checkpoint RUN --output EMBEDDED.h5ad   obsm[\"X_gene_bert\"] in a copy
  gene-bert embed CELLS.h5ad --checkpoint RUN --output CELLS.npy       only the numbers
  gene-bert embed CELLS.h5ad --checkpoint RUN --genes in-context --output GENES.csv")]
pub struct EmbedArgs {
    #[command(flatten)]
    reading: ReadingFlags,
    #[command(flatten)]
    output: OutputFlags,
    /// What stands for a cell: cls, mean (over its tokens), or a phenotype: the state where it is
    /// masked
    #[arg(long, value_name = "POOLING", default_value = "cls")]
    pooling: Pooling,
    /// Name of the array in obsm
    #[arg(long, value_name = "NAME", default_value = "X_gene_bert")]
    obsm_key: String,
    /// Embed genes rather than cells: their table (context-free), or their mean state in the cells
    /// of the files (in-context); written as CSV
    #[arg(long, value_name = "KIND")]
    genes: Option<Genes>,
}

/// Where the embedding of a gene comes from.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Genes {
    ContextFree,
    InContext,
}

/// Embeds and writes.
///
/// # Errors
/// A checkpoint or file that cannot be used, a place that cannot be written to.
pub fn run(args: EmbedArgs) -> Result<()> {
    let (reading, files) = args.reading.settle()?;
    if let Some(kind) = args.genes {
        return embed_genes(&args, kind, (&files, &reading));
    }
    let places = args.output.places(&files, &["h5ad", "npy", "csv"])?;
    let checkpoint = args.reading.open()?;
    for (file, place) in files.iter().zip(&places) {
        let embeddings = embed::cells(&checkpoint, file, &reading, &args.pooling)?;
        match place {
            Place::Table(path) => output::write_embeddings(path, &embeddings)?,
            Place::Npy(path) => output::write_npy(path, &embeddings.array)?,
            Place::TheFile | Place::Copy(_) => {
                let additions = output::embeddings_for_h5ad(embeddings, &args.obsm_key);
                args.output.add(file, place, &additions)?;
                continue;
            }
        }
        let (Place::Table(path) | Place::Npy(path)) = place else {
            continue;
        };
        println!("{}", path.display());
    }
    Ok(())
}

fn embed_genes(
    args: &EmbedArgs,
    kind: Genes,
    (files, reading): (&[PathBuf], &Reading),
) -> Result<()> {
    let one = files.get(..1).unwrap_or_default();
    let places = args.output.places(one, &["csv"])?;
    let [Place::Table(path)] = &places[..] else {
        bail!("embeddings of genes are written as CSV\nhint: --output GENES.csv");
    };
    let checkpoint = args.reading.open()?;
    let genes = match kind {
        Genes::ContextFree => embed::genes_without_context(&checkpoint)?,
        Genes::InContext => embed::genes_in_context(&checkpoint, files, reading)?,
    };
    output::write_genes(path, &genes)?;
    println!("{}", path.display());
    Ok(())
}
