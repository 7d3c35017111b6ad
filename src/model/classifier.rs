//! GeneBERT with a classifier: the state of `[CLS]`, the first token of each cell, through
//! Linear, ReLU, dropout, Linear to the classes.

use candle_core::{Result, Tensor};

use super::encoder::{Encoder, FIRST_HEAD_SITE};
use super::layers::Linear;
use super::{DropoutKey, GeneBertConfig, LossConfig, LossSum, StepLoss};
use crate::buffers::to_host;
use crate::cell::PackedBatch;
use crate::kernels::activation::{self, Activation};
use crate::kernels::cross_entropy;
use crate::kernels::dropout::{self, Dropout};
use crate::kernels::factor::Factor;
use crate::kernels::lists::{Lists, Numbers};
use crate::parameters::{Gradients, ParameterSpec, Parameters};

/// The model that is fine-tuned to classify cells.
#[derive(Debug, Clone)]
pub struct GeneBertForSequenceClassification {
    encoder: Encoder,
    pre_classifier: Linear,
    classifier: Linear,
    dropout: f64,
    /// Embeddings and so many blocks that get no gradient.
    frozen: Option<usize>,
}

struct SavedHead {
    first: Factor,   // [B, D], the state of [CLS]
    inner: Tensor,   // [B, D], before ReLU
    dropped: Factor, // [B, D]
    dropout: Option<Dropout>,
}

impl GeneBertForSequenceClassification {
    /// The parameters of the model, in their order.
    pub fn parameter_specs(config: &GeneBertConfig) -> Vec<ParameterSpec> {
        let (width, deviation) = (config.hidden_size, config.initializer_range);
        let mut specs = Encoder::specs(config);
        specs.extend(Linear::specs("pre_classifier", width, width, deviation));
        specs.extend(Linear::specs(
            "classifier",
            width,
            config.num_labels,
            deviation,
        ));
        specs
    }

    /// Fresh weights for the model.
    ///
    /// # Errors
    /// A tensor cannot be made.
    pub fn init_parameters(config: &GeneBertConfig, seed: u64) -> Result<Parameters> {
        Parameters::init(&Self::parameter_specs(config), seed)
    }

    /// The model over `parameters`; it sees every later change of them.
    ///
    /// # Errors
    /// A parameter is missing.
    pub fn new(config: &GeneBertConfig, parameters: &Parameters) -> Result<Self> {
        Ok(Self {
            encoder: Encoder::new(config, parameters)?,
            pre_classifier: Linear::new(parameters, "pre_classifier", config.precision)?,
            classifier: Linear::new(parameters, "classifier", config.precision)?,
            dropout: config.seq_classif_dropout,
            frozen: None,
        })
    }

    /// The same model, whose embeddings and first `num_blocks` blocks get no gradient and so stay
    /// as they are; where there are no more blocks, only the classifier learns.
    #[must_use]
    pub fn with_frozen_blocks(self, num_blocks: usize) -> Self {
        Self {
            frozen: Some(num_blocks),
            ..self
        }
    }

    /// Logits [B, classes], one row per cell. Without a key nothing is dropped.
    ///
    /// # Errors
    /// The batch does not fit the model, or has an empty cell.
    pub fn forward(&self, batch: &PackedBatch, dropout: Option<DropoutKey>) -> Result<Tensor> {
        let lists = self.encoder.lists(batch)?;
        let first = self.encoder.infer_first(&lists, dropout)?;
        to_host(&self.head(first, dropout)?.0)
    }

    /// The last hidden states [T, D], nothing dropped.
    ///
    /// # Errors
    /// The batch does not fit the model.
    pub fn last_hidden_state(&self, batch: &PackedBatch) -> Result<Tensor> {
        to_host(&self.encoder.infer(&self.encoder.lists(batch)?, None)?)
    }

    /// The token type table [types, D]: row C + 1 + g is gene g's.
    ///
    /// # Errors
    /// The device does not answer.
    pub fn token_type_embeddings(&self) -> Result<Tensor> {
        to_host(self.encoder.token_types())
    }

    /// The loss summed over cells (`labels`, one class per cell), without gradients.
    ///
    /// # Errors
    /// As [`Self::forward`], or a label that is no class.
    pub fn loss(
        &self,
        batch: &PackedBatch,
        labels: &[u32],
        config: &LossConfig,
        dropout: Option<DropoutKey>,
    ) -> Result<LossSum> {
        if labels.is_empty() {
            return Ok(LossSum::default());
        }
        let logits = self.forward(batch, dropout)?;
        let loss = cross_entropy::forward(&logits, labels, config.settings(None))?;
        Ok(loss_sum(loss, labels))
    }

    /// The loss summed over cells, its gradients added to `gradients`.
    ///
    /// # Errors
    /// As [`Self::loss`].
    pub fn loss_and_gradients(
        &self,
        lists: &Lists,
        labels: impl Into<Numbers>,
        config: &LossConfig,
        dropout: Option<DropoutKey>,
        gradients: &mut Gradients,
    ) -> Result<StepLoss> {
        let labels = &labels.into();
        if labels.is_empty() {
            return Ok(StepLoss::none());
        }
        let learns = self.frozen.is_none_or(|n| n < self.encoder.num_blocks());
        let (first, saved) = if learns {
            let (first, saved) = self.encoder.forward_first(lists, dropout)?;
            (first, Some(saved))
        } else {
            (self.encoder.infer_first(lists, dropout)?, None)
        };
        let (logits, head) = self.head(first, dropout)?;
        let scale = gradients.loss_scale();
        let settings = config.settings(scale.as_ref());
        let (sum, weight, dlogits) = cross_entropy::forward_backward(logits, labels, settings)?;
        let dfirst = self.head_backward(head, dlogits, gradients)?;
        if let Some(saved) = saved {
            let encoder = &self.encoder;
            encoder.backward(lists, saved, dfirst, self.frozen, gradients)?;
        }
        Ok(StepLoss {
            sum,
            weight,
            num_labels: labels.len(),
        })
    }

    /// The states of `[CLS]` [B, D] → logits.
    fn head(&self, first: Tensor, key: Option<DropoutKey>) -> Result<(Tensor, SavedHead)> {
        let dropout = Dropout::new(self.dropout, key, FIRST_HEAD_SITE);
        let first = Factor::from(first);
        let (inner, activated) = self
            .pre_classifier
            .forward_activated(&first, Activation::Relu)?;
        let dropped = Factor::from(dropout::apply(activated, dropout.as_ref())?);
        let logits = self.classifier.forward(&dropped)?; // [B, classes]
        let saved = SavedHead {
            first,
            inner,
            dropped,
            dropout,
        };
        Ok((logits, saved))
    }

    /// The gradient of the `[CLS]` states [B, D].
    fn head_backward(
        &self,
        saved: SavedHead,
        dlogits: Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let ddropped = self
            .classifier
            .backward(&saved.dropped, dlogits, gradients)?;
        let dactivated = dropout::apply(ddropped, saved.dropout.as_ref())?;
        let dinner = activation::backward(Activation::Relu, &saved.inner, dactivated)?;
        self.pre_classifier
            .backward(&saved.first, dinner, gradients)
    }
}

fn loss_sum(loss: cross_entropy::Loss, labels: &[u32]) -> LossSum {
    LossSum {
        sum: loss.sum,
        weight: loss.weight,
        num_labels: labels.len(),
    }
}
