//! How cells become tokens.

use serde::{Deserialize, Serialize};

use super::{Bins, Transform};

/// What is done with a phenotype value that is missing or not in the vocabulary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownPhenotype {
    /// `[MASK]` without a label.
    Mask,
    /// The cell is left out.
    Skip,
    /// The run stops, naming file, row, column and value.
    #[default]
    Error,
}

/// Which genes come first, and so survive truncation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GeneOrder {
    /// Best rank first; genes of equal rank by id.
    Rank,
    /// Ascending column of the file.
    File,
    /// Highest value first; equal values by gene id.
    Expression,
    /// A fresh draw for each cell and epoch.
    Random,
}

/// Whose known mistakes are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compat {
    /// The original: truncation also cuts `[EOS]` off, dropped phenotypes leave a `[PAD]`.
    Perturbgene,
}

/// Settings of a [`super::Tokenizer`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizeConfig {
    /// Between which values the bins are.
    pub bins: Bins,
    /// obs columns that become tokens, in this order.
    pub included_phenotypes: Vec<String>,
    /// Most tokens per cell, `[CLS]`, phenotypes and `[EOS]` included.
    pub max_length: usize,
    /// Keep only this many best-ranked genes; `None`: all.
    pub num_top_genes: Option<usize>,
    /// Which genes come first; `None`: rank where genes are ranked, else file.
    pub gene_order: Option<GeneOrder>,
    /// What is done to the values before binning.
    pub transform: Transform,
    /// What is done to the values of training cells before that, other draws in each epoch.
    #[serde(default, skip_serializing_if = "Transform::is_none")]
    pub augment: Transform,
    /// What is done with unknown phenotype values.
    pub unknown_phenotype: UnknownPhenotype,
    /// Least share of the gene vocabulary that a source must have, 0..=1.
    pub min_gene_overlap: f64,
    /// Whether values that look scaled (negative ones among them) are let through.
    pub allow_scaled: bool,
    /// Whose known mistakes are repeated.
    pub compat: Option<Compat>,
}

impl Default for TokenizeConfig {
    /// One edge at 0.1, no phenotypes, 1024 tokens, all genes, strict.
    fn default() -> Self {
        Self {
            bins: Bins::Shared(vec![0.1]),
            included_phenotypes: Vec::new(),
            max_length: 1024,
            num_top_genes: None,
            gene_order: None,
            transform: Transform::default(),
            augment: Transform::default(),
            unknown_phenotype: UnknownPhenotype::Error,
            min_gene_overlap: 0.5,
            allow_scaled: false,
            compat: None,
        }
    }
}
