//! The work of a reader thread: some cells of one fetch, from source to what a batch is made of.
//!
//! A fetch is cut into parts so that several threads share it. Where it is cut changes nothing in
//! the result: every cell knows the slot of the fetch that it goes to. [`ReadCells`] is what is
//! done with a part, [`Tokens`] makes collated cells of it; `rows.rs` leaves them rows of numbers.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use super::batch::{BatchPlan, PackedCell, append, pack};
use super::collator::Collator;
use super::data_set::DataSet;
use super::error::LoaderError;
use super::plan::EpochPlan;
use crate::cell::PackedBatch;

/// A cell that is wanted, and its slot among the cells that this rank takes of the fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    pub(super) cell: u64,
    pub(super) slot: u32,
    /// What stands for the epoch in the cell's random streams.
    pub(super) draw: u64,
}

/// What became of a cell (`None`: it was skipped), and its slot.
pub type Filled<C> = (u32, Option<C>);

/// What reader threads make of the cells of a part, and batches of those.
pub trait ReadCells: Send + Sync + 'static {
    /// A cell, ready for a batch.
    type Cell: Send;
    /// A batch.
    type Batch;

    /// The cells that are read.
    fn data_set(&self) -> &DataSet;

    /// Reads `part`, ascending cells.
    ///
    /// # Errors
    /// A cell that cannot be read or made into what it is to be.
    fn read_part(&self, part: &[Wanted]) -> Result<Vec<Filled<Self::Cell>>, LoaderError>;

    /// Memory that a cell takes until it is in a batch.
    fn bytes(cell: &Self::Cell) -> usize;

    /// A batch of cells, in this order.
    ///
    /// # Errors
    /// Cells that do not fit into one batch.
    fn pack(&self, cells: Vec<Self::Cell>) -> Result<Self::Batch, LoaderError>;
}

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

/// Reads cells, makes them into tokens and collates them.
pub struct Tokens {
    pub(super) data_set: Arc<DataSet>,
    pub(super) collator: Arc<dyn Collator>,
    pub(super) seed: u64,
    /// Whether the cells are trained on.
    pub(super) augments: bool,
}

impl ReadCells for Tokens {
    type Cell = PackedCell;
    type Batch = PackedBatch;

    fn data_set(&self) -> &DataSet {
        &self.data_set
    }

    fn read_part(&self, part: &[Wanted]) -> Result<Vec<Filled<PackedCell>>, LoaderError> {
        let draws: Vec<(u64, u64)> = part.iter().map(|w| (w.cell, w.draw)).collect();
        // One run for all cells of the part: they are freed where a batch takes the last of them,
        // which is another thread, and that costs for each piece of memory.
        let (mut run, mut kept) = (PackedBatch::default(), Vec::with_capacity(part.len()));
        let mut appended = Ok(());
        self.data_set.visit(
            &draws,
            (self.seed, self.augments),
            |cell, tokens, measured| {
                let draw = part[kept.len()].draw;
                kept.push(tokens.is_some());
                if let (Some(tokens), Ok(())) = (tokens, &appended) {
                    let collated = self.collator.collate(tokens, measured, draw, cell);
                    appended = append(&mut run, &collated);
                }
            },
        )?;
        appended?;
        let mut cells = PackedCell::all(run);
        let slots = part.iter().zip(kept);
        Ok(slots
            .map(|(wanted, kept)| (wanted.slot, kept.then(|| cells.next()).flatten()))
            .collect())
    }

    fn bytes(cell: &PackedCell) -> usize {
        cell.bytes()
    }

    fn pack(&self, cells: Vec<PackedCell>) -> Result<PackedBatch, LoaderError> {
        pack(&cells)
    }
}

/// Reads `part`; a panic on the way becomes an error.
pub(super) fn read<R: ReadCells>(
    reader: &R,
    part: &[Wanted],
) -> Result<Vec<Filled<R::Cell>>, LoaderError> {
    catch_unwind(AssertUnwindSafe(|| reader.read_part(part)))
        .unwrap_or_else(|payload| Err(panicked(reader.data_set(), part, payload.as_ref())))
}

fn panicked(data_set: &DataSet, part: &[Wanted], payload: &(dyn Any + Send)) -> LoaderError {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    let message = text
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned());
    let place = part.first().and_then(|wanted| data_set.locate(wanted.cell));
    let (path, row) = place.map_or((PathBuf::new(), 0), |(source, row)| {
        let source = &data_set.members()[source].source;
        (source.path().to_path_buf(), row)
    });
    LoaderError::Panicked { path, row, message }
}
