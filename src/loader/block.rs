//! The order of `block`: blocks of consecutive cells in random order, mixed inside a buffer.
//!
//! The selected cells are cut into blocks, the blocks permuted, and every `buffer / block` blocks
//! in that order are one fetch whose cells are then mixed. Only the last block can be short, so the
//! first position of any fetch is known without looking at the others.

use rand::seq::SliceRandom;

use crate::rng::{self, Stream};

/// The order of one epoch.
#[derive(Debug, Clone)]
pub(super) struct BlockOrder {
    seed: u64,
    epoch: u64,
    num_cells: u64,
    /// Cells per block.
    block: u64,
    /// Blocks per fetch.
    per_fetch: u64,
    /// The blocks in the order of the epoch.
    blocks: Vec<u64>,
    /// Place of the short block in `blocks`, and the cells that it lacks.
    short: (u64, u64),
}

impl BlockOrder {
    pub(super) fn new(seed: u64, epoch: u64, num_cells: u64, block: u64, buffer: u64) -> Self {
        let block = block.min(num_cells.max(1));
        let num_blocks = num_cells.div_ceil(block);
        let mut blocks: Vec<u64> = (0..num_blocks).collect();
        blocks.shuffle(&mut rng::stream(seed, Stream::Shuffle, epoch, 0));
        let place = blocks
            .iter()
            .position(|&b| b + 1 == num_blocks)
            .unwrap_or(0);
        let lacking = num_blocks * block - num_cells;
        Self {
            seed,
            epoch,
            num_cells,
            block,
            per_fetch: (buffer / block).max(1),
            blocks,
            short: (place as u64, lacking),
        }
    }

    pub(super) fn num_fetches(&self) -> u64 {
        (self.blocks.len() as u64).div_ceil(self.per_fetch)
    }

    /// First position and places of the `n`-th fetch.
    pub(super) fn fetch(&self, n: u64) -> (u64, Vec<u64>) {
        let num_blocks = self.blocks.len() as u64;
        let begin = n.saturating_mul(self.per_fetch).min(num_blocks);
        let end = begin.saturating_add(self.per_fetch).min(num_blocks);
        let mut places = Vec::with_capacity(((end - begin) * self.block) as usize);
        for &block in &self.blocks[begin as usize..end as usize] {
            let first = block * self.block;
            places.extend(first..(first + self.block).min(self.num_cells));
        }
        let id = n.wrapping_add(1);
        places.shuffle(&mut rng::stream(self.seed, Stream::Shuffle, self.epoch, id));
        (self.first_position(begin), places)
    }

    /// Position of the first cell of the block at place `place` of the order.
    fn first_position(&self, place: u64) -> u64 {
        let (short, lacking) = self.short;
        place * self.block - if place > short { lacking } else { 0 }
    }

    /// The fetch of a position within the epoch.
    pub(super) fn fetch_of(&self, position: u64) -> u64 {
        let guess = position / (self.block * self.per_fetch);
        let next = (guess + 1) * self.per_fetch;
        let in_next = next < self.blocks.len() as u64 && self.first_position(next) <= position;
        guess + u64::from(in_next)
    }
}
