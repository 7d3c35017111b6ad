//! The order of one epoch, as fetches: runs of positions that are read and mixed together.
//!
//! Position = place in the epoch's order, 0..number of selected cells. With `Block` the selected
//! cells are cut into blocks, the blocks permuted, and every `buffer / block` blocks in that order
//! are one fetch whose cells are then mixed. Only the last block can be short, so the first
//! position of any fetch is known without looking at the others.

use rand::seq::SliceRandom;

use super::sampler::{SamplerConfig, Selection, Shuffle};
use crate::rng::{self, Stream};

/// Positions `first..first + cells.len()` of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Position of the first cell in the epoch's order.
    pub first: u64,
    /// The cells of the data set, in order.
    pub cells: Vec<u64>,
}

/// The order of one epoch.
#[derive(Debug, Clone)]
pub struct EpochPlan {
    selection: Selection,
    num_cells: u64,
    seed: u64,
    epoch: u64,
    order: Order,
}

#[derive(Debug, Clone)]
enum Order {
    Sequential { buffer: u64 },
    Block(BlockOrder),
}

#[derive(Debug, Clone)]
struct BlockOrder {
    /// Cells per block.
    block: u64,
    /// Blocks per fetch.
    per_fetch: u64,
    /// The blocks in the order of the epoch.
    blocks: Vec<u64>,
    /// Place of the short block in `blocks`, and the cells that it lacks.
    short: (u64, u64),
}

impl EpochPlan {
    pub(super) fn new(
        config: &SamplerConfig,
        selection: Selection,
        num_cells: u64,
        epoch: u64,
    ) -> Self {
        let (block, buffer) = (config.block_cells as u64, config.buffer_cells as u64);
        let order = match config.shuffle {
            Shuffle::Sequential => Order::Sequential { buffer },
            Shuffle::Block => Order::Block(BlockOrder::new(
                config.seed,
                epoch,
                num_cells,
                block,
                buffer,
            )),
        };
        Self {
            selection,
            num_cells,
            seed: config.seed,
            epoch,
            order,
        }
    }

    /// The epoch that is planned.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Number of cells, over all ranks.
    pub fn num_cells(&self) -> u64 {
        self.num_cells
    }

    /// Number of fetches.
    pub fn num_fetches(&self) -> u64 {
        match &self.order {
            Order::Sequential { buffer } => self.num_cells.div_ceil(*buffer),
            Order::Block(order) => (order.blocks.len() as u64).div_ceil(order.per_fetch),
        }
    }

    /// The fetch that holds `position` (the number of fetches where there is none).
    pub fn fetch_of(&self, position: u64) -> u64 {
        if position >= self.num_cells {
            return self.num_fetches();
        }
        match &self.order {
            Order::Sequential { buffer } => position / buffer,
            Order::Block(order) => order.fetch_of(position),
        }
    }

    /// The `n`-th fetch; no cells beyond the last.
    pub fn fetch(&self, n: u64) -> Fetch {
        let (first, mut cells) = match &self.order {
            Order::Sequential { buffer } => {
                let first = n.saturating_mul(*buffer).min(self.num_cells);
                (
                    first,
                    (first..first.saturating_add(*buffer).min(self.num_cells)).collect(),
                )
            }
            Order::Block(order) => self.mixed(order, n),
        };
        cells
            .iter_mut()
            .for_each(|cell| *cell = self.selection.cell(*cell));
        Fetch { first, cells }
    }

    fn mixed(&self, order: &BlockOrder, n: u64) -> (u64, Vec<u64>) {
        let num_blocks = order.blocks.len() as u64;
        let begin = n.saturating_mul(order.per_fetch).min(num_blocks);
        let end = begin.saturating_add(order.per_fetch).min(num_blocks);
        let mut cells = Vec::with_capacity(((end - begin) * order.block) as usize);
        for &block in &order.blocks[begin as usize..end as usize] {
            let first = block * order.block;
            cells.extend(first..(first + order.block).min(self.num_cells));
        }
        cells.shuffle(&mut rng::stream(
            self.seed,
            Stream::Shuffle,
            self.epoch,
            n.wrapping_add(1),
        ));
        (order.first_position(begin), cells)
    }
}

impl BlockOrder {
    fn new(seed: u64, epoch: u64, num_cells: u64, block: u64, buffer: u64) -> Self {
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
            block,
            per_fetch: (buffer / block).max(1),
            blocks,
            short: (place as u64, lacking),
        }
    }

    /// Position of the first cell of the block at place `place` of the order.
    fn first_position(&self, place: u64) -> u64 {
        let (short, lacking) = self.short;
        place * self.block - if place > short { lacking } else { 0 }
    }

    fn fetch_of(&self, position: u64) -> u64 {
        let guess = position / (self.block * self.per_fetch);
        let next = (guess + 1) * self.per_fetch;
        let in_next = next < self.blocks.len() as u64 && self.first_position(next) <= position;
        guess + u64::from(in_next)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::super::sampler::Sampler;
    use super::*;

    fn sampler(seed: u64, block_cells: usize, buffer_cells: usize, cells: u64) -> Sampler {
        let config = SamplerConfig {
            seed,
            block_cells,
            buffer_cells,
            ..Default::default()
        };
        Sampler::new(config, Selection::All, cells).unwrap()
    }

    fn order(plan: &EpochPlan) -> Vec<u64> {
        let mut cells = Vec::new();
        for n in 0..plan.num_fetches() {
            let fetch = plan.fetch(n);
            assert_eq!(fetch.first, cells.len() as u64);
            for position in fetch.first..fetch.first + fetch.cells.len() as u64 {
                assert_eq!(plan.fetch_of(position), n);
            }
            cells.extend(fetch.cells);
        }
        assert_eq!(plan.fetch_of(cells.len() as u64), plan.num_fetches());
        assert!(plan.fetch(plan.num_fetches()).cells.is_empty());
        assert!(plan.fetch(u64::MAX).cells.is_empty());
        cells
    }

    #[test]
    fn every_cell_occurs_once() {
        for cells in [0, 1, 2, 7, 63, 64, 65, 200] {
            for (block, buffer) in [(1, 1), (1, 50), (3, 10), (7, 7), (64, 128), (999, 5)] {
                for shuffle in [Shuffle::Sequential, Shuffle::Block] {
                    let config = SamplerConfig {
                        shuffle,
                        block_cells: block,
                        buffer_cells: buffer,
                        ..SamplerConfig::default()
                    };
                    let odd: Arc<[u64]> = (0..cells).map(|i| 2 * i + 1).collect();
                    let all = Sampler::new(config.clone(), Selection::All, cells).unwrap();
                    let rows = Sampler::new(config, Selection::Rows(odd), 2 * cells).unwrap();
                    for epoch in 0..3 {
                        let planned = order(&all.epoch(epoch));
                        let selected = planned.iter().map(|i| 2 * i + 1).collect::<Vec<_>>();
                        assert_eq!(order(&rows.epoch(epoch)), selected);
                        let mut sorted = planned;
                        sorted.sort_unstable();
                        assert_eq!(sorted, (0..cells).collect::<Vec<_>>());
                    }
                }
            }
        }
    }

    #[test]
    fn orders_differ_between_epochs_and_seeds_only() {
        let base = order(&sampler(1, 4, 16, 100).epoch(0));
        assert_eq!(base, order(&sampler(1, 4, 16, 100).epoch(0)));
        assert_ne!(base, order(&sampler(1, 4, 16, 100).epoch(1)));
        assert_ne!(base, order(&sampler(2, 4, 16, 100).epoch(0)));
    }

    #[test]
    fn a_fetch_holds_whole_blocks_and_mixes_them() {
        let fetch = sampler(3, 8, 64, 800).fetch(0, 2);
        assert_eq!((fetch.first, fetch.cells.len()), (128, 64));
        let mut blocks: Vec<u64> = fetch.cells.iter().map(|cell| cell / 8).collect();
        assert!(blocks.windows(2).filter(|pair| pair[0] == pair[1]).count() < 20);
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(blocks.len(), 8);
    }

    #[test]
    fn bad_plans_are_refused() {
        for config in [
            SamplerConfig {
                block_cells: 0,
                ..Default::default()
            },
            SamplerConfig {
                buffer_cells: 0,
                ..Default::default()
            },
            SamplerConfig {
                world_size: 0,
                ..Default::default()
            },
            SamplerConfig {
                rank: 1,
                ..Default::default()
            },
        ] {
            assert!(Sampler::new(config, Selection::All, 5).is_err());
        }
        for rows in [vec![0, 0], vec![2, 1], vec![5]] {
            let selection = Selection::Rows(rows.into());
            assert!(Sampler::new(SamplerConfig::default(), selection, 5).is_err());
        }
    }
}
