//! Genes and phenotype values ↔ frozen ids.
//!
//! Ids, in this order: `[CLS]` 0, `[EOS]` 1, `[MASK]` 2, `[PAD]` 3; every phenotype value
//! (categories sorted by name, values in the vocabulary's own order); `bin_0` … `bin_n` for n bin
//! edges. Token types: 0 for special tokens, 1..=C for the categories in sorted order, C + 1 + g
//! for gene g. [`Vocabulary`] is the whole of it; [`PhenotypeVocab`] and [`GeneVocab`] are its
//! parts. On disk: `tokenizer.json`, a Hugging Face tokenizers file, and the genes beside it.
//!
//! Knows no cell and no file but its own.

mod build;
mod error;
mod gene_table;
mod genes;
mod phenotypes;
mod tokens;
mod vocabulary;

pub use crate::cell::canonical_gene_id;
pub use build::{GeneTally, GenesFrom, build_genes, build_phenotypes};
pub use error::VocabError;
pub use gene_table::GeneTable;
pub use genes::{GeneVocab, NO_GENE};
pub use phenotypes::{PhenotypeVocab, Repeats, phenotype_token};
pub use vocabulary::Vocabulary;

/// Id of `[CLS]`, the first token of every cell.
pub const CLS: u32 = 0;
/// Id of `[EOS]`, the last token of every cell.
pub const EOS: u32 = 1;
/// Id of `[MASK]`.
pub const MASK: u32 = 2;
/// Id of `[PAD]`.
pub const PAD: u32 = 3;
/// The special tokens by id.
pub const SPECIAL: [&str; 4] = ["[CLS]", "[EOS]", "[MASK]", "[PAD]"];
