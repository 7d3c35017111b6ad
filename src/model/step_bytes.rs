//! How much memory training takes, in bytes, counted from what the model keeps: f32 all through,
//! T tokens and N labelled positions in a batch, P weights, V tokens and G types in the tables.
//!
//! | part | floats |
//! |---|---|
//! | weights, AdamW's moments | P, 2 P (divided by the ranks that share them) |
//! | gradients | P without the tables, and min(T, rows) · D for each table |
//! | kept for the backward pass | T · (2 D + L · (6 D + F + r (2 D + F) + H + 2)) |
//! | the same with `recompute` | T · (2 D + L · D), and T · (5 D + F + r (2 D + F) + H + 2) for the block at hand |
//! | of a classifier's last block, on the CPU | T · (3 D + H), in place of T · (6 D + F + r (2 D + F) + H + 2) |
//! | head | N · (5 D + V) |
//! | in use at a time, backward | T · max(2 D + r F + p (D + F), 7 D + p · 7 D) |
//! | evaluation, nothing kept | T · (3 D + F + r F + H) |
//! | writing a checkpoint | one tensor of the moments, at most a table: (V + G) · D |
//!
//! p is what the rounded form of a matrix takes, of what the matrix does: ½ in bf16, 0 in f32; r what
//! remains of a matrix that only goes into products: ½ in bf16, 1 in f32. A
//! step's peak is at the end of the forward pass or at the first block of the backward pass; with
//! accumulation all gradients are there as well. A classifier's last block has input, keys, values and
//! their gradients of all tokens, and what is of its N cells alone counts as its head; V are its
//! classes. The allocator's gaps add [`GAPS`].

use super::{GeneBertConfig, Precision};

const FLOAT: u64 = 4;
/// What an allocator takes beyond what it is asked for, measured: a share of everything.
const GAPS: f64 = 0.05;

/// The size of the batches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchSize {
    /// Tokens T of a batch.
    pub tokens: u64,
    /// Labelled positions N of a batch.
    pub labels: u64,
    /// Whether a step takes several batches.
    pub accumulates: bool,
    /// Whether the last block is computed for the labelled positions alone: a classifier's.
    pub first_tokens: bool,
}

/// What training needs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingBytes {
    /// Weights and moments, always there.
    pub weights: u64,
    /// The most that a step takes besides: gradients and everything that comes of the batch.
    pub step: u64,
    /// What an evaluation batch takes besides the weights.
    pub evaluation: u64,
    /// What writing a checkpoint takes besides the weights.
    pub saving: u64,
}

impl TrainingBytes {
    /// The most at any time.
    pub fn peak(&self) -> u64 {
        self.weights + self.step.max(self.evaluation).max(self.saving)
    }
}

impl GeneBertConfig {
    /// What training a model of this shape with `num_weights` weights needs, for batches of
    /// `train` and evaluation batches of `eval`; the moments are divided over `sharers` ranks.
    pub fn training_bytes(
        &self,
        num_weights: u64,
        sharers: u64,
        train: BatchSize,
        eval: Option<BatchSize>,
    ) -> TrainingBytes {
        let with_gaps = |floats: u64| ((floats * FLOAT) as f64 * (1.0 + GAPS)) as u64;
        TrainingBytes {
            weights: with_gaps(num_weights + (2 * num_weights).div_ceil(sharers)),
            step: with_gaps(self.step_floats(num_weights, train)),
            evaluation: with_gaps(eval.map_or(0, |size| self.evaluation_floats(size))),
            saving: with_gaps(self.table_weights()),
        }
    }

    /// The same on a GPU, somewhat more than it takes: whatever comes of the batch is of the type of
    /// the run's products there, a matrix's weights are rounded anew for each product, and a
    /// checkpoint is written from the host's memory.
    pub fn training_bytes_on_gpu(
        &self,
        num_weights: u64,
        sharers: u64,
        train: BatchSize,
        eval: Option<BatchSize>,
    ) -> TrainingBytes {
        let share = match self.precision {
            Precision::F32 => 1.0,
            Precision::Bf16 | Precision::F16 => 0.5,
        };
        let wide = Self {
            precision: Precision::F32,
            ..self.clone()
        };
        let wide = wide.training_bytes(num_weights, sharers, train, eval);
        let of_batch = |bytes: u64| (bytes as f64 * share) as u64;
        let largest = self.hidden_size * self.intermediate_size.max(self.vocab_size);
        TrainingBytes {
            weights: wide.weights,
            step: of_batch(wide.step) + FLOAT * num_weights + of_batch(FLOAT * largest as u64),
            evaluation: of_batch(wide.evaluation),
            saving: 0,
        }
    }

    /// Weights of the tables of tokens and types.
    fn table_weights(&self) -> u64 {
        (self.vocab_size + self.type_vocab_size) as u64 * self.hidden_size as u64
    }

    /// What a matrix of so many floats takes that only goes into products.
    fn rounded(&self, floats: u64) -> u64 {
        match self.precision {
            Precision::F32 | Precision::F16 => floats,
            Precision::Bf16 => floats / 2,
        }
    }

    fn step_floats(&self, num_weights: u64, size: BatchSize) -> u64 {
        let (width, inner) = (self.hidden_size as u64, self.intermediate_size as u64);
        let (heads, blocks) = (
            self.num_attention_heads as u64,
            self.num_hidden_layers as u64,
        );
        let tables = [self.vocab_size as u64, self.type_vocab_size as u64];
        let rows: u64 = tables.iter().map(|rows| size.tokens.min(*rows)).sum();
        let gradients = num_weights.saturating_sub(self.table_weights()) + rows * width;
        // Of one block: its input, and what else its backward pass needs; of one that is computed
        // for first tokens: the same.
        let rest = 5 * width + inner + self.rounded(2 * width + inner) + heads + 2;
        let last = 2 * width + heads;
        let whole = blocks - u64::from(size.first_tokens).min(blocks);
        let (kept, at_hand) = match self.recompute {
            false => (blocks * width + whole * rest + (blocks - whole) * last, 0),
            true if whole == 0 => (blocks * width, last),
            true => (blocks * width + (blocks - whole) * last, rest),
        };
        let kept = size.tokens * (2 * width + kept);
        let head = self.head_floats(size);
        let packed = |floats: u64| match self.precision {
            Precision::F32 | Precision::F16 => 0,
            Precision::Bf16 => floats / 2,
        };
        let feed_forward = 2 * width + self.rounded(inner) + packed(width + inner);
        let attention = 7 * width + packed(7 * width);
        let of_token = match whole {
            0 => 3 * width + packed(3 * width),
            _ => feed_forward.max(attention),
        };
        let backward = size.tokens * (at_hand + of_token);
        // The first block of the backward pass has its own gradients and the head's.
        let early = match size.accumulates {
            true => gradients,
            false => gradients / (blocks + 1),
        };
        let late = gradients + size.tokens * (5 * width + at_hand);
        (kept + early + head.max(backward)).max(late)
    }

    /// What labelled positions take above the blocks, and in a block that is theirs alone.
    fn head_floats(&self, size: BatchSize) -> u64 {
        let (width, inner) = (self.hidden_size as u64, self.intermediate_size as u64);
        size.labels
            * match size.first_tokens {
                true => 13 * width + 2 * inner + self.num_labels as u64,
                false => 5 * width + self.vocab_size as u64,
            }
    }

    fn evaluation_floats(&self, size: BatchSize) -> u64 {
        let (width, inner) = (self.hidden_size as u64, self.intermediate_size as u64);
        let heads = self.num_attention_heads as u64;
        let head = self.head_floats(size);
        let whole = 3 * width + inner + self.rounded(inner) + heads;
        match (size.first_tokens, self.num_hidden_layers) {
            (true, 0 | 1) => size.tokens * (3 * width + heads) + head,
            (true, _) => size.tokens * whole + head,
            (false, _) => {
                let logits = size.labels * self.vocab_size as u64;
                size.tokens * whole + head + logits
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_can_be_the_largest() {
        let config = GeneBertConfig {
            num_hidden_layers: 12,
            ..GeneBertConfig::default().with_vocabulary(500, 20_000)
        };
        let size = |tokens| BatchSize {
            tokens,
            labels: tokens / 6,
            accumulates: false,
            first_tokens: false,
        };
        // Most of them in the tables.
        let weights = 20_000_000;
        let bytes = |train, eval| config.training_bytes(weights, 1, size(train), eval);
        let small = bytes(10, None);
        assert_eq!(small.peak(), small.weights + small.saving);
        let large = bytes(100_000, None);
        assert_eq!(large.peak(), large.weights + large.step);
        assert!(
            bytes(200_000, None).step > 19 * large.step / 10,
            "in proportion to tokens"
        );
        let eval = bytes(1000, Some(size(1_000_000)));
        assert_eq!(eval.peak(), eval.weights + eval.evaluation);
        let accumulating = BatchSize {
            accumulates: true,
            ..size(100_000)
        };
        let recomputing = GeneBertConfig {
            recompute: true,
            ..config.clone()
        };
        let fewer = recomputing.training_bytes(weights, 1, size(100_000), None);
        assert!(fewer.step < large.step / 4);
        let more = config.training_bytes(weights, 1, accumulating, None);
        assert!(more.step > large.step);
        let shared = config.training_bytes(weights, 4, size(100_000), None);
        assert_eq!(
            (2 * shared.weights, shared.step),
            (large.weights, large.step)
        );
    }

    #[test]
    fn a_classifiers_last_block_is_the_lighter_one() {
        let size = |first_tokens| BatchSize {
            tokens: 100_000,
            labels: 100,
            accumulates: false,
            first_tokens,
        };
        let of = |num_hidden_layers, first_tokens| {
            let config = GeneBertConfig {
                num_hidden_layers,
                ..GeneBertConfig::default().with_vocabulary(500, 20_000)
            };
            config
                .training_bytes(1_000_000, 1, size(first_tokens), None)
                .step
        };
        assert!(of(1, true) < of(1, false) / 3);
        let (saved, whole) = (of(6, false) - of(6, true), of(7, false) - of(6, false));
        assert!(saved > whole / 2 && saved < whole, "{saved} of {whole}");
    }

    #[test]
    fn on_a_gpu_what_comes_of_a_batch_is_as_wide_as_its_products() {
        let step = |precision, tokens| {
            let config = GeneBertConfig {
                precision,
                ..GeneBertConfig::default().with_vocabulary(500, 20_000)
            };
            let size = BatchSize {
                tokens,
                labels: tokens / 6,
                accumulates: false,
                first_tokens: false,
            };
            let bytes = config.training_bytes_on_gpu(50_000_000, 1, size, None);
            assert_eq!(bytes.saving, 0);
            bytes.step
        };
        let more = |precision| step(precision, 200_000) - step(precision, 100_000);
        let (wide, narrow) = (more(Precision::F32), more(Precision::Bf16));
        assert!(wide.abs_diff(2 * narrow) < wide / 100, "{narrow} of {wide}");
        assert!(step(Precision::F16, 1) > 50_000_000 * FLOAT);
    }
}
