//! The table of settings: name, flag type, type, default, doc.
//!
//! One entry makes a flag (`--name`), a key of the TOML file (`name`) and a field of
//! [`RunConfig`]. To add a setting: one entry here, and, where it can be wrong, a check in
//! `validate`. Units and meaning stand in the doc, which is also the flag's help.

use std::path::PathBuf;

use clap::ArgAction;
use serde::{Deserialize, Serialize};

use super::choices::{ClassWeights, Device, Dtype, FreezeEncoder, GeneStart, named};
use crate::dist::Wire;
use crate::h5ad::MatrixKey;
use crate::loader::{AbsentGeneSampling, Remainder, Shuffle};
use crate::optim::Schedule;
use crate::tokenize::{Compat, GeneOrder, Transform, UnknownPhenotype};
use crate::track::ReportTo;

const DATA: &str = "Data";
const TOKENS: &str = "Tokens";
const MASKS: &str = "Masks (mlm)";
const CLASSES: &str = "Classes (cls)";
const MODEL: &str = "Model";
const TRAINING: &str = "Training";
const EVALUATION: &str = "Evaluation and checkpoints";
const TRACKING: &str = "Tracking";
const MACHINE: &str = "Machine";
const PROCESSES: &str = "Several processes (see gene-bert launch)";

/// `(FlagType): Type = default`: a flag holds `Option<FlagType>`, the run config `Type`.
macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        #[arg $arg:tt]
        $name:ident ($flag:ty): $type:ty = $default:expr;
    )+) => {
        /// Settings that were given somewhere: by flags or in a TOML file. Unset ones are `None`.
        #[derive(Debug, Clone, Default, PartialEq, Deserialize, clap::Args)]
        #[serde(default, deny_unknown_fields)]
        pub struct Settings {
            $( $(#[doc = $doc])+ #[arg $arg] pub $name: Option<$flag>, )+
        }

        /// Every setting of a training run, resolved.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        pub struct RunConfig {
            $( $(#[doc = $doc])+ pub $name: $type, )+
        }

        /// Names of all settings.
        pub(super) const KEYS: &[&str] = &[$( stringify!($name) ),+];

        impl RunConfig {
            /// Names of the settings that differ from those of `other`.
            pub fn differences(&self, other: &Self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $( if self.$name != other.$name { names.push(stringify!($name)); } )+
                names
            }
        }

        impl Settings {
            /// Names of the settings that are set.
            pub fn given(&self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $( if self.$name.is_some() { names.push(stringify!($name)); } )+
                names
            }

            /// These settings, completed by `lower` where they are unset.
            #[must_use]
            pub fn over(self, lower: Self) -> Self {
                Self { $( $name: self.$name.or(lower.$name), )+ }
            }

            /// These settings, completed by the defaults.
            pub fn with_defaults(self) -> RunConfig {
                RunConfig { $( $name: self.$name.map_or_else(|| $default, Into::into), )+ }
            }
        }
    };
}

impl Default for RunConfig {
    fn default() -> Self {
        Settings::default().with_defaults()
    }
}

settings! {
    /// Files of training cells: h5ad, with braces ({0..43}, {a,b}) and globs
    #[arg(long, help_heading = DATA, value_name = "PATH", num_args = 1.., action = ArgAction::Set)]
    train_data_paths (Vec<String>): Vec<String> = Vec::new();
    /// Files of evaluation cells; without any, a share of the training cells is held out
    #[arg(long, help_heading = DATA, value_name = "PATH", num_args = 1.., action = ArgAction::Set)]
    eval_data_paths (Vec<String>): Vec<String> = Vec::new();
    /// Which cells of the training files train and which evaluate (part val), as `gene-bert split`
    /// wrote it; cells of part test are left alone
    #[arg(long, help_heading = DATA, value_name = "FILE")]
    split_file (PathBuf): Option<PathBuf> = None;
    /// The fold, from 0, of a split with several
    #[arg(long, help_heading = DATA, value_name = "FOLD")]
    fold (usize): Option<usize> = None;
    /// Share of the training cells held out for evaluation when no evaluation files are given and
    /// no split says which; 0: no evaluation [default: 0.1]
    #[arg(long, help_heading = DATA, value_name = "SHARE")]
    eval_fraction (f64): f64 = 0.1;
    /// Evaluate on at most this many cells, the same ones all through the run [default: all]
    #[arg(long, help_heading = DATA, value_name = "CELLS")]
    eval_max_cells (u64): Option<u64> = None;
    /// Order of the training cells: block (random blocks of cells, mixed), full (a random order of
    /// all cells), sequential, weighted (drawn with replacement, see --balance_by and
    /// --weight_by), grouped (see --group_by) [default: block, or what one of these three needs]
    #[arg(long, help_heading = DATA, value_name = "ORDER", value_parser = named::<Shuffle>)]
    shuffle (Shuffle): Option<Shuffle> = None;
    /// Draw every value of this obs column equally often, with replacement; an epoch has as many
    /// draws as there are training cells
    #[arg(long, help_heading = DATA, value_name = "COLUMN")]
    balance_by (String): Option<String> = None;
    /// Draw each cell as often as this obs column says (numbers from 0 up), with replacement
    #[arg(long, help_heading = DATA, value_name = "COLUMN")]
    weight_by (String): Option<String> = None;
    /// Batches of cells that share a value of this obs column, such as a donor or a time point
    #[arg(long, help_heading = DATA, value_name = "COLUMN")]
    group_by (String): Option<String> = None;
    /// Training cells that do not fill a last batch of every process: pad (a smaller batch: every
    /// cell once), drop, or repeat (fill up with cells already seen in the epoch) [default: pad]
    #[arg(long, help_heading = DATA, value_name = "HOW", value_parser = named::<Remainder>)]
    remainder (Remainder): Remainder = Remainder::Pad;
    /// Consecutive cells that are read together, in the order block [default: 64]
    #[arg(long, help_heading = DATA, value_name = "CELLS")]
    block_cells (usize): usize = 64;
    /// Cells that are mixed with one another; in the orders full, weighted and grouped, cells that
    /// are read together: more take more memory and fewer passes over the files [default: 8192]
    #[arg(long, help_heading = DATA, value_name = "CELLS")]
    buffer_cells (usize): usize = 8192;
    /// Expected cells per file; lengths are read from the files, and a different one is reported
    #[arg(long, help_heading = DATA, value_name = "CELLS")]
    shard_size (u64): Option<u64> = None;
    /// Matrix to read: X, layers.NAME or raw.X [default: X]
    #[arg(long, help_heading = DATA, value_name = "MATRIX", value_parser = named::<MatrixKey>)]
    matrix (MatrixKey): MatrixKey = MatrixKey::X;
    /// Column of var that holds the gene ids [default: the var index]
    #[arg(long, help_heading = DATA, value_name = "COLUMN")]
    gene_id_column (String): Option<String> = None;
    /// Other names for the files' gene ids: a table with the columns gene and mapped_to, such as
    /// `gene-bert genes map` writes
    #[arg(long, help_heading = DATA, value_name = "FILE")]
    gene_map (PathBuf): Option<PathBuf> = None;
    /// Least share of the gene vocabulary that each file must have [default: 0.5]
    #[arg(long, help_heading = DATA, value_name = "SHARE")]
    min_gene_overlap (f64): f64 = 0.5;
    /// Accept values that look scaled rather than counts or their logs
    #[arg(
        long, help_heading = DATA, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    allow_scaled (bool): bool = false;
    /// Edges between the expression bins, ascending, the same for every gene
    #[arg(
        long, help_heading = TOKENS, value_name = "EDGE", num_args = 1.., action = ArgAction::Set,
        allow_negative_numbers = true
    )]
    bin_edges (Vec<f64>): Option<Vec<f64>> = None;
    /// JSON file gene -> edges, the same number for each gene
    #[arg(long, help_heading = TOKENS, value_name = "FILE")]
    bin_edges_path (PathBuf): Option<PathBuf> = None;
    /// Number of bins cut at the quantiles of each cell, in place of edges
    #[arg(long, help_heading = TOKENS, value_name = "BINS")]
    quantile_bins (usize): Option<usize> = None;
    /// What is done to the values before binning: none, log1p, normalize_total:1e4+log1p, ...
    /// (steps: clip:MAX, log1p, normalize_total:TARGET, scale:FACTOR) [default: none]
    #[arg(long, help_heading = TOKENS, value_name = "TRANSFORM", value_parser = named::<Transform>)]
    transform (Transform): Transform = Transform::default();
    /// What is done to training cells before that, other draws in each epoch: thin:SHARE (a
    /// binomial draw of each count), gene_dropout:P, ... [default: none]
    #[arg(long, help_heading = TOKENS, value_name = "TRANSFORM", value_parser = named::<Transform>)]
    augment (Transform): Transform = Transform::default();
    /// Phenotype vocabulary (JSON) [default: built from the training files]
    #[arg(long, help_heading = TOKENS, value_name = "FILE")]
    vocab_path (PathBuf): Option<PathBuf> = None;
    /// Columns of obs that become tokens, in this order
    #[arg(
        long, help_heading = TOKENS, value_name = "COLUMN", num_args = 1.., action = ArgAction::Set
    )]
    included_phenotypes (Vec<String>): Vec<String> = Vec::new();
    /// A phenotype value that is missing or not in the vocabulary: mask it, skip the cell, or
    /// stop with an error [default: error]
    #[arg(
        long, help_heading = TOKENS, value_name = "POLICY",
        value_parser = named::<UnknownPhenotype>
    )]
    unknown_phenotype (UnknownPhenotype): UnknownPhenotype = UnknownPhenotype::Error;
    /// Most tokens per cell, with CLS, phenotypes and EOS [default: 1024]
    #[arg(long, help_heading = TOKENS, value_name = "TOKENS")]
    max_length (usize): usize = 1024;
    /// Table of genes, the best first, as `gene-bert genes rank` writes it; genes that are not in it
    /// rank last [default: the column highly_variable_rank of var, where a file has it]
    #[arg(long, help_heading = TOKENS, value_name = "FILE")]
    gene_ranking (PathBuf): Option<PathBuf> = None;
    /// Keep only the best-ranked genes [default: all]
    #[arg(long, help_heading = TOKENS, value_name = "GENES")]
    num_top_genes (usize): Option<usize> = None;
    /// Which genes come first and survive truncation: rank, file, expression or random [default:
    /// rank where genes are ranked, else file]
    #[arg(long, help_heading = TOKENS, value_name = "ORDER", value_parser = named::<GeneOrder>)]
    gene_order (GeneOrder): Option<GeneOrder> = None;
    /// Repeat the known mistakes of another program: perturbgene
    #[arg(long, help_heading = TOKENS, value_name = "PROGRAM", value_parser = named::<Compat>)]
    compat (Compat): Option<Compat> = None;
    /// Probability that a gene is masked [default: 0.15]
    #[arg(long, help_heading = MASKS, value_name = "P")]
    gene_mask_prob (f64): f64 = 0.15;
    /// Probability that a phenotype is masked [default: 0.5]
    #[arg(long, help_heading = MASKS, value_name = "P")]
    phenotype_mask_prob (f64): f64 = 0.5;
    /// How genes that a cell does not express are drawn for masking: uniform or frequency
    /// [default: uniform]
    #[arg(
        long, help_heading = MASKS, value_name = "HOW", value_parser = named::<AbsentGeneSampling>
    )]
    absent_gene_sampling (AbsentGeneSampling): AbsentGeneSampling = AbsentGeneSampling::Uniform;
    /// Column of obs whose values are the classes; it may not be among the included phenotypes
    #[arg(long, help_heading = CLASSES, value_name = "COLUMN")]
    phenotype_category (String): Option<String> = None;
    /// Tell only this value of the category from all others, such as lung
    #[arg(long, help_heading = CLASSES, value_name = "VALUE")]
    binary_label (String): Option<String> = None;
    /// Train on equally many cells of each class: all of the rarest, as many of the others, drawn
    /// once
    #[arg(
        long, help_heading = CLASSES, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    balanced_dataset (bool): bool = false;
    /// What a cell's loss is multiplied by: inverse_frequency (of its class among the training
    /// cells) or none [default: inverse_frequency]
    #[arg(
        long, help_heading = CLASSES, value_name = "WEIGHTS", value_parser = named::<ClassWeights>
    )]
    class_weights (ClassWeights): ClassWeights = ClassWeights::InverseFrequency;
    /// Leave the encoder as it is and train the classifier only; with a number, leave the
    /// embeddings and so many blocks
    #[arg(
        long, help_heading = CLASSES, value_name = "BLOCKS", num_args = 0..=1,
        default_missing_value = "all", value_parser = named::<FreezeEncoder>
    )]
    freeze_encoder (FreezeEncoder): Option<FreezeEncoder> = None;
    /// Model config (JSON; random weights), or a checkpoint folder: its weights, vocabulary,
    /// genes and bins are used
    #[arg(long, help_heading = MODEL, value_name = "PATH")]
    pretrained_model_path (PathBuf): Option<PathBuf> = None;
    /// A built-in model config by name, in place of --pretrained_model_path
    #[arg(long, help_heading = MODEL, value_name = "NAME")]
    model_arch (String): Option<String> = None;
    /// Number of transformer blocks [default: from the model config]
    #[arg(long, help_heading = MODEL, value_name = "BLOCKS")]
    num_hidden_layers (usize): Option<usize> = None;
    /// Number of attention heads [default: from the model config]
    #[arg(long, help_heading = MODEL, value_name = "HEADS")]
    num_attention_heads (usize): Option<usize> = None;
    /// Dropout of embeddings and hidden states [default: from the model config]
    #[arg(long, help_heading = MODEL, value_name = "P")]
    hidden_dropout_prob (f64): Option<f64> = None;
    /// Dropout of attention weights [default: from the model config]
    #[arg(long, help_heading = MODEL, value_name = "P")]
    attention_probs_dropout_prob (f64): Option<f64> = None;
    /// Where the vectors of genes of a new model start: random, or components (genes that vary
    /// together over the training cells start near one another; no label is looked at)
    /// [default: random]
    #[arg(long, help_heading = MODEL, value_name = "START", value_parser = named::<GeneStart>)]
    init_gene_embeddings (GeneStart): GeneStart = GeneStart::Random;
    /// Fused attention over packed cells; on the CPU it is always used, with or without this flag
    #[arg(
        long, help_heading = MODEL, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    use_flash_attn (bool): bool = false;
    /// Folder of the run: checkpoints, metrics.jsonl, resolved settings
    #[arg(long, help_heading = TRAINING, value_name = "FOLDER")]
    output_dir (PathBuf): Option<PathBuf> = None;
    /// Seed of everything random [default: 42]
    #[arg(long, help_heading = TRAINING, value_name = "SEED")]
    seed (u64): u64 = 42;
    /// Times that every training cell is seen [default: 3 unless --max_steps]
    #[arg(long, help_heading = TRAINING, value_name = "EPOCHS")]
    num_train_epochs (f64): Option<f64> = None;
    /// Optimizer steps, in place of --num_train_epochs
    #[arg(long, help_heading = TRAINING, value_name = "STEPS")]
    max_steps (u64): Option<u64> = None;
    /// Training cells per batch and process [default: 32]
    #[arg(long, help_heading = TRAINING, value_name = "CELLS")]
    per_device_train_batch_size (usize): usize = 32;
    /// Compute each batch in parts of at most so many tokens, whole cells in each (a longer one by
    /// itself): the memory of large batches without it; the gradient is that of the whole batch
    /// [default: the whole batch at once]
    #[arg(long, help_heading = TRAINING, value_name = "TOKENS")]
    tokens_per_batch (usize): Option<usize> = None;
    /// Evaluation cells per batch and process [default: 64]
    #[arg(long, help_heading = TRAINING, value_name = "CELLS")]
    per_device_eval_batch_size (usize): usize = 64;
    /// Halve the batch of a new run until what it needs fits into the memory there is
    #[arg(
        long, help_heading = TRAINING, value_name = "BOOL", num_args = 0..=1,
        require_equals = true, default_missing_value = "true"
    )]
    auto_find_batch_size (bool): bool = false;
    /// Batches per optimizer step [default: 1]
    #[arg(long, help_heading = TRAINING, value_name = "BATCHES")]
    gradient_accumulation_steps (usize): usize = 1;
    /// Highest learning rate [default: 0.0001]
    #[arg(long, help_heading = TRAINING, value_name = "RATE")]
    learning_rate (f64): f64 = 1e-4;
    /// Learning rate after warm-up: linear, cosine, constant or inverse_sqrt [default: linear]
    #[arg(
        long, help_heading = TRAINING, value_name = "SCHEDULE",
        value_parser = named::<Schedule>
    )]
    lr_scheduler_type (Schedule): Schedule = Schedule::Linear;
    /// Share of the steps that warm up [default: 0]
    #[arg(long, help_heading = TRAINING, value_name = "SHARE")]
    warmup_ratio (f64): f64 = 0.0;
    /// Steps that warm up, in place of --warmup_ratio
    #[arg(long, help_heading = TRAINING, value_name = "STEPS")]
    warmup_steps (u64): Option<u64> = None;
    /// Decoupled weight decay of matrices and embeddings [default: 0.01]
    #[arg(long, help_heading = TRAINING, value_name = "RATE")]
    weight_decay (f64): f64 = 0.01;
    /// Decay of the first moment of AdamW [default: 0.9]
    #[arg(long, help_heading = TRAINING, value_name = "BETA")]
    adam_beta1 (f64): f64 = 0.9;
    /// Decay of the second moment of AdamW [default: 0.999]
    #[arg(long, help_heading = TRAINING, value_name = "BETA")]
    adam_beta2 (f64): f64 = 0.999;
    /// Added to the denominator of AdamW [default: 0.00000001]
    #[arg(long, help_heading = TRAINING, value_name = "EPSILON")]
    adam_epsilon (f64): f64 = 1e-8;
    /// Clip the norm of all gradients to this; 0: no clipping [default: 1]
    #[arg(long, help_heading = TRAINING, value_name = "NORM")]
    max_grad_norm (f64): f64 = 1.0;
    /// Share of the target spread evenly over the whole vocabulary (mlm) or all classes (cls)
    /// [default: 0]
    #[arg(long, help_heading = TRAINING, value_name = "SHARE")]
    label_smoothing (f64): f64 = 0.0;
    /// Evaluate every so many optimizer steps [default: after each epoch]
    #[arg(long, help_heading = EVALUATION, value_name = "STEPS")]
    eval_steps (u64): Option<u64> = None;
    /// Save a checkpoint every so many optimizer steps [default: after each epoch]
    #[arg(long, help_heading = EVALUATION, value_name = "STEPS")]
    save_steps (u64): Option<u64> = None;
    /// Checkpoints kept; the best and the last are never removed [default: 5]
    #[arg(long, help_heading = EVALUATION, value_name = "CHECKPOINTS")]
    save_total_limit (usize): usize = 5;
    /// Evaluation metric that says which checkpoint is best [default: loss]
    #[arg(long, help_heading = EVALUATION, value_name = "METRIC")]
    metric_for_best_model (String): String = "loss".to_owned();
    /// Stop after so many evaluations without a better metric [default: never]
    #[arg(long, help_heading = EVALUATION, value_name = "EVALUATIONS")]
    early_stopping_patience (u64): Option<u64> = None;
    /// Write the training loss to metrics.jsonl every so many steps [default: 10]
    #[arg(long, help_heading = EVALUATION, value_name = "STEPS")]
    logging_steps (u64): u64 = 10;
    /// Where the run reports to, besides metrics.jsonl in its folder: wandb,
    /// tensorboard, mlflow, each set by the environment variables of its own client [default: jsonl]
    #[arg(
        long, help_heading = TRACKING, value_name = "TRACKER", num_args = 1..,
        value_delimiter = ',', action = ArgAction::Set, value_parser = named::<ReportTo>
    )]
    report_to (Vec<ReportTo>): Vec<ReportTo> = vec![ReportTo::Jsonl];
    /// Seconds that the end of a run waits for trackers that are down or slow; what they miss is
    /// kept in the run folder [default: 30]
    #[arg(long, help_heading = TRACKING, value_name = "SECONDS")]
    report_wait (f64): f64 = 30.0;
    /// Threads that read and tokenise cells, 0: the one that computes; results do not depend on it
    /// [default: 4]
    #[arg(long, help_heading = MACHINE, value_name = "THREADS")]
    dataloader_num_workers (usize): usize = 4;
    /// Threads that compute [default: one per core]
    #[arg(long, help_heading = MACHINE, value_name = "THREADS")]
    threads (usize): Option<usize> = None;
    /// Keep less for the backward pass and compute it again: a third more time, far less memory for
    /// large batches, the same results to the bit
    #[arg(
        long, help_heading = MACHINE, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    recompute (bool): bool = false;
    /// Factors of the matrix products: f32; bf16 (weights and sums stay f32; several times faster
    /// where the processor has AMX or AVX512-BF16); f16 (on a GPU); or auto: bf16 on a GPU and where
    /// it is measured to be faster [default: f32, on a GPU bf16]
    #[arg(long, help_heading = MACHINE, value_name = "DTYPE", value_parser = named::<Dtype>)]
    dtype (Dtype): Option<Dtype> = None;
    /// Round the factors of products of f32 to tf32 on a GPU: many times faster
    #[arg(
        long, help_heading = MACHINE, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    tf32 (bool): bool = false;
    /// Where to compute: cpu, cuda:N, cuda (the first GPU; of several processes on a machine each
    /// takes the one of its number), or auto: a GPU where one can be used [default: auto]
    #[arg(long, help_heading = MACHINE, value_name = "DEVICE", value_parser = named::<Device>)]
    device (Device): Device = Device::Auto;
    /// Type of gradients on their way between processes: f32, or bf16 (half the bytes; the sums are
    /// rounded, on GPUs at every addition) [default: f32]
    #[arg(
        long, help_heading = PROCESSES, value_name = "DTYPE", value_parser = named::<Wire>
    )]
    reduce_dtype (Wire): Wire = Wire::F32;
    /// Gradients that are summed over processes at a time, in MiB [default: 4]
    #[arg(long, help_heading = PROCESSES, value_name = "MIB")]
    reduce_bucket_mib (usize): usize = 4;
    /// Each process holds the optimizer's state of its part of the weights only and moves that part:
    /// 8 bytes a weight, shared out; all weights travel once a step besides the gradients. The same
    /// results to the bit, the same checkpoints
    #[arg(
        long, help_heading = PROCESSES, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    shard_optimizer (bool): bool = false;
    /// Seconds of silence after which another process is taken to be lost, and the run ends
    /// [default: 20]
    #[arg(long, help_heading = PROCESSES, value_name = "SECONDS")]
    rank_timeout (u64): u64 = 20;
}
