//! Which positions of an epoch a rank's batches hold, and how cells are packed into one.
//!
//! G = ranks × cells per batch. Global batch i is positions `start + i·G..start + (i+1)·G`; rank r
//! takes its r-th part. What is left at the end of the epoch does not fill a global batch;
//! [`Remainder`] says what becomes of it. In any case every rank makes the same steps.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::collator::CollatedCell;
use super::error::LoaderError;
use crate::cell::{Label, PackedBatch};

/// What becomes of the cells at the end of an epoch that do not fill a batch of every rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remainder {
    /// Every cell is seen once: the ranks take them in turn, whole batches first; the last ranks get
    /// a smaller batch, or one of no cells. So the batches of all ranks are those of one process.
    #[default]
    Pad,
    /// They are left out of this epoch.
    Drop,
    /// They are filled up with the first cells of the epoch, which are then seen twice.
    Repeat,
}

impl Remainder {
    /// Batches of `whole` that `size` cells make.
    pub(super) fn parts(self, size: u64, whole: u64) -> u64 {
        match self {
            Self::Pad | Self::Repeat => size.div_ceil(whole),
            Self::Drop => size / whole,
        }
    }
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
    pub remainder: Remainder,
}

impl BatchPlan {
    fn global(&self) -> u64 {
        self.batch_cells.saturating_mul(self.world_size).max(1)
    }

    /// Number of batches, the same on every rank.
    pub fn num_batches(&self) -> u64 {
        let positions = self.end.saturating_sub(self.start);
        self.remainder.parts(positions, self.global())
    }

    /// The positions of batch `i` over all ranks, beyond the end of the epoch where they repeat;
    /// empty beyond the last batch.
    pub fn positions(&self, i: u64) -> Range<u64> {
        if i >= self.num_batches() {
            return self.end..self.end;
        }
        let first = self.start + i * self.global();
        let end = first.saturating_add(self.global());
        match self.remainder {
            Remainder::Repeat => first..end,
            Remainder::Pad | Remainder::Drop => first..end.min(self.end),
        }
    }

    /// The positions of batch `i` that this rank takes.
    pub fn local(&self, i: u64) -> Range<u64> {
        let Range { start, end } = self.positions(i);
        let share = |rank: u64| {
            let before = self.batch_cells.saturating_mul(rank);
            start.saturating_add(before).min(end)
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

    /// One past the last position of the last batch.
    pub fn last(&self) -> u64 {
        match self.num_batches() {
            0 => self.start,
            n => self.positions(n - 1).end,
        }
    }
}

/// A cell of a packed run of cells that other batches share.
#[derive(Debug, Clone)]
pub struct PackedCell {
    run: Arc<PackedBatch>,
    at: usize,
}

impl PackedCell {
    /// The cells of `run`.
    pub(super) fn all(run: PackedBatch) -> impl Iterator<Item = PackedCell> {
        let run = Arc::new(run);
        (0..run.num_cells()).map(move |at| Self {
            run: Arc::clone(&run),
            at,
        })
    }

    fn tokens(&self) -> Range<usize> {
        let at = |at| self.run.cu_seqlens.get(at).map_or(0, |at| *at as usize);
        at(self.at)..at(self.at + 1)
    }

    fn labels(&self, tokens: &Range<usize>) -> &[Label] {
        let labels = &self.run.labels;
        let place = |end: usize| labels.partition_point(|label| (label.position as usize) < end);
        labels
            .get(place(tokens.start)..place(tokens.end))
            .unwrap_or_default()
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let tokens = self.tokens();
        2 * tokens.len() * size_of::<u32>() + size_of_val(self.labels(&tokens))
    }
}

/// Adds a cell to the end of `run`.
pub(super) fn append(run: &mut PackedBatch, cell: &CollatedCell) -> Result<(), LoaderError> {
    let first = run.input_ids.len() as u32;
    run.input_ids.extend_from_slice(&cell.input_ids);
    run.token_type_ids.extend_from_slice(&cell.token_type_ids);
    let cells = run.cells.len() + 1;
    let end = u32::try_from(run.input_ids.len());
    let end = end.map_err(|_| LoaderError::BatchTooLarge { cells })?;
    run.labels.extend(cell.labels.iter().map(|label| Label {
        position: first + label.position,
        ..*label
    }));
    if run.cu_seqlens.is_empty() {
        run.cu_seqlens.push(0);
    }
    run.cu_seqlens.push(end);
    run.cells.push(cell.id);
    Ok(())
}

/// Cells, one after the other, as one packed batch.
pub(super) fn pack(cells: &[PackedCell]) -> Result<PackedBatch, LoaderError> {
    let num_tokens: usize = cells.iter().map(|cell| cell.tokens().len()).sum();
    if u32::try_from(num_tokens).is_err() {
        return Err(LoaderError::BatchTooLarge { cells: cells.len() });
    }
    let mut batch = PackedBatch {
        input_ids: Vec::with_capacity(num_tokens),
        token_type_ids: Vec::with_capacity(num_tokens),
        cu_seqlens: Vec::with_capacity(cells.len() + 1),
        labels: Vec::new(),
        cells: Vec::with_capacity(cells.len()),
    };
    batch.cu_seqlens.push(0);
    for cell in cells {
        let (own, run) = (cell.tokens(), &cell.run);
        let first = batch.input_ids.len() as u32;
        for (to, from) in [
            (&mut batch.input_ids, &run.input_ids),
            (&mut batch.token_type_ids, &run.token_type_ids),
        ] {
            to.extend_from_slice(from.get(own.clone()).unwrap_or_default());
        }
        let shift = |label: &Label| Label {
            position: first + label.position - own.start as u32,
            ..*label
        };
        batch.labels.extend(cell.labels(&own).iter().map(shift));
        batch.cu_seqlens.push(batch.input_ids.len() as u32);
        batch.cells.extend(run.cells.get(cell.at));
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rank: u64, remainder: Remainder) -> BatchPlan {
        BatchPlan {
            start: 0,
            end: 23,
            batch_cells: 3,
            rank,
            world_size: 3,
            remainder,
        }
    }

    #[test]
    fn the_remainder_is_taken_in_turn_dropped_or_filled_up() {
        let last = |remainder| -> Vec<Range<u64>> {
            (0..3).map(|rank| plan(rank, remainder).local(2)).collect()
        };
        assert_eq!(plan(0, Remainder::Drop).num_batches(), 2);
        assert_eq!(last(Remainder::Pad), [18..21, 21..23, 23..23]);
        assert_eq!(last(Remainder::Repeat), [18..21, 21..24, 24..27]);
        assert!(plan(0, Remainder::Pad).local(3).is_empty());
        let owns = |remainder, position| plan(1, remainder).owns(position);
        assert!(!owns(Remainder::Drop, 22) && owns(Remainder::Pad, 22));
        assert!(owns(Remainder::Repeat, 22) && !owns(Remainder::Repeat, 26));
        let last = |remainder| plan(0, remainder).last();
        assert_eq!(
            [Remainder::Pad, Remainder::Drop, Remainder::Repeat].map(last),
            [23, 18, 27]
        );
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
        let mut run = PackedBatch::default();
        for cell in [cell(4, 3), cell(7, 1), cell(2, 2)] {
            assert!(append(&mut run, &cell).is_ok());
        }
        assert_eq!(run.cu_seqlens, [0, 3, 4, 6]);
        let cells: Vec<PackedCell> = PackedCell::all(run).collect();
        let [a, _, c] = cells.as_slice() else {
            return;
        };
        assert_eq!(a.bytes(), 2 * 3 * 4 + 8);
        let batch = pack(&[c.clone(), a.clone()]).unwrap_or_default();
        assert_eq!(batch.cu_seqlens, [0, 2, 5]);
        assert_eq!(batch.input_ids, [0, 1, 0, 1, 2]);
        assert_eq!(
            batch.labels.iter().map(|l| l.position).collect::<Vec<_>>(),
            [1, 4]
        );
        assert_eq!(batch.cells, [2, 4]);
        assert_eq!(pack(&[]).unwrap_or_default().cu_seqlens, [0]);
    }
}
