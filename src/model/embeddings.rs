//! Embeddings: `dropout(LayerNorm(word[input_id] + type[token_type_id]))`. No positions.

use candle_core::{Result, Tensor};

use super::GeneBertConfig;
use super::layers::{LayerNorm, spec};
use crate::kernels::dropout::{self, Dropout};
use crate::kernels::embedding::Tables;
use crate::kernels::lists::Lists;
use crate::kernels::products::Precision;
use crate::kernels::{embedding, layer_norm};
use crate::parameters::{Gradients, Init, Parameter, ParameterSpec, Parameters, RowGradient};

const WORD: &str = "distilbert.embeddings.word_embeddings.weight";
/// Name of the table of token types [types, D]: row C + 1 + g is gene g's.
pub const TOKEN_TYPE_TABLE: &str = "distilbert.embeddings.token_type_embeddings.weight";
const NORM: &str = "distilbert.embeddings.LayerNorm";

/// Name of the word table, which a tied head projects with.
pub(super) const WORD_TABLE: &str = WORD;

#[derive(Debug, Clone)]
pub(super) struct Embeddings {
    word: Parameter,
    types: Parameter,
    norm: LayerNorm,
    pad: u32,
    precision: Precision,
}

impl Embeddings {
    pub(super) fn specs(config: &GeneBertConfig) -> Vec<ParameterSpec> {
        let (width, deviation) = (config.hidden_size, config.initializer_range);
        let word = Init::NormalExceptRow(deviation, config.pad_token_id);
        let mut specs = vec![
            spec(WORD.into(), &[config.vocab_size, width], word),
            spec(
                TOKEN_TYPE_TABLE.into(),
                &[config.type_vocab_size, width],
                Init::Normal(deviation),
            ),
        ];
        specs.extend(LayerNorm::specs(NORM, width));
        specs
    }

    pub(super) fn new(config: &GeneBertConfig, parameters: &Parameters) -> Result<Self> {
        Ok(Self {
            word: parameters.parameter(WORD)?,
            types: parameters.parameter(TOKEN_TYPE_TABLE)?,
            norm: LayerNorm::new(parameters, NORM, config.layer_norm_eps)?,
            pad: config.pad_token_id as u32,
            precision: config.precision,
        })
    }

    /// The token type table [types, D].
    pub(super) fn types(&self) -> &Tensor {
        &self.types.tensor
    }

    /// → [T, D]
    pub(super) fn forward(
        &self,
        lists: &Lists,
        dropout: Option<&Dropout>,
    ) -> Result<(Tensor, layer_norm::Saved)> {
        let tables = Tables {
            word: &self.word.tensor,
            types: &self.types.tensor,
            ids: &lists.ids,
            type_ids: &lists.type_ids,
        };
        embedding::normalized(tables, self.norm.norm(), dropout, self.precision)
    }

    pub(super) fn backward(
        &self,
        lists: &Lists,
        saved: &layer_norm::Saved,
        dropout: Option<&Dropout>,
        dx: Tensor,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let dx = dropout::apply(dx, dropout)?;
        let dx = self.norm.backward(saved, dx, None, gradients)?.x;
        let orders = lists.orders(self.pad);
        let tables = [(&self.word, &orders.words), (&self.types, &orders.types)];
        for (table, order) in tables {
            let (rows, values) = (order.rows.clone(), embedding::scatter(&dx, order)?);
            gradients.add_rows(table.index, RowGradient { rows, values })?;
        }
        Ok(())
    }
}
