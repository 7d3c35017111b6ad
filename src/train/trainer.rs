//! The training loop: batches in, optimizer steps out, everything else through hooks.
//!
//! A step takes `gradient_accumulation_steps` batches (fewer at the end of an epoch), each at once or
//! in parts of `tokens_per_batch` tokens, and divides their summed loss by their summed number of
//! labels (or class weights), so that a step's gradient does not depend on how its cells were cut.
//! Dropout is keyed by the numbers of the batch and the part. All that a step depends on is in the
//! checkpoint; resuming is therefore exact to the bit.
//!
//! Of several ranks each takes its own batches, and gradients, losses and counts are summed over all
//! ([`super::reduce`]), so that every rank takes the same step: that of one process which accumulates
//! the batches of all. Batches are numbered over all ranks, in the order of the cells. Only the first
//! rank has hooks and writes; what they ask of the others is to stop, and to give their part of the
//! moments where those are divided ([`super::shard`]).
//!
//! A GPU decides by itself whether a step is taken ([`AdamW::guarded_step`]), and the loop goes on to
//! the next one: what came of steps is asked for, and hooks hear of them, where a number is logged or
//! something is saved or measured. On the CPU that is after every step.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ahead::{Ahead, Ready};
use super::checkpoint::{self, Contents, TrainerState};
use super::figures::Evaluation;
use super::hooks::{EpochReport, Request, RunEnd, RunStart, StepReport, TrainHook};
use super::reduce::{Reducer, Totals};
use super::settle::{self, Unsettled};
use super::shard::Shards;
use super::signal;
use super::task::Task;
use crate::buffers::Number;
use crate::cell::PackedBatch;
use crate::dist::Ranks;
use crate::model::{DropoutKey, Gradients, Parameters};
use crate::optim::{AdamW, Outcome as StepOutcome, ScheduleConfig, StepRule};
use crate::tokenize::TokenizeConfig;
use crate::vocab::Vocabulary;

/// Number of the part of a batch, in the number that keys its dropout: beyond those of batches.
const PART_SHIFT: u32 = 40;

/// Why a run ended that a signal ended.
pub const INTERRUPTED: &str = "interrupted";

/// The numbers the loop runs by.
#[derive(Debug, Clone)]
pub struct LoopSettings {
    /// Run seed.
    pub seed: u64,
    /// Optimizer steps of the whole run.
    pub total_steps: u64,
    /// Optimizer steps of one epoch.
    pub steps_per_epoch: u64,
    /// Batches per step and rank.
    pub accumulation: usize,
    /// The learning rate.
    pub schedule: ScheduleConfig,
    /// Gradient norm above which gradients are scaled down; 0: never.
    pub max_grad_norm: f64,
    /// An evaluation every so many steps, and at the end.
    pub eval_steps: u64,
    /// What comes of steps is looked at every so many steps, for any of these numbers.
    pub settle_steps: [u64; 2],
}

/// What does not change while a run goes on.
pub struct Fixed {
    /// The run folder.
    pub output_dir: PathBuf,
    /// `config.json`: the model's shape, and what it answers.
    pub model_json: Value,
    /// Tokens and genes.
    pub vocabulary: Arc<Vocabulary>,
    /// How cells become tokens.
    pub tokenize: TokenizeConfig,
    /// The resolved configuration.
    pub run_toml: String,
}

/// A run: model, optimizer, data and hooks.
pub struct Trainer {
    /// What does not change.
    pub fixed: Fixed,
    /// The numbers.
    pub settings: LoopSettings,
    /// All weights.
    pub parameters: Parameters,
    /// The model over them, its loss and its held-out cells.
    pub task: Box<dyn Task>,
    /// AdamW and its moments.
    pub optimizer: AdamW,
    /// Training cells.
    pub(super) ahead: Ahead,
    /// Users of the loop's events.
    pub hooks: Vec<Box<dyn TrainHook>>,
    /// Where the run stands.
    pub state: TrainerState,
    /// The step of the last checkpoint, that which is resumed included.
    pub saved_step: Option<u64>,
    /// The processes of the run.
    pub ranks: Arc<Ranks>,
    pub(super) reducer: Reducer,
    /// How the optimizer's moments are divided over ranks, where they are.
    pub(super) shards: Option<Shards>,
    /// Whether a signal has asked this or another rank to end.
    pub(super) interrupted: bool,
    /// Gradient norm of the last step.
    pub(super) last_norm: f64,
    /// Steps that hooks have not heard of.
    pub(super) unsettled: Vec<Unsettled>,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The last evaluation, if there were held-out cells.
    pub evaluation: Option<Evaluation>,
    /// The last checkpoint written.
    pub checkpoint: PathBuf,
    /// Steps done.
    pub step: u64,
    /// Why the run ended before its last step, if it did.
    pub stopped: Option<String>,
    /// Whether it was a signal that ended it.
    pub interrupted: bool,
}

impl Trainer {
    /// Trains to the end, or until a hook or a signal ends the run. The last state is always saved.
    ///
    /// # Errors
    /// Unreadable cells, a file that cannot be written, three steps in a row without a finite
    /// gradient. The last whole checkpoint stays usable.
    pub fn train(&mut self) -> Result<Outcome> {
        self.start()?;
        let mut evaluation = None;
        let mut stopped = None;
        while self.state.step < self.settings.total_steps && stopped.is_none() {
            if !self.step()? {
                self.start_epoch(self.state.loader.epoch + 1)?;
                continue;
            }
            if self.ranks.world() == 1 {
                self.interrupted = signal::received();
            }
            let mut request = self.settle()?;
            if self.ahead.batches_left() == 0 {
                request = request.and(self.end_epoch()?);
            }
            if self.is_evaluation_due() {
                let (asked, figures) = self.evaluate()?;
                request = request.and(asked);
                evaluation = figures;
            }
            if self.interrupted {
                request.stop = Some(INTERRUPTED.to_owned());
            }
            let request = self.agreed(request)?;
            self.obey(&request)?;
            stopped = request.stop;
        }
        if stopped.is_none() {
            self.require_cells()?;
        }
        let checkpoint = self.save_last()?;
        let step = self.state.step;
        let interrupted = signal::received();
        let end = RunEnd {
            step,
            stopped: stopped.clone(),
            interrupted,
        };
        self.each(|hook| hook.on_end(&end).map(|()| Request::none()))?;
        Ok(Outcome {
            evaluation,
            checkpoint,
            step,
            stopped,
            interrupted: self.interrupted,
        })
    }

    fn start(&mut self) -> Result<()> {
        for hook in &mut self.hooks {
            if let Some(state) = self.state.hooks.get(hook.name()) {
                hook.restore(state.clone())
                    .with_context(|| format!("the checkpoint's state of {}", hook.name()))?;
            }
        }
        let start = RunStart {
            output_dir: self.fixed.output_dir.clone(),
            total_steps: self.settings.total_steps,
            first_step: self.state.step,
            num_train_cells: self.ahead.num_cells(),
        };
        self.each(|hook| hook.on_start(&start).map(|()| Request::none()))
            .map(drop)
    }

    fn start_epoch(&mut self, epoch: u64) -> Result<()> {
        self.ahead.start_epoch(epoch)?;
        self.state.loader = self.ahead.state();
        self.state.skipped_cells = 0;
        Ok(())
    }

    fn end_epoch(&mut self) -> Result<Request> {
        self.require_cells()?;
        let report = EpochReport {
            epochs: self.state.loader.epoch + 1,
            skipped_cells: self.state.skipped_cells,
        };
        self.each(|hook| hook.on_epoch(&report))
    }

    /// A run that has trained on no cell so far is not one.
    fn require_cells(&self) -> Result<()> {
        if self.state.step > 0 && self.state.num_cells == 0 {
            bail!(
                "all {} training cells so far were skipped, as a phenotype of theirs is missing or \
                 not in the vocabulary (unknown_phenotype is skip), so nothing was learned\n\
                 hint: look at the files' values with `gene-bert info` and at the vocabulary \
                 (--vocab_path), or take --unknown_phenotype mask",
                self.state.skipped_cells
            );
        }
        Ok(())
    }

    pub(super) fn each(
        &mut self,
        mut f: impl FnMut(&mut dyn TrainHook) -> Result<Request>,
    ) -> Result<Request> {
        self.hooks
            .iter_mut()
            .try_fold(Request::none(), |all, hook| {
                let asked =
                    f(hook.as_mut()).with_context(|| format!("in the hook {}", hook.name()))?;
                Ok(all.and(asked))
            })
    }

    /// What the first rank has, on all ranks.
    fn agreed<T: Serialize + DeserializeOwned>(&self, own: T) -> Result<T> {
        if self.ranks.world() == 1 {
            return Ok(own);
        }
        let first = self.ranks.group().broadcast(serde_json::to_vec(&own)?)?;
        Ok(serde_json::from_slice(&first)?)
    }

    /// The batches of one step; empty at the end of the epoch.
    fn next_batches(&mut self) -> Result<Vec<Ready>> {
        let mut batches = Vec::with_capacity(self.settings.accumulation);
        while batches.len() < self.settings.accumulation {
            match self.ahead.next_batch()? {
                Some(batch) => batches.push(batch),
                None => break,
            }
        }
        Ok(batches)
    }

    /// One optimizer step; false at the end of the epoch.
    fn step(&mut self) -> Result<bool> {
        let began = Instant::now();
        let mut batches = self.next_batches()?;
        if batches.is_empty() {
            return Ok(false);
        }
        let (total, losses, gradients) = self.gradients(&mut batches)?;
        let rule = StepRule {
            lr: self
                .settings
                .schedule
                .lr_at(self.state.step, self.settings.total_steps),
            mean: match total.weight > 0.0 {
                true => 1.0 / total.weight,
                false => 1.0,
            },
            max_norm: self.settings.max_grad_norm,
        };
        let outcome = self.optimizer.guarded_step(&gradients, &losses, rule)?;
        let may_have_moved = match &outcome {
            StepOutcome::Known(verdict) => {
                self.last_norm = verdict.norm;
                !verdict.skipped
            }
            StepOutcome::OnDevice(_) => true,
        };
        if let Some(shards) = self.shards.as_ref().filter(|_| may_have_moved) {
            shards.exchange(&self.parameters)?;
        }
        self.interrupted = total.interrupted > 0;
        self.state.step += 1;
        self.state.loader = self.ahead.state();
        self.ranks.at_step(self.state.step);
        self.state.skipped_cells += total.skipped_cells;
        self.state.num_cells += total.num_cells;
        self.state.num_tokens += total.num_tokens;
        self.unsettled.push(Unsettled {
            report: self.report(&total, rule.lr, began),
            outcome,
            cells: settle::some_cells(&batches),
        });
        Ok(true)
    }

    /// What the batches of all ranks hold, their losses summed over labels, and their gradients.
    fn gradients(&mut self, batches: &mut [Ready]) -> Result<(Totals, Vec<Number>, Gradients)> {
        let mut gradients = Gradients::new(&self.parameters);
        gradients.scale_loss_by(self.optimizer.loss_scale());
        let mut losses = Vec::new();
        let mut total = self.counts(batches);
        total.skipped_cells = self.ahead.take_skipped();
        let (rank, world) = (self.ranks.rank() as u64, self.ranks.world() as u64);
        let first = self.state.step * self.settings.accumulation as u64 * world + rank;
        let num_batches = batches.len();
        for (i, batch) in batches.iter_mut().enumerate() {
            let number = first + i as u64 * world;
            let parts = std::mem::take(&mut batch.parts);
            let num_parts = parts.len();
            for (part, lists) in parts.into_iter().enumerate() {
                let lists = lists.take()?;
                let dropout = DropoutKey {
                    seed: self.settings.seed,
                    step: number | (part as u64) << PART_SHIFT,
                };
                let is_last = i + 1 == num_batches && part + 1 == num_parts;
                gradients.begin(is_last.then(|| self.reducer.watcher()).flatten());
                let task = &self.task;
                let loss = task.loss_and_gradients(&lists, dropout, &mut gradients)?;
                total.weight += loss.weight;
                losses.push(loss.sum);
            }
        }
        if world > 1 {
            let (sums, loss) = self.reducer.finish(&mut gradients, total, &losses)?;
            (total, losses) = (sums, vec![loss]);
        }
        Ok((total, losses, gradients))
    }

    /// What `batches` hold.
    fn counts(&self, batches: &[Ready]) -> Totals {
        let each = || batches.iter().map(|ready| &ready.batch);
        let sum = |f: fn(&PackedBatch) -> usize| each().map(f).sum::<usize>() as u64;
        Totals {
            num_labels: sum(|b| b.labels.len()),
            num_cells: sum(PackedBatch::num_cells),
            num_tokens: sum(PackedBatch::num_tokens),
            num_padded_tokens: sum(PackedBatch::num_padded_tokens),
            interrupted: u64::from(signal::received()),
            last_norm: self.last_norm.to_bits(),
            ..Totals::default()
        }
    }

    /// What is known of a step before it is settled.
    fn report(&self, total: &Totals, learning_rate: f64, began: Instant) -> StepReport {
        StepReport {
            step: self.state.step,
            epoch: self.epoch(),
            loss: f64::NAN,
            grad_norm: f64::NAN,
            learning_rate,
            num_labels: total.num_labels,
            num_cells: total.num_cells,
            num_tokens: total.num_tokens,
            num_padded_tokens: total.num_padded_tokens,
            skipped_steps: self.state.skipped_steps,
            seconds: began.elapsed().as_secs_f64(),
        }
    }

    /// Epochs done, as a fraction.
    fn epoch(&self) -> f64 {
        let done = self.state.loader.position as f64 / self.ahead.num_cells().max(1) as f64;
        self.state.loader.epoch as f64 + done
    }

    pub(super) fn is_evaluation_due(&self) -> bool {
        let step = self.state.step;
        let every = step.is_multiple_of(self.settings.eval_steps.max(1));
        self.task.evaluates() && (every || step == self.settings.total_steps)
    }

    fn evaluate(&mut self) -> Result<(Request, Option<Evaluation>)> {
        let Some(figures) = self.task.evaluate(self.state.step, self.epoch())? else {
            return Ok((Request::none(), None));
        };
        let request = self.each(|hook| hook.on_evaluation(&figures))?;
        Ok((request, Some(figures)))
    }

    fn obey(&mut self, request: &Request) -> Result<()> {
        if request.save_best && self.ranks.is_first() {
            self.save(checkpoint::BEST, false)?;
        }
        if request.save {
            self.save_last()?;
        }
        Ok(())
    }

    fn save_last(&mut self) -> Result<PathBuf> {
        let step = self.state.step;
        let name = format!("checkpoint-{step}");
        let path = self.fixed.output_dir.join(&name);
        let is_saved = self.saved_step == Some(step) && path.is_dir();
        if self.agreed(is_saved)? {
            return Ok(path);
        }
        self.saved_step = Some(step);
        match &self.shards {
            _ if self.ranks.is_first() => self.save(&name, true).map(drop)?,
            Some(shards) => self.optimizer.give(|p, own| shards.whole(p, own))?,
            None => {}
        }
        Ok(path)
    }

    fn save(&mut self, name: &str, with_optimizer: bool) -> Result<PathBuf> {
        let states = self
            .hooks
            .iter()
            .map(|hook| (hook.name().to_owned(), hook.state()));
        self.state.hooks = states.collect();
        let path = self.fixed.output_dir.join(name);
        let contents = Contents {
            model_json: &self.fixed.model_json,
            parameters: &self.parameters,
            vocabulary: &self.fixed.vocabulary,
            tokenize: &self.fixed.tokenize,
            run_toml: &self.fixed.run_toml,
            state: &self.state,
            optimizer: with_optimizer.then_some(&self.optimizer),
            shards: self.shards.as_ref(),
        };
        checkpoint::save(&path, &contents)?;
        self.each(|hook| hook.on_save(&path).map(|()| Request::none()))?;
        Ok(path)
    }
}
