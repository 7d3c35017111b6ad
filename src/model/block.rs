//! One block of the encoder, post-LayerNorm as DistilBERT:
//! h = LayerNorm(x + out(attention(q(x), k(x), v(x)))), y = LayerNorm(h + dropout(lin2(act(lin1(h))))).

use candle_core::{Result, Tensor};

use super::GeneBertConfig;
use super::layers::{LayerNorm, Linear};
use crate::kernels::activation::Activation;
use crate::kernels::attention::Cells;
use crate::kernels::dropout::{Dropout, DropoutKey};
use crate::kernels::factor::Factor;
use crate::kernels::linear::InputGradient;
use crate::kernels::products::Precision;
use crate::kernels::{attention, first_attention, layer_norm, rows};
use crate::parameters::{Gradients, ParameterSpec, Parameters};

#[derive(Debug, Clone)]
pub(super) struct Block {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    attention_norm: LayerNorm,
    lin1: Linear,
    lin2: Linear,
    output_norm: LayerNorm,
    activation: Activation,
    num_heads: usize,
    precision: Precision,
}

/// The dropouts of one block in one forward pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockDropout {
    attention: Option<Dropout>,
    hidden: Option<Dropout>,
}

impl BlockDropout {
    /// Sites of block `index`: 2 · index + 1 and + 2 (0 is the embeddings').
    pub(super) fn new(config: &GeneBertConfig, key: Option<DropoutKey>, index: usize) -> Self {
        let site = 2 * index as u64 + 1;
        Self {
            attention: Dropout::new(config.attention_probs_dropout_prob, key, site),
            hidden: Dropout::new(config.hidden_dropout_prob, key, site + 1),
        }
    }
}

/// What a block's backward pass needs.
pub(super) struct Saved {
    x: Factor,        // [T, D]
    q: Tensor,        // [T, D]
    k: Tensor,        // [T, D]
    v: Tensor,        // [T, D]
    log_sums: Tensor, // [H · T]
    rest: SavedRest,
}

/// The same of a block that was computed for the first token of each cell only.
pub(super) struct SavedFirst {
    x: Factor,               // [T, D]
    first: Factor,           // [B, D], the first tokens of x
    q: Tensor,               // [B, D]
    k: Tensor,               // [T, D]
    v: Tensor,               // [T, D]
    probabilities: Vec<f32>, // [T · H]
    rest: SavedRest,
}

/// What the part after attention needs, N tokens (T or B).
struct SavedRest {
    context: Tensor, // [N, D]
    attention_norm: layer_norm::Saved,
    h: Factor,         // [N, D]
    inner: Tensor,     // [N, F], before the activation
    activated: Factor, // [N, F]
    output_norm: layer_norm::Saved,
}

impl Block {
    pub(super) fn specs(config: &GeneBertConfig, index: usize) -> Vec<ParameterSpec> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("distilbert.transformer.layer.{index}.{part}");
        let linear =
            |part: &str, from, to| Linear::specs(&name(part), from, to, config.initializer_range);
        let mut specs = Vec::new();
        for part in ["q_lin", "k_lin", "v_lin", "out_lin"] {
            specs.extend(linear(&format!("attention.{part}"), width, width));
        }
        specs.extend(LayerNorm::specs(&name("sa_layer_norm"), width));
        specs.extend(linear("ffn.lin1", width, inner));
        specs.extend(linear("ffn.lin2", inner, width));
        specs.extend(LayerNorm::specs(&name("output_layer_norm"), width));
        specs
    }

    pub(super) fn new(
        config: &GeneBertConfig,
        parameters: &Parameters,
        index: usize,
    ) -> Result<Self> {
        let name = |part: &str| format!("distilbert.transformer.layer.{index}.{part}");
        let linear = |part: &str| Linear::new(parameters, &name(part), config.precision);
        let norm = |part: &str| LayerNorm::new(parameters, &name(part), config.layer_norm_eps);
        Ok(Self {
            query: linear("attention.q_lin")?,
            key: linear("attention.k_lin")?,
            value: linear("attention.v_lin")?,
            out: linear("attention.out_lin")?,
            attention_norm: norm("sa_layer_norm")?,
            lin1: linear("ffn.lin1")?,
            lin2: linear("ffn.lin2")?,
            output_norm: norm("output_layer_norm")?,
            activation: config.hidden_act.into(),
            num_heads: config.num_attention_heads,
            precision: config.precision,
        })
    }

    fn attention<'a>(
        &self,
        cells: Cells<'a>,
        dropout: &'a BlockDropout,
    ) -> attention::Settings<'a> {
        attention::Settings {
            num_heads: self.num_heads,
            cells,
            dropout: dropout.attention.as_ref(),
            precision: self.precision,
        }
    }

    /// [T, D] → [T, D]
    pub(super) fn forward(
        &self,
        x: Tensor,
        cells: Cells<'_>,
        dropout: &BlockDropout,
    ) -> Result<(Tensor, Saved)> {
        let factor = Factor::new(self.precision, &x)?;
        let [q, k, v] = Linear::forward_all([&self.query, &self.key, &self.value], &factor)?;
        let settings = self.attention(cells, dropout);
        let (context, log_sums) = attention::forward(settings, &q, &k, &v)?;
        let (y, rest) = self.after_attention(context, &x, dropout)?;
        let saved = Saved {
            x: factor,
            q,
            k,
            v,
            log_sums,
            rest,
        };
        Ok((y, saved))
    }

    /// [T, D] → [B, D], the rows of [`Self::forward`] of the first token of each cell; none may be
    /// empty. Dropout of hidden states counts these rows alone.
    pub(super) fn forward_first(
        &self,
        x: Tensor,
        cells: Cells<'_>,
        dropout: &BlockDropout,
    ) -> Result<(Tensor, SavedFirst)> {
        let first = rows::gather(&x, firsts(cells))?;
        let first_factor = Factor::from(first.clone());
        let q = self.query.forward(&first_factor)?;
        let factor = Factor::new(self.precision, &x)?;
        let [k, v] = Linear::forward_all([&self.key, &self.value], &factor)?;
        let settings = self.attention(cells, dropout);
        let (context, probabilities) = first_attention::forward(settings, &q, &k, &v)?;
        let (y, rest) = self.after_attention(context, &first, dropout)?;
        let saved = SavedFirst {
            x: factor,
            first: first_factor,
            q,
            k,
            v,
            probabilities,
            rest,
        };
        Ok((y, saved))
    }

    /// Context and input of N tokens → the block's output for them [N, D].
    fn after_attention(
        &self,
        context: Tensor,
        x: &Tensor,
        dropout: &BlockDropout,
    ) -> Result<(Tensor, SavedRest)> {
        let out = self.out.forward(&Factor::from(context.clone()))?;
        let (h, attention_norm) = self.attention_norm.forward(out, Some(x), None)?;
        let factor = Factor::new(self.precision, &h)?;
        let (inner, activated) = (self.lin1).forward_activated_factor(&factor, self.activation)?; // [N, F]
        let out = self.lin2.forward(&activated)?;
        let hidden = dropout.hidden.as_ref();
        let (y, output_norm) = self.output_norm.forward(out, Some(&h), hidden)?;
        let saved = SavedRest {
            context,
            attention_norm,
            h: factor,
            inner,
            activated,
            output_norm,
        };
        Ok((y, saved))
    }

    /// The gradient of the block's input; uses up dy.
    pub(super) fn backward(
        &self,
        saved: Saved,
        dy: Tensor,
        cells: Cells<'_>,
        dropout: &BlockDropout,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let s = saved;
        let context = s.rest.context.clone();
        let [dcontext, dx] = self.after_attention_backward(s.rest, dy, dropout, gradients)?;
        let settings = self.attention(cells, dropout);
        let kept = attention::Saved {
            q: &s.q,
            k: &s.k,
            v: &s.v,
            context: &context,
            log_sums: &s.log_sums,
        };
        let [dq, dk, dv] = attention::backward(settings, kept, &dcontext)?;
        let layers = [&self.query, &self.key, &self.value];
        let onto = InputGradient::Onto(&dx);
        Linear::backward_all(layers, &s.x, [dq, dk, dv], onto, gradients)
    }

    /// As [`Self::backward`], from the gradient of the first tokens' output [B, D].
    pub(super) fn backward_first(
        &self,
        saved: SavedFirst,
        dy: Tensor,
        cells: Cells<'_>,
        dropout: &BlockDropout,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let s = saved;
        let [dcontext, dfirst] = self.after_attention_backward(s.rest, dy, dropout, gradients)?;
        let settings = self.attention(cells, dropout);
        let kept = first_attention::Saved {
            q: &s.q,
            k: &s.k,
            v: &s.v,
            probabilities: &s.probabilities,
        };
        let [dq, dk, dv] = first_attention::backward(settings, kept, &dcontext)?;
        let onto = InputGradient::Onto(&dfirst);
        let dfirst = self.query.backward_to(&s.first, dq, onto, gradients)?;
        let dx = rows::scatter(&dfirst, firsts(cells), s.x.dims2()?.0)?;
        let onto = InputGradient::Onto(&dx);
        Linear::backward_all([&self.key, &self.value], &s.x, [dk, dv], onto, gradients)
    }

    /// The gradients of the context and, as far as it did not go through attention, of the input.
    fn after_attention_backward(
        &self,
        saved: SavedRest,
        dy: Tensor,
        dropout: &BlockDropout,
        gradients: &mut Gradients,
    ) -> Result<[Tensor; 2]> {
        let (s, precision) = (saved, self.precision);
        let norm = &self.output_norm;
        let hidden = dropout.hidden.as_ref();
        let (dh, dout) = norm.backward_to_map(precision, &s.output_norm, dy, hidden, gradients)?;
        let (lin2, through) = (&self.lin2, (self.activation, &s.inner));
        let dinner = lin2.backward_through(&s.activated, dout, through, gradients)?; // [N, F]
        // In f32 without dropout dout was dh's memory; it is read before dh is added to.
        let onto = InputGradient::Onto(&dh);
        self.lin1.backward_to(&s.h, dinner, onto, gradients)?;
        let norm = &self.attention_norm;
        let (dx, dout) = norm.backward_to_map(precision, &s.attention_norm, dh, None, gradients)?;
        let dcontext = self
            .out
            .backward(&Factor::from(s.context), dout, gradients)?;
        Ok([dcontext, dx])
    }
}

/// Where the first token of each cell stands.
fn firsts(cells: Cells<'_>) -> &[u32] {
    &cells.starts[..cells.starts.len().saturating_sub(1)]
}
