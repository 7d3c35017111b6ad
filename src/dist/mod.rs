//! Several processes that train one model: collectives over existing engines, where a process
//! stands among the others, and whether the others still live.
//!
//! A process of a run is a *rank*, 0 to world − 1. [`place`] reads from the environment which rank
//! this is (`gene-bert launch`, torchrun, mpirun, srun, Kubernetes' PyTorchJob); [`Group`] runs a
//! [`Collective`] on a thread of its own, so that sums over ranks go on while gradients are still
//! being computed. The sums themselves are an engine's: MPI between CPUs (cargo feature `mpi`), NCCL
//! between GPUs (feature `nccl`), or [`Alone`] where there is one process. [`pulse`] is what no engine has: ranks tell one another
//! once a second that they live, so that one that was killed or stopped ends the others within
//! seconds; [`Mail`] carries messages between hosts whose sums are on GPUs. [`pmi`] lets MPICH's ranks find one another by MASTER_ADDR and MASTER_PORT, without a
//! starter of its own. [`processes`] starts ranks and watches them. [`Ranks`] is all of it together.
//!
//! Refuses to know: models, gradients, settings.

mod alone;
pub mod bf16;
mod collective;
mod error;
mod group;
mod mail;
#[cfg(feature = "mpi")]
pub mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
pub mod place;
pub mod pmi;
pub mod processes;
pub mod pulse;
mod ranks;

pub use alone::Alone;
pub use collective::{Collective, Wire, places};
pub use error::DistError;
pub use group::{Group, Travelling};
pub use mail::Mail;
pub use ranks::{Engine, Ranks};
