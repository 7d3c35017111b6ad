//! The neighbours of cells: `neighbor_indptr.npy` (uint64), `neighbor_indices.npy` (uint32) and
//! `neighbor_values.npy` (float32), bare arrays that the header does not tell of.
//!
//! Row i of them are the neighbours of cell i, as rows of the archive, in the order in which the
//! graph has them, each with its weight.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use rand::Rng;

use super::error::ScdlError;
use crate::file::{read_exact_at, write_synced};
use crate::numbers::{Kind, Number};
use crate::rng::{Stream, stream};

const STARTS: &str = "neighbor_indptr.npy";
const CELLS: &str = "neighbor_indices.npy";
const WEIGHTS: &str = "neighbor_values.npy";

/// Neighbours under construction.
#[derive(Debug)]
pub struct NeighborWriter {
    folder: PathBuf,
    num_cells: u64,
    cells: BufWriter<File>,
    weights: BufWriter<File>,
    starts: Vec<u64>,
}

impl NeighborWriter {
    pub(super) fn new(folder: &Path, num_cells: u64) -> Result<Self, ScdlError> {
        if u32::try_from(num_cells).is_err() {
            let what = format!("{num_cells} cells are too many for neighbours, which are 32 bits");
            return Err(ScdlError::invalid(folder, what));
        }
        let create = |name: &str| -> Result<BufWriter<File>, ScdlError> {
            let path = folder.join(name);
            let file = File::create(&path).map_err(ScdlError::io("create it", &path))?;
            Ok(BufWriter::new(file))
        };
        Ok(Self {
            folder: folder.to_owned(),
            num_cells,
            cells: create(CELLS)?,
            weights: create(WEIGHTS)?,
            starts: vec![0],
        })
    }

    /// The neighbours of the next cell, as rows of the archive.
    ///
    /// # Errors
    /// The disk is full; a neighbour that is no cell.
    pub fn push(&mut self, cells: &[u32], weights: &[f32]) -> Result<(), ScdlError> {
        let outside = cells
            .iter()
            .find(|cell| u64::from(**cell) >= self.num_cells);
        if outside.is_some() || cells.len() != weights.len() {
            let what = format!(
                "cell {}: expected neighbours below {}, a weight each, found {outside:?} and {} \
                 weights",
                self.starts.len() - 1,
                self.num_cells,
                weights.len()
            );
            return Err(ScdlError::invalid(&self.folder.join(CELLS), what));
        }
        let end = self.starts.last().copied().unwrap_or(0) + cells.len() as u64;
        self.starts.push(end);
        let bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.to_le_bytes()).collect();
        let written = self.cells.write_all(&bytes);
        let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        let written = written.and_then(|()| self.weights.write_all(&bytes));
        written.map_err(ScdlError::io("write to it", &self.folder))
    }

    /// Writes the rest.
    ///
    /// # Errors
    /// The disk is full; not as many rows as cells.
    pub fn finish(mut self) -> Result<(), ScdlError> {
        if self.starts.len() as u64 != self.num_cells + 1 {
            let what = format!(
                "expected neighbours of {} cells, found those of {}",
                self.num_cells,
                self.starts.len() - 1
            );
            return Err(ScdlError::invalid(&self.folder.join(STARTS), what));
        }
        for writer in [&mut self.cells, &mut self.weights] {
            let synced = writer.flush().and_then(|()| writer.get_ref().sync_all());
            synced.map_err(ScdlError::io("write to it", &self.folder))?;
        }
        let starts: Vec<u8> = self.starts.iter().flat_map(|at| at.to_le_bytes()).collect();
        Ok(write_synced(&self.folder.join(STARTS), &starts)?)
    }
}

/// Which neighbour of a cell is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighborChoice {
    /// Each as likely as any other, whatever its weight.
    Random {
        /// Seed of the draw.
        seed: u64,
        /// Another one in every epoch.
        epoch: u64,
    },
    /// The first.
    First,
}

/// The neighbours of an archive's cells.
#[derive(Debug)]
pub struct ScdlNeighbors {
    folder: PathBuf,
    /// Where those of each cell begin, and where the last ones end.
    starts: Vec<u64>,
    cells: File,
    weights: File,
}

impl ScdlNeighbors {
    /// Those of the archive of `num_cells` in `folder`; `None` where it has none.
    ///
    /// # Errors
    /// Files that cannot be read or contradict one another.
    pub(super) fn open(folder: &Path, num_cells: u64) -> Result<Option<Self>, ScdlError> {
        let path = folder.join(STARTS);
        if !path.exists() {
            return Ok(None);
        }
        let raw = std::fs::read(&path).map_err(ScdlError::io("read it", &path))?;
        let (starts, rest) = raw.as_chunks::<8>();
        let starts: Vec<u64> = starts.iter().map(|at| u64::from_le_bytes(*at)).collect();
        let whole = starts.first() == Some(&0) && starts.is_sorted() && rest.is_empty();
        if !whole || starts.len() as u64 != num_cells + 1 {
            let what = format!(
                "expected {} numbers of 8 bytes that rise from 0, found {} bytes",
                num_cells + 1,
                raw.len()
            );
            return Err(ScdlError::invalid(&path, what));
        }
        let total = starts.last().copied().unwrap_or(0);
        let open = |name: &str| -> Result<File, ScdlError> {
            let path = folder.join(name);
            let file = File::open(&path).map_err(ScdlError::io("read it", &path))?;
            let found = file.metadata().map_err(ScdlError::io("read it", &path))?;
            if total.checked_mul(4) != Some(found.len()) {
                let what = format!("expected {total} numbers, found {} bytes", found.len());
                return Err(ScdlError::invalid(&path, what));
            }
            Ok(file)
        };
        Ok(Some(Self {
            folder: folder.to_owned(),
            cells: open(CELLS)?,
            weights: open(WEIGHTS)?,
            starts,
        }))
    }

    /// The neighbours of a cell of the archive and their weights, in the order stored.
    ///
    /// # Errors
    /// No such cell, unreadable files, a neighbour that is no cell.
    pub fn of(&self, cell: u64) -> Result<(Vec<u32>, Vec<f32>), ScdlError> {
        let num_cells = self.starts.len() as u64 - 1;
        let at = |cell: u64| self.starts.get(usize::try_from(cell).ok()?).copied();
        let Some((start, end)) = at(cell).zip(at(cell.saturating_add(1))) else {
            let what = format!("there is no cell {cell} of {num_cells}");
            return Err(ScdlError::invalid(&self.folder, what));
        };
        let mut raw = vec![0; 4 * (end - start) as usize];
        let (mut cells, mut weights) = (Vec::new(), Vec::new());
        let failed = |name: &str| ScdlError::io("read it", &self.folder.join(name));
        read_exact_at(&self.cells, 4 * start, &mut raw).map_err(failed(CELLS))?;
        Number::little(Kind::U32).extend_columns(&raw, &mut cells);
        read_exact_at(&self.weights, 4 * start, &mut raw).map_err(failed(WEIGHTS))?;
        Number::little(Kind::F32).extend_f32(&raw, &mut weights);
        if let Some(outside) = cells.iter().find(|other| u64::from(**other) >= num_cells) {
            let what = format!("cell {cell}: neighbour {outside} is none of {num_cells} cells");
            return Err(ScdlError::invalid(&self.folder.join(CELLS), what));
        }
        Ok((cells, weights))
    }

    /// One neighbour of a cell; the cell itself where it has none.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn sample(&self, cell: u64, choice: NeighborChoice) -> Result<u64, ScdlError> {
        let (cells, _) = self.of(cell)?;
        let place = match choice {
            _ if cells.is_empty() => return Ok(cell),
            NeighborChoice::First => 0,
            NeighborChoice::Random { seed, epoch } => {
                stream(seed, Stream::Neighbors, epoch, cell).random_range(0..cells.len())
            }
        };
        Ok(cells.get(place).map_or(cell, |other| u64::from(*other)))
    }
}
