//! How fast cells are read and tokenised, and in how much memory.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::collator::Collator;
use super::column::CellColumn;
use super::data_set::DataSet;
use super::error::LoaderError;
use super::fetch::ReadCells;
use super::mixing::{Mixed, Mixing};
use super::sampler::Sampler;
use super::stream::{Loader, LoaderConfig};
use crate::cell::{CellSource, CsrBlock, Labels, PackedBatch, SourceError, SparseBatch};
use crate::tokenize::BoundSource;

/// What one pass over the selected cells took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throughput {
    /// Threads that read: one is the caller itself.
    pub num_threads: usize,
    /// Cells that came out.
    pub cells: u64,
    /// Tokens that came out.
    pub tokens: u64,
    /// Non-zero values that were read.
    pub non_zeros: u64,
    /// Wall time.
    pub time: Duration,
    /// Most memory that the process held during the pass, in bytes; `None` where the system
    /// does not tell.
    pub peak_bytes: Option<u64>,
    /// How well the batches were mixed, where a column was named.
    pub mixing: Option<Mixing>,
    /// What came in all, where that was asked for.
    pub sums: Option<Sums>,
}

/// What rows hold in all: equal for readers that deliver the same cells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sums {
    /// Of the numbers of the cells in the data set.
    pub cells: u64,
    /// Of the genes' places in the vocabulary, one for each value.
    pub genes: u64,
    /// Of the values.
    pub values: f64,
}

impl Sums {
    fn add(&mut self, batch: &SparseBatch) {
        self.cells += batch.cells.iter().sum::<u64>();
        self.genes += batch
            .columns
            .iter()
            .map(|gene| u64::from(*gene))
            .sum::<u64>();
        self.values += batch
            .values
            .iter()
            .map(|value| f64::from(*value))
            .sum::<f64>();
    }
}

/// What is taken down of a batch.
struct Seen {
    tokens: u64,
    cells: Vec<u64>,
    sums: Sums,
}

impl Throughput {
    /// `count` per second.
    pub fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.time.as_secs_f64()
    }
}

/// A source whose non-zeros are counted as they are read.
struct Counted {
    source: Arc<dyn CellSource>,
    non_zeros: Arc<AtomicU64>,
}

/// What batches are made of.
#[derive(Clone)]
pub enum Measured {
    /// Tokens, collated.
    Tokens(Arc<dyn Collator>),
    /// Rows of numbers.
    Rows,
}

/// What is measured, and how.
pub struct Measurement<'a> {
    /// The sources.
    pub sources: &'a [(Arc<dyn CellSource>, Arc<BoundSource>)],
    /// The order of cells; its `group_cells` are those of a batch.
    pub sampler: &'a Sampler,
    /// What batches are made of.
    pub measured: Measured,
    /// A column of all sources, for the entropy of batches.
    pub column: Option<&'a CellColumn>,
    /// Epochs; the fastest is told.
    pub num_passes: u64,
    /// Whether what comes is added up, which takes time; of rows only.
    pub sums: bool,
    /// Bytes that may be read ahead.
    pub read_ahead_bytes: usize,
}

impl Measurement<'_> {
    /// Reads with `num_threads` threads (one: the caller reads); `None` without a pass.
    ///
    /// # Errors
    /// A cell that cannot be read or made into tokens.
    pub fn run(&self, num_threads: usize) -> Result<Option<Throughput>, LoaderError> {
        let non_zeros = Arc::new(AtomicU64::new(0));
        let counted = |(source, bound): &(Arc<dyn CellSource>, Arc<BoundSource>)| {
            let (source, non_zeros) = (Arc::clone(source), Arc::clone(&non_zeros));
            let counted: Arc<dyn CellSource> = Arc::new(Counted { source, non_zeros });
            (counted, Arc::clone(bound))
        };
        let data_set = Arc::new(DataSet::new(self.sources.iter().map(counted).collect()));
        let config = LoaderConfig {
            num_workers: if num_threads > 1 { num_threads } else { 0 },
            batch_cells: self.sampler.config().group_cells,
            read_ahead_bytes: self.read_ahead_bytes,
            ..LoaderConfig::default()
        };
        let sampler = self.sampler.clone();
        match &self.measured {
            Measured::Tokens(collator) => {
                let loader = Loader::new(data_set, sampler, Arc::clone(collator), config)?;
                self.fastest(num_threads, &non_zeros, loader, |batch: PackedBatch| Seen {
                    tokens: batch.num_tokens() as u64,
                    cells: batch.cells,
                    sums: Sums::default(),
                })
            }
            Measured::Rows => {
                let loader = Loader::rows(data_set, sampler, config)?;
                self.fastest(num_threads, &non_zeros, loader, |batch: SparseBatch| {
                    let mut sums = Sums::default();
                    if self.sums {
                        sums.add(&batch);
                    }
                    Seen {
                        tokens: 0,
                        cells: batch.cells,
                        sums,
                    }
                })
            }
        }
    }

    fn fastest<R: ReadCells>(
        &self,
        num_threads: usize,
        non_zeros: &AtomicU64,
        mut loader: Loader<R>,
        look: impl Fn(R::Batch) -> Seen,
    ) -> Result<Option<Throughput>, LoaderError> {
        let mut fastest: Option<Throughput> = None;
        for epoch in 0..self.num_passes {
            loader.set_epoch(epoch);
            non_zeros.store(0, Ordering::Relaxed);
            reset_peak();
            let mut mixed = self.column.map(Mixed::new);
            let (mut cells, mut tokens, mut sums) = (0, 0, Sums::default());
            let start = Instant::now();
            while let Some(batch) = loader.next_batch()? {
                let seen = look(batch);
                cells += seen.cells.len() as u64;
                tokens += seen.tokens;
                sums.cells += seen.sums.cells;
                sums.genes += seen.sums.genes;
                sums.values += seen.sums.values;
                if let Some(mixed) = &mut mixed {
                    mixed.push(&seen.cells);
                }
            }
            let (time, peak_bytes) = (start.elapsed(), peak_bytes());
            let batch_cells = self.sampler.config().group_cells;
            let pass = Throughput {
                num_threads,
                cells,
                tokens,
                non_zeros: non_zeros.load(Ordering::Relaxed),
                time,
                peak_bytes,
                mixing: mixed.and_then(|mixed| mixed.finish(batch_cells)),
                sums: self.sums.then_some(sums),
            };
            fastest = fastest.filter(|other| other.time <= time).or(Some(pass));
        }
        Ok(fastest)
    }
}

/// Most memory held since the last [`reset_peak`], in bytes (Linux: `VmHWM`).
pub fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Forgets the peak so far, where the system can (Linux; elsewhere there is none to forget).
pub fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

impl CellSource for Counted {
    fn path(&self) -> &Path {
        self.source.path()
    }
    fn num_cells(&self) -> u64 {
        self.source.num_cells()
    }
    fn gene_ids(&self) -> &[String] {
        self.source.gene_ids()
    }
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<CsrBlock, SourceError> {
        let block = self.source.read_ranges(ranges)?;
        self.non_zeros
            .fetch_add(block.nnz() as u64, Ordering::Relaxed);
        Ok(block)
    }
    fn obs_columns(&self) -> Result<Vec<String>, SourceError> {
        self.source.obs_columns()
    }
    fn labels(&self, column: &str) -> Result<Labels, SourceError> {
        self.source.labels(column)
    }
    fn cell_names(&self) -> Result<Vec<String>, SourceError> {
        self.source.cell_names()
    }
}
