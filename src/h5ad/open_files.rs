//! Any number of files, of which a bounded number is open at once.
//!
//! A run may read thousands of files, each of which takes two handles and the caches of its arrays
//! while it is open. An [`H5adSource`] knows of its file what plans need (cells and genes) and opens
//! it when something is read; [`OpenFiles`] keeps those that were used last open. Gene ids that one
//! file shares with the file before are kept once.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{H5ad, H5adError, OpenOptions};
use crate::cell::{CellSource, CsrBlock, Labels, SourceError};

/// Most files that are kept open, whatever the system allows.
const MOST_OPEN: usize = 512;
/// And where it does not say what it allows.
const USUALLY_OPEN: usize = 64;

/// Files that are kept open.
#[derive(Debug)]
pub struct OpenFiles {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of each open file, the one used last at the end.
    open: Vec<(usize, Arc<H5ad>)>,
    num_files: usize,
    gene_ids: Arc<[String]>,
}

/// A file that is opened when it is read.
#[derive(Debug)]
pub struct H5adSource {
    path: PathBuf,
    options: OpenOptions,
    num_cells: u64,
    gene_ids: Arc<[String]>,
    files: Arc<OpenFiles>,
    number: usize,
}

impl OpenFiles {
    /// Keeps as many files open as the system lets, with room for others.
    pub fn new() -> Arc<Self> {
        let most = handles_allowed().map_or(USUALLY_OPEN, |handles| handles / 4);
        Self::at_most(most.clamp(1, MOST_OPEN))
    }

    /// Keeps `most` files open, besides those that are being read.
    fn at_most(most: usize) -> Arc<Self> {
        let state = Mutex::default();
        Arc::new(Self { most, state })
    }

    /// Each of `paths` in this order, opened once to look at it.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn all(
        paths: &[PathBuf],
        options: &OpenOptions,
    ) -> Result<Vec<Arc<H5adSource>>, H5adError> {
        let files = Self::new();
        paths.iter().map(|path| files.file(path, options)).collect()
    }

    /// A file, opened once to look at it.
    ///
    /// # Errors
    /// As [`H5ad::open`].
    pub fn file(
        self: &Arc<Self>,
        path: &Path,
        options: &OpenOptions,
    ) -> Result<Arc<H5adSource>, H5adError> {
        let file = Arc::new(H5ad::open(path, options)?);
        let mut state = self.lock();
        if *state.gene_ids != *file.gene_ids() {
            state.gene_ids = file.gene_ids().into();
        }
        let source = H5adSource {
            path: path.to_owned(),
            options: options.clone(),
            num_cells: file.num_cells(),
            gene_ids: Arc::clone(&state.gene_ids),
            files: Arc::clone(self),
            number: state.num_files,
        };
        state.num_files += 1;
        state.keep(source.number, file, self.most);
        Ok(Arc::new(source))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The file, if it is open; it counts as used.
    fn find(&mut self, number: usize) -> Option<Arc<H5ad>> {
        let place = self.open.iter().rposition(|(other, _)| *other == number)?;
        let found = self.open.remove(place);
        let file = Arc::clone(&found.1);
        self.open.push(found);
        Some(file)
    }

    fn keep(&mut self, number: usize, file: Arc<H5ad>, most: usize) {
        if self.find(number).is_none() {
            self.open.push((number, file));
            let too_many = self.open.len().saturating_sub(most);
            self.open.drain(..too_many);
        }
    }
}

impl H5adSource {
    /// The file, open as long as the result is kept.
    ///
    /// # Errors
    /// As [`H5ad::open`]; a file that is not what it was when it was first opened.
    pub fn open(&self) -> Result<Arc<H5ad>, H5adError> {
        if let Some(file) = self.files.lock().find(self.number) {
            return Ok(file);
        }
        // Without the lock: others read meanwhile. Two threads may open the same file.
        let file = Arc::new(H5ad::open(&self.path, &self.options)?);
        if file.num_cells() != self.num_cells || *file.gene_ids() != *self.gene_ids {
            return Err(H5adError::Invalid {
                path: self.path.clone(),
                key: self.options.matrix.to_string(),
                what: "has other cells or genes than when this began\nhint: leave the files alone \
                       while they are read"
                    .to_owned(),
            });
        }
        let mut state = self.files.lock();
        state.keep(self.number, Arc::clone(&file), self.files.most);
        Ok(file)
    }
}

impl CellSource for H5adSource {
    fn path(&self) -> &Path {
        &self.path
    }

    fn num_cells(&self) -> u64 {
        self.num_cells
    }

    fn gene_ids(&self) -> &[String] {
        &self.gene_ids
    }

    fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<CsrBlock, SourceError> {
        Ok(self.open()?.read(ranges)?)
    }

    fn obs_columns(&self) -> Result<Vec<String>, SourceError> {
        Ok(self.open()?.obs_column_names().to_vec())
    }

    fn labels(&self, column: &str) -> Result<Labels, SourceError> {
        Ok(self.open()?.obs_labels(column)?)
    }

    fn cell_names(&self) -> Result<Vec<String>, SourceError> {
        Ok(self.open()?.names()?)
    }
}

/// Handles that the system gives a process; `None` where it does not say.
fn handles_allowed() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::h5ad::write::{AnnData, ValueType, write_h5ad};

    fn write(path: &Path, cells: usize, genes: usize) {
        let data = AnnData {
            x: CsrBlock::eye(cells.max(genes))
                .slice_outer(0..cells)
                .to_owned(),
            value_type: ValueType::Float32,
            layers: Vec::new(),
            cell_names: (0..cells).map(|cell| format!("c{cell}")).collect(),
            obs: Vec::new(),
            gene_ids: (0..cells.max(genes))
                .map(|gene| format!("g{gene}"))
                .collect(),
            var: Vec::new(),
        };
        write_h5ad(path, &data).unwrap();
    }

    #[test]
    fn few_files_are_open_whichever_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..9)
            .map(|n| dir.path().join(format!("{n}.h5ad")))
            .collect();
        paths.iter().for_each(|path| write(path, 3, 5));
        let files = OpenFiles::at_most(2);
        let options = OpenOptions::default();
        let sources = paths.iter().map(|path| files.file(path, &options));
        let sources: Vec<_> = sources.collect::<Result<_, _>>().unwrap();
        assert!(
            sources
                .windows(2)
                .all(|pair| Arc::ptr_eq(&pair[0].gene_ids, &pair[1].gene_ids))
        );
        for number in [0, 8, 3, 3, 0, 5, 1, 8] {
            let block = sources[number].read_ranges(&[1..3]).unwrap();
            assert_eq!((block.rows(), block.get(1, 2)), (2, Some(&1.0)));
            assert_eq!(files.lock().open.len(), 2);
            assert_eq!(sources[number].cell_names().unwrap()[2], "c2");
        }
        // A file that is used stays open although others push it out of the list.
        let held = sources[4].open().unwrap();
        (0..3).for_each(|number| drop(sources[number].open().unwrap()));
        assert_eq!(held.read(&[0..1]).unwrap().rows(), 1);
        // 6 is not open, and becomes another file.
        write(&paths[6], 4, 5);
        let error = sources[6].read_ranges(&[0..1]).unwrap_err().to_string();
        assert!(
            error.contains("6.h5ad") && error.contains("other cells"),
            "{error}"
        );
    }

    #[test]
    fn the_system_says_how_many_handles_there_are() {
        if cfg!(target_os = "linux") {
            assert!(handles_allowed().is_none_or(|handles| handles >= 8));
        }
    }
}
