//! Many files as one data set: plan, collator, read-ahead, resumable state.
//!
//! [`DataSet`] numbers the cells of all sources from 0. [`Sampler`] plans the order of an epoch
//! from (seed, epoch) alone and touches no file. [`Loader`] reads ahead of the model with a
//! number of threads and hands out [`crate::cell::PackedBatch`]es; a [`Collator`] decides, cell by
//! cell, what is masked. Knows no tensors.
//!
//! What holds, whatever the number of reader threads:
//! * the order of an epoch is the same for any number of threads and ranks; global batch i is the
//!   positions i·G..(i+1)·G of that order (G = ranks × batch), of which rank r takes the r-th part;
//! * every rank makes the same number of steps, and each cell occurs once per epoch over all ranks;
//! * a [`LoaderState`] taken between two batches resumes exactly there.
//!
//! Left out on purpose: padding, reading ahead over the end of an epoch.
//!
//! To add a way to order cells: one arm in [`Shuffle`] and one in `plan.rs`.

mod absent;
mod batch;
mod classes;
mod collator;
mod data_set;
mod error;
mod fetch;
#[cfg(test)]
mod fixture;
mod masking;
mod mlm;
#[cfg(test)]
mod mlm_tests;
mod plan;
mod pool;
mod sampler;
mod state;
mod stream;
#[cfg(test)]
mod tests;
pub mod throughput;

pub use batch::{BatchPlan, Tail};
pub use classes::{ClassCollator, NO_CLASS};
pub use collator::{CollatedCell, Collator, PlainCollator};
pub use data_set::DataSet;
pub use error::LoaderError;
pub use masking::{AbsentGeneSampling, EvalMasking, MlmConfig};
pub use mlm::MlmCollator;
pub use plan::{EpochPlan, Fetch};
pub use sampler::{Sampler, SamplerConfig, Selection, Shuffle};
pub use state::{LoaderState, SourceState};
pub use stream::{Loader, LoaderConfig};
