//! Named weights and their gradients: what model and optimizer share.
//!
//! [`Parameters`] is an ordered list of named candle variables, made from [`ParameterSpec`]s (a
//! model lists them), initialised from the run seed, and read from and written to safetensors
//! files under those names. [`Gradients`] is a list of the same order. A gradient is either dense
//! or, for a table of which a batch touches few rows, a list of rows ([`Gradient`]); gradients of
//! several batches are added in place. Knows no layer and no optimizer.

mod archive;
mod error;
mod gradients;
mod store;

pub use archive::{Archive, TensorsAndMetadata, read_tensors, write_tensors};
pub use error::ParameterError;
pub use gradients::{Gradient, Gradients, RowGradient, Watcher};
pub use store::{Init, LoadReport, Parameter, ParameterSpec, Parameters};
