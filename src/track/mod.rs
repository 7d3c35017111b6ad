//! Experiment tracking: what a run reports besides its own `metrics.jsonl`.
//!
//! The seam is narrow: a run settles a [`Plan`] from settings and environment before any heavy
//! work, makes one [`Tracker`] of it, and gives that figures by name, and its end. Trackers know
//! nothing of training.
//!
//! [`journal`] is an append-only file in the run folder: everything stands there first, in the
//! order in which it happened. Each tracker ([`sink`]) has a thread of its own ([`courier`]) that
//! reads the journal from where it stands and hands it on; it notes on disk what has arrived.
//! So a tracker that is down or slow holds up nothing and takes no memory; what it missed is sent
//! when it answers again, by a resumed run, or by `gene-bert track`.
//!
//! To add one: a file that implements `Sink`, a case of [`ReportTo`] and a line in [`plan`].

mod courier;
mod crc;
mod entry;
mod environment;
mod error;
mod http;
mod journal;
mod mlflow;
mod plan;
mod send;
mod sink;
mod system;
mod tensorboard;
mod tracker;
mod wandb;

pub use entry::{About, State};
pub use error::TrackError;
pub use plan::{Plan, ReportTo};
pub use send::send;
pub use tracker::{FOLDERS, Tracker};
