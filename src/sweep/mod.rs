//! Studies: many runs that differ in some settings, chosen by a grid, at random or by the results
//! so far, as W&B's sweep files describe them.
//!
//! A study file ([`study`], [`parameter`], [`command`]) is read from YAML; a trial is a point in the
//! unit cube, which [`distribution`] makes into settings; [`search`] chooses the next one ([`tpe`]
//! where results count); [`runner`] keeps children running ([`child`]) on devices and cores ([`place`]),
//! [`hyperband`] ends those that are not worth it; [`folder`] holds all of it on the disk, so that a killed sweep goes on; and
//! [`report`] shows what came of it, with what mattered ([`importance`]).
//!
//! What a run does is none of its business: it starts the same command that a person would, and
//! reads the `metrics.jsonl` that any run writes.

mod child;
pub mod command;
pub mod distribution;
pub mod dry;
pub mod error;
pub mod folder;
pub mod hyperband;
pub mod importance;
pub mod parameter;
pub mod place;
pub mod report;
pub mod runner;
pub mod search;
pub mod study;
pub mod tpe;
pub mod trial;
pub mod value;
mod yaml;
