//! `gene-bert genes rank`: which genes vary more than their mean makes one expect.
//!
//! The method of Seurat v3 (Stuart et al., Cell 2019) as scanpy's
//! `highly_variable_genes(flavor="seurat_v3")` computes it: a curve of log variance over log mean
//! ([`loess`]), the variance of values standardised by it and clipped ([`variable`]), ranks within
//! each batch, and the median rank of a gene ([`order`]). Genes with the same variance rank in the
//! order of the gene list, where scanpy leaves their order to the sort of the machine at hand.
//!
//! Two passes over the files, a sum and a sum of squares for each gene and batch: memory does not
//! grow with the number of cells. [`job`] runs it, [`mod@file`] writes and reads the result.

mod batches;
mod file;
mod job;
mod loess;
mod order;
mod report;
mod variable;

pub use file::ranked_by;
pub use job::{Request, rank};
pub use order::{Flavor, Ranked, Ranking};
