//! Whether a run fits into memory: what it needs is said before it starts, and with
//! `--auto_find_batch_size` the batch is halved until it fits.
//!
//! Needs = the model's ([`GeneBertConfig::training_bytes`]) for a batch of the cells there are,
//! plus the cells read ahead, plus the program; on a GPU, the model's and the program's. Lengths are those of a few hundred training cells
//! spread over the files. A resumed run keeps its batch size: it would not be the same run.

use anyhow::{Result, bail};

use super::available_memory::available_memory;
use super::data::Data;
use super::run::Asked;
use crate::config::RunConfig;
use crate::dist::Ranks;
use crate::kernels::device::free_bytes;
use crate::model::{BatchSize, GeneBertConfig, Parameters, TrainingBytes};

/// Code, stacks of threads, gene names.
const PROGRAM_BYTES: u64 = 50 << 20;
/// What cuBLAS and loaded kernels take of a GPU, about.
const GPU_PROGRAM_BYTES: u64 = 400 << 20;
/// Cells whose lengths are looked at.
const SAMPLED_CELLS: u64 = 256;
/// Share of what is available that a run is planned to take at most.
const USABLE: f64 = 0.9;
/// Cells that a reader thread handles at a time, at most, and what it holds of each token.
const READER_CELLS: u64 = 1024;
const READER_TOKEN_BYTES: f64 = 16.0;
/// What a cell that is read ahead takes: of each token, and besides.
const TOKEN_BYTES: f64 = 8.0;
const CELL_BYTES: f64 = 160.0;

/// How many positions a task labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct LabelRate {
    /// Of each token.
    pub per_token: f64,
    /// Of each cell, besides.
    pub per_cell: f64,
}

/// The run, as far as memory is concerned.
pub(super) struct Footprint<'a> {
    /// The model's shape.
    pub model: &'a GeneBertConfig,
    /// Its weights, where it will train.
    pub parameters: &'a Parameters,
    /// What is labelled.
    pub labels: LabelRate,
    /// Whether the last block is computed for the first token of each cell alone.
    pub first_tokens: bool,
}

/// Lengths of cells, in tokens.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    mean: f64,
    deviation: f64,
    longest: f64,
}

impl Lengths {
    fn of(lengths: &[usize]) -> Self {
        let count = (lengths.len() as f64).max(1.0);
        let mean = lengths.iter().sum::<usize>() as f64 / count;
        let square = |&length: &usize| (length as f64 - mean).powi(2);
        let longest = lengths.iter().copied().max().unwrap_or(0) as f64;
        Self {
            mean,
            deviation: (lengths.iter().map(square).sum::<f64>() / count).sqrt(),
            longest,
        }
    }

    /// Tokens that hardly any batch of so many cells exceeds.
    fn of_batch(&self, cells: usize) -> f64 {
        let cells = cells as f64;
        (self.mean * cells + 3.0 * self.deviation * cells.sqrt()).min(self.longest * cells)
    }
}

/// What a run needs, in bytes.
#[derive(Debug, Clone, Copy)]
struct Needs {
    on_gpu: bool,
    model: TrainingBytes,
    data: u64,
}

impl Needs {
    fn total(&self) -> u64 {
        match self.on_gpu {
            false => PROGRAM_BYTES + self.data + self.model.peak(),
            true => GPU_PROGRAM_BYTES + self.model.peak(),
        }
    }

    fn describe(&self, batch_cells: usize) -> String {
        let data = amount(self.data);
        let (place, ahead) = match self.on_gpu {
            false => ("", format!(", cells read ahead {data}")),
            true => (" of the GPU's", String::new()),
        };
        format!(
            "Memory: needs about {}{place} (weights and AdamW {}, a step of {batch_cells} cells \
             {}{ahead})",
            amount(self.total()),
            amount(self.model.weights),
            amount(self.model.step),
        )
    }
}

/// The settings with a batch that fits, as far as is asked for and known; says what is needed.
///
/// # Errors
/// Cells that cannot be read; with `auto_find_batch_size`, a run of which not even single cells
/// fit.
pub(super) fn settle(
    config: &RunConfig,
    asked: Asked<'_>,
    data: &Data,
    footprint: &Footprint<'_>,
) -> Result<RunConfig> {
    let lengths = Lengths::of(&data.lengths(config, SAMPLED_CELLS)?);
    let num_cells = data.train_cells.len(data.train.len());
    let most = usize::try_from(num_cells.max(1)).unwrap_or(usize::MAX);
    let needs = |batch: usize| footprint.needs(config, asked, data, lengths, batch.min(most));
    let batch_asked = config.per_device_train_batch_size;
    // Those that compute, and the readers of training and of evaluation cells.
    let threads = rayon::current_num_threads() + 2 * config.dataloader_num_workers + 1;
    let sharing = asked.ranks.on_this_machine() as u64;
    // The weights are there already.
    let of_gpu = free_bytes(&footprint.parameters.device());
    let of_gpu = of_gpu.map(|free| free + 4 * footprint.parameters.num_weights() as u64);
    let available = of_gpu.or_else(|| available_memory(threads).map(|bytes| bytes / sharing));
    let usable = available.map(|bytes| (bytes as f64 * USABLE) as u64);
    let halves = config.auto_find_batch_size && asked.resume.is_none();
    let batch = match usable.filter(|_| halves) {
        Some(usable) => fitting(batch_asked, |batch| needs(batch).total() <= usable),
        None => Some(batch_asked),
    };
    let Some(batch) = batch else {
        bail!(
            "not even batches of one cell fit: they need about {}, and {} are available\n\
             hint: take a smaller model or --max_length, or more memory",
            amount(needs(1).total()),
            amount(available.unwrap_or(0)),
        );
    };
    let batch = if halves {
        least(asked.ranks, batch)?
    } else {
        batch
    };
    let needed = needs(batch);
    println!("{}", needed.describe(batch.min(most)));
    if batch != batch_asked {
        eprintln!(
            "note: auto_find_batch_size: per_device_train_batch_size is halved from {batch_asked} to \
             {batch}: {batch_asked} cells need about {}, and {} are available",
            amount(needs(batch_asked).total()),
            amount(available.unwrap_or(0)),
        );
    }
    match (available, usable) {
        (None, _) if halves => eprintln!(
            "note: auto_find_batch_size: this system does not tell how much memory there is; the \
             batch stays at {batch_asked} cells"
        ),
        (Some(available), Some(usable)) if needed.total() > usable => eprintln!(
            "note: {} of memory are available, which may not be enough; --auto_find_batch_size \
             halves the batch of a new run until it fits",
            amount(available)
        ),
        _ => {}
    }
    Ok(RunConfig {
        per_device_train_batch_size: batch,
        ..config.clone()
    })
}

impl Footprint<'_> {
    fn needs(
        &self,
        config: &RunConfig,
        asked: Asked<'_>,
        data: &Data,
        lengths: Lengths,
        batch: usize,
    ) -> Needs {
        let size = |cells: usize| {
            let tokens = lengths.of_batch(cells);
            let labels = tokens * self.labels.per_token + cells as f64 * self.labels.per_cell;
            BatchSize {
                tokens: tokens as u64,
                labels: labels as u64,
                accumulates: config.gradient_accumulation_steps > 1,
                first_tokens: self.first_tokens,
            }
        };
        let train = |cells: usize| {
            let whole = size(cells);
            // A cell that is longer than a part is one.
            let most = config
                .tokens_per_batch
                .map(|tokens| tokens.max(lengths.longest as usize));
            match most.filter(|&most| (most as u64) < whole.tokens) {
                Some(most) => BatchSize {
                    tokens: most as u64,
                    labels: (whole.labels as f64 * most as f64 / whole.tokens as f64) as u64,
                    accumulates: true,
                    ..whole
                },
                None => whole,
            }
        };
        let eval = data.eval.as_ref().map(|(eval, cells)| {
            let most = usize::try_from(cells.len(eval.len())).unwrap_or(usize::MAX);
            size(config.per_device_eval_batch_size.min(most))
        });
        let num_weights = self.parameters.num_weights() as u64;
        let on_gpu = !self.parameters.device().is_cpu();
        let world = asked.ranks.world() as u64;
        let sharers = if config.shard_optimizer { world } else { 1 };
        let train = train(batch);
        let mut model = match on_gpu {
            false => (self.model).training_bytes(num_weights, sharers, train, eval),
            true => (self.model).training_bytes_on_gpu(num_weights, sharers, train, eval),
        };
        if on_gpu && world > 1 {
            // Gradients on their way.
            model.step += size_of::<f32>() as u64 * num_weights;
        }
        Needs {
            on_gpu,
            model,
            data: data_bytes(config, data.train.len(), lengths),
        }
    }
}

/// The fetch in use, those read ahead, and what reader threads are at.
fn data_bytes(config: &RunConfig, num_cells: u64, lengths: Lengths) -> u64 {
    let loader = config.loader_config();
    let cell_bytes = TOKEN_BYTES * lengths.mean + CELL_BYTES;
    let in_use = (config.buffer_cells as u64).min(num_cells) as f64 * cell_bytes;
    let ahead = in_use * loader.read_ahead as f64;
    let ahead = ahead
        .min(num_cells as f64 * cell_bytes - in_use)
        .min(loader.read_ahead_bytes as f64);
    let readers = loader.num_workers.max(1) as u64;
    let at_work = (readers * READER_CELLS).min(num_cells) as f64;
    (in_use + ahead + at_work * lengths.mean * READER_TOKEN_BYTES) as u64
}

/// The smallest of the batches that fit on each rank.
fn least(ranks: &Ranks, batch: usize) -> Result<usize> {
    let all = ranks.group().gather((batch as u64).to_le_bytes().into())?;
    let all = all.into_iter().filter_map(|bytes| bytes.try_into().ok());
    let all = all.map(|bytes| u64::from_le_bytes(bytes) as usize);
    Ok(all.min().unwrap_or(batch))
}

/// `asked`, or the first of its halves that fits; `None` if not even 1 does.
fn fitting(asked: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let halves = std::iter::successors(Some(asked), |&batch| (batch > 1).then_some(batch / 2));
    halves.into_iter().find(|&batch| fits(batch))
}

/// In GB of 10⁹ bytes, or MB.
fn amount(bytes: u64) -> String {
    match bytes as f64 / 1e9 {
        few if few < 0.95 => format!("{:.0} MB", 1e3 * few),
        gigabytes => format!("{gigabytes:.1} GB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_is_halved_until_it_fits() {
        assert_eq!(fitting(48, |_| true), Some(48));
        assert_eq!(fitting(48, |batch| batch <= 20), Some(12));
        assert_eq!(fitting(7, |batch| batch <= 2), Some(1));
        assert_eq!(fitting(7, |_| false), None);
    }

    #[test]
    fn a_batch_is_as_long_as_its_cells_and_no_longer_than_the_longest() {
        let lengths = Lengths::of(&[10, 20, 30]);
        assert_eq!(lengths.of_batch(1), 30.0);
        let many = lengths.of_batch(10_000);
        assert!((200_000.0..203_000.0).contains(&many), "{many}");
        assert_eq!(Lengths::of(&[7, 7]).of_batch(4), 28.0);
        assert_eq!(Lengths::of(&[]).of_batch(4), 0.0);
    }

    #[test]
    fn amounts_are_in_megabytes_or_gigabytes() {
        assert_eq!(amount(70_400_000), "70 MB");
        assert_eq!(amount(3_240_000_000), "3.2 GB");
    }
}
