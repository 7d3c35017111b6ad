//! GeneBERT: a positionless BERT over the tokens of a cell, with a head that fills in masks or one
//! that classifies cells.
//!
//! A model is a [`GeneBertConfig`] (Hugging Face's keys), [`Parameters`] (named weights) and one of
//! [`GeneBertForMaskedLM`] and [`GeneBertForSequenceClassification`], which hold handles on the
//! weights. Every layer has a `forward` that returns what it keeps and a `backward` that takes it
//! and writes parameters' gradients straight into [`Gradients`]: candle's tensors without its
//! autograd, so nothing that needs a gradient can silently lose it, and nothing is computed for
//! tokens that are not there. Input is a [`crate::cell::PackedBatch`]; shapes in comments: T tokens
//! of all cells, D hidden size, F intermediate size, N labelled positions, V vocabulary.

mod block;
mod classifier;
mod config;
mod embeddings;
mod encoder;
mod layers;
mod masked_lm;
mod step_bytes;

pub use crate::kernels::cross_entropy::Spread;
pub use crate::kernels::dropout::DropoutKey;
pub use crate::kernels::products::Precision;
pub use crate::parameters::{
    Gradient, Gradients, LoadReport, Parameter, ParameterError, ParameterSpec, Parameters,
};
pub use classifier::GeneBertForSequenceClassification;
pub use config::{ConfigError, GeneBertConfig, HiddenAct};
pub use embeddings::TOKEN_TYPE_TABLE;
pub use masked_lm::GeneBertForMaskedLM;
pub use step_bytes::{BatchSize, TrainingBytes};

/// How a loss is counted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LossConfig {
    /// Share of each label that is spread over all classes (SPEC §3).
    pub label_smoothing: f64,
    /// A weight per class; `None` weighs all alike.
    pub class_weights: Option<Vec<f32>>,
    /// How the share that smoothing spreads weighs.
    pub spread: Spread,
}

impl LossConfig {
    fn settings(&self) -> crate::kernels::cross_entropy::Settings<'_> {
        crate::kernels::cross_entropy::Settings {
            smoothing: self.label_smoothing,
            class_weights: self.class_weights.as_deref(),
            spread: self.spread,
        }
    }
}

/// A loss summed over a batch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LossSum {
    /// The sum over labelled positions (or cells).
    pub sum: f64,
    /// What to divide by for the mean: the number of labels, or the sum of their class weights.
    pub weight: f64,
    /// Number of labels.
    pub num_labels: usize,
}
