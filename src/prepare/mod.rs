//! Jobs on data: convert files, simulate cells, build vocabularies, settle that of a run, show the
//! tokens of cells, rank genes, figures of genes and cells, split cells into parts.
//!
//! A job takes resolved settings and paths and returns a value that the command prints; it knows
//! no model and no terminal.

pub mod cell_qc;
pub mod columns;
pub mod convert;
pub mod encoding;
mod error;
pub mod eval_set;
pub mod gene_map;
mod gene_sets;
pub mod gene_stats;
mod genes_error;
mod moments;
pub mod passes;
pub mod ranking;
mod report;
mod rows;
mod shared_genes;
pub mod simulate;
mod sketch;
pub mod split;
pub mod tokens;
pub mod vocabulary;

pub use error::PrepareError;
pub use genes_error::GenesError;
pub use rows::RowList;
