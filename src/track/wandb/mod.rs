//! Weights & Biases: online (`api.wandb.ai` or a server of one's own) or offline (a file that
//! `wandb sync` sends later), by the environment variables of its own client.
//!
//! [`labels`] reads the variables, [`run`] is what both ways know of the run, [`offline`] writes
//! the file ([`log_file`] frames its records, [`messages`] are their types).

mod labels;
mod log_file;
mod messages;
mod offline;
mod run;

pub(super) use labels::{Labels, Mode};
pub(super) use offline::FOLDER;
pub(super) use offline::Offline;
