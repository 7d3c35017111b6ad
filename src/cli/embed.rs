//! `gene-bert embed`: embeddings of cells, or of genes.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::reading::{OutputFlags, Place, ReadingFlags};
use crate::h5ad::edit::Additions;
use crate::infer::embed::{self, Embedded, ForH5ad, Pooling, Sink};
use crate::infer::output::streams::{Csv, Npy, Parquet};
use crate::infer::{Checkpoint, Reading, output};

/// Flags of `embed`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gene-bert embed CELLS.h5ad --checkpoint RUN --output EMBEDDED.h5ad   obsm[\"X_gene_bert\"] in a copy
  gene-bert embed CELLS.h5ad --checkpoint RUN --output CELLS.npy       only the numbers
  gene-bert embed CELLS.h5ad --checkpoint RUN --output CELLS.parquet   a table, for pandas or polars
  gene-bert embed CELLS.h5ad --checkpoint RUN --genes in-context --output GENES.csv")]
#[command(mut_arg("files", |files| {
    let files = files.required(false).required_unless_present("genes");
    files.required_if_eq("genes", "in-context")
}))]
pub struct EmbedArgs {
    #[command(flatten)]
    reading: ReadingFlags,
    #[command(flatten)]
    output: OutputFlags,
    /// What stands for a cell: cls, mean (over its tokens), or a phenotype: the state where it is
    /// masked
    #[arg(
        long,
        value_name = "POOLING",
        default_value = "cls",
        conflicts_with = "genes"
    )]
    pooling: Pooling,
    /// Name of the array in obsm
    #[arg(
        long,
        value_name = "NAME",
        default_value = "X_gene_bert",
        conflicts_with = "genes"
    )]
    obsm_key: String,
    /// Embed genes rather than cells: their table (context-free, for which no file is read), or
    /// their mean state in the cells of the files (in-context); written as CSV
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
    let checkpoint = args.reading.open()?;
    if let Some(kind) = args.genes {
        return embed_genes(&args, kind, &checkpoint);
    }
    let (reading, files) = args.reading.settle(std::slice::from_ref(&checkpoint))?;
    let places = args
        .output
        .places(&files, &["h5ad", "npy", "csv", "parquet"])?;
    for (file, place) in files.iter().zip(&places) {
        let job = Job {
            checkpoint: &checkpoint,
            reading: &reading,
            pooling: &args.pooling,
            file,
        };
        let path = match place {
            Place::Npy(path) => {
                job.run(|cells| Npy::new(path, cells.cell_names.len(), cells.width))?;
                path
            }
            Place::Parquet(path) => {
                job.run(|cells| Parquet::new(path, cells.cell_names, cells.width))?;
                path
            }
            Place::Table(path) => {
                job.run(|cells| Csv::new(path, cells.cell_names, cells.width))?;
                path
            }
            Place::TheFile | Place::Copy(_) => {
                let array = job.run(|cells| ForH5ad::new(cells, place.folder(file)))?;
                let additions = Additions {
                    obsm: vec![(args.obsm_key.clone(), array)],
                    ..Additions::default()
                };
                args.output.add(file, place, &additions)?;
                continue;
            }
        };
        println!("{}", path.display());
    }
    Ok(())
}

/// The embedding of one file's cells.
struct Job<'a> {
    checkpoint: &'a Checkpoint,
    reading: &'a Reading,
    pooling: &'a Pooling,
    file: &'a Path,
}

impl Job<'_> {
    fn run<S: Sink>(&self, open: impl FnOnce(Embedded) -> Result<S>) -> Result<S::Done> {
        embed::cells(self.checkpoint, self.file, self.reading, self.pooling, open)
    }
}

fn embed_genes(args: &EmbedArgs, kind: Genes, checkpoint: &Checkpoint) -> Result<()> {
    let places = args
        .output
        .places(&[PathBuf::from("genes.csv")], &["csv"])?;
    let [Place::Table(path)] = &places[..] else {
        bail!("embeddings of genes are written as CSV\nhint: --output GENES.csv");
    };
    let genes = match kind {
        Genes::ContextFree => embed::genes_without_context(checkpoint)?,
        Genes::InContext => {
            let (reading, files) = args.reading.settle(std::slice::from_ref(checkpoint))?;
            embed::genes_in_context(checkpoint, &files, &reading)?
        }
    };
    output::write_genes(path, &genes)?;
    println!("{}", path.display());
    Ok(())
}
