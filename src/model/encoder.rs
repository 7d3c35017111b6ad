//! The encoder: embeddings and blocks. Both heads stand on its output.

use candle_core::{Result, Tensor, bail};

use super::GeneBertConfig;
use super::block::{self, Block, BlockDropout};
use super::embeddings::Embeddings;
use crate::cell::PackedBatch;
use crate::kernels::dropout::{Dropout, DropoutKey};
use crate::kernels::layer_norm;
use crate::kernels::memory::keep_freed_memory;
use crate::parameters::{Gradients, ParameterSpec, Parameters};

/// Dropout sites from here on belong to heads.
pub(super) const FIRST_HEAD_SITE: u64 = 1 << 32;

#[derive(Debug, Clone)]
pub(super) struct Encoder {
    config: GeneBertConfig,
    embeddings: Embeddings,
    blocks: Vec<Block>,
}

/// What the encoder's backward pass needs.
pub(super) struct Saved {
    embeddings: layer_norm::Saved,
    blocks: Vec<Kept>,
    key: Option<DropoutKey>,
}

/// What is kept of a block.
enum Kept {
    All(block::Saved),
    /// Its input [T, D], from which the rest is computed once more: the same to the bit, as dropout
    /// is counted, not drawn.
    Input(Tensor),
}

impl Encoder {
    pub(super) fn specs(config: &GeneBertConfig) -> Vec<ParameterSpec> {
        let mut specs = Embeddings::specs(config);
        specs.extend((0..config.num_hidden_layers).flat_map(|i| Block::specs(config, i)));
        specs
    }

    pub(super) fn new(config: &GeneBertConfig, parameters: &Parameters) -> Result<Self> {
        keep_freed_memory();
        let blocks = (0..config.num_hidden_layers).map(|i| Block::new(config, parameters, i));
        Ok(Self {
            config: config.clone(),
            embeddings: Embeddings::new(config, parameters)?,
            blocks: blocks.collect::<Result<_>>()?,
        })
    }

    fn embedding_dropout(&self, key: Option<DropoutKey>) -> Option<Dropout> {
        Dropout::new(self.config.hidden_dropout_prob, key, 0)
    }

    /// The last hidden states [T, D]; `visit` sees those after the embeddings and after each block.
    pub(super) fn forward(
        &self,
        batch: &PackedBatch,
        key: Option<DropoutKey>,
        mut visit: impl FnMut(&Tensor) -> Result<()>,
    ) -> Result<(Tensor, Saved)> {
        check(batch)?;
        let dropout = self.embedding_dropout(key);
        let (mut x, embeddings) = self.embeddings.forward(batch, dropout.as_ref())?;
        visit(&x)?;
        let mut saved = Vec::with_capacity(self.blocks.len());
        for (i, block) in self.blocks.iter().enumerate() {
            let dropout = BlockDropout::new(&self.config, key, i);
            let input = self.config.recompute.then(|| x.clone());
            let (y, kept) = block.forward(x, &batch.cu_seqlens, &dropout)?;
            visit(&y)?;
            saved.push(input.map_or(Kept::All(kept), Kept::Input));
            x = y;
        }
        let saved = Saved {
            embeddings,
            blocks: saved,
            key,
        };
        Ok((x, saved))
    }

    /// The last hidden states [T, D], nothing kept but what the block at hand needs.
    pub(super) fn infer(&self, batch: &PackedBatch, key: Option<DropoutKey>) -> Result<Tensor> {
        check(batch)?;
        let dropout = self.embedding_dropout(key);
        let mut x = self.embeddings.forward(batch, dropout.as_ref())?.0;
        for (i, block) in self.blocks.iter().enumerate() {
            let dropout = BlockDropout::new(&self.config, key, i);
            x = block.forward(x, &batch.cu_seqlens, &dropout)?.0;
        }
        Ok(x)
    }

    /// Number of blocks.
    pub(super) fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The token type table [types, D].
    pub(super) fn token_types(&self) -> &Tensor {
        self.embeddings.types()
    }

    /// Leaves the gradients of the parts that are not `frozen`: embeddings and so many blocks.
    pub(super) fn backward(
        &self,
        batch: &PackedBatch,
        saved: Saved,
        mut dx: Tensor,
        frozen: Option<usize>,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let blocks = self.blocks.iter().zip(saved.blocks).enumerate();
        for (i, (block, kept)) in blocks.skip(frozen.unwrap_or(0)).rev() {
            let dropout = BlockDropout::new(&self.config, saved.key, i);
            let kept = match kept {
                Kept::All(kept) => kept,
                Kept::Input(x) => block.forward(x, &batch.cu_seqlens, &dropout)?.1,
            };
            dx = block.backward(kept, dx, &batch.cu_seqlens, &dropout, gradients)?;
        }
        if frozen.is_some() {
            return Ok(());
        }
        let dropout = self.embedding_dropout(saved.key);
        self.embeddings
            .backward(batch, &saved.embeddings, dropout.as_ref(), dx, gradients)
    }
}

fn check(batch: &PackedBatch) -> Result<()> {
    let (tokens, types) = (batch.input_ids.len(), batch.token_type_ids.len());
    if tokens != types {
        bail!("a batch of {tokens} tokens has {types} token types");
    }
    Ok(())
}
