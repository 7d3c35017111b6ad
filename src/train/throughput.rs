//! How fast a model trains on this machine: whole steps (forward, backward, clipping, AdamW) over
//! batches that are in memory, on a GPU in its memory, before the clock starts.
//!
//! Floating-point operations are those of the model, not of its implementation: 6 per weight of a
//! matrix product and row that it sees, 12·D per block and pair of tokens that see each other. What
//! is computed twice counts once, so that two implementations can be compared.

use std::time::{Duration, Instant};

use candle_core::Result;
use rand::Rng;
use rand_distr::StandardNormal;
use serde::Serialize;

use crate::cell::{Label, PackedBatch};
use crate::kernels::device::most_bytes;
use crate::kernels::lists::Lists;
use crate::kernels::products::Precision;
use crate::kernels::profile::{self, Operation};
use crate::loader::throughput::{peak_bytes, reset_peak};
use crate::model::{
    BatchSize, DropoutKey, GeneBertConfig, GeneBertForMaskedLM, Gradients, LossConfig, Parameters,
};
use crate::optim::{AdamW, AdamWConfig, Outcome, StepRule};
use crate::rng::{Stream, stream};

/// Share of the tokens of a made-up cell that are masked.
const MASKED: f64 = 0.15;
/// Gradients are clipped to this norm, at this learning rate.
const MAX_NORM: f64 = 1.0;
const LEARNING_RATE: f64 = 1e-4;
/// Steps before the clock starts.
const WARM_UP: usize = 2;
/// Steps on a GPU that are timed together.
const ROUND: usize = 5;

/// Made-up cells.
#[derive(Debug, Clone, Copy)]
pub struct MadeUp {
    /// Cells of a batch.
    pub cells: usize,
    /// Tokens of a cell, or of the longest there can be.
    pub length: usize,
    /// Whether lengths differ from cell to cell.
    pub ragged: bool,
    /// Seed of everything.
    pub seed: u64,
}

impl MadeUp {
    /// Batch number `index` for a model of this shape: any tokens, 15 % of them masked. Ragged
    /// lengths are log-normal, half of them below `length` / 2, a factor of 1.8 wide, and cut at
    /// `length`.
    pub fn batch(&self, model: &GeneBertConfig, index: u64) -> PackedBatch {
        let mut rng = stream(self.seed, Stream::Simulate, 1, index);
        let first = (model.pad_token_id + 1).min(model.vocab_size - 1) as u32;
        let mask = model.pad_token_id.saturating_sub(1) as u32;
        let mut batch = PackedBatch {
            cu_seqlens: vec![0],
            ..PackedBatch::default()
        };
        for _ in 0..self.cells {
            for _ in 0..self.draw_length(&mut rng) {
                let position = batch.input_ids.len() as u32;
                let token = rng.random_range(first..model.vocab_size as u32);
                let masked = rng.random_bool(MASKED);
                if masked {
                    batch.labels.push(Label { position, token });
                }
                batch.input_ids.push(if masked { mask } else { token });
                let types = model.type_vocab_size as u32;
                batch.token_type_ids.push(rng.random_range(0..types));
            }
            batch.cu_seqlens.push(batch.input_ids.len() as u32);
        }
        batch
    }

    fn draw_length(&self, rng: &mut impl Rng) -> usize {
        if !self.ragged {
            return self.length;
        }
        let normal: f64 = rng.sample(StandardNormal);
        let length = self.length as f64 / 2.0 * (normal * 1.8f64.ln()).exp();
        (length.round() as usize).clamp(2.min(self.length), self.length)
    }
}

/// What the timed steps took.
#[derive(Debug, Clone, Serialize)]
pub struct TrainThroughput {
    /// Threads that computed.
    pub num_threads: usize,
    /// In what matrix products were computed.
    pub precision: Precision,
    /// Weights of the model.
    pub num_weights: usize,
    /// Tokens, padded tokens and cells of a step, on average.
    pub tokens: f64,
    /// Tokens of a step were every cell padded to the longest of its batch.
    pub padded_tokens: f64,
    /// Cells of a step.
    pub cells: f64,
    /// Floating-point operations of a step.
    pub flops: f64,
    /// Wall time of each step, in seconds.
    pub seconds: Vec<f64>,
    /// Processor time of a step over all threads, in seconds; `None` where the system does not
    /// tell.
    pub processor_seconds: Option<f64>,
    /// Most memory that the process held (on a GPU: that tensors took), in bytes; `None` where the
    /// system does not tell.
    pub peak_bytes: Option<u64>,
    /// What [`GeneBertConfig::training_bytes`] says of it, in bytes.
    pub expected_bytes: u64,
    /// The mean loss of every step, warm-up included.
    pub losses: Vec<f64>,
    /// What each operation took, over all timed steps.
    pub operations: Vec<Operation>,
}

impl TrainThroughput {
    /// The median step in seconds.
    pub fn median(&self) -> f64 {
        let mut seconds = self.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        match seconds.len() {
            0 => f64::NAN,
            n => (seconds[(n - 1) / 2] + seconds[n / 2]) / 2.0,
        }
    }

    /// Floating-point operations per second.
    pub fn flops_per_second(&self) -> f64 {
        self.flops / self.median()
    }
}

/// Trains on `batches` over and over, `num_steps` timed steps; with `profile` operations are timed.
///
/// # Errors
/// A batch that does not fit the model.
pub fn measure(
    config: &GeneBertConfig,
    parameters: &Parameters,
    batches: &[PackedBatch],
    num_steps: usize,
    profile: bool,
) -> Result<TrainThroughput> {
    let mut optimizer = AdamW::new(parameters, AdamWConfig::default())?;
    if config.precision == Precision::F16 {
        optimizer = optimizer.scaling_loss()?;
    }
    let mut run = Run {
        model: GeneBertForMaskedLM::new(config, parameters)?,
        optimizer,
        gradients: Gradients::new(parameters),
        steps: 0,
    };
    let (mut seconds, mut outcomes) = (Vec::new(), Vec::new());
    // What a run does ahead of a GPU's steps is not of them; on the CPU it takes from them, and counts.
    let device = parameters.device();
    let lists = batches.iter().map(|batch| match device.is_cpu() {
        true => Ok(Lists::new(batch)),
        false => (Lists::new(batch).sorted(config.pad_token_id as u32)).on(&device),
    });
    let lists = lists.collect::<Result<Vec<_>>>()?;
    reset_peak();
    let mut before = None;
    let mut began = Instant::now();
    let mut waiting = 0;
    for (step, lists) in lists.iter().cycle().take(WARM_UP + num_steps).enumerate() {
        if step == WARM_UP {
            before = processor_time();
            if profile {
                profile::start(&device);
            }
        }
        outcomes.push(run.step(lists)?);
        waiting += 1;
        // A GPU is waited for at the end of a round; the round's steps share its time.
        let is_known = matches!(outcomes.last(), Some(Outcome::Known(_)));
        let left = WARM_UP + num_steps - step - 1;
        if is_known || step + 1 == WARM_UP || waiting == ROUND || left == 0 {
            if let Some(last) = outcomes.last() {
                last.wait()?;
            }
            if step >= WARM_UP {
                let each = began.elapsed().as_secs_f64() / waiting as f64;
                seconds.extend(std::iter::repeat_n(each, waiting));
            }
            (began, waiting) = (Instant::now(), 0);
        }
    }
    let losses = outcomes.iter().map(|outcome| Ok(outcome.wait()?.loss));
    let losses = losses.collect::<Result<Vec<f64>>>()?;
    let spent = before
        .zip(processor_time())
        .map(|(a, b)| (b - a).as_secs_f64());
    let timed = batches.iter().cycle().skip(WARM_UP % batches.len().max(1));
    let timed: Vec<&PackedBatch> = timed.take(num_steps).collect();
    let mean = |count: &dyn Fn(&PackedBatch) -> f64| {
        timed.iter().map(|batch| count(batch)).sum::<f64>() / num_steps.max(1) as f64
    };
    Ok(TrainThroughput {
        num_threads: rayon::current_num_threads(),
        precision: config.precision,
        num_weights: parameters.num_weights(),
        tokens: mean(&|batch| batch.num_tokens() as f64),
        padded_tokens: mean(&|batch| batch.num_padded_tokens() as f64),
        cells: mean(&|batch| batch.num_cells() as f64),
        flops: mean(&|batch| flops(config, batch)),
        seconds,
        processor_seconds: spent.map(|s| s / num_steps.max(1) as f64),
        peak_bytes: most_bytes(&device).or_else(peak_bytes),
        expected_bytes: expected_bytes(config, parameters, batches),
        losses,
        operations: profile::stop(),
    })
}

/// What the steps are expected to hold. The memory of gradients is kept from step to step, as
/// where several batches make one.
fn expected_bytes(
    config: &GeneBertConfig,
    parameters: &Parameters,
    batches: &[PackedBatch],
) -> u64 {
    let most = |count: fn(&PackedBatch) -> usize| batches.iter().map(count).max().unwrap_or(0);
    let size = BatchSize {
        tokens: most(PackedBatch::num_tokens) as u64,
        labels: most(|batch| batch.labels.len()) as u64,
        accumulates: true,
        first_tokens: false,
    };
    let num_weights = parameters.num_weights() as u64;
    let bytes = match parameters.device().is_cpu() {
        true => config.training_bytes(num_weights, 1, size, None),
        false => config.training_bytes_on_gpu(num_weights, 1, size, None),
    };
    bytes.weights + bytes.step
}

struct Run {
    model: GeneBertForMaskedLM,
    optimizer: AdamW,
    gradients: Gradients,
    steps: u64,
}

impl Run {
    fn step(&mut self, lists: &Lists) -> Result<Outcome> {
        self.steps += 1;
        let key = DropoutKey {
            seed: 1,
            step: self.steps,
        };
        self.gradients.clear();
        self.gradients.scale_loss_by(self.optimizer.loss_scale());
        let (loss, gradients) = (LossConfig::default(), &mut self.gradients);
        let loss = self
            .model
            .loss_and_gradients(lists, &loss, Some(key), gradients)?;
        let rule = StepRule {
            lr: LEARNING_RATE,
            mean: 1.0 / loss.weight.max(1.0),
            max_norm: MAX_NORM,
        };
        self.optimizer.guarded_step(gradients, &[loss.sum], rule)
    }
}

/// Floating-point operations of one step on `batch`.
fn flops(config: &GeneBertConfig, batch: &PackedBatch) -> f64 {
    let (width, inner) = (config.hidden_size as f64, config.intermediate_size as f64);
    let blocks = config.num_hidden_layers as f64;
    let lengths = batch.cu_seqlens.windows(2).map(|w| f64::from(w[1] - w[0]));
    let pairs: f64 = lengths.map(|length| length * length).sum();
    let in_blocks =
        blocks * (4.0 * width * width + 2.0 * width * inner) * batch.num_tokens() as f64;
    let head = (width * width + width * config.vocab_size as f64) * batch.labels.len() as f64;
    6.0 * (in_blocks + head) + 12.0 * blocks * width * pairs
}

/// Processor time of this process so far, all threads (Linux, in ticks of a hundredth of a second).
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = text.rsplit(')').next()?.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (next()? + next()?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tiny() -> GeneBertConfig {
        GeneBertConfig {
            hidden_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 16,
            ..GeneBertConfig::default()
        }
        .with_vocabulary(20, 50)
    }

    #[test]
    fn steps_are_counted_timed_and_told_apart() {
        let cells = MadeUp {
            cells: 3,
            length: 12,
            ragged: true,
            seed: 1,
        };
        let config = tiny();
        let batches = [cells.batch(&config, 0), cells.batch(&config, 1)];
        assert_eq!(batches[0], cells.batch(&config, 0));
        assert_ne!(batches[0], batches[1]);
        let parameters = GeneBertForMaskedLM::init_parameters(&config, 1).unwrap();
        let found = measure(&config, &parameters, &batches, 4, true).unwrap();
        assert_eq!((found.seconds.len(), found.losses.len()), (4, 6));
        assert!(
            found
                .losses
                .iter()
                .all(|loss| (loss - 20f64.ln()).abs() < 0.5)
        );
        let tokens: usize = batches.iter().map(PackedBatch::num_tokens).sum();
        assert!((found.tokens - tokens as f64 / 2.0).abs() < 1e-9);
        assert!(found.padded_tokens >= found.tokens && found.cells == 3.0);
        let products: u64 = found.operations.iter().map(|o| o.flops).sum();
        assert!((products as f64 / 4.0 / found.flops - 1.0).abs() < 1e-9);
    }
}
