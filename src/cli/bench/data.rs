//! `gene-bert bench data`: how fast cells are read, mixed and made into tokens.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use super::mebibytes;
use crate::cell::CellSource;
use crate::cli::shown;
use crate::config::{RunConfig, RunFlags};
use crate::file::{expand_paths, read_string};
use crate::kernels::memory::keep_freed_memory;
use crate::loader::throughput::{Measured, Measurement, Sums, Throughput};
use crate::loader::{
    CellColumn, CellFile, Collator, DataSet, MlmCollator, PlainCollator, Selection,
};
use crate::prepare::convert::MemorySize;
use crate::tokenize::{Bins, BoundSource, Tokenizer};
use crate::vocab::{GeneVocab, PhenotypeVocab, Repeats, Vocabulary, canonical_gene_id};

/// Cells on which genes are counted where absent ones are drawn by frequency.
const WEIGHT_CELLS: u64 = 1000;

/// Flags of `bench data`: those of a run count, as far as they concern reading and tokens.
#[derive(Debug, clap::Args)]
#[command(
    mut_args(shown::for_reading),
    after_help = "Every setting of mlm is accepted: those that are not listed change nothing."
)]
pub(super) struct DataArgs {
    /// The h5ad files or SCDL archives; brace patterns and globs are understood
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Batches of rows of numbers rather than of tokens; no bins are needed
    #[arg(long, conflicts_with = "masks")]
    rows: bool,
    /// Cells of a batch: one number or several, such as 64,1024
    /// [default: per_device_train_batch_size]
    #[arg(long, value_name = "CELLS", value_delimiter = ',',
          value_parser = clap::value_parser!(u64).range(1..))]
    batch: Vec<u64>,
    /// Numbers of reader threads [default: 1, and that of --threads]
    #[arg(long, value_name = "THREADS", value_delimiter = ',',
          value_parser = clap::value_parser!(u64).range(1..))]
    readers: Vec<u64>,
    /// The obs column whose entropy within batches is shown, beside that of random batches
    #[arg(long, value_name = "COLUMN")]
    entropy: Option<String>,
    /// Passes over the files; the fastest is shown
    #[arg(long, value_name = "PASSES", default_value_t = 3,
          value_parser = clap::value_parser!(u64).range(1..))]
    passes: u64,
    /// Read the files as if there were so many copies of each: for a longer measurement
    #[arg(long, value_name = "COPIES", default_value_t = 1)]
    copies: usize,
    /// Only the cells whose numbers over all files, from 0, are the lines of this file
    #[arg(long, value_name = "FILE")]
    cells: Option<PathBuf>,
    /// Memory for what is read ahead, such as 300MB or 1GiB
    #[arg(long, value_name = "BYTES", default_value = "1GiB")]
    read_ahead: MemorySize,
    /// Also add up what came, to compare with other readers: numbers of cells, of genes, values
    #[arg(long, requires = "rows")]
    check: bool,
    /// Mask the cells too, as mlm does
    #[arg(long)]
    masks: bool,
    /// Print JSON rather than a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunFlags,
}

pub(super) type Sources = Vec<(Arc<dyn CellSource>, Arc<BoundSource>)>;

/// Measures and prints a table, or JSON.
///
/// # Errors
/// Files that cannot be read or made into tokens, and settings that cannot work.
pub(super) fn run(args: &DataArgs) -> anyhow::Result<()> {
    // As training does, which reads while it computes.
    keep_freed_memory();
    args.run.refuse_actions()?;
    let config = args.run.resolve()?;
    let bins = if args.rows {
        Bins::Shared(vec![0.5])
    } else {
        config.bins()?
    };
    let (sources, vocabulary) = open(&args.files, args.copies, &config, bins)?;
    let measured = match (args.rows, args.masks) {
        (true, _) => Measured::Rows,
        (false, true) => Measured::Tokens(masking(&sources, &vocabulary, &config)?),
        (false, false) => Measured::Tokens(Arc::new(PlainCollator)),
    };
    let readers = sources.iter().map(|(source, _)| source.as_ref());
    let column = args.entropy.as_ref();
    let column = column
        .map(|column| CellColumn::read(readers, column))
        .transpose()?;
    let num_cells = sources.iter().map(|(source, _)| source.num_cells()).sum();
    let cells = match &args.cells {
        Some(path) => listed(path, num_cells)?,
        None => Selection::All,
    };
    let mut shown = Vec::new();
    if !args.json {
        println!("{HEAD}");
    }
    for batch in args.batches(&config) {
        let mut config = config.clone();
        config.per_device_train_batch_size = batch;
        let (sampler, _) = config.sampler(cells.clone(), &DataSet::new(sources.clone()))?;
        let measurement = Measurement {
            sources: &sources,
            sampler: &sampler,
            measured: measured.clone(),
            column: column.as_ref(),
            num_passes: args.passes,
            sums: args.check,
            read_ahead_bytes: usize::try_from(args.read_ahead.0)?,
        };
        for threads in args.threads(&config) {
            let Some(pass) = measurement.run(threads)? else {
                continue;
            };
            match args.json {
                true => shown.push(as_json(batch, &pass)),
                false => print_row(batch, &pass),
            }
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&shown)?);
    }
    Ok(())
}

impl DataArgs {
    fn batches(&self, config: &RunConfig) -> Vec<usize> {
        match self.batch.as_slice() {
            [] => vec![config.per_device_train_batch_size],
            given => given.iter().map(|batch| *batch as usize).collect(),
        }
    }

    fn threads(&self, config: &RunConfig) -> Vec<usize> {
        if !self.readers.is_empty() {
            return self.readers.iter().map(|n| *n as usize).collect();
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut threads = vec![1, config.threads.unwrap_or(cores)];
        threads.dedup();
        threads
    }
}

const HEAD: &str = "threads  batch      cells  seconds    cells/s     tokens/s  non-zeros/s  \
                    peak memory  batch entropy";

fn print_row(batch: usize, pass: &Throughput) {
    let peak = mebibytes(pass.peak_bytes);
    let mixing = pass.mixing.map_or_else(String::new, |mixing| {
        let share = 100.0 * mixing.entropy / mixing.most;
        format!(
            "{:.3} of {:.3} bits ({share:.1} %)",
            mixing.entropy, mixing.most
        )
    });
    let sums = pass.sums.map_or_else(String::new, |sums| {
        let Sums {
            cells,
            genes,
            values,
        } = sums;
        format!("  sums: cells {cells}, genes {genes}, values {values}")
    });
    println!(
        "{:>7} {batch:>6} {:>10} {:>8.3} {:>10.0} {:>12.0} {:>12.0} {peak:>12}  {mixing}{sums}",
        pass.num_threads,
        pass.cells,
        pass.time.as_secs_f64(),
        pass.per_second(pass.cells),
        pass.per_second(pass.tokens),
        pass.per_second(pass.non_zeros),
    );
}

fn as_json(batch: usize, pass: &Throughput) -> serde_json::Value {
    serde_json::json!({
        "threads": pass.num_threads,
        "batch_cells": batch,
        "cells": pass.cells,
        "tokens": pass.tokens,
        "non_zeros": pass.non_zeros,
        "seconds": pass.time.as_secs_f64(),
        "cells_per_second": pass.per_second(pass.cells),
        "tokens_per_second": pass.per_second(pass.tokens),
        "non_zeros_per_second": pass.per_second(pass.non_zeros),
        "peak_bytes": pass.peak_bytes,
        "batch_entropy_bits": pass.mixing.map(|mixing| mixing.entropy),
        "random_batch_entropy_bits": pass.mixing.map(|mixing| mixing.most),
        "sum_of_cells": pass.sums.map(|sums| sums.cells),
        "sum_of_genes": pass.sums.map(|sums| sums.genes),
        "sum_of_values": pass.sums.map(|sums| sums.values),
    })
}

/// The cells that a file lists, a number in each line.
fn listed(path: &Path, num_cells: u64) -> anyhow::Result<Selection> {
    let text = read_string(path)?;
    let mut cells = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let cell = line.trim().parse().ok().filter(|cell| *cell < num_cells);
        cells.push(cell.with_context(|| {
            format!(
                "{}, line {}: expected a number from 0 below {num_cells}, found {line:?}\n\
                 hint: cells are numbered over all files, in the order given",
                path.display(),
                at + 1
            )
        })?);
    }
    cells.sort_unstable();
    cells.dedup();
    Ok(Selection::Rows(cells.into()))
}

/// Masks as training does.
pub(super) fn masking(
    sources: &Sources,
    vocabulary: &Arc<Vocabulary>,
    config: &RunConfig,
) -> anyhow::Result<Arc<dyn Collator>> {
    let (masks, num_genes) = (config.mlm_config(), vocabulary.genes().len());
    let data = DataSet::new(sources.clone());
    let weights = data.expressed_counts(&Selection::All, WEIGHT_CELLS, num_genes)?;
    let weights = Some(weights.as_slice());
    let collator = MlmCollator::training(vocabulary, &masks, config.seed, weights)?;
    Ok(Arc::new(collator))
}

/// Opens files, each `copies` times, with a vocabulary of all that is in them.
pub(super) fn open(
    files: &[String],
    copies: usize,
    config: &RunConfig,
    bins: Bins,
) -> anyhow::Result<(Sources, Arc<Vocabulary>)> {
    let paths = expand_paths(files)?;
    let files = CellFile::all(&paths, &config.open_options())?;
    let vocabulary = Arc::new(vocabulary(&files, config, &bins)?);
    let tokenizer = Tokenizer::new(Arc::clone(&vocabulary), config.tokenize_with(bins))?;
    let mut sources: Sources = Vec::new();
    for file in files {
        let bound = Arc::new(tokenizer.bind(file.as_ref())?);
        let source = || Arc::clone(&file) as Arc<dyn CellSource>;
        sources.extend((0..copies).map(|_| (source(), Arc::clone(&bound))));
    }
    Ok((sources, vocabulary))
}

/// Every gene and every value of the files.
fn vocabulary(
    files: &[Arc<CellFile>],
    config: &RunConfig,
    bins: &Bins,
) -> anyhow::Result<Vocabulary> {
    let mut seen = HashSet::new();
    let ids = files.iter().flat_map(|file| file.gene_ids());
    let ids = ids
        .map(|id| canonical_gene_id(id))
        .filter(|id| seen.insert(*id));
    let genes = GeneVocab::new(ids.map(str::to_owned).collect(), None)?;
    let mut phenotypes = PhenotypeVocab::new(BTreeMap::new(), Repeats::Allowed)?;
    for file in files {
        for category in &config.included_phenotypes {
            let labels = file.labels(category).map_err(|e| anyhow::anyhow!(e))?;
            phenotypes = phenotypes.with_values([(category.as_str(), &labels)])?;
        }
    }
    Ok(Vocabulary::new(phenotypes, genes, bins.num_edges()?))
}
