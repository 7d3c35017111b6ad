//! `mlm`: from a resolved configuration to a trained model. Opens the files, settles vocabulary,
//! genes and held-out cells, builds every component and runs the loop.
//!
//! Order of what can fail: settings, run folder, files, vocabulary, labels, model; nothing is
//! written before all of it is settled.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::baseline::Baselines;
use super::checkpoint::{self, TrainerState};
use super::data::{Data, Files};
use super::evaluate::Evaluator;
use super::hooks::{self, HookSettings};
use super::run_folder;
use super::signal;
use super::start::Start;
use super::trainer::{Fixed, LoopSettings, Outcome, Trainer};
use crate::config::RunConfig;
use crate::loader::{Loader, MlmCollator, Sampler};
use crate::model::{GeneBertForMaskedLM, LossConfig};
use crate::optim::AdamW;

/// Trains as `config` says; with `resume`, continues from that checkpoint folder; with
/// `overwrite`, a run that stands in the folder is deleted once everything else is settled.
///
/// # Errors
/// Settings that cannot work, a run folder in use, unreadable files, unknown phenotypes, a
/// checkpoint that does not fit. Nothing is left half-written.
pub fn pretrain(config: &RunConfig, resume: Option<&Path>, overwrite: bool) -> Result<Outcome> {
    config.validate()?;
    let output_dir = config.output_dir.clone().context(
        "no run folder was given\nhint: --output_dir FOLDER says where checkpoints and metrics go",
    )?;
    run_folder::check(&output_dir, resume.is_some() || overwrite)?;
    if let Some(threads) = config.threads {
        // Fails only if the pool exists already, as in a second run of one process: then it stays.
        let _ = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global();
    }
    let mut trainer = assemble(config, resume, output_dir, overwrite)?;
    signal::install();
    let outcome = trainer.train()?;
    println!("{}", closing(&outcome, &trainer));
    Ok(outcome)
}

fn assemble(
    config: &RunConfig,
    resume: Option<&Path>,
    output_dir: PathBuf,
    overwrite: bool,
) -> Result<Trainer> {
    let files = Files::open(config)?;
    let start = Start::new(config, resume, &files)?;
    let data = Data::bind(config, &files, &start)?;
    println!("{}", data.describe());
    let seed = config.seed;
    let masking = config.mlm_config();
    let weights = data.gene_weights(config, &start)?;
    let sampler = Sampler::new(
        config.sampler_config(),
        data.train_cells.clone(),
        data.train.len(),
    )?;
    let collator = MlmCollator::training(&start.vocabulary, &masking, seed, weights.as_deref())?;
    let mut loader = Loader::new(
        Arc::clone(&data.train),
        sampler.clone(),
        Arc::new(collator),
        config.loader_config(),
    )?;
    let eval_loader = config.eval_loader_config();
    let evaluator = match &data.eval {
        None => None,
        Some((eval, selection)) => Some(Evaluator {
            data: Arc::clone(eval),
            selection: selection.clone(),
            vocabulary: Arc::clone(&start.vocabulary),
            phenotypes: config.included_phenotypes.clone(),
            baselines: Baselines::count(
                &data.train,
                &sampler,
                &start.vocabulary,
                (&masking, weights.as_deref(), seed),
                &eval_loader,
            )?,
            masking,
            gene_weights: weights,
            seed,
            loader: eval_loader,
        }),
    };
    let settings = loop_settings(config, &loader)?;
    let model = GeneBertForMaskedLM::new(&start.model_config, &start.parameters)?;
    let mut optimizer = AdamW::new(&start.parameters, config.adamw_config())?;
    let mut state = TrainerState::new(loader.state());
    if let Some(checkpoint) = resume {
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
    let run_toml = config.to_toml()?;
    println!("{}", describe_model(&start, &settings));
    println!(
        "Settings (also in {}):\n{run_toml}",
        output_dir.join("run.toml").display()
    );
    if overwrite {
        run_folder::clear(&output_dir)?;
    }
    run_folder::create(&output_dir, &run_toml)?;
    let hooks = hooks::standard(&hook_settings(config, &settings));
    let Start {
        vocabulary,
        tokenize,
        model_config,
        parameters,
        ..
    } = start;
    let fixed = Fixed {
        output_dir,
        model_config,
        vocabulary,
        tokenize,
        run_toml,
    };
    Ok(Trainer {
        fixed,
        settings,
        parameters,
        model,
        optimizer,
        loader,
        evaluator,
        hooks,
        state,
    })
}

fn loop_settings(config: &RunConfig, loader: &Loader) -> Result<LoopSettings> {
    let accumulation = config.gradient_accumulation_steps.max(1);
    let steps_per_epoch = loader.batches_per_epoch().div_ceil(accumulation as u64);
    if steps_per_epoch == 0 {
        bail!(
            "there is no cell to train on\nhint: look at the files with `gene-bert info`; an \
             --eval_fraction of 1 or --unknown-phenotype skip may have taken all cells"
        );
    }
    let total_steps = match config.max_steps {
        Some(steps) => steps,
        None => {
            let epochs = config.num_train_epochs.unwrap_or(3.0);
            (epochs * steps_per_epoch as f64).ceil() as u64
        }
    };
    Ok(LoopSettings {
        seed: config.seed,
        total_steps,
        steps_per_epoch,
        accumulation,
        schedule: config.schedule_config(total_steps),
        max_grad_norm: config.max_grad_norm,
        eval_steps: config.eval_steps.unwrap_or(steps_per_epoch),
        loss: LossConfig {
            label_smoothing: config.label_smoothing,
            ..LossConfig::default()
        },
    })
}

fn hook_settings(config: &RunConfig, settings: &LoopSettings) -> HookSettings {
    HookSettings {
        logging_steps: config.logging_steps,
        save_steps: config.save_steps.unwrap_or(settings.steps_per_epoch),
        save_total_limit: config.save_total_limit,
        metric: config.metric_for_best_model.clone(),
        patience: config.early_stopping_patience,
    }
}

fn describe_model(start: &Start, settings: &LoopSettings) -> String {
    let c = &start.model_config;
    format!(
        "Model: {} blocks, hidden size {}, {} heads, {:.2} M parameters ({})\n\
         Steps: {} ({} per epoch), {} of them warm-up",
        c.num_hidden_layers,
        c.hidden_size,
        c.num_attention_heads,
        start.parameters.num_weights() as f64 / 1e6,
        start.origin,
        settings.total_steps,
        settings.steps_per_epoch,
        settings.schedule.warmup_steps,
    )
}

/// What stands at the end of a run's output.
fn closing(outcome: &Outcome, trainer: &Trainer) -> String {
    let mut text = String::new();
    if let Some(evaluation) = &outcome.evaluation {
        text += &format!(
            "\nHeld-out cells: {}\n{}",
            evaluation.num_cells,
            evaluation.table()
        );
    }
    let step = outcome.step;
    if let Some(reason) = &outcome.stopped {
        text += &format!("\nStopped at step {step}: {reason}");
    }
    text += &format!("\nSaved: {}", outcome.checkpoint.display());
    if outcome.interrupted {
        let folder = trainer.fixed.output_dir.display();
        text += &format!("\nContinue with: gene-bert mlm --resume {folder}");
    }
    text
}
