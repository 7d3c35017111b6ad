//! The inputs on their way: which rows are read together, read ahead of what is made of them.

use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use super::config::{ConvertConfig, Dtype, common};
use super::places::{Places, Task};
use super::spill::Spill;
use crate::h5ad::{ColumnMap, H5ad, H5adError, Kind, RowBytes, Survey};
use crate::prepare::PrepareError;

/// Memory that one entry under way takes, in all its forms.
const ENTRY_BYTES: u64 = 96;
/// More entries than these are not read at once, whatever the memory.
const MOST_TOGETHER: u64 = 16 << 20;
/// A bucket takes this part of the memory: it is read and sorted while another one is written.
const BUCKET_SHARE: u64 = 16;

/// Told what is done, and its share from 0 to 1.
pub(super) type Progress<'a> = &'a mut (dyn FnMut(&'static str, f64) + Send);

/// The inputs, and what becomes of their rows.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) config: &'a ConvertConfig,
    pub(super) files: &'a [H5ad],
    pub(super) places: &'a Places,
    /// Where the columns of each file go.
    pub(super) maps: &'a [ColumnMap],
    /// The type of the values.
    pub(super) kind: Kind,
}

/// The rows of a shuffle in their buckets.
pub(super) struct Sorted {
    pub(super) spill: Spill,
    /// The buckets of each run of places that was asked for.
    pub(super) buckets: Vec<Range<usize>>,
    pub(super) num_changed: u64,
}

impl Reading<'_> {
    fn read(&self, wave: &[Task]) -> Result<Vec<RowBytes>, H5adError> {
        let read = |task: &Task| {
            let (file, map) = (&self.files[task.file], &self.maps[task.file]);
            file.read_bytes(task.rows.clone(), self.kind, map)
        };
        wave.par_iter().map(read).collect()
    }

    /// Hands the rows of the cells `within` to `take`, in their order; while it works the next ones
    /// are read. How many values the type does not hold exactly.
    pub(super) fn each(
        &self,
        within: Range<u64>,
        (what, progress): (&'static str, Progress<'_>),
        mut take: impl FnMut(&[Task], &[RowBytes]) -> Result<(), PrepareError> + Send,
    ) -> Result<u64, PrepareError> {
        let waves = waves(self.config, self.files, self.places, within);
        let mut num_changed = 0;
        let mut next = waves.first().map(|wave| self.read(wave)).transpose()?;
        for (at, wave) in waves.iter().enumerate() {
            let blocks = next.take().unwrap_or_default();
            num_changed += blocks.iter().map(|block| block.num_changed).sum::<u64>();
            let ahead = waves.get(at + 1);
            let (taken, read) = rayon::join(
                || take(wave, &blocks),
                || ahead.map(|wave| self.read(wave)).transpose(),
            );
            taken?;
            next = read?;
            progress(what, share(wave, self.places));
        }
        Ok(num_changed)
    }

    /// Reads everything, and keeps the rows that go to `runs` (ascending places) sorted roughly by
    /// place: in the file `path` where they do not fit into memory.
    pub(super) fn sort(
        &self,
        runs: &[Range<u64>],
        path: &Path,
        progress: Progress<'_>,
    ) -> Result<Sorted, PrepareError> {
        let entry_bytes = 4 + self.kind.size() as u64;
        let bucket_bytes = (self.config.memory_bytes / BUCKET_SHARE).max(1);
        let (mut places, mut buckets, mut all_bytes) = (Vec::new(), Vec::new(), 0);
        for run in runs {
            let len = run.end - run.start;
            let bytes = self.places.entries_at(run.clone()) * entry_bytes + 12 * len;
            all_bytes += bytes;
            let step = len.div_ceil(bytes.div_ceil(bucket_bytes).max(1)).max(1);
            let starts = run.clone().step_by(step as usize);
            let first = places.len();
            places.extend(starts.map(|start| start..run.end.min(start + step)));
            buckets.push(first..places.len());
        }
        let path = (all_bytes > self.config.memory_bytes / 3).then_some(path);
        let mut spill = Spill::new(places, self.kind.size(), path)?;
        let place_of = self.places.places().unwrap_or_default();
        let all = 0..self.places.num_cells();
        let num_changed = self.each(all, ("shuffling", progress), |wave, blocks| {
            let own = wave.iter().map(|task| {
                let (start, len) = (task.first, task.rows.end - task.rows.start);
                let own = place_of.get(start as usize..(start + len) as usize);
                own.unwrap_or_default()
            });
            Ok(spill.push(blocks, &own.collect::<Vec<_>>())?)
        })?;
        Ok(Sorted {
            spill,
            buckets,
            num_changed,
        })
    }
}

impl Sorted {
    /// Hands the rows of run `run` to `take`, in the order of their places; while it works the next
    /// ones are read and sorted.
    pub(super) fn each(
        &self,
        run: usize,
        progress: Progress<'_>,
        mut take: impl FnMut(&RowBytes) -> Result<(), PrepareError> + Send,
    ) -> Result<(), PrepareError> {
        let buckets = self.buckets.get(run).cloned().unwrap_or(0..0);
        let last = self.spill.num_buckets().max(1) as f64;
        let mut next = match buckets.is_empty() {
            true => RowBytes::default(),
            false => self.spill.bucket(buckets.start)?,
        };
        for bucket in buckets.clone() {
            let block = std::mem::take(&mut next);
            let more = bucket + 1 < buckets.end;
            let (taken, read) = rayon::join(
                || take(&block),
                || more.then(|| self.spill.bucket(bucket + 1)).transpose(),
            );
            taken?;
            next = read?.unwrap_or_default();
            progress("writing", (bucket + 1) as f64 / last);
        }
        Ok(())
    }
}

/// The type of the values to be written.
pub(super) fn kind_of(
    config: &ConvertConfig,
    files: &[H5ad],
    places: &Places,
    progress: Progress<'_>,
) -> Result<Kind, PrepareError> {
    match config.dtype {
        Dtype::As(kind) => Ok(kind),
        Dtype::Keep => {
            let kinds = files.iter().filter_map(H5ad::kind);
            Ok(kinds.reduce(common).unwrap_or(Kind::F32))
        }
        Dtype::Narrowest => {
            let mut all = Survey::default();
            for wave in waves(config, files, places, 0..places.num_cells()) {
                let parts: Result<Vec<Survey>, H5adError> = wave
                    .par_iter()
                    .map(|task| files[task.file].survey(task.rows.clone()))
                    .collect();
                all = parts?.into_iter().fold(all, Survey::and);
                progress("looking at the values", share(&wave, places));
            }
            Ok(all.narrowest())
        }
    }
}

/// The share of the cells that are read after a wave.
fn share(wave: &[Task], places: &Places) -> f64 {
    let end = wave
        .last()
        .map_or(0, |t| t.first + t.rows.end - t.rows.start);
    end as f64 / places.num_cells().max(1) as f64
}

/// Tasks that are done together, for the cells `within`.
fn waves(
    config: &ConvertConfig,
    files: &[H5ad],
    places: &Places,
    within: Range<u64>,
) -> Vec<Vec<Task>> {
    let most = (config.memory_bytes / ENTRY_BYTES / 2).clamp(1, MOST_TOGETHER);
    let threads = rayon::current_num_threads() as u64;
    let tasks = places.tasks(files, within, (most / (2 * threads)).max(1));
    let mut waves: Vec<Vec<Task>> = Vec::new();
    let mut entries = 0;
    for task in tasks {
        match waves.last_mut() {
            Some(wave) if entries + task.entries <= most => {
                entries += task.entries;
                wave.push(task);
            }
            _ => {
                entries = task.entries;
                waves.push(vec![task]);
            }
        }
    }
    waves
}
