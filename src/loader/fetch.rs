//! The work of a reader thread: some cells of one fetch, from source to collated.
//!
//! A fetch is cut into parts so that several threads share it. Where it is cut changes nothing in
//! the result: every cell knows the slot of the fetch that it goes to.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use super::batch::BatchPlan;
use super::collator::{CollatedCell, Collator};
use super::data_set::DataSet;
use super::error::LoaderError;
use super::plan::EpochPlan;

/// A cell that is wanted, and its slot among the cells that this rank takes of the fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) cell: u64,
    pub(super) slot: u32,
    /// What stands for the epoch in the cell's random streams.
    pub(super) draw: u64,
}

/// What the tokenizer made of a cell (`None`: it was skipped), and its slot.
pub(super) type Filled = (u32, Option<CollatedCell>);

/// What is left of an epoch, for one rank.
pub(super) struct Remaining {
    pub(super) plan: EpochPlan,
    pub(super) batches: BatchPlan,
    /// Cells per part, at most.
    pub(super) part_cells: usize,
}

impl Remaining {
    /// One past the last fetch.
    pub(super) fn end(&self) -> u64 {
        match self.batches.last() {
            0 => 0,
            last => self.plan.fetch_of(last - 1) + 1,
        }
    }

    /// The parts of fetch `n`, each ascending by cell, and the number of slots. The slot of a
    /// position without a cell stays empty.
    pub(super) fn parts(&self, n: u64) -> (usize, Vec<Vec<Wanted>>) {
        let fetch = self.plan.fetch(n);
        let owned = (fetch.first..)
            .zip(fetch.cells)
            .filter(|&(position, _)| self.batches.owns(position));
        let (mut num_slots, mut wanted) = (0, Vec::new());
        for (position, cell) in owned {
            let (slot, draw) = (num_slots, self.plan.draw(position));
            wanted.extend(cell.map(|cell| Wanted { cell, slot, draw }));
            num_slots += 1;
        }
        wanted.sort_unstable();
        let parts = wanted.chunks(self.part_cells).map(<[_]>::to_vec).collect();
        (num_slots as usize, parts)
    }
}

/// Everything that reading a part needs.
pub(super) struct Reading {
    pub(super) data_set: Arc<DataSet>,
    pub(super) collator: Arc<dyn Collator>,
    pub(super) seed: u64,
}

impl Reading {
    /// Reads, tokenises and collates `part`; a panic on the way becomes an error.
    pub(super) fn read(&self, part: &[Wanted]) -> Result<Vec<Filled>, LoaderError> {
        catch_unwind(AssertUnwindSafe(|| self.read_part(part)))
            .unwrap_or_else(|payload| Err(self.panicked(part, payload.as_ref())))
    }

    fn read_part(&self, part: &[Wanted]) -> Result<Vec<Filled>, LoaderError> {
        let mut filled = Vec::with_capacity(part.len());
        let draws: Vec<(u64, u64)> = part.iter().map(|w| (w.cell, w.draw)).collect();
        self.data_set
            .visit(&draws, self.seed, |cell, tokens, measured| {
                let Wanted { slot, draw, .. } = part[filled.len()];
                let collate = |tokens| self.collator.collate(tokens, measured, draw, cell);
                filled.push((slot, tokens.map(collate)));
            })?;
        Ok(filled)
    }

    fn panicked(&self, part: &[Wanted], payload: &(dyn Any + Send)) -> LoaderError {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned());
        let message = text
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a message".to_owned());
        let place = part
            .first()
            .and_then(|wanted| self.data_set.locate(wanted.cell));
        let (path, row) = place.map_or((PathBuf::new(), 0), |(source, row)| {
            (
                self.data_set.members()[source].source.path().to_path_buf(),
                row,
            )
        });
        LoaderError::Panicked { path, row, message }
    }
}
