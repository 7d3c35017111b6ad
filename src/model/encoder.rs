//! The encoder: embeddings and blocks. Both heads stand on its output.

use candle_core::{Result, Tensor, bail};

use super::GeneBertConfig;
use super::block::{self, Block, BlockDropout};
use super::embeddings::Embeddings;
use crate::cell::PackedBatch;
use crate::kernels::dropout::{Dropout, DropoutKey};
use crate::kernels::lists::{Lists, Numbers};
use crate::kernels::memory::keep_freed_memory;
use crate::kernels::{layer_norm, rows};
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
    /// Whether first tokens were picked from the states of all.
    picks_firsts: bool,
    key: Option<DropoutKey>,
}

/// What is kept of a block.
enum Kept {
    All(block::Saved),
    /// Its input [T, D], from which the rest is computed once more: the same to the bit, as dropout
    /// is counted, not drawn.
    Input(Tensor),
    /// All that it takes where only the first tokens' output was computed.
    First(block::SavedFirst),
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

    /// The lists of a batch, where the model computes.
    pub(super) fn lists(&self, batch: &PackedBatch) -> Result<Lists> {
        Lists::new(batch).on(self.token_types().device())
    }

    /// The last hidden states [T, D]; `visit` sees those after the embeddings and after each block.
    pub(super) fn forward(
        &self,
        lists: &Lists,
        key: Option<DropoutKey>,
        visit: impl FnMut(&Tensor) -> Result<()>,
    ) -> Result<(Tensor, Saved)> {
        self.below(self.blocks.len(), lists, key, visit)
    }

    /// The hidden states [T, D] after the first `num_blocks` blocks.
    fn below(
        &self,
        num_blocks: usize,
        lists: &Lists,
        key: Option<DropoutKey>,
        mut visit: impl FnMut(&Tensor) -> Result<()>,
    ) -> Result<(Tensor, Saved)> {
        check(lists)?;
        let dropout = self.embedding_dropout(key);
        let (mut x, embeddings) = self.embeddings.forward(lists, dropout.as_ref())?;
        visit(&x)?;
        let mut saved = Vec::with_capacity(self.blocks.len());
        for (i, block) in self.blocks.iter().take(num_blocks).enumerate() {
            let dropout = BlockDropout::new(&self.config, key, i);
            let input = self.config.recompute.then(|| x.clone());
            let (y, kept) = block.forward(x, lists.cells(), &dropout)?;
            visit(&y)?;
            saved.push(input.map_or(Kept::All(kept), Kept::Input));
            x = y;
        }
        let saved = Saved {
            embeddings,
            blocks: saved,
            picks_firsts: false,
            key,
        };
        Ok((x, saved))
    }

    /// The last hidden states [T, D], nothing kept but what the block at hand needs.
    pub(super) fn infer(&self, lists: &Lists, key: Option<DropoutKey>) -> Result<Tensor> {
        self.infer_below(self.blocks.len(), lists, key)
    }

    fn infer_below(
        &self,
        num_blocks: usize,
        lists: &Lists,
        key: Option<DropoutKey>,
    ) -> Result<Tensor> {
        check(lists)?;
        let dropout = self.embedding_dropout(key);
        let mut x = self.embeddings.forward(lists, dropout.as_ref())?.0;
        for (i, block) in self.blocks.iter().take(num_blocks).enumerate() {
            let dropout = BlockDropout::new(&self.config, key, i);
            x = block.forward(x, lists.cells(), &dropout)?.0;
        }
        Ok(x)
    }

    /// The last hidden states of the first token of each cell [B, D]. The last block is computed
    /// for these alone, which of a model of one block is a quarter of the work (but not on a GPU).
    pub(super) fn forward_first(
        &self,
        lists: &Lists,
        key: Option<DropoutKey>,
    ) -> Result<(Tensor, Saved)> {
        let below = self.blocks_below_first();
        let (x, mut saved) = self.below(below, lists, key, |_| Ok(()))?;
        let firsts = first_tokens(lists)?;
        let Some(last) = self.blocks.get(below) else {
            saved.picks_firsts = true;
            return Ok((rows::gather(&x, firsts)?, saved));
        };
        let dropout = BlockDropout::new(&self.config, key, below);
        let (y, kept) = last.forward_first(x, lists.cells(), &dropout)?;
        saved.blocks.push(Kept::First(kept));
        Ok((y, saved))
    }

    /// As [`Self::forward_first`], nothing kept but what the block at hand needs.
    pub(super) fn infer_first(&self, lists: &Lists, key: Option<DropoutKey>) -> Result<Tensor> {
        let below = self.blocks_below_first();
        let x = self.infer_below(below, lists, key)?;
        let firsts = first_tokens(lists)?;
        let Some(last) = self.blocks.get(below) else {
            return rows::gather(&x, firsts);
        };
        let dropout = BlockDropout::new(&self.config, key, below);
        Ok(last.forward_first(x, lists.cells(), &dropout)?.0)
    }

    /// Blocks that are computed for all tokens where first tokens are asked for: on the CPU all but
    /// the last, on a GPU all.
    fn blocks_below_first(&self) -> usize {
        match self.token_types().device().is_cpu() {
            true => self.blocks.len().saturating_sub(1),
            false => self.blocks.len(),
        }
    }

    /// Number of blocks.
    pub(super) fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The token type table [types, D].
    pub(super) fn token_types(&self) -> &Tensor {
        self.embeddings.types()
    }

    /// Leaves the gradients of the parts that are not `frozen`: embeddings and so many blocks. `dx`
    /// is the gradient of what [`Self::forward`] ([T, D]) or [`Self::forward_first`] ([B, D]) gave.
    pub(super) fn backward(
        &self,
        lists: &Lists,
        saved: Saved,
        mut dx: Tensor,
        frozen: Option<usize>,
        gradients: &mut Gradients,
    ) -> Result<()> {
        gradients.settle()?; // what stands above
        if saved.picks_firsts {
            dx = rows::scatter(&dx, first_tokens(lists)?, lists.num_tokens())?;
        }
        let blocks = self.blocks.iter().zip(saved.blocks).enumerate();
        for (i, (block, kept)) in blocks.skip(frozen.unwrap_or(0)).rev() {
            let dropout = BlockDropout::new(&self.config, saved.key, i);
            let cells = lists.cells();
            let kept = match kept {
                Kept::All(kept) => kept,
                Kept::Input(x) => block.forward(x, cells, &dropout)?.1,
                Kept::First(kept) => {
                    dx = block.backward_first(kept, dx, cells, &dropout, gradients)?;
                    gradients.settle()?;
                    continue;
                }
            };
            dx = block.backward(kept, dx, cells, &dropout, gradients)?;
            gradients.settle()?;
        }
        if frozen.is_some() {
            return Ok(());
        }
        let dropout = self.embedding_dropout(saved.key);
        self.embeddings
            .backward(lists, &saved.embeddings, dropout.as_ref(), dx, gradients)
    }
}

fn check(lists: &Lists) -> Result<()> {
    let (tokens, types) = (lists.ids.len(), lists.type_ids.len());
    if tokens != types {
        bail!("a batch of {tokens} tokens has {types} token types");
    }
    Ok(())
}

/// Where the first token of each cell stands; every cell must have one.
fn first_tokens(lists: &Lists) -> Result<&Numbers> {
    if let Some(cell) = lists.starts.windows(2).position(|w| w[0] == w[1]) {
        bail!("cell {cell} of the batch has no token");
    }
    Ok(&lists.firsts)
}
