//! `gene-bert bench train`: how fast a model trains here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use serde_json::json;

use super::data::{masking, open};
use super::mebibytes;
use crate::cell::PackedBatch;
use crate::cli::device::open_device;
use crate::cli::shown;
use crate::config::{RunConfig, RunFlags};
use crate::file::{StagedDir, write_atomic};
use crate::kernels::parallel::compute_with;
use crate::kernels::peak;
use crate::loader::{DataSet, Loader, Selection};
use crate::model::{GeneBertConfig, GeneBertForMaskedLM, Parameters};
use crate::train::throughput::{MadeUp, TrainThroughput, measure};

/// Batches that the steps go round.
const BATCHES: u64 = 4;

/// Flags of `bench train`: those of a run count, as far as they concern model and tokens.
#[derive(Debug, clap::Args)]
#[command(
    mut_args(shown::for_steps),
    after_help = "Every setting of mlm is accepted: those that are not listed change nothing."
)]
pub(super) struct TrainArgs {
    /// h5ad files whose cells to train on; brace patterns and globs are understood [default:
    /// made-up cells]
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    /// Cells of a batch
    #[arg(long, value_name = "CELLS", default_value_t = 8)]
    batch: usize,
    /// Tokens of a made-up cell
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    length: usize,
    /// Made-up cells of different lengths: log-normal, half of them below length / 2
    #[arg(long)]
    ragged: bool,
    /// Steps that are timed, after two that are not
    #[arg(long, value_name = "STEPS", default_value_t = 10)]
    steps: usize,
    /// Shape of the model, in place of a config: blocks,width,heads,inner width
    #[arg(long, value_name = "L,D,H,F")]
    shape: Option<String>,
    /// Tokens of the vocabulary of made-up cells
    #[arg(long, value_name = "TOKENS", default_value_t = 1000)]
    vocab_size: usize,
    /// Token types of made-up cells (genes, about)
    #[arg(long, value_name = "TYPES", default_value_t = 60_000)]
    type_vocab_size: usize,
    /// Time every operation, and show a table of them
    #[arg(long)]
    profile: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Write the weights before the first step, the model's config and the batches into this
    /// folder, for another program to train on
    #[arg(long, value_name = "FOLDER")]
    export: Option<PathBuf>,
    #[command(flatten)]
    run: RunFlags,
}

/// Measures and prints.
///
/// # Errors
/// Files that cannot be read or made into tokens, and settings that cannot work.
pub(super) fn run(args: &TrainArgs) -> anyhow::Result<()> {
    args.run.refuse_actions()?;
    let config = args.run.resolve()?;
    compute_with(config.threads);
    let (model, batches) = workload(args, &config)?;
    let parameters = GeneBertForMaskedLM::init_parameters(&model, config.seed)?;
    if let Some(folder) = &args.export {
        export(folder, &model, &parameters, &batches)?;
    }
    let device = open_device(config.device, config.tf32)?;
    let peak = peak::products_per_second_on(&device, model.precision)?;
    let parameters = parameters.to_device(&device)?;
    let found = measure(&model, &parameters, &batches, args.steps, args.profile)?;
    if args.json {
        println!("{}", as_json(&found, peak));
    } else {
        print(&found, peak);
    }
    Ok(())
}

/// The model's shape, sized for its vocabulary, and the batches.
fn workload(
    args: &TrainArgs,
    config: &RunConfig,
) -> anyhow::Result<(GeneBertConfig, Vec<PackedBatch>)> {
    if args.batch == 0 || args.length == 0 || args.steps == 0 {
        bail!("--batch, --length and --steps must be at least 1");
    }
    let model = match &args.shape {
        Some(shape) => shaped(shape)?,
        None => config.model_config()?,
    };
    let model = config.as_computed(model);
    if args.files.is_empty() {
        let model = model.with_vocabulary(args.vocab_size, args.type_vocab_size);
        model.validate()?;
        let cells = MadeUp {
            cells: args.batch,
            length: args.length,
            ragged: args.ragged,
            seed: config.seed,
        };
        let batches = (0..BATCHES)
            .map(|index| cells.batch(&model, index))
            .collect();
        return Ok((model, batches));
    }
    let (sources, vocabulary) = open(&args.files, 1, config, config.bins()?)?;
    let collator = masking(&sources, &vocabulary, config)?;
    let run = RunConfig {
        per_device_train_batch_size: args.batch,
        ..config.clone()
    };
    let data = Arc::new(DataSet::new(sources));
    let (sampler, _) = run.sampler(Selection::All, &data)?;
    let mut loader = Loader::new(data, sampler, collator, run.loader_config())?;
    let mut batches = Vec::new();
    while batches.len() < BATCHES as usize {
        match loader.next_batch()? {
            Some(batch) => batches.push(batch),
            None => break,
        }
    }
    if batches.is_empty() {
        bail!("there are no cells to train on");
    }
    let model = model.with_vocabulary(vocabulary.vocab_size(), vocabulary.type_vocab_size());
    model.validate()?;
    Ok((model, batches))
}

fn shaped(shape: &str) -> anyhow::Result<GeneBertConfig> {
    let numbers: Result<Vec<usize>, _> = shape.split(',').map(|n| n.trim().parse()).collect();
    let Ok([blocks, width, heads, inner]) = numbers.as_deref() else {
        bail!("--shape {shape}: expected blocks,width,heads,inner width\nhint: 6,768,12,3072");
    };
    Ok(GeneBertConfig {
        num_hidden_layers: *blocks,
        hidden_size: *width,
        num_attention_heads: *heads,
        intermediate_size: *inner,
        ..GeneBertConfig::default()
    })
}

fn export(
    folder: &Path,
    model: &GeneBertConfig,
    parameters: &Parameters,
    batches: &[PackedBatch],
) -> anyhow::Result<()> {
    let staged = StagedDir::new(folder)?;
    let folder = staged.path();
    parameters.save(&folder.join("model.safetensors"))?;
    let config = serde_json::to_vec_pretty(model)?;
    write_atomic(&folder.join("config.json"), &config)?;
    let batches: Vec<_> = batches
        .iter()
        .map(|batch| {
            let labels: Vec<_> = batch.labels.iter().map(|l| (l.position, l.token)).collect();
            json!({
                "input_ids": batch.input_ids,
                "token_type_ids": batch.token_type_ids,
                "cu_seqlens": batch.cu_seqlens,
                "labels": labels,
            })
        })
        .collect();
    write_atomic(&folder.join("batches.json"), &serde_json::to_vec(&batches)?)?;
    staged.commit()?;
    Ok(())
}

fn as_json(found: &TrainThroughput, peak: f64) -> serde_json::Value {
    let median = found.median();
    let operations = found.operations.iter().map(|operation| {
        json!({
            "name": operation.name,
            "calls": operation.calls,
            "seconds": operation.time.as_secs_f64(),
            "flops": operation.flops,
        })
    });
    let operations: Vec<_> = operations.collect();
    json!({
        "threads": found.num_threads,
        "dtype": found.precision,
        "weights": found.num_weights,
        "tokens_per_second": found.tokens / median,
        "padded_tokens_per_second": found.padded_tokens / median,
        "cells_per_second": found.cells / median,
        "step_seconds": found.seconds,
        "processor_seconds": found.processor_seconds,
        "flops_per_second": found.flops_per_second(),
        "peak_flops_per_second": peak,
        "peak_bytes": found.peak_bytes,
        "expected_bytes": found.expected_bytes,
        "losses": found.losses,
        "operations": operations,
    })
}

fn print(found: &TrainThroughput, peak: f64) {
    let (median, rate) = (found.median(), found.flops_per_second());
    let share = 100.0 * rate / peak;
    let million = found.num_weights as f64 / 1e6;
    println!(
        "{million:.1} million weights, {} threads, products in {}",
        found.num_threads, found.precision
    );
    println!(
        "step         {:.1} ms, median of {}",
        1e3 * median,
        found.seconds.len()
    );
    if let Some(seconds) = found.processor_seconds {
        let of_peak = found.flops / seconds * found.num_threads as f64 / peak;
        println!(
            "processor    {:.1} ms a step; at that rate {:.0} % of the peak",
            1e3 * seconds,
            100.0 * of_peak
        );
    }
    println!(
        "tokens/s     {:.0} real, {:.0} with padding",
        found.tokens / median,
        found.padded_tokens / median
    );
    println!("cells/s      {:.1}", found.cells / median);
    println!(
        "products     {:.1} GFLOP/s, {share:.0} % of this machine's peak of {:.0}",
        rate / 1e9,
        peak / 1e9
    );
    println!(
        "peak memory  {}, expected {}",
        mebibytes(found.peak_bytes),
        mebibytes(Some(found.expected_bytes))
    );
    print_operations(found);
}

fn print_operations(found: &TrainThroughput) {
    if found.operations.is_empty() {
        return;
    }
    let steps = found.seconds.len() as f64;
    let total: f64 = found.seconds.iter().sum();
    println!("\noperation               calls/step   ms/step   share   GFLOP/s");
    let row = |name: &str, calls: f64, seconds: f64, flops: u64| {
        let rate = match flops {
            0 => String::new(),
            _ => format!("{:.0}", flops as f64 / seconds / 1e9),
        };
        let (time, share) = (1e3 * seconds / steps, 100.0 * seconds / total);
        println!("{name:<23} {calls:>10.0} {time:>9.2} {share:>5.1} % {rate:>9}");
    };
    let mut rest = total;
    for operation in &found.operations {
        let (calls, seconds) = (operation.calls as f64 / steps, operation.time.as_secs_f64());
        row(operation.name, calls, seconds, operation.flops);
        rest -= seconds;
    }
    row("everything else", 1.0, rest, 0);
}
