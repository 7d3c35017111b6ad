//! Where a loader stands, as a checkpoint keeps it, and what it stands on.
//!
//! The numbers of threads and ranks are not part of it, and, but for batches of one group, neither
//! are the cells per batch: they may change at a resume. Of block and buffer, those count that the
//! order depends on. Files are compared by name and length, not by folder, so that data may move.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::data_set::DataSet;
use super::error::LoaderError;
use super::sampler::{Basis, Sampler, Selection, Shuffle};

/// One source of the data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceState {
    /// File name, without its folder.
    pub name: String,
    /// Number of cells.
    pub num_cells: u64,
}

/// A place between two batches, the same on every rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderState {
    /// The epoch.
    pub epoch: u64,
    /// Positions of the epoch that are behind, over all ranks.
    pub position: u64,
    /// Seed of the order.
    pub seed: u64,
    /// Order of cells.
    pub shuffle: Shuffle,
    /// Cells per block.
    pub block_cells: usize,
    /// Cells per buffer.
    pub buffer_cells: usize,
    /// The sources, in order.
    pub sources: Vec<SourceState>,
    /// Number of selected cells.
    pub selected_cells: u64,
    /// SHA-256 of the selected cells, or `all`.
    pub selection: String,
    /// What else the order goes by: `nothing`, or weights or groups with their SHA-256.
    #[serde(default = "nothing")]
    pub basis: String,
}

impl LoaderState {
    /// The start of epoch 0.
    pub(super) fn start(data_set: &DataSet, sampler: &Sampler) -> Self {
        let config = sampler.config();
        let sources = data_set.members().iter().map(|member| SourceState {
            name: member
                .source
                .path()
                .file_name()
                .unwrap_or_default()
                .display()
                .to_string(),
            num_cells: member.source.num_cells(),
        });
        Self {
            epoch: 0,
            position: 0,
            seed: config.seed,
            shuffle: config.shuffle,
            block_cells: config.block_cells,
            buffer_cells: config.buffer_cells,
            sources: sources.collect(),
            selected_cells: sampler.len(),
            selection: digest(sampler.selection()),
            basis: describe(sampler),
        }
    }

    /// Whether `self`, saved earlier, is a place in the data and plan of `now`.
    pub(super) fn check(&self, now: &Self) -> Result<(), LoaderError> {
        differs("the number of files", self.sources.len(), now.sources.len())?;
        for (n, (saved, now)) in self.sources.iter().zip(&now.sources).enumerate() {
            differs(format!("file {n}"), &saved.name, &now.name)?;
            let what = format!("the number of cells of {}", now.name);
            differs(what, saved.num_cells, now.num_cells)?;
        }
        differs(
            "the number of selected cells",
            self.selected_cells,
            now.selected_cells,
        )?;
        differs("the selection of cells", &self.selection, &now.selection)?;
        differs("`seed`", self.seed, now.seed)?;
        differs(
            "`shuffle`",
            format!("{:?}", self.shuffle),
            format!("{:?}", now.shuffle),
        )?;
        if now.shuffle == Shuffle::Block {
            differs("`block_cells`", self.block_cells, now.block_cells)?;
            differs("`buffer_cells`", self.buffer_cells, now.buffer_cells)?;
        }
        differs("the order's column", &self.basis, &now.basis)
    }

    /// Whether the position lies within an epoch of `num_positions`.
    pub(super) fn check_position(&self, num_positions: u64) -> Result<(), LoaderError> {
        if self.position <= num_positions {
            return Ok(());
        }
        let (what, saved) = ("the position in the epoch", self.position.to_string());
        differs(what, saved, format!("an epoch of {num_positions}"))
    }
}

fn differs<T: PartialEq + ToString>(
    what: impl Into<String>,
    saved: T,
    now: T,
) -> Result<(), LoaderError> {
    if saved == now {
        return Ok(());
    }
    let (saved, now) = (saved.to_string(), now.to_string());
    Err(LoaderError::Resume {
        what: what.into(),
        saved,
        now,
    })
}

fn digest(selection: &Selection) -> String {
    let Selection::Rows(rows) = selection else {
        return "all".to_owned();
    };
    let mut hash = Sha256::new();
    rows.iter().for_each(|row| hash.update(row.to_le_bytes()));
    hex(hash)
}

fn describe(sampler: &Sampler) -> String {
    match sampler.basis() {
        Basis::None => nothing(),
        Basis::Weights(weights) => format!("weights {}", hex(weights.hash())),
        Basis::Groups(groups) => {
            let config = sampler.config();
            let (cells, remainder) = (config.group_cells, config.remainder);
            let groups = hex(groups.hash());
            format!("batches of {cells}, {remainder:?}, of groups {groups}").to_lowercase()
        }
    }
}

fn nothing() -> String {
    "nothing".to_owned()
}

fn hex(hash: Sha256) -> String {
    let bytes = hash.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
