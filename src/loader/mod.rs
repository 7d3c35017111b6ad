//! Many files as one data set: plan, collator, read-ahead, resumable state.
//!
//! [`DataSet`] numbers the cells of all sources from 0. [`Sampler`] plans the order of an epoch
//! from (seed, epoch) alone and touches no file. [`Loader`] reads ahead of the model with a
//! number of threads and hands out [`crate::cell::PackedBatch`]es; a [`Collator`] decides, cell by
//! cell, what is masked; an [`EvalSet`] was masked beforehand. Knows no tensors.
//!
//! What holds, whatever the number of reader threads:
//! * the order of an epoch is the same for any number of threads and ranks; global batch i is the
//!   positions i·G..(i+1)·G of that order (G = ranks × batch), of which rank r takes the r-th part;
//! * every rank makes the same number of steps; each cell occurs once per epoch over all ranks,
//!   unless [`Remainder`] or [`Shuffle`] says otherwise;
//! * a [`LoaderState`] taken between two batches resumes exactly there.
//!
//! Left out on purpose: padding, reading ahead over the end of an epoch.
//!
//! To add a way to order cells: a file, an arm in [`Shuffle`] and one in `plan.rs`.

mod absent;
mod batch;
mod block;
mod classes;
mod collator;
mod column;
mod data_set;
mod error;
mod eval_set;
mod fetch;
mod files;
#[cfg(test)]
mod fixture;
mod groups;
mod masking;
mod mixing;
mod mlm;
#[cfg(test)]
mod mlm_tests;
#[cfg(test)]
mod order_tests;
mod permutation;
mod plan;
mod pool;
mod random_split;
mod rows;
mod sampler;
pub mod split;
mod state;
mod stream;
pub mod table;
#[cfg(test)]
mod tests;
pub mod throughput;
mod weights;

pub use batch::{BatchPlan, Remainder};
pub use classes::{ClassCollator, NO_CLASS};
pub use collator::{CollatedCell, Collator, PlainCollator};
pub use column::{CellColumn, OrderBy};
pub use data_set::DataSet;
pub use error::LoaderError;
pub use eval_set::{Attends, EvalSet, Example, NO_LABEL, Origin};
pub use fetch::{ReadCells, Tokens};
pub use files::CellFile;
pub use groups::Groups;
pub use masking::{AbsentGeneSampling, EvalMasking, MlmConfig};
pub use mixing::Mixing;
pub use mlm::MlmCollator;
pub use plan::{EpochPlan, Fetch};
pub use random_split::random_split;
pub use rows::Rows;
pub use sampler::{Basis, Sampler, SamplerConfig, Selection, Shuffle};
pub use state::{LoaderState, SourceState};
pub use stream::{Loader, LoaderConfig, RowLoader};
pub use weights::Weights;
