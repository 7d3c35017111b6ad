//! The order of one epoch, as fetches: runs of positions that are read together.
//!
//! Position = place in the epoch's order, from 0. `block` says by itself which positions are one
//! fetch; the other orders can name the cell at any position, and a fetch is a window of
//! `buffer_cells` positions, whose cells are read in the order in which the files have them. Behind
//! its last position an order begins again at its first: there is what fills up the last batch,
//! where it is to be filled up.

use super::block::BlockOrder;
use super::groups::GroupOrder;
use super::permutation::Permutation;
use super::sampler::{Basis, SamplerConfig, Selection, Shuffle};
use super::weights::WeightedOrder;
use crate::rng::{self, Stream};

/// Positions `first..first + cells.len()` of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Position of the first cell in the epoch's order.
    pub first: u64,
    /// The cells of the data set, in order; `None` where a position holds no cell.
    pub cells: Vec<Option<u64>>,
}

/// The order of one epoch.
#[derive(Debug, Clone)]
pub struct EpochPlan {
    selection: Selection,
    num_positions: u64,
    epoch: u64,
    /// Positions per fetch.
    window: u64,
    order: Order,
}

#[derive(Debug, Clone)]
enum Order {
    Sequential,
    Block(BlockOrder),
    Full(Permutation),
    Weighted(WeightedOrder),
    Grouped(GroupOrder),
}

impl EpochPlan {
    pub(super) fn new(
        config: &SamplerConfig,
        (selection, basis): (&Selection, &Basis),
        num_positions: u64,
        epoch: u64,
    ) -> Self {
        let (seed, len, window) = (config.seed, num_positions, config.buffer_cells as u64);
        let order = match (config.shuffle, basis) {
            (Shuffle::Sequential, _) => Order::Sequential,
            (Shuffle::Full, _) => {
                let mut rng = rng::stream(seed, Stream::Permute, epoch, 0);
                Order::Full(Permutation::new(len, &mut rng))
            }
            (Shuffle::Weighted, Basis::Weights(weights)) => {
                Order::Weighted(WeightedOrder::new(seed, epoch, weights.clone()))
            }
            (Shuffle::Grouped, Basis::Groups(groups)) => {
                let (batch, remainder) = (config.group_cells as u64, config.remainder);
                Order::Grouped(GroupOrder::new(
                    seed,
                    epoch,
                    groups.clone(),
                    batch,
                    remainder,
                ))
            }
            // The sampler lets no other pair through.
            (Shuffle::Block | Shuffle::Weighted | Shuffle::Grouped, _) => {
                let block = config.block_cells as u64;
                Order::Block(BlockOrder::new(seed, epoch, len, block, window))
            }
        };
        Self {
            selection: selection.clone(),
            num_positions,
            epoch,
            window,
            order,
        }
    }

    /// Number of positions, over all ranks.
    pub fn num_positions(&self) -> u64 {
        self.num_positions
    }

    /// Number of fetches, those that begin again left out.
    pub fn num_fetches(&self) -> u64 {
        match &self.order {
            Order::Block(order) => order.num_fetches(),
            _ => self.num_positions.div_ceil(self.window),
        }
    }

    /// The fetch that holds `position`.
    pub fn fetch_of(&self, position: u64) -> u64 {
        let Some(round) = position.checked_div(self.num_positions) else {
            return 0;
        };
        let position = position % self.num_positions;
        let fetch = match &self.order {
            Order::Block(order) => order.fetch_of(position),
            _ => position / self.window,
        };
        round * self.num_fetches() + fetch
    }

    /// The `n`-th fetch; no cells where the epoch has none at all.
    pub fn fetch(&self, n: u64) -> Fetch {
        let Some(round) = n.checked_div(self.num_fetches()) else {
            let (first, cells) = (0, Vec::new());
            return Fetch { first, cells };
        };
        let n = n % self.num_fetches();
        let cell = |place| Some(self.selection.cell(place));
        let (first, cells) = if let Order::Block(order) = &self.order {
            let (first, places) = order.fetch(n);
            (first, places.into_iter().map(cell).collect())
        } else {
            let first = n * self.window;
            let end = first.saturating_add(self.window).min(self.num_positions);
            let places = (first..end).map(|position| self.place(position));
            (first, places.map(|place| place.and_then(cell)).collect())
        };
        let first = round * self.num_positions + first;
        Fetch { first, cells }
    }

    /// The selected cell at `position`, in an order that can name each by itself.
    fn place(&self, position: u64) -> Option<u64> {
        match &self.order {
            Order::Sequential | Order::Block(_) => Some(position),
            Order::Full(order) => Some(order.at(position)),
            Order::Weighted(order) => Some(order.place(position)),
            Order::Grouped(order) => order.place(position),
        }
    }

    /// What stands for the epoch in the random streams of the cell at `position`: the epoch itself,
    /// but a number of its own where a cell can occur again in the same epoch, so that it does not
    /// come with the same masks again.
    pub fn draw(&self, position: u64) -> u64 {
        let again = match &self.order {
            Order::Weighted(_) => true,
            Order::Grouped(order) => order.repeats(),
            Order::Sequential | Order::Block(_) | Order::Full(_) => false,
        };
        if again || position >= self.num_positions {
            (1 << 63) | (self.epoch << 40).wrapping_add(position)
        } else {
            self.epoch
        }
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
        let num_fetches = plan.num_fetches();
        let mut cells = Vec::new();
        for n in 0..2 * num_fetches {
            let fetch = plan.fetch(n);
            assert_eq!(fetch.first, cells.len() as u64);
            for position in fetch.first..fetch.first + fetch.cells.len() as u64 {
                assert_eq!(plan.fetch_of(position), n);
            }
            cells.extend(fetch.cells.into_iter().flatten());
        }
        let again = cells.split_off(cells.len() / 2);
        assert_eq!(again, cells);
        if num_fetches == 0 {
            assert!(plan.fetch(7).cells.is_empty());
        }
        cells
    }

    #[test]
    fn every_cell_occurs_once() {
        for cells in [0, 1, 2, 7, 63, 64, 65, 200] {
            for (block, buffer) in [(1, 1), (1, 50), (3, 10), (7, 7), (64, 128), (999, 5)] {
                for shuffle in [Shuffle::Sequential, Shuffle::Block, Shuffle::Full] {
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
    fn a_full_order_does_not_depend_on_the_window() {
        let cells = |buffer_cells| {
            let config = SamplerConfig {
                shuffle: Shuffle::Full,
                buffer_cells,
                ..Default::default()
            };
            order(&Sampler::new(config, Selection::All, 300).unwrap().epoch(4))
        };
        assert_eq!(cells(7), cells(1000));
        assert_eq!(cells(7).len(), 300);
    }

    #[test]
    fn a_fetch_holds_whole_blocks_and_mixes_them() {
        let fetch = sampler(3, 8, 64, 800).fetch(0, 2);
        assert_eq!((fetch.first, fetch.cells.len()), (128, 64));
        let mut blocks: Vec<u64> = fetch.cells.iter().flatten().map(|cell| cell / 8).collect();
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
