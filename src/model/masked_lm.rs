//! GeneBERT with the head that fills in masked tokens: Linear, GELU, LayerNorm, Linear to the
//! vocabulary, computed for labelled positions only.

use candle_core::{Result, Tensor};

use super::embeddings::WORD_TABLE;
use super::encoder::Encoder;
use super::layers::{LayerNorm, Linear, spec};
use super::{DropoutKey, GeneBertConfig, LossConfig, LossSum, StepLoss};
use crate::buffers::to_host;
use crate::cell::PackedBatch;
use crate::kernels::activation::{self, Activation};
use crate::kernels::factor::Factor;
use crate::kernels::lists::Lists;
use crate::kernels::{cross_entropy, layer_norm, rows};
use crate::parameters::{Gradients, Init, ParameterSpec, Parameters};

/// The model that is pretrained.
#[derive(Debug, Clone)]
pub struct GeneBertForMaskedLM {
    encoder: Encoder,
    transform: Linear,
    norm: LayerNorm,
    projector: Linear,
}

struct SavedHead {
    picked: Factor, // [N, D]
    inner: Tensor,  // [N, D], before GELU
    norm: layer_norm::Saved,
    normed: Factor, // [N, D]
}

impl GeneBertForMaskedLM {
    /// The parameters of the model, in their order.
    pub fn parameter_specs(config: &GeneBertConfig) -> Vec<ParameterSpec> {
        let (width, vocab) = (config.hidden_size, config.vocab_size);
        let deviation = config.initializer_range;
        let mut specs = Encoder::specs(config);
        specs.extend(Linear::specs("vocab_transform", width, width, deviation));
        specs.extend(LayerNorm::specs("vocab_layer_norm", width));
        if config.tie_word_embeddings {
            specs.push(spec("vocab_projector.bias".into(), &[vocab], Init::Zeros));
        } else {
            specs.extend(Linear::specs("vocab_projector", width, vocab, deviation));
        }
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
        let weight = match config.tie_word_embeddings {
            true => WORD_TABLE,
            false => "vocab_projector.weight",
        };
        Ok(Self {
            encoder: Encoder::new(config, parameters)?,
            transform: Linear::new(parameters, "vocab_transform", config.precision)?,
            norm: LayerNorm::new(parameters, "vocab_layer_norm", config.layer_norm_eps)?,
            projector: Linear::with_weight(
                parameters,
                weight,
                "vocab_projector",
                config.precision,
            )?,
        })
    }

    /// Logits [N, V] of the labelled positions, in their order. Without a key nothing is dropped.
    ///
    /// # Errors
    /// The batch does not fit the model.
    pub fn forward(&self, batch: &PackedBatch, dropout: Option<DropoutKey>) -> Result<Tensor> {
        let lists = &self.encoder.lists(batch)?;
        let hidden = self.encoder.infer(lists, dropout)?;
        to_host(&self.head(lists, &hidden)?.0)
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

    /// Hidden states [T, D]: after the embeddings, then after each block.
    ///
    /// # Errors
    /// The batch does not fit the model.
    pub fn hidden_states(&self, batch: &PackedBatch) -> Result<Vec<Tensor>> {
        let mut states = Vec::new();
        let lists = self.encoder.lists(batch)?;
        self.encoder.forward(&lists, None, |state| {
            states.push(to_host(state)?.copy()?);
            Ok(())
        })?;
        Ok(states)
    }

    /// The loss summed over the labelled positions, without gradients; 0 where there are none.
    ///
    /// # Errors
    /// The batch does not fit the model.
    pub fn loss(
        &self,
        batch: &PackedBatch,
        config: &LossConfig,
        dropout: Option<DropoutKey>,
    ) -> Result<LossSum> {
        if batch.labels.is_empty() {
            return Ok(LossSum::default());
        }
        let logits = self.forward(batch, dropout)?;
        let loss =
            cross_entropy::forward(&logits, &Lists::new(batch).labels, config.settings(None))?;
        Ok(loss_sum(loss, batch))
    }

    /// The loss summed over the labelled positions, its gradients added to `gradients`; nothing is
    /// added where there is no label.
    ///
    /// # Errors
    /// The batch does not fit the model.
    pub fn loss_and_gradients(
        &self,
        lists: &Lists,
        config: &LossConfig,
        dropout: Option<DropoutKey>,
        gradients: &mut Gradients,
    ) -> Result<StepLoss> {
        if lists.labels.is_empty() {
            return Ok(StepLoss::none());
        }
        let (hidden, saved) = self.encoder.forward(lists, dropout, |_| Ok(()))?;
        let (logits, head) = self.head(lists, &hidden)?;
        let (labels, scale) = (&lists.labels, gradients.loss_scale());
        let settings = config.settings(scale.as_ref());
        let (sum, weight, dlogits) = cross_entropy::forward_backward(logits, labels, settings)?;
        let dhidden = self.head_backward(lists, head, dlogits, gradients)?;
        drop(hidden);
        self.encoder
            .backward(lists, saved, dhidden, None, gradients)?;
        Ok(StepLoss {
            sum,
            weight,
            num_labels: labels.len(),
        })
    }

    fn head(&self, lists: &Lists, hidden: &Tensor) -> Result<(Tensor, SavedHead)> {
        let picked = Factor::from(rows::gather(hidden, &lists.positions)?); // [N, D]
        let (inner, activated) = self
            .transform
            .forward_activated(&picked, Activation::Gelu)?;
        let (normed, norm) = self.norm.forward(activated, None, None)?;
        let normed = Factor::from(normed);
        let logits = self.projector.forward(&normed)?; // [N, V]
        let saved = SavedHead {
            picked,
            inner,
            norm,
            normed,
        };
        Ok((logits, saved))
    }

    /// The gradient of the hidden states [T, D].
    fn head_backward(
        &self,
        lists: &Lists,
        saved: SavedHead,
        dlogits: Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let dnormed = self.projector.backward(&saved.normed, dlogits, gradients)?;
        let dactivated = self.norm.backward(&saved.norm, dnormed, None, gradients)?.x;
        let dinner = activation::backward(Activation::Gelu, &saved.inner, dactivated)?;
        let dpicked = self.transform.backward(&saved.picked, dinner, gradients)?;
        rows::scatter(&dpicked, &lists.positions, lists.num_tokens())
    }
}

impl LossSum {
    /// The mean; 0 where there is no label.
    pub fn mean(&self) -> f64 {
        if self.weight > 0.0 {
            self.sum / self.weight
        } else {
            0.0
        }
    }
}

fn loss_sum(loss: cross_entropy::Loss, batch: &PackedBatch) -> LossSum {
    LossSum {
        sum: loss.sum,
        weight: loss.weight,
        num_labels: batch.labels.len(),
    }
}
