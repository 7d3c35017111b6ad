//! How good a checkpoint is on given cells: every figure of SPEC §5 with its baseline, in numbers
//! and for the eye.
//!
//! `subject` settles which cells are looked at (the files given, or those that the run itself held
//! out) and where the constant answers come from; [`assess()`] goes from there to the end: `answer`
//! lets the model answer, by the code that evaluates in training, with the same masks; `simple` lets simple methods answer the same, from `expression`; `sums` makes
//! figures of the answers and `intervals` confidence intervals; [`summary`] is what is written as
//! `metrics.json`; [`map`] embeds and lays cells out, [`report`] is the page; [`output`] puts the folder together, and `table` is for the screen.
//!
//! Knows nothing of how a model is trained, and never changes a checkpoint.

mod answer;
mod expression;
mod intervals;
mod job;
pub mod map;
pub mod output;
pub mod report;
mod simple;
mod subject;
pub mod summary;
mod sums;
mod table;
mod units;

pub use job::{Assessed, assess};
pub use subject::Question;
