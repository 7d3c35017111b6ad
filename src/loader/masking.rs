//! Settings of masking, for training and for evaluation.

use serde::{Deserialize, Serialize};

use super::error::LoaderError;
use crate::tokenize::Compat;

/// How absent genes are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbsentGeneSampling {
    /// Each absent gene as likely as the other.
    #[default]
    Uniform,
    /// By how often a gene is expressed, which makes its absence a real question.
    Frequency,
}

/// Settings of a [`super::MlmCollator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MlmConfig {
    /// Probability that a gene is masked, 0..=1 (default 0.15).
    pub gene_mask_prob: f64,
    /// Probability that a phenotype is masked, 0..=1 (default 0.5).
    pub phenotype_mask_prob: f64,
    /// How absent genes are drawn (default uniform).
    pub absent_gene_sampling: AbsentGeneSampling,
    /// Whose known mistakes are repeated: with `perturbgene` a dropped phenotype leaves a `[PAD]`
    /// of type 0 behind (default none).
    pub compat: Option<Compat>,
}

impl Default for MlmConfig {
    fn default() -> Self {
        Self {
            gene_mask_prob: 0.15,
            phenotype_mask_prob: 0.5,
            absent_gene_sampling: AbsentGeneSampling::Uniform,
            compat: None,
        }
    }
}

impl MlmConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// Names the setting that cannot work.
    pub fn validate(&self) -> Result<(), LoaderError> {
        for (key, prob) in [
            ("gene_mask_prob", self.gene_mask_prob),
            ("phenotype_mask_prob", self.phenotype_mask_prob),
        ] {
            if !(0.0..=1.0).contains(&prob) {
                return Err(LoaderError::setting(key, "a probability from 0 to 1", prob));
            }
        }
        Ok(())
    }
}

/// What an evaluation asks for. Phenotypes are never dropped in an evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvalMasking {
    /// Random masks with the training probabilities, the same in every evaluation.
    Random,
    /// Exactly this phenotype category is hidden, everything else visible.
    Phenotype(String),
    /// All phenotypes are hidden, genes visible.
    AllPhenotypes,
}
