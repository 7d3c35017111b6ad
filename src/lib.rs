//! gene-bert: pretrain, fine-tune and evaluate positionless transformers on single-cell atlases.
//!
//! The map. A room uses rooms of a lower rank only, never a sibling (`tests/it/layering.rs` checks
//! it); rooms marked ∘ never name candle.
//!
//! | rank | room | what it owns |
//! |---|---|---|
//! | 0 | [`cell`] ∘ | the nouns that cross rooms: [`cell::CellSource`], [`cell::TokenizedCell`], [`cell::PackedBatch`] |
//! | 0 | [`rng`] ∘ | every random stream, derived from (seed, stream, epoch, id) |
//! | 0 | [`file`](mod@file) ∘ | read and write whose errors name the path; atomic files and folders; path patterns |
//! | 0 | [`numbers`] ∘ | numbers as they lie in files: widths, byte orders, half precision |
//! | 0 | [`page`] ∘ | pieces of self-contained HTML pages: style, tables, charts |
//! | 0 | [`buffers`] | read and write views of candle tensors |
//! | 1 | [`metrics`] ∘ | how good predictions and clusters are, from numbers alone |
//! | 1 | [`h5ad`] ∘ | AnnData files of any encoding: row blocks and obs columns; knows no tokens |
//! | 1 | [`vocab`] ∘ | genes and phenotype values ↔ frozen ids |
//! | 1 | [`store`] ∘ | the other cell sources behind [`cell::CellSource`] |
//! | 1 | [`kernels`] | the fused operations of a training step; the only `unsafe` |
//! | 1 | [`track`] ∘ | what a run reports to W&B, TensorBoard, MLflow, through a journal on disk |
//! | 1 | [`classical`] ∘ | the simple methods that a model is compared with and looked at by |
//! | 2 | [`dist`] | several processes: collectives over existing engines, launching, liveness |
//! | 2 | [`parameters`] | named weights, their gradients, both on disk as safetensors |
//! | 2 | [`tokenize`] ∘ | cell + vocabulary + settings → tokens |
//! | 3 | [`model`] | GeneBERT: config, embeddings, blocks, heads, init, weights on disk |
//! | 3 | [`optim`] | AdamW, schedules, clipping |
//! | 3 | [`loader`] ∘ | sampling plan, collator, read-ahead, resumable state |
//! | 4 | [`config`] | `RunConfig`: defaults < TOML file < flags; validated before any heavy work |
//! | 5 | [`prepare`] ∘ | jobs on data: conversion, vocabularies, rankings of genes, tokens, simulated cells |
//! | 6 | [`train`] | the loop, hooks, checkpoints, evaluation |
//! | 7 | [`infer`] | embeddings and predictions of cells, put back into h5ad |
//! | 7 | [`runs`] ∘ | runs on the disk: which there are, how they stand, two compared |
//! | 7 | [`quickstart`] | a first run, on simulated cells or the user's |
//! | 7 | [`sweep`] ∘ | studies: many runs as child processes, which settings are next, what came of them |
//! | 8 | [`assess`] | how good a checkpoint is: figures, intervals, baselines, files to look at |
//! | 9 | [`cli`] | one file per subcommand: flags and `run`, no logic |

pub mod assess;
pub mod buffers;
pub mod cell;
pub mod classical;
pub mod cli;
pub mod config;
pub mod dist;
pub mod file;
pub mod h5ad;
pub mod infer;
pub mod kernels;
pub mod loader;
pub mod metrics;
pub mod model;
pub mod numbers;
pub mod optim;
pub mod page;
pub mod parameters;
pub mod prepare;
pub mod quickstart;
pub mod rng;
pub mod runs;
pub mod store;
pub mod sweep;
pub mod tokenize;
pub mod track;
pub mod train;
pub mod vocab;
