//! Batches of one rank, in order, read ahead of their use.
//!
//! The place between two batches is one number, the position in the epoch's order over all ranks;
//! everything read ahead beyond it can be thrown away and read again.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::batch::BatchPlan;
use super::collator::Collator;
use super::data_set::DataSet;
use super::error::LoaderError;
use super::fetch::{ReadCells, Remaining, Tokens};
use super::pool::{Limits, Pool, Slot};
use super::rows::Rows;
use super::sampler::Sampler;
use super::state::LoaderState;

/// Cells per part of a fetch: enough to be worth a thread's while, few enough to share a fetch.
const PART_CELLS: std::ops::RangeInclusive<usize> = 128..=1024;

/// Settings of a [`Loader`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoaderConfig {
    /// Reader threads; 0 reads in the caller's thread (default 4).
    pub num_workers: usize,
    /// Cells per batch and rank (default 32).
    pub batch_cells: usize,
    /// Fetches (of the sampler's `buffer_cells`) read ahead, besides the one in use (default 2).
    pub read_ahead: usize,
    /// Tokens and labels read ahead, in bytes; the next fetch due is read in any case
    /// (default 1 GiB).
    pub read_ahead_bytes: usize,
    /// Whether the cells are trained on, and so augmented where the tokenizer is told to
    /// (default false).
    pub augments: bool,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self {
            num_workers: 4,
            batch_cells: 32,
            read_ahead: 2,
            read_ahead_bytes: 1 << 30,
            augments: false,
        }
    }
}

impl LoaderConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// Names the setting that cannot work.
    pub fn validate(&self) -> Result<(), LoaderError> {
        if self.batch_cells == 0 {
            return Err(LoaderError::setting("batch_cells", "at least 1", 0));
        }
        if self.read_ahead == 0 {
            return Err(LoaderError::setting("read_ahead", "at least 1 fetch", 0));
        }
        Ok(())
    }
}

/// The batches of one rank: of tokens, or, as [`RowLoader`], of rows. Threads end when it is
/// dropped.
pub struct Loader<R: ReadCells = Tokens> {
    config: LoaderConfig,
    sampler: Sampler,
    pool: Pool<R>,
    state: LoaderState,
    batches: BatchPlan,
    /// The next batch of `batches`.
    next_batch: u64,
    /// Whether the pool reads for `batches`.
    reading: bool,
    /// Cells of the fetch in use that are not in a batch yet.
    ready: VecDeque<Slot<R::Cell>>,
    /// Cells that were skipped since this was asked last.
    num_skipped: u64,
}

/// Batches of rows as the files have them, their columns matched with the genes of the vocabulary:
/// [`crate::cell::SparseBatch`]es.
pub type RowLoader = Loader<Rows>;

impl Loader<Tokens> {
    /// A loader at the start of epoch 0. Nothing is read before the first batch is asked for.
    ///
    /// # Errors
    /// A setting that cannot work, a sampler of another data set, or no thread to be had.
    pub fn new(
        data_set: Arc<DataSet>,
        sampler: Sampler,
        collator: Arc<dyn Collator>,
        config: LoaderConfig,
    ) -> Result<Self, LoaderError> {
        let seed = sampler.config().seed;
        let reader = Tokens {
            data_set,
            collator,
            seed,
            augments: config.augments,
        };
        Self::with(reader, sampler, config)
    }
}

impl Loader<Rows> {
    /// As [`Loader::new`], of rows: nothing is made into tokens.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn rows(
        data_set: Arc<DataSet>,
        sampler: Sampler,
        config: LoaderConfig,
    ) -> Result<Self, LoaderError> {
        Self::with(Rows::new(data_set), sampler, config)
    }
}

impl<R: ReadCells> Loader<R> {
    fn with(reader: R, sampler: Sampler, config: LoaderConfig) -> Result<Self, LoaderError> {
        let data_set = reader.data_set();
        config.validate()?;
        if sampler.data_set_len() != data_set.len() {
            let expected = format!("planned over the {} cells of the data set", data_set.len());
            return Err(LoaderError::setting(
                "sampler",
                expected,
                sampler.data_set_len(),
            ));
        }
        let unit = sampler.unit();
        if unit > 1 && unit != config.batch_cells as u64 {
            let expected = format!("{unit}, as the sampler's `group_cells`");
            let got = config.batch_cells;
            return Err(LoaderError::setting("batch_cells", expected, got));
        }
        let state = LoaderState::start(data_set, &sampler);
        let limits = Limits {
            max_fetches: config.read_ahead,
            max_bytes: config.read_ahead_bytes,
        };
        let pool = Pool::new(reader, limits, config.num_workers)?;
        let batches = plan_batches(&config, &sampler, 0);
        let ready = VecDeque::new();
        Ok(Self {
            config,
            sampler,
            pool,
            state,
            batches,
            next_batch: 0,
            reading: false,
            ready,
            num_skipped: 0,
        })
    }

    /// Batches of a whole epoch, the same on every rank.
    pub fn batches_per_epoch(&self) -> u64 {
        plan_batches(&self.config, &self.sampler, 0).num_batches()
    }

    /// Batches of this epoch that are still to come.
    pub fn batches_left(&self) -> u64 {
        self.batches.num_batches() - self.next_batch
    }

    /// The plan behind the batches.
    pub fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// The next batch; `None` at the end of the epoch, until [`Loader::set_epoch`] is called.
    ///
    /// A batch holds fewer cells than planned, or none at all, where the tokenizer was told to
    /// skip cells of unknown phenotypes, and at the end of an epoch (see [`super::Remainder`]).
    ///
    /// # Errors
    /// A cell that cannot be read or made into tokens. The batches before it come first. Another
    /// call tries the same batch again.
    pub fn next_batch(&mut self) -> Result<Option<R::Batch>, LoaderError> {
        if self.next_batch >= self.batches.num_batches() {
            return Ok(None);
        }
        let batch = self.assemble();
        if batch.is_err() {
            self.go_to(self.state.epoch, self.state.position);
            return batch.map(Some);
        }
        let end = self.batches.positions(self.next_batch).end;
        self.state.position = end.min(self.batches.end);
        self.next_batch += 1;
        batch.map(Some)
    }

    fn assemble(&mut self) -> Result<R::Batch, LoaderError> {
        self.start_reading();
        let local = self.batches.local(self.next_batch);
        let num_slots = (local.end - local.start) as usize;
        while self.ready.len() < num_slots {
            let Some(fetched) = self.pool.next()? else {
                break;
            };
            self.ready.extend(fetched);
        }
        let num_slots = num_slots.min(self.ready.len());
        let (mut cells, mut num_skipped) = (Vec::with_capacity(num_slots), 0);
        for slot in self.ready.drain(..num_slots) {
            match slot {
                Slot::Cell(cell) => cells.push(cell),
                Slot::Skipped => num_skipped += 1,
                Slot::Empty => {}
            }
        }
        let batch = self.pool.reader().pack(cells)?;
        self.num_skipped += num_skipped;
        Ok(batch)
    }

    /// How many cells the tokenizer skipped in the batches since this was asked last.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.num_skipped)
    }

    fn start_reading(&mut self) {
        if self.reading {
            return;
        }
        let plan = self.sampler.epoch(self.state.epoch);
        let first_fetch = plan.fetch_of(self.state.position);
        let part_cells = self.part_cells();
        let remaining = Remaining {
            plan,
            batches: self.batches,
            part_cells,
        };
        self.pool.restart(Arc::new(remaining), first_fetch);
        self.reading = true;
    }

    /// A fetch is cut so that every thread has about two parts of it, in whole blocks.
    fn part_cells(&self) -> usize {
        let sampler = self.sampler.config();
        let fetch_cells = sampler.buffer_cells.max(sampler.block_cells) / sampler.world_size;
        let even = fetch_cells / (2 * self.config.num_workers.max(1));
        let cells = even.clamp(*PART_CELLS.start(), *PART_CELLS.end());
        let block = sampler.block_cells.min(cells);
        cells / block * block
    }

    /// Goes to the start of `epoch`.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.go_to(epoch, 0);
    }

    /// The place between the last batch and the next.
    pub fn state(&self) -> LoaderState {
        self.state.clone()
    }

    /// Goes to a saved place: the next batch is the one that would have come there.
    ///
    /// # Errors
    /// The place belongs to other data, another selection or another plan; says which.
    pub fn resume(&mut self, state: &LoaderState) -> Result<(), LoaderError> {
        state.check(&self.state)?;
        state.check_position(self.sampler.num_positions())?;
        self.go_to(state.epoch, state.position);
        Ok(())
    }

    fn go_to(&mut self, epoch: u64, position: u64) {
        self.pool.cancel();
        self.ready.clear();
        self.reading = false;
        (self.state.epoch, self.state.position) = (epoch, position);
        self.batches = plan_batches(&self.config, &self.sampler, position);
        self.next_batch = 0;
    }
}

fn plan_batches(config: &LoaderConfig, sampler: &Sampler, start: u64) -> BatchPlan {
    BatchPlan {
        start,
        end: sampler.num_positions(),
        batch_cells: config.batch_cells as u64,
        rank: sampler.config().rank as u64,
        world_size: sampler.config().world_size as u64,
        remainder: sampler.config().remainder,
    }
}
