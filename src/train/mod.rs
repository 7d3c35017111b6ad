//! Training: the only place where model, loader and optimizer meet.
//!
//! [`session`] begins with a command's flags; [`run`] goes from a resolved configuration to a trained model, with what the [`task`] brings
//! ([`pretrain`], [`classify`]): [`data`] opens the files, [`divided`] says who is held out,
//! [`start`] settles vocabulary and weights ([`gene_start`]: those of genes from the cells), [`trainer`] is the loop and [`settle`] what it makes of each step, [`evaluate`] and [`held_out`]
//! measure on held-out cells next to [`baseline`]s and give [`answers`] and [`figures`];
//! [`checkpoint`] is what stands on disk, [`resume`] finds the settings of one.
//! Progress, `metrics.jsonl`, the checkpoint schedule and early stopping are [`hooks`] of the loop;
//! the loop knows none of them. Of several processes ([`crate::dist`]) each trains on its own batches:
//! [`engine`] says over what, [`reduce`] sums their gradients, [`shard`] divides the optimizer's
//! moments among them, [`agreement`] checks that all are about to do the same. Resuming is exact to the bit: all that a step depends on
//! is its number, the place in the data, weights and moments.

mod agreement;
mod ahead;
pub mod answers;
mod available_memory;
pub mod baseline;
pub mod checkpoint;
pub mod class_figures;
pub mod classes;
pub mod classify;
pub mod data;
mod divided;
mod engine;
pub mod evaluate;
pub mod figures;
mod gathered;
mod gene_start;
pub mod held_out;
pub mod hooks;
mod labelled;
pub mod launch;
mod memory;
pub mod pretrain;
mod reduce;
pub mod resume;
pub mod run;
pub mod run_folder;
pub mod session;
mod settle;
mod shard;
pub mod signal;
pub mod start;
pub mod task;
mod threads;
pub mod throughput;
pub mod trainer;
mod values;
