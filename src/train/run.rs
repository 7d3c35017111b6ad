//! A run from its settings to its end, whatever it learns: the run folder, the loop's numbers, what
//! is resumed, and what is said on the screen. What differs between tasks comes as [`Prepared`].
//!
//! Order of what can fail: settings, run folder, files, vocabulary, labels, model; nothing is
//! written before all of it is settled.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::agreement::{self, Fingerprint};
use super::ahead::{Ahead, Preparation};
use super::checkpoint::{self, TrainerState};
use super::data::Files;
use super::hooks::{self, HookSettings};
use super::reduce::{ReduceConfig, Reducer};
use super::run_folder;
use super::shard::Shards;
use super::signal;
use super::start::{Start, Weights};
use super::task::Task;
use super::threads;
use super::trainer::{Fixed, LoopSettings, Outcome, Trainer};
use crate::config::{Device, Dtype, RunConfig};
use crate::dist::Ranks;
use crate::loader::Loader;
use crate::optim::AdamW;
use crate::parameters::Parameters;
use crate::track::{About, Plan};

/// What a task brings to a run.
pub struct Prepared {
    /// The settings, with the batch that fits into memory and the precision that was measured.
    pub config: RunConfig,
    /// Vocabulary and tokens.
    pub start: Start,
    /// The weights to begin with.
    pub weights: Weights,
    /// The training cells, collated for the task.
    pub loader: Loader,
    /// Loss and measure.
    pub task: Box<dyn Task>,
    /// `config.json` of the checkpoints.
    pub model_json: Value,
    /// The subcommand.
    pub command: &'static str,
}

/// What is asked of a run besides its settings.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The processes of the run.
    pub ranks: &'a Arc<Ranks>,
    /// The checkpoint folder to continue from.
    pub resume: Option<&'a Path>,
    /// Whether a run that stands in the folder is deleted, once everything else is settled.
    pub overwrite: bool,
}

impl<'a> Asked<'a> {
    /// Where this process computes: of several ranks each on the GPU that it sums on, if any.
    pub(super) fn device(&self, config: &RunConfig) -> Device {
        match self.ranks.gpu() {
            Some(gpu) => Device::Cuda(gpu),
            None if self.ranks.world() > 1 => Device::Cpu,
            None => config.device,
        }
    }

    /// A new run.
    pub fn anew(ranks: &'a Arc<Ranks>) -> Self {
        let (resume, overwrite) = (None, false);
        Self {
            ranks,
            resume,
            overwrite,
        }
    }
}

/// Opens the files, lets the task `prepare` itself, and trains. The settings have been validated.
///
/// # Errors
/// A run folder in use, unreadable files, what `prepare` refuses, a checkpoint that does not fit.
/// Nothing is left half-written.
pub fn run(
    config: &RunConfig,
    asked: Asked<'_>,
    prepare: impl FnOnce(&RunConfig, &Files) -> Result<Prepared>,
) -> Result<Outcome> {
    let output_dir = config.output_dir.clone().context(
        "no run folder was given\nhint: --output_dir FOLDER says where checkpoints and metrics go",
    )?;
    let ranks = asked.ranks;
    if ranks.is_first() {
        let own = asked
            .resume
            .is_some_and(|it| run_folder::holds(&output_dir, it));
        run_folder::check(&output_dir, own || asked.overwrite)?;
    }
    if let Some(threads) = config.threads.or(threads::of_rank(ranks)) {
        // Fails only if the pool exists already, as in a second run of one process: then it stays.
        let _ = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global();
    }
    let config = &RunConfig {
        dtype: Some(config.precision().into()),
        ..config.clone()
    };
    let wait = Duration::from_secs_f64(config.report_wait);
    let trackers = Plan::new(&config.report_to, wait)?;
    let files = Files::open(config)?;
    let prepared = prepare(config, &files)?;
    let command = prepared.command;
    let mut trainer = assemble(asked, output_dir, prepared, trackers)?;
    signal::install(signal::OF_A_RUN);
    let outcome = trainer.train()?;
    if trainer.ranks.is_first() {
        println!("{}", closing(&outcome, &trainer, command));
    }
    Ok(outcome)
}

/// The optimizer of a run, before its first step.
fn optimizer_of(
    config: &RunConfig,
    parameters: &Parameters,
    shards: Option<&Shards>,
    ranks: &Ranks,
) -> Result<AdamW> {
    let settings = config.adamw_config();
    let optimizer = match shards {
        None => AdamW::new(parameters, settings)?,
        Some(shards) => AdamW::of_rank(parameters, settings, shards.division(), ranks.rank())?,
    };
    match config.dtype {
        Some(Dtype::F16) => Ok(optimizer.scaling_loss()?),
        _ => Ok(optimizer),
    }
}

fn assemble(
    asked: Asked<'_>,
    output_dir: PathBuf,
    prepared: Prepared,
    trackers: Plan,
) -> Result<Trainer> {
    let Prepared {
        config,
        start,
        weights,
        mut loader,
        task,
        model_json,
        command,
    } = prepared;
    let ranks = Arc::clone(asked.ranks);
    let reduce = reduce_config(&config);
    let shards = config.shard_optimizer;
    let shards = shards.then(|| Shards::new(&ranks, &weights.parameters, reduce.bucket_bytes));
    let shards = shards.flatten();
    let mut optimizer = optimizer_of(&config, &weights.parameters, shards.as_ref(), &ranks)?;
    let mut state = TrainerState::new(loader.state(), ranks.world() as u64);
    if let Some(checkpoint) = asked.resume {
        state = checkpoint::load_state(checkpoint)?;
        loader.resume(&state.loader).with_context(|| {
            format!(
                "{}: this checkpoint is of other data or settings",
                checkpoint.display()
            )
        })?;
        optimizer.load(&checkpoint.join("optimizer.safetensors"))?;
        println!(
            "Resuming from {} at step {}",
            checkpoint.display(),
            state.step
        );
    }
    let accumulation = accumulation(&config, state.num_processes, ranks.world() as u64)?;
    let settings = loop_settings(&config, &loader, accumulation)?;
    let own = Fingerprint::new(
        &config,
        &start.vocabulary,
        &weights.parameters,
        state.step,
        state.loader.clone(),
    )?;
    agreement::check(&ranks, &own)?;
    let run_toml = config.to_toml()?;
    println!("{}", describe_model(&start, &weights, &settings));
    println!("{}", weights.place);
    println!(
        "Settings (also in {}):\n{run_toml}",
        output_dir.join("run.toml").display()
    );
    let mut hooks = Vec::new();
    if ranks.is_first() {
        if asked.overwrite {
            run_folder::clear(&output_dir)?;
        }
        run_folder::create(&output_dir, &run_toml)?;
        hooks = hooks::standard(&HookSettings {
            logging_steps: config.logging_steps,
            save_steps: config.save_steps.unwrap_or(settings.steps_per_epoch),
            save_total_limit: config.save_total_limit,
            metric: config.metric_for_best_model.clone(),
            patience: config.early_stopping_patience,
            trackers,
            about: about(&config, command, &output_dir, &model_json)?,
        });
    }
    let reducer = Reducer::new(Arc::clone(&ranks), reduce);
    let how = Preparation {
        device: weights.parameters.device(),
        pad: start.model_config.pad_token_id as u32,
        tokens_per_batch: config.tokens_per_batch,
    };
    let fixed = Fixed {
        output_dir,
        model_json,
        vocabulary: start.vocabulary,
        tokenize: start.tokenize,
        run_toml,
    };
    Ok(Trainer {
        fixed,
        settings,
        parameters: weights.parameters,
        task,
        optimizer,
        ahead: Ahead::new(loader, how)?,
        hooks,
        saved_step: asked.resume.map(|_| state.step),
        state,
        ranks,
        reducer,
        shards,
        interrupted: false,
        last_norm: 0.0,
        unsettled: Vec::new(),
    })
}

fn reduce_config(config: &RunConfig) -> ReduceConfig {
    ReduceConfig {
        bucket_bytes: config.reduce_bucket_mib << 20,
        wire: config.reduce_dtype,
    }
}

/// Batches per step and rank, so that a run that is resumed on another number of ranks takes the
/// same batches to a step as on those it began with.
fn accumulation(config: &RunConfig, began_with: u64, world: u64) -> Result<usize> {
    let per_step = config.gradient_accumulation_steps.max(1) as u64 * began_with;
    if !per_step.is_multiple_of(world) {
        bail!(
            "a step of this run has {per_step} batches ({began_with} processes × {} accumulated), \
             which {world} processes cannot share\nhint: resume it with a number of processes that \
             divides {per_step}",
            config.gradient_accumulation_steps.max(1)
        );
    }
    Ok((per_step / world) as usize)
}

fn loop_settings(config: &RunConfig, loader: &Loader, accumulation: usize) -> Result<LoopSettings> {
    let steps_per_epoch = loader.batches_per_epoch().div_ceil(accumulation as u64);
    if steps_per_epoch == 0 {
        bail!(
            "there is no cell to train on\nhint: look at the files with `gene-bert info`; a \
             --split_file may leave none, or --remainder drop none that fill a batch"
        );
    }
    let total_steps = config.total_steps(steps_per_epoch);
    Ok(LoopSettings {
        seed: config.seed,
        total_steps,
        steps_per_epoch,
        accumulation,
        schedule: config.schedule_config(total_steps),
        max_grad_norm: config.max_grad_norm,
        eval_steps: config.eval_steps.unwrap_or(steps_per_epoch),
        settle_steps: [
            config.logging_steps.max(1),
            config.save_steps.unwrap_or(steps_per_epoch).max(1),
        ],
    })
}

/// What trackers are told of the run: its settings, and its model under `model`.
fn about(config: &RunConfig, command: &str, folder: &Path, model: &Value) -> Result<About> {
    let mut config = serde_json::to_value(config)?;
    config["model"] = model.clone();
    config["gene_bert_version"] = env!("CARGO_PKG_VERSION").into();
    let name = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = name.file_name().unwrap_or(name.as_os_str());
    Ok(About {
        name: name.to_string_lossy().into_owned(),
        command: command.to_owned(),
        config,
    })
}

fn describe_model(start: &Start, weights: &Weights, settings: &LoopSettings) -> String {
    let c = &start.model_config;
    format!(
        "Model: {} blocks, hidden size {}, {} heads, {:.2} M parameters ({})\n\
         Steps: {} ({} per epoch), {} of them warm-up",
        c.num_hidden_layers,
        c.hidden_size,
        c.num_attention_heads,
        weights.parameters.num_weights() as f64 / 1e6,
        weights.origin,
        settings.total_steps,
        settings.steps_per_epoch,
        settings.schedule.warmup_steps,
    )
}

/// What stands at the end of a run's output.
fn closing(outcome: &Outcome, trainer: &Trainer, command: &str) -> String {
    let mut text = String::new();
    if let Some(evaluation) = &outcome.evaluation {
        text += &format!(
            "\nHeld-out cells: {}\n{}",
            evaluation.num_cells,
            evaluation.table()
        );
    }
    let state = &trainer.state;
    text += &format!(
        "\nTrained on {} cells, {} tokens",
        state.num_cells, state.num_tokens
    );
    if state.skipped_steps > 0 {
        text += &format!(
            "; {} steps were left out, as loss or gradient was not finite",
            state.skipped_steps
        );
    }
    let step = outcome.step;
    if let Some(reason) = &outcome.stopped {
        text += &format!("\nStopped at step {step}: {reason}");
    }
    text += &format!("\nSaved: {}", outcome.checkpoint.display());
    if outcome.interrupted {
        let folder = trainer.fixed.output_dir.display();
        text += &format!("\nContinue with: gene-bert {command} --resume {folder}");
    }
    text
}
