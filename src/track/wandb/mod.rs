//! Weights & Biases: online (`api.wandb.ai` or a server of one's own) or offline (a file that
//! `wandb sync` sends later), by the environment variables of its own client.
//!
//! [`labels`] and [`account`] read the variables, [`run`] is what both ways know of the run,
//! [`online`] talks to the server, [`offline`] writes the file ([`log_file`] frames its records,
//! [`messages`] are their types).

mod account;
mod labels;
mod log_file;
mod messages;
mod offline;
mod online;
mod run;

pub(super) use account::Account;
pub(super) use labels::{Labels, Mode};
pub(super) use offline::{FOLDER, Offline};
pub(super) use online::Online;
