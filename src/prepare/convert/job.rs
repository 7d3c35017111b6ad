//! The conversion itself.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc;

use rayon::prelude::*;

use super::config::{ConvertConfig, Dtype, common};
use super::genes::GenePlan;
use super::places::{Places, Task};
use super::spill::Spill;
use super::stage::Stage;
use crate::h5ad::writer::{GroupParts, MatrixWriter, Output, Storage, TableWriter};
use crate::h5ad::{ColumnMap, H5ad, H5adError, JoinedTable, Kind, Part, RowBytes, Survey};
use crate::prepare::PrepareError;

/// Memory that one entry under way takes, in all its forms.
const ENTRY_BYTES: u64 = 96;
/// A bucket takes this part of the memory: it is read and sorted while another one is written.
const BUCKET_SHARE: u64 = 16;
/// More entries than these are not read at once, whatever the memory.
const MOST_TOGETHER: u64 = 16 << 20;
/// Output files that are open at once.
const MOST_FILES: usize = 500;
/// Members of a file that are not carried over.
const OTHERS: [&str; 5] = ["obsm", "varm", "obsp", "varp", "uns"];

/// What a conversion made.
#[derive(Debug)]
pub struct Converted {
    /// The files.
    pub outputs: Vec<PathBuf>,
    /// Cells in all of them.
    pub num_cells: u64,
    /// Genes of each.
    pub num_genes: usize,
    /// The type of the values.
    pub kind: Kind,
    /// How many values this type does not hold exactly.
    pub num_changed: u64,
    /// What the inputs have that the outputs lack, by name.
    pub left_out: Vec<String>,
}

/// A conversion under way.
struct Job<'a> {
    config: &'a ConvertConfig,
    files: &'a [H5ad],
    genes: GenePlan,
    places: Places,
    kind: Kind,
    stage: &'a Stage,
    num_changed: u64,
}

/// An output file but for its root group, and its number.
type Whole = (usize, Output, GroupParts);
/// Takes outputs to be completed elsewhere: until a file is safe on the disk, the next is written.
type Close<'a> = &'a dyn Fn(Whole) -> Result<(), PrepareError>;

/// Converts; `progress` is told what is done and its share from 0 to 1.
///
/// # Errors
/// Inputs that cannot be read or have different genes; outputs that cannot be written. What stood
/// under their names is untouched then.
pub fn convert(
    config: &ConvertConfig,
    progress: &mut (dyn FnMut(&'static str, f64) + Send),
) -> Result<Converted, PrepareError> {
    let files = config.open_inputs()?;
    let genes = GenePlan::new(&files, config.genes)?;
    let exact = config.storage == Storage::Contiguous;
    let places = Places::new(&files, config.shuffle, config.cells_per_file, exact)?;
    if places.shards.len() > MOST_FILES {
        return Err(PrepareError::Convert(format!(
            "{} cells make {} files, more than {MOST_FILES}\nhint: raise --cells-per-file",
            places.num_cells(),
            places.shards.len()
        )));
    }
    let kind = kind_of(config, &files, &places, progress)?;
    let stage = Stage::new(config, places.shards.len())?;
    let mut job = Job {
        config,
        files: &files,
        genes,
        places,
        kind,
        stage: &stage,
        num_changed: 0,
    };
    job.run(progress)?;
    let mut converted = Converted {
        outputs: Vec::new(),
        num_cells: job.places.num_cells(),
        num_genes: job.genes.ids.len(),
        kind,
        num_changed: job.num_changed,
        left_out: left_out(config, &files)?,
    };
    converted.outputs = stage.commit()?;
    Ok(converted)
}

/// The type of the values to be written.
pub(super) fn kind_of(
    config: &ConvertConfig,
    files: &[H5ad],
    places: &Places,
    progress: &mut (dyn FnMut(&'static str, f64) + Send),
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
pub(super) fn share(wave: &[Task], places: &Places) -> f64 {
    let end = wave
        .last()
        .map_or(0, |t| t.first + t.rows.end - t.rows.start);
    end as f64 / places.num_cells().max(1) as f64
}

/// The rows of a wave as values of `kind`; `maps`: where the columns of each file go.
pub(super) fn read(
    files: &[H5ad],
    maps: &[ColumnMap],
    kind: Kind,
    wave: &[Task],
) -> Result<Vec<RowBytes>, H5adError> {
    let read = |task: &Task| {
        let (file, map) = (&files[task.file], &maps[task.file]);
        file.read_bytes(task.rows.clone(), kind, map)
    };
    wave.par_iter().map(read).collect()
}

/// Tasks that are done together, for the cells `within`.
pub(super) fn waves(
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

impl Job<'_> {
    fn run(
        &mut self,
        progress: &mut (dyn FnMut(&'static str, f64) + Send),
    ) -> Result<(), PrepareError> {
        let mut waiting = Vec::new();
        for n in 0..self.places.shards.len() {
            if !self.stage.is_done(n)? {
                waiting.push((n, Output::create(&self.stage.partial(n)?)?));
            }
        }
        let tables = self.write_obs(&mut waiting)?;
        let outputs = waiting.into_iter().zip(tables).collect::<Vec<_>>();
        let stage = self.stage;
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel::<Whole>(1);
            let closer = scope.spawn(move || -> Result<(), PrepareError> {
                for (n, output, root) in receiver {
                    output.finish(root)?;
                    stage.finish(n)?;
                }
                Ok(())
            });
            let stopped = || PrepareError::Convert("files are no longer completed".to_owned());
            let close = |whole| sender.send(whole).map_err(|_| stopped());
            let written = self.write(outputs, &close, progress);
            drop(sender);
            // Where the closer failed, that is why writing stopped.
            closer.join().unwrap_or_else(|_| Err(stopped()))?;
            written
        })
    }

    fn write(
        &mut self,
        outputs: Vec<((usize, Output), TableWriter)>,
        close: Close<'_>,
        progress: &mut (dyn FnMut(&'static str, f64) + Send),
    ) -> Result<(), PrepareError> {
        if self.places.order.is_some() {
            return self.write_shuffled(outputs, close, progress);
        }
        for ((n, output), obs) in outputs {
            close(self.write_in_order(n, output, obs, progress)?)?;
        }
        Ok(())
    }

    /// The obs tables, one column of all files at a time.
    fn write_obs(&self, outputs: &mut [(usize, Output)]) -> Result<Vec<TableWriter>, PrepareError> {
        let joined = JoinedTable::new(self.files, Part::Obs);
        let names = joined.names()?;
        let mut tables = Vec::new();
        for (n, output) in outputs.iter_mut() {
            let cells = self.cells_of(*n);
            let own = cells.map(|cell| names.get(cell).map_or("", String::as_str));
            tables.push(TableWriter::new(
                output,
                joined.index_name(),
                own,
                self.compressed(),
            )?);
        }
        drop(names);
        for name in joined.column_names() {
            let column = joined.column(&name)?;
            for ((n, output), table) in outputs.iter_mut().zip(&mut tables) {
                table.push(output, &name, &column.take(self.cells_of(*n)))?;
            }
        }
        Ok(tables)
    }

    /// The cells of output `n`, in its order.
    fn cells_of(&self, n: usize) -> impl Iterator<Item = usize> {
        self.shard(n).map(|place| self.places.cell(place) as usize)
    }

    fn shard(&self, n: usize) -> Range<u64> {
        self.places.shards.get(n).cloned().unwrap_or(0..0)
    }

    fn compressed(&self) -> bool {
        matches!(self.config.storage, Storage::Chunked { gzip: Some(_), .. })
    }

    fn matrix(&self, n: usize, output: &mut Output) -> MatrixWriter {
        let most = self.places.entries_at(self.shard(n));
        let num_genes = self.genes.ids.len() as u64;
        MatrixWriter::new(output, num_genes, self.kind, self.config.storage, most)
    }

    fn read(&self, wave: &[Task]) -> Result<Vec<RowBytes>, H5adError> {
        read(self.files, &self.genes.maps, self.kind, wave)
    }

    fn write_in_order(
        &mut self,
        n: usize,
        mut output: Output,
        obs: TableWriter,
        progress: &mut (dyn FnMut(&'static str, f64) + Send),
    ) -> Result<Whole, PrepareError> {
        let mut matrix = self.matrix(n, &mut output);
        let waves = waves(self.config, self.files, &self.places, self.shard(n));
        let mut next = waves.first().map(|wave| self.read(wave)).transpose()?;
        for (at, wave) in waves.iter().enumerate() {
            let blocks = next.take().unwrap_or_default();
            self.num_changed += blocks.iter().map(|block| block.num_changed).sum::<u64>();
            let mut push = || -> Result<(), H5adError> {
                for block in &blocks {
                    matrix.push(&mut output, &block.lengths, &block.columns, &block.values)?;
                }
                Ok(())
            };
            let ahead = waves.get(at + 1);
            let this = &*self;
            let (written, read) =
                rayon::join(&mut push, || ahead.map(|w| this.read(w)).transpose());
            written?;
            next = read?;
            progress("converting", share(wave, &self.places));
        }
        self.finish(n, output, obs, matrix)
    }

    fn write_shuffled(
        &mut self,
        outputs: Vec<((usize, Output), TableWriter)>,
        close: Close<'_>,
        progress: &mut (dyn FnMut(&'static str, f64) + Send),
    ) -> Result<(), PrepareError> {
        let entry_bytes = 4 + self.kind.size() as u64;
        let bucket_bytes = (self.config.memory_bytes / BUCKET_SHARE).max(1);
        let mut buckets = Vec::new();
        let mut ends = Vec::new();
        let mut all_bytes = 0;
        for ((n, _), _) in &outputs {
            let shard = self.shard(*n);
            let len = shard.end - shard.start;
            let bytes = self.places.entries_at(shard.clone()) * entry_bytes + 12 * len;
            all_bytes += bytes;
            let step = len.div_ceil(bytes.div_ceil(bucket_bytes).max(1)).max(1);
            let starts = (shard.start..shard.end).step_by(step as usize);
            buckets.extend(starts.map(|start| start..shard.end.min(start + step)));
            ends.push(buckets.len());
        }
        let path = self.stage.spill()?;
        let path = (all_bytes > self.config.memory_bytes / 3).then_some(path.as_path());
        let mut spill = Spill::new(buckets, self.kind.size(), path)?;
        self.fill(&mut spill, progress)?;
        let mut start = 0;
        for (((n, output), obs), end) in outputs.into_iter().zip(ends) {
            close(self.write_buckets(n, output, obs, (&spill, start..end), progress)?)?;
            start = end;
        }
        Ok(())
    }

    /// Reads everything into the buckets.
    fn fill(
        &mut self,
        spill: &mut Spill,
        progress: &mut (dyn FnMut(&'static str, f64) + Send),
    ) -> Result<(), PrepareError> {
        let places = self.places.places().unwrap_or_default();
        let waves = waves(
            self.config,
            self.files,
            &self.places,
            0..self.places.num_cells(),
        );
        let mut next = waves.first().map(|wave| self.read(wave)).transpose()?;
        for (at, wave) in waves.iter().enumerate() {
            let blocks = next.take().unwrap_or_default();
            self.num_changed += blocks.iter().map(|block| block.num_changed).sum::<u64>();
            let own = wave.iter().map(|task| {
                let (start, len) = (
                    task.first as usize,
                    (task.rows.end - task.rows.start) as usize,
                );
                places.get(start..start + len).unwrap_or_default()
            });
            let own: Vec<&[u64]> = own.collect();
            let (this, ahead) = (&*self, waves.get(at + 1));
            let (pushed, read) = rayon::join(
                || spill.push(&blocks, &own),
                || ahead.map(|wave| this.read(wave)).transpose(),
            );
            pushed?;
            next = read?;
            progress("shuffling", share(wave, &self.places));
        }
        Ok(())
    }

    fn write_buckets(
        &self,
        n: usize,
        mut output: Output,
        obs: TableWriter,
        (spill, buckets): (&Spill, Range<usize>),
        progress: &mut (dyn FnMut(&'static str, f64) + Send),
    ) -> Result<Whole, PrepareError> {
        let mut matrix = self.matrix(n, &mut output);
        let last = spill.num_buckets().max(1) as f64;
        let mut next = match buckets.is_empty() {
            true => RowBytes::default(),
            false => spill.bucket(buckets.start)?,
        };
        for bucket in buckets.clone() {
            let block = std::mem::take(&mut next);
            let more = bucket + 1 < buckets.end;
            let (written, read) = rayon::join(
                || matrix.push(&mut output, &block.lengths, &block.columns, &block.values),
                || more.then(|| spill.bucket(bucket + 1)).transpose(),
            );
            written?;
            next = read?.unwrap_or_default();
            progress("writing", (bucket + 1) as f64 / last);
        }
        self.finish(n, output, obs, matrix)
    }

    /// Writes what else belongs into a file.
    fn finish(
        &self,
        n: usize,
        mut output: Output,
        obs: TableWriter,
        matrix: MatrixWriter,
    ) -> Result<Whole, PrepareError> {
        let mut root = GroupParts::encoded("anndata", "0.1.0");
        let expected = self.shard(n);
        if matrix.num_rows() != expected.end - expected.start {
            let what = format!("{} of {expected:?} rows were converted", matrix.num_rows());
            return Err(PrepareError::Convert(what));
        }
        root.member("X", matrix.finish(&mut output, self.config.storage)?);
        for name in ["layers"].into_iter().chain(OTHERS) {
            root.member(name, output.group(GroupParts::encoded("dict", "0.1.0"))?);
        }
        root.member("obs", obs.finish(&mut output)?);
        let joined = JoinedTable::new(self.files, Part::Var);
        let names = self.genes.ids.iter().map(String::as_str);
        let mut var = TableWriter::new(&mut output, joined.index_name(), names, self.compressed())?;
        for name in joined.column_names() {
            let column = joined.column(&name)?;
            var.push(
                &mut output,
                &name,
                &column.take(self.genes.rows.iter().copied()),
            )?;
        }
        root.member("var", var.finish(&mut output)?);
        Ok((n, output, root))
    }
}

/// The names of what is not carried over.
pub(super) fn left_out(
    config: &ConvertConfig,
    files: &[H5ad],
) -> Result<Vec<String>, PrepareError> {
    let chosen = config.open.matrix.to_string();
    let mut names: Vec<String> = Vec::new();
    for file in files {
        let others = file.matrices()?.into_iter().filter(|name| *name != chosen);
        for name in others.chain(file.members(&OTHERS)?) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}
