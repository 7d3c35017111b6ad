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

use candle_core::{Result, Tensor};

use crate::buffers::Number;
use crate::kernels::cross_entropy;
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
    fn settings<'a>(&'a self, scale: Option<&'a Tensor>) -> cross_entropy::Settings<'a> {
        cross_entropy::Settings {
            smoothing: self.label_smoothing,
            class_weights: self.class_weights.as_deref(),
            spread: self.spread,
            gradient_scale: scale,
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

/// As [`LossSum`], of a sum that a device may still be computing.
#[derive(Debug, Clone)]
pub struct StepLoss {
    /// The sum over labelled positions (or cells).
    pub sum: Number,
    /// What to divide by for the mean.
    pub weight: f64,
    /// Number of labels.
    pub num_labels: usize,
}

impl StepLoss {
    fn none() -> Self {
        Self {
            sum: Number::Here(0.0),
            weight: 0.0,
            num_labels: 0,
        }
    }

    /// The loss; waits for the device.
    ///
    /// # Errors
    /// The device fails.
    pub fn wait(&self) -> Result<LossSum> {
        Ok(LossSum {
            sum: self.sum.wait()?,
            weight: self.weight,
            num_labels: self.num_labels,
        })
    }
}
