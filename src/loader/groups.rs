//! The order of `grouped`: batches of cells of one group, such as a donor or a time point.
//!
//! The cells of each group are permuted and cut into batches; then the batches of all groups are
//! permuted. Every batch has the same number of positions, so that ranks take whole batches and any
//! position is found at once; positions of a group's last batch for which no cell is left are
//! empty, or the batch is left out, or filled up with the group's first cells, as [`Remainder`]
//! says.

use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::batch::Remainder;
use super::permutation::Permutation;
use crate::rng::{self, Stream};

/// The group, or class, of every selected cell.
#[derive(Debug, Clone)]
pub struct Groups {
    /// The places of group 0, then those of group 1, and so on.
    places: Arc<[u64]>,
    /// First of each group in `places`, and one past the last.
    starts: Arc<[u64]>,
    num_cells: u64,
}

impl Groups {
    /// The groups of the selected cells, in their order; a cell of no group takes no part.
    pub fn new(groups: &[Option<u32>]) -> Self {
        let num_groups = groups.iter().flatten().max().map_or(0, |&g| g as usize + 1);
        let mut starts = vec![0u64; num_groups + 1];
        for group in groups.iter().flatten() {
            starts[*group as usize + 1] += 1;
        }
        for group in 0..num_groups {
            starts[group + 1] += starts[group];
        }
        let mut next = starts.clone();
        let mut places = vec![0; starts[num_groups] as usize];
        for (place, group) in (0..).zip(groups) {
            if let Some(next) = group.and_then(|group| next.get_mut(group as usize)) {
                places[*next as usize] = place;
                *next += 1;
            }
        }
        Self {
            places: places.into(),
            starts: starts.into(),
            num_cells: groups.len() as u64,
        }
    }

    /// Number of selected cells, those of no group included.
    pub(super) fn len(&self) -> u64 {
        self.num_cells
    }

    /// Cells of each group.
    fn sizes(&self) -> impl Iterator<Item = u64> {
        self.starts.windows(2).map(|pair| pair[1] - pair[0])
    }

    /// The places of each group that has any.
    pub(super) fn members(&self) -> impl Iterator<Item = Range<u64>> {
        let ranges = self.starts.windows(2).map(|pair| pair[0]..pair[1]);
        ranges.filter(|range| !range.is_empty())
    }

    /// The place of entry `at` of [`Groups::members`].
    pub(super) fn place(&self, at: u64) -> u64 {
        self.places[at as usize]
    }

    /// Batches of `batch` cells over all groups.
    pub(super) fn num_batches(&self, batch: u64, remainder: Remainder) -> u64 {
        self.sizes().map(|size| remainder.parts(size, batch)).sum()
    }

    /// SHA-256 of the groups.
    pub(super) fn hash(&self) -> Sha256 {
        let mut hash = Sha256::new();
        for number in self.starts.iter().chain(self.places.iter()) {
            hash.update(number.to_le_bytes());
        }
        hash
    }
}

/// The batches of one epoch.
#[derive(Debug, Clone)]
pub(super) struct GroupOrder {
    groups: Groups,
    /// Positions per batch.
    batch: u64,
    remainder: Remainder,
    /// First batch of each group, before the batches are permuted.
    first_batches: Vec<u64>,
    batches: Permutation,
    /// The order of each group's own cells.
    within: Vec<Permutation>,
}

impl GroupOrder {
    pub(super) fn new(
        seed: u64,
        epoch: u64,
        groups: Groups,
        batch: u64,
        remainder: Remainder,
    ) -> Self {
        let key = |id| rng::stream(seed, Stream::Permute, epoch, id);
        let (mut first_batches, mut num_batches) = (Vec::new(), 0);
        for size in groups.sizes() {
            first_batches.push(num_batches);
            num_batches += remainder.parts(size, batch);
        }
        let order = |(id, size)| Permutation::new(size, &mut key(id));
        let within = (1..).zip(groups.sizes()).map(order).collect();
        Self {
            groups,
            batch,
            remainder,
            first_batches,
            batches: Permutation::new(num_batches, &mut key(0)),
            within,
        }
    }

    /// Whether a cell can occur more than once in the epoch.
    pub(super) fn repeats(&self) -> bool {
        self.remainder == Remainder::Repeat
    }

    /// The place at `position`; `None` where the group has no cell left.
    pub(super) fn place(&self, position: u64) -> Option<u64> {
        let batch = self.batches.at(position / self.batch);
        let group = self.first_batches.partition_point(|first| *first <= batch) - 1;
        let within = &self.within[group];
        let mut at = (batch - self.first_batches[group]) * self.batch + position % self.batch;
        let size = self.groups.starts[group + 1] - self.groups.starts[group];
        if at >= size {
            match self.remainder {
                Remainder::Repeat => at %= size,
                Remainder::Pad | Remainder::Drop => return None,
            }
        }
        let at = self.groups.starts[group] + within.at(at);
        Some(self.groups.places[at as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups() -> Vec<Option<u32>> {
        let group = |i: u32| match i % 10 {
            0 => None,
            1 => Some(4),
            n => Some(n % 3),
        };
        (0..203).map(group).collect()
    }

    #[test]
    fn batches_hold_one_group_and_every_cell_is_in_one() {
        let groups = groups();
        let grouped = Groups::new(&groups);
        for remainder in [Remainder::Pad, Remainder::Drop, Remainder::Repeat] {
            for batch in [1, 4, 30, 100] {
                let order = GroupOrder::new(1, 0, grouped.clone(), batch, remainder);
                let mut counts = [0; 203];
                for n in 0..grouped.num_batches(batch, remainder) {
                    let places = (n * batch..(n + 1) * batch).map(|p| order.place(p));
                    let places: Vec<u64> = places.flatten().collect();
                    let group = |place: &u64| groups[*place as usize];
                    assert!(
                        places
                            .windows(2)
                            .all(|two| group(&two[0]) == group(&two[1]))
                    );
                    assert!(remainder == Remainder::Pad || places.len() as u64 == batch);
                    places.iter().for_each(|place| counts[*place as usize] += 1);
                }
                for (count, group) in counts.into_iter().zip(&groups) {
                    match (group, remainder) {
                        (None, _) => assert_eq!(count, 0),
                        (_, Remainder::Pad) => assert_eq!(count, 1),
                        (_, Remainder::Drop) => assert!(count <= 1),
                        (_, Remainder::Repeat) => assert!(count >= 1),
                    }
                }
            }
        }
    }

    #[test]
    fn groups_without_cells_are_fine() {
        let empty = Groups::new(&[None, None]);
        assert_eq!((empty.len(), empty.num_batches(3, Remainder::Pad)), (2, 0));
        let order = GroupOrder::new(1, 0, Groups::new(&[Some(5)]), 2, Remainder::Pad);
        assert_eq!((order.place(0), order.place(1)), (Some(0), None));
    }
}
