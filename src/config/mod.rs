//! `RunConfig`: every setting of a training run, resolved as defaults < `--config` file < flags.
//!
//! [`settings`] is the one table of settings: name, type, default and doc of each; the flags, the
//! keys of the TOML file and the fields of [`RunConfig`] are made from it, so they cannot differ.
//! [`RunFlags`] is what clap reads; [`RunFlags::resolve`] merges. [`RunConfig::validate`] runs
//! before any heavy work and returns all problems at once, each with what to set instead.
//! [`RunConfig::to_toml`] is saved in the run folder and in every checkpoint, and reads back
//! through `--config` to the same value.
//!
//! Knows no data and no files but the TOML one: whether paths exist is found out by those who
//! open them.

mod choices;
mod components;
mod jobs;
mod resolve;
mod settings;
mod spelling;
mod validate;
mod validate_data;
mod validate_evaluation;

pub use choices::{ClassWeights, Device, Dtype, FreezeEncoder, GeneStart, named};
pub use jobs::Job;
pub use resolve::{ConfigError, Resume, RunFlags};
pub use settings::{RunConfig, Settings};
pub use spelling::nearest;
pub use validate::{Invalid, Problem};
