//! Which cells, in which order: a pure plan that never touches a file.
//!
//! The order of an epoch is a function of (seed, epoch, settings, selection) and of nothing else:
//! not of threads or ranks, and, but for `Grouped`, not of the batch size. `Block` shuffles blocks
//! of consecutive cells over all files and then mixes the cells inside a buffer of many blocks, so
//! that files are read in runs. `Full` permutes single cells, and reads those of a window of
//! positions in the order in which the files have them: the larger the window, the fewer times a
//! chunk of a file is decoded. `Weighted` and `Grouped` go by a column of obs, see [`Basis`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::batch::Remainder;
use super::error::LoaderError;
use super::groups::Groups;
use super::plan::{EpochPlan, Fetch};
use super::weights::Weights;
use crate::rng::{self, Stream};

/// How the cells of an epoch are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shuffle {
    /// As the files have them, the same in every epoch.
    Sequential,
    /// Random blocks of consecutive cells, mixed inside a buffer; another order in every epoch.
    #[default]
    Block,
    /// Every order of all cells as likely as any other; another one in every epoch.
    Full,
    /// Cells drawn with replacement, as often as their weights say.
    Weighted,
    /// Batches of cells of one group, the batches of all groups in random order.
    Grouped,
}

/// What an order goes by besides the seed, for every selected cell.
#[derive(Debug, Clone, Default)]
pub enum Basis {
    /// Nothing.
    #[default]
    None,
    /// How often each is drawn: for [`Shuffle::Weighted`].
    Weights(Weights),
    /// Which of them belong together: for [`Shuffle::Grouped`].
    Groups(Groups),
}

/// Settings of a [`Sampler`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplerConfig {
    /// The run's seed (default 0).
    pub seed: u64,
    /// Order of cells (default block).
    pub shuffle: Shuffle,
    /// Consecutive cells per block, in cells (default 64).
    pub block_cells: usize,
    /// Cells mixed with one another, in whole blocks, or, in the orders that do without, read
    /// together (default 8192).
    pub buffer_cells: usize,
    /// Cells per batch of one group; those of the loader's batches (default 32).
    pub group_cells: usize,
    /// What becomes of the cells that fill no batch (default pad).
    pub remainder: Remainder,
    /// This process, 0..world_size (default 0).
    pub rank: usize,
    /// Number of processes that share an epoch (default 1).
    pub world_size: usize,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            shuffle: Shuffle::Block,
            block_cells: 64,
            buffer_cells: 8192,
            group_cells: 32,
            remainder: Remainder::Pad,
            rank: 0,
            world_size: 1,
        }
    }
}

impl SamplerConfig {
    /// Checks the settings against one another.
    ///
    /// # Errors
    /// Names the setting that cannot work.
    pub fn validate(&self) -> Result<(), LoaderError> {
        if self.block_cells == 0 {
            return Err(LoaderError::setting("block_cells", "at least 1", 0));
        }
        if self.buffer_cells == 0 {
            return Err(LoaderError::setting("buffer_cells", "at least 1", 0));
        }
        if self.group_cells == 0 {
            return Err(LoaderError::setting("group_cells", "at least 1", 0));
        }
        if self.world_size == 0 {
            return Err(LoaderError::setting("world_size", "at least 1", 0));
        }
        if self.rank >= self.world_size {
            let expected = format!("below `world_size` = {}", self.world_size);
            return Err(LoaderError::setting("rank", expected, self.rank));
        }
        Ok(())
    }
}

/// The cells of a data set that take part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Selection {
    /// Every cell.
    #[default]
    All,
    /// These cells of the data set, ascending and distinct.
    Rows(Arc<[u64]>),
}

impl Selection {
    /// How many cells of a data set of `num_cells` are selected.
    pub fn len(&self, num_cells: u64) -> u64 {
        match self {
            Self::All => num_cells,
            Self::Rows(rows) => rows.len() as u64,
        }
    }

    /// The selected cells of a data set of `num_cells`, ascending.
    pub fn cells(&self, num_cells: u64) -> impl Iterator<Item = u64> {
        (0..self.len(num_cells)).map(|place| self.cell(place))
    }

    /// The cell at `place` of the selection, which must lie in it.
    pub(super) fn cell(&self, place: u64) -> u64 {
        match self {
            Self::All => place,
            Self::Rows(rows) => rows[place as usize],
        }
    }

    /// At most `limit` of these cells of a data set of `num_cells`, drawn at random; each `draw` of
    /// a seed is another one.
    pub fn at_most(self, num_cells: u64, limit: Option<u64>, (seed, draw): (u64, u64)) -> Self {
        let len = self.len(num_cells);
        let Some(limit) = limit.filter(|&limit| limit < len) else {
            return self;
        };
        let mut rng = rng::stream(seed, Stream::Split, 0, draw);
        let drawn = rand::seq::index::sample(&mut rng, len as usize, limit as usize);
        let mut cells: Vec<u64> = drawn.into_iter().map(|at| self.cell(at as u64)).collect();
        cells.sort_unstable();
        Self::Rows(cells.into())
    }

    fn validate(&self, num_cells: u64) -> Result<(), LoaderError> {
        let Self::Rows(rows) = self else {
            return Ok(());
        };
        let mut previous = None;
        for (entry, &got) in rows.iter().enumerate() {
            if got >= num_cells || previous.is_some_and(|before| before >= got) {
                return Err(LoaderError::Selection {
                    entry,
                    previous,
                    got,
                    num_cells,
                });
            }
            previous = Some(got);
        }
        Ok(())
    }
}

/// The plan of every epoch.
#[derive(Debug, Clone)]
pub struct Sampler {
    config: SamplerConfig,
    selection: Selection,
    basis: Basis,
    num_cells: u64,
}

impl Sampler {
    /// A plan over `selection` of a data set of `num_cells` cells, in an order that goes by
    /// nothing but the seed.
    ///
    /// # Errors
    /// A setting that cannot work, or a selection that is not ascending or leaves the data set.
    pub fn new(
        config: SamplerConfig,
        selection: Selection,
        num_cells: u64,
    ) -> Result<Self, LoaderError> {
        Self::by(Basis::None, config, selection, num_cells)
    }

    /// A plan whose order goes by `basis`.
    ///
    /// # Errors
    /// As [`Sampler::new`]; a basis that is not what the order needs, or not of as many cells as
    /// are selected.
    pub fn by(
        basis: Basis,
        config: SamplerConfig,
        selection: Selection,
        num_cells: u64,
    ) -> Result<Self, LoaderError> {
        config.validate()?;
        selection.validate(num_cells)?;
        let (needs, len) = match (config.shuffle, &basis) {
            (Shuffle::Weighted, Basis::Weights(weights)) => (None, Some(weights.len())),
            (Shuffle::Grouped, Basis::Groups(groups)) => (None, Some(groups.len())),
            (Shuffle::Weighted, _) => (Some("an order without weights"), None),
            (Shuffle::Grouped, _) => (Some("an order without groups"), None),
            (_, _) => (None, None),
        };
        if let Some(needs) = needs {
            let got = format!("{:?}", config.shuffle).to_lowercase();
            return Err(LoaderError::setting("shuffle", needs, got));
        }
        let selected = selection.len(num_cells);
        if let Some(got) = len.filter(|&len| len != selected) {
            let expected = format!("one entry for each of the {selected} selected cells");
            return Err(LoaderError::setting("shuffle", expected, got));
        }
        Ok(Self {
            config,
            selection,
            basis,
            num_cells,
        })
    }

    /// The same plan for process `rank` of `world_size`.
    ///
    /// # Errors
    /// There is no such rank.
    pub fn for_rank(mut self, rank: usize, world_size: usize) -> Result<Self, LoaderError> {
        (self.config.rank, self.config.world_size) = (rank, world_size);
        self.config.validate()?;
        Ok(self)
    }

    /// Number of selected cells.
    pub fn len(&self) -> u64 {
        self.selection.len(self.num_cells)
    }

    /// Positions of an epoch, over all ranks: one for each cell, or for each place in the batches
    /// of all groups.
    pub fn num_positions(&self) -> u64 {
        match &self.basis {
            Basis::Groups(groups) if self.config.shuffle == Shuffle::Grouped => {
                let unit = self.unit();
                groups.num_batches(unit, self.config.remainder) * unit
            }
            _ => self.len(),
        }
    }

    /// Positions in a row that belong to one batch of one rank.
    pub(super) fn unit(&self) -> u64 {
        match self.config.shuffle {
            Shuffle::Grouped => self.config.group_cells as u64,
            _ => 1,
        }
    }

    /// Whether an epoch has no cell.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Cells of the data set, selected or not.
    pub fn data_set_len(&self) -> u64 {
        self.num_cells
    }

    /// The settings.
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// What the order goes by.
    pub(super) fn basis(&self) -> &Basis {
        &self.basis
    }

    /// The cells that take part.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The order of one epoch; memory O(number of blocks or groups).
    pub fn epoch(&self, epoch: u64) -> EpochPlan {
        let cells = (&self.selection, &self.basis);
        EpochPlan::new(&self.config, cells, self.num_positions(), epoch)
    }

    /// The `n`-th fetch of an epoch.
    pub fn fetch(&self, epoch: u64, n: u64) -> Fetch {
        self.epoch(epoch).fetch(n)
    }
}
