//! Files of cells written again: several as one, in files of a size, shuffled, with other types,
//! compression and chunks.
//!
//! What is in memory is bounded by [`ConvertConfig::memory_bytes`], besides some ten bytes for each
//! cell and one obs column at a time. Rows are read in tasks by all threads, become the bytes of
//! their new type at once, and are written in order while the next ones are read. Shuffling goes
//! through a temporary file: every row to the bucket of its place, then bucket by bucket.
//!
//! Output files are built under hidden names and renamed when all are whole, so that a process
//! that is killed leaves the old files or the new ones; finished files are found again with
//! [`ConvertConfig::resume`].

mod archive;
mod config;
mod genes;
mod job;
mod neighbors;
mod places;
mod reading;
mod spill;
mod stage;

pub use archive::convert_to_archive;
pub use config::{Compression, ConvertConfig, Dtype, GeneChoice, MemorySize};
pub use job::{Converted, convert};
