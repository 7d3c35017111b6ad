//! What can go wrong between processes.

use std::io;

/// Why several processes cannot work together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistError {
    /// Several processes were asked for, and this build has no engine for where they compute.
    #[error("{asked}, but this build trains on {device} in one process only\nhint: {hint}")]
    NoEngine {
        /// What asked for them.
        asked: String,
        /// CPUs or GPUs.
        device: &'static str,
        /// How to get one.
        hint: &'static str,
    },
    /// Nobody has told where the ranks meet.
    #[error(
        "{told_by} tells this rank, but nobody where rank 0 is\nhint: set MASTER_ADDR (its host) and \
         MASTER_PORT (a free port there), the same for all ranks; `gene-bert launch`, torchrun and \
         PyTorchJob set them"
    )]
    NoMaster {
        /// The variable that told the rank.
        told_by: &'static str,
    },
    /// An environment variable of a starter of processes that cannot be used.
    #[error(
        "{name}={found}: expected {expected}\nhint: the program that starts the processes sets it; \
             unset it to train in one process"
    )]
    Environment {
        /// The variable.
        name: String,
        /// Its value.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// The engine has another number of ranks than the starter.
    #[error(
        "{library} sees {found} process(es), but the environment says {expected}\nhint: {hint}"
    )]
    World {
        /// The MPI library.
        library: String,
        /// Its ranks.
        found: usize,
        /// The starter's.
        expected: usize,
        /// What to do.
        hint: &'static str,
    },
    /// The engine failed.
    #[error("{engine}: {problem}")]
    Engine {
        /// Its name.
        engine: &'static str,
        /// What it says.
        problem: String,
    },
    /// A tensor cannot be read or written, or its device fails.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// The engine's thread has ended.
    #[error("the processes of the run are no longer connected")]
    Ended,
    /// Rank 0's port cannot be opened.
    #[error(
        "{address}: cannot listen there for the other processes\nhint: choose a free port \
             (MASTER_PORT, or --master-port of `gene-bert launch`)"
    )]
    Listen {
        /// Host and port.
        address: String,
        /// The system's own words.
        source: io::Error,
    },
    /// Rank 0 does not answer.
    #[error(
        "rank {rank}: rank 0 at {address} could not be reached within {seconds} s\nhint: rank 0 \
             must run there, and no firewall may stand between (MASTER_ADDR, MASTER_PORT)"
    )]
    Unreachable {
        /// This rank.
        rank: usize,
        /// Host and port.
        address: String,
        /// How long it was tried.
        seconds: u64,
        /// The system's own words.
        source: io::Error,
    },
    /// A process could not be started.
    #[error("{program}: cannot be started")]
    Start {
        /// The program.
        program: String,
        /// The system's own words.
        source: io::Error,
    },
}

impl DistError {
    /// There is no MPI.
    pub fn no_mpi(asked: String) -> Self {
        Self::NoEngine {
            asked,
            device: "CPUs",
            hint: "build one with MPI: install Open MPI or MPICH with its headers and libclang \
                   (Debian: libopenmpi-dev openmpi-bin libclang-dev, or mpich libmpich-dev \
                   libclang-dev), then `cargo install --path . --features mpi`\n\
                   hint: on GPUs, one process each: --features nccl",
        }
    }

    /// There is no NCCL.
    pub fn no_nccl(asked: String) -> Self {
        Self::NoEngine {
            asked,
            device: "GPUs",
            hint: "build one with NCCL: eval \"$(scripts/cuda-toolkit)\" && cargo install --path . \
                   --features nccl; or compute on the CPU: --device cpu",
        }
    }
}
