//! Passes over the cells of any number of files: read in parallel, told in order.
//!
//! A file is open only while its rows are read, at most a few rows per thread are held at a time,
//! and what was found in them is merged in the order of files and rows, so that no result depends
//! on the number of threads. Knows no genes and no statistics: a pass is given what to do.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use rayon::ThreadPool;
use rayon::prelude::*;

use super::PrepareError;
use crate::cell::{CellSource, CsrBlock};
use crate::file::expand_paths;
use crate::h5ad::{H5ad, OpenOptions};

/// Entries of a block of rows, zeros counted: what bounds memory where nothing is zero.
const BLOCK_ENTRIES: u64 = 8 << 20;
/// Rows of a block.
const BLOCK_CELLS: Range<u64> = 16..4096;
/// Blocks that are read before those before them are merged, for each thread.
const BLOCKS_PER_THREAD: usize = 2;

/// Which files are read, and how.
#[derive(Debug, Clone, Default)]
pub struct FileChoice {
    /// Patterns of h5ad files.
    pub files: Vec<String>,
    /// Matrix, gene ids, which values are let through.
    pub open: OpenOptions,
    /// Threads that read; `None`: one per core.
    pub threads: Option<usize>,
}

/// Is told the share of the work that is done, 0..=1.
pub type Progress<'a> = &'a mut dyn FnMut(f64);

/// Files found, each looked into once.
pub(super) struct FileSet {
    members: Vec<Member>,
    open: OpenOptions,
    pool: ThreadPool,
}

struct Member {
    path: PathBuf,
    num_cells: u64,
    block_cells: u64,
}

/// Rows of a file.
struct Task {
    file: usize,
    rows: Range<u64>,
}

/// Some rows of an open file, and what was made of the file when it was opened.
pub(super) struct Rows<'a, O> {
    pub(super) source: &'a H5ad,
    pub(super) opened: &'a O,
    /// The first row.
    pub(super) first: u64,
    pub(super) cells: CsrBlock,
}

impl FileSet {
    /// Finds the files and shows each, opened, to `look`, in order.
    ///
    /// # Errors
    /// A pattern without a file, a file that cannot be opened, whatever `look` finds wrong.
    pub(super) fn new(
        choice: &FileChoice,
        mut look: impl FnMut(&H5ad) -> Result<(), PrepareError>,
    ) -> Result<Self, PrepareError> {
        let mut members = Vec::new();
        for path in expand_paths(&choice.files)? {
            let file = H5ad::open(&path, &choice.open)?;
            look(&file)?;
            let block_cells = BLOCK_ENTRIES / (file.gene_ids().len() as u64).max(1);
            members.push(Member {
                path,
                num_cells: file.num_cells(),
                block_cells: block_cells.clamp(BLOCK_CELLS.start, BLOCK_CELLS.end),
            });
        }
        let threads = rayon::ThreadPoolBuilder::new().num_threads(choice.threads.unwrap_or(0));
        Ok(Self {
            members,
            open: choice.open.clone(),
            pool: threads.build().map_err(PrepareError::Threads)?,
        })
    }

    /// Number of files.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Cells of all files.
    pub(super) fn num_cells(&self) -> u64 {
        self.members.iter().map(|m| m.num_cells).sum()
    }

    /// Reads every cell once. `open` makes something of each file before its rows are read, `map`
    /// runs in parallel, `merge` in the order of files and rows.
    ///
    /// # Errors
    /// The first, in that order, of what went wrong.
    pub(super) fn pass<O, T>(
        &self,
        open: impl Fn(&H5ad) -> Result<O, PrepareError> + Sync,
        map: impl Fn(Rows<'_, O>) -> Result<T, PrepareError> + Sync,
        mut merge: impl FnMut(T) -> Result<(), PrepareError> + Send,
        progress: Progress<'_>,
    ) -> Result<(), PrepareError>
    where
        O: Send + Sync,
        T: Send,
    {
        let (mut tasks, mut done) = (self.tasks(), 0);
        let all = self.num_cells().max(1) as f64;
        let mut opened: BTreeMap<usize, (H5ad, O)> = BTreeMap::new();
        let mut read: Vec<Result<T, PrepareError>> = Vec::new();
        let per_wave = BLOCKS_PER_THREAD * self.pool.current_num_threads();
        loop {
            let wave: Vec<Task> = tasks.by_ref().take(per_wave).collect();
            let before = std::mem::take(&mut read);
            let (now, merged) = self.pool.install(|| {
                rayon::join(
                    || self.read_wave(&wave, &mut opened, &open, &map),
                    || before.into_iter().try_for_each(|part| merge(part?)),
                )
            });
            merged?;
            read = now?;
            if wave.is_empty() {
                return Ok(());
            }
            done += wave.iter().map(|t| t.rows.end - t.rows.start).sum::<u64>();
            progress(done as f64 / all);
        }
    }

    /// All rows, file by file.
    fn tasks(&self) -> impl Iterator<Item = Task> {
        let files = self.members.iter().enumerate();
        files.flat_map(|(file, member)| {
            let starts = (0..member.num_cells).step_by(member.block_cells as usize);
            starts.map(move |start| Task {
                file,
                rows: start..member.num_cells.min(start + member.block_cells),
            })
        })
    }

    /// Opens what a wave needs, closes what it does not, and reads it.
    fn read_wave<O: Send + Sync, T: Send>(
        &self,
        wave: &[Task],
        opened: &mut BTreeMap<usize, (H5ad, O)>,
        open: &(impl Fn(&H5ad) -> Result<O, PrepareError> + Sync),
        map: &(impl Fn(Rows<'_, O>) -> Result<T, PrepareError> + Sync),
    ) -> Result<Vec<Result<T, PrepareError>>, PrepareError> {
        let mut wanted: Vec<usize> = wave.iter().map(|task| task.file).collect();
        wanted.dedup();
        opened.retain(|file, _| wanted.contains(file));
        wanted.retain(|file| !opened.contains_key(file));
        let fresh: Vec<_> = wanted
            .into_par_iter()
            .filter_map(|file| Some((file, self.members.get(file)?)))
            .map(|(file, member)| {
                let source = H5ad::open(&member.path, &self.open)?;
                let made = open(&source)?;
                Ok((file, (source, made)))
            })
            .collect::<Result<_, PrepareError>>()?;
        opened.extend(fresh);
        let read = wave.par_iter().filter_map(|task| {
            let (source, made) = opened.get(&task.file)?;
            Some(read(source, made, task.rows.clone()).and_then(map))
        });
        Ok(read.collect())
    }
}

fn read<'a, O>(
    source: &'a H5ad,
    opened: &'a O,
    rows: Range<u64>,
) -> Result<Rows<'a, O>, PrepareError> {
    let first = rows.start;
    let cells = source.read(std::slice::from_ref(&rows))?;
    Ok(Rows {
        source,
        opened,
        first,
        cells,
    })
}
