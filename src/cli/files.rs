//! Flags that jobs on files share: which files and values are read, where the result goes.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::h5ad::{GeneMap, MatrixKey, OpenOptions, ValuePolicy};
use crate::prepare::PrepareError;
use crate::prepare::passes::FileChoice;
use crate::vocab::GenesFrom;

/// What is read.
#[derive(Debug, clap::Args)]
pub(super) struct FileFlags {
    /// The h5ad files; brace patterns and globs are understood
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Matrix to read: X, layers.NAME or raw.X
    #[arg(long, value_name = "MATRIX", default_value_t = MatrixKey::X)]
    matrix: MatrixKey,
    /// Column of var that holds the gene ids [default: the var index]
    #[arg(long, value_name = "COLUMN")]
    gene_id_column: Option<String>,
    /// Other names for the files' gene ids: a table with the columns gene and mapped_to, such as
    /// `gene-bert genes map` writes
    #[arg(long, value_name = "FILE")]
    gene_map: Option<PathBuf>,
    /// Threads that read [default: one per core]
    #[arg(long, value_name = "THREADS")]
    threads: Option<usize>,
}

impl FileFlags {
    /// The files, and how they are opened: `any_values` lets negative ones through.
    pub(super) fn choice(self, any_values: bool) -> FileChoice {
        let open = OpenOptions {
            matrix: self.matrix,
            gene_id_column: self.gene_id_column,
            gene_map: self.gene_map.as_deref().map(GeneMap::at),
            values: if any_values {
                ValuePolicy::Any
            } else {
                ValuePolicy::NonNegative
            },
            ..OpenOptions::default()
        };
        FileChoice {
            files: self.files,
            open,
            threads: self.threads,
        }
    }
}

/// Which genes of several files count.
#[derive(Debug, clap::Args)]
pub(super) struct GenesFlag {
    /// Genes of several files: those that every file has, or all (not expressed where a file
    /// lacks them)
    #[arg(
        long, value_name = "WHICH", default_value = "intersection",
        value_parser = PossibleValuesParser::new(["intersection", "union"]).map(genes_from)
    )]
    pub(super) genes: GenesFrom,
}

/// The value of `--genes`.
#[allow(clippy::needless_pass_by_value)] // The shape that clap's `map` takes.
pub(super) fn genes_from(name: String) -> GenesFrom {
    match name.as_str() {
        "intersection" => GenesFrom::Intersection,
        _ => GenesFrom::Union,
    }
}

/// Where a table goes.
#[derive(Debug, clap::Args)]
pub(super) struct OutputFlags {
    /// The table to write: comma-separated, or tab-separated where it ends in .tsv or .txt
    #[arg(long, value_name = "FILE", required = true)]
    pub(super) output: PathBuf,
    /// Replace an output that exists
    #[arg(long)]
    overwrite: bool,
}

impl OutputFlags {
    /// Before anything is read: is the output free?
    ///
    /// # Errors
    /// It exists already.
    pub(super) fn check(&self) -> Result<(), PrepareError> {
        if self.output.exists() && (!self.overwrite || self.output.is_dir()) {
            return Err(PrepareError::OutputExists {
                path: self.output.clone(),
                remedy: "name another file, or give --overwrite to replace it",
            });
        }
        Ok(())
    }
}
