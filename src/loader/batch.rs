//! Which positions of an epoch a rank's batches hold, and how cells are packed into one.
//!
//! G = ranks × cells per batch. Global batch i is positions `start + i·G..start + (i+1)·G`; rank r
//! takes its r-th part. What is left at the end of the epoch is one smaller global batch, split
//! over the ranks as evenly as possible ([`Tail::Keep`]; where fewer cells than ranks are left,
//! some ranks get a batch of no cells, so that all still make the same steps), or is left out
//! ([`Tail::Drop`]).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::collator::CollatedCell;
use super::error::LoaderError;
use crate::cell::{Label, PackedBatch};

/// What becomes of the cells at the end of an epoch that do not fill a global batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tail {
    /// One last, smaller batch: every cell is seen in every epoch.
    #[default]
    Keep,
    /// Left out of this epoch.
    Drop,
}

/// The batches of one rank in one epoch, or in what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPlan {
    /// First position of the first batch.
    pub start: u64,
    /// One past the last position of the epoch.
    pub end: u64,
    /// Cells per batch and rank.
    pub batch_cells: u64,
    /// This process.
    pub rank: u64,
    /// Number of processes.
    pub world_size: u64,
    /// What becomes of the remainder.
    pub tail: Tail,
}

impl BatchPlan {
    fn global(&self) -> u64 {
        self.batch_cells.saturating_mul(self.world_size).max(1)
    }

    /// Number of batches, the same on every rank.
    pub fn num_batches(&self) -> u64 {
        let cells = self.end.saturating_sub(self.start);
        match self.tail {
            Tail::Keep => cells.div_ceil(self.global()),
            Tail::Drop => cells / self.global(),
        }
    }

    /// The positions of batch `i` over all ranks; empty beyond the last.
    pub fn positions(&self, i: u64) -> Range<u64> {
        if i >= self.num_batches() {
            return self.end..self.end;
        }
        let first = self.start + i * self.global();
        first..first.saturating_add(self.global()).min(self.end)
    }

    /// The positions of batch `i` that this rank takes.
    pub fn local(&self, i: u64) -> Range<u64> {
        let Range { start, end } = self.positions(i);
        let share = |rank: u64| {
            let wide = u128::from(end - start) * u128::from(rank) / u128::from(self.world_size);
            start + wide as u64
        };
        share(self.rank)..share(self.rank + 1)
    }

    /// Whether `position` belongs to this rank.
    pub fn owns(&self, position: u64) -> bool {
        position >= self.start
            && self
                .local((position - self.start) / self.global())
                .contains(&position)
    }
}

/// Cells, one after the other, as one packed batch.
pub(super) fn pack(cells: &[CollatedCell]) -> Result<PackedBatch, LoaderError> {
    let num_tokens: usize = cells.iter().map(|cell| cell.input_ids.len()).sum();
    if u32::try_from(num_tokens).is_err() {
        return Err(LoaderError::BatchTooLarge { cells: cells.len() });
    }
    let mut batch = PackedBatch {
        input_ids: Vec::with_capacity(num_tokens),
        token_type_ids: Vec::with_capacity(num_tokens),
        cu_seqlens: Vec::with_capacity(cells.len() + 1),
        labels: Vec::with_capacity(cells.iter().map(|cell| cell.labels.len()).sum()),
        cells: cells.iter().map(|cell| cell.id).collect(),
    };
    batch.cu_seqlens.push(0);
    for cell in cells {
        let first = batch.input_ids.len() as u32;
        batch.input_ids.extend_from_slice(&cell.input_ids);
        batch.token_type_ids.extend_from_slice(&cell.token_type_ids);
        let shift = |label: &Label| Label {
            position: first + label.position,
            ..*label
        };
        batch.labels.extend(cell.labels.iter().map(shift));
        batch.cu_seqlens.push(batch.input_ids.len() as u32);
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_split_evenly_or_dropped() {
        let plan = |rank, tail| BatchPlan {
            start: 0,
            end: 23,
            batch_cells: 3,
            rank,
            world_size: 3,
            tail,
        };
        assert_eq!(plan(0, Tail::Drop).num_batches(), 2);
        assert_eq!(plan(0, Tail::Keep).num_batches(), 3);
        let last: Vec<_> = (0..3).map(|rank| plan(rank, Tail::Keep).local(2)).collect();
        assert_eq!(last, [18..19, 19..21, 21..23]);
        assert!(plan(0, Tail::Keep).local(3).is_empty());
        assert!(!plan(2, Tail::Drop).owns(22) && plan(2, Tail::Keep).owns(22));
    }

    #[test]
    fn packing_shifts_the_labels() {
        let cell = |id, len: u32| CollatedCell {
            input_ids: (0..len).collect(),
            token_type_ids: vec![0; len as usize],
            labels: vec![Label {
                position: len - 1,
                token: 9,
            }],
            id,
        };
        let batch = pack(&[cell(4, 3), cell(2, 2)]).unwrap_or_default();
        assert_eq!(batch.cu_seqlens, [0, 3, 5]);
        assert_eq!(batch.input_ids, [0, 1, 2, 0, 1]);
        assert_eq!(
            batch.labels.iter().map(|l| l.position).collect::<Vec<_>>(),
            [2, 4]
        );
        assert_eq!(batch.cells, [4, 2]);
        assert_eq!(pack(&[]).unwrap_or_default().cu_seqlens, [0]);
    }
}
