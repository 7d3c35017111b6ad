//! Runs on the disk: which there are below a folder ([`find`]), how far and how good each is
//! ([`run`], and [`trials`] of studies), all of them as a table ([`table`]), two of them compared ([`diff`]).
//!
//! A run folder is one with a `run.toml` that is no checkpoint; everything is read from that file
//! and `metrics.jsonl`, whether the run goes on, has ended or was killed. Nothing is written.

pub mod diff;
pub mod find;
pub mod run;
pub mod table;
pub mod trials;
