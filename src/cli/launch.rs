//! `gene-bert launch`: a training command in several processes on this machine.

use std::ffi::OsString;

use anyhow::{Result, bail};

use super::Cli;
use crate::dist::processes::Plan;
use crate::train::launch;

/// Flags of `launch`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: gene-bert launch --num-processes 4 -- mlm --config run.toml --output_dir run
Also understood, without launch: torchrun --no-python, mpirun, srun, Kubernetes' PyTorchJob
(RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT; OMPI_COMM_WORLD_*; PMI_*; SLURM_*).")]
pub struct LaunchArgs {
    /// Processes on this machine
    #[arg(long, short = 'n', value_name = "PROCESSES")]
    num_processes: usize,
    /// Machines, on each of which this command is given
    #[arg(long, value_name = "MACHINES", default_value_t = 1)]
    num_machines: usize,
    /// Number of this machine, from 0
    #[arg(long, value_name = "MACHINE", default_value_t = 0)]
    machine_rank: usize,
    /// Host name or address of machine 0
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    master_addr: String,
    /// A port of machine 0 that is free [default: any, on one machine]
    #[arg(long, value_name = "PORT")]
    master_port: Option<u16>,
    /// Start again from the last checkpoint, at most so many times, when a process is lost
    #[arg(long, value_name = "TIMES", default_value_t = 0)]
    max_restarts: u32,
    /// The command: mlm, cls or bincls with its flags
    #[arg(last = true, required = true, value_name = "COMMAND")]
    words: Vec<OsString>,
}

/// Starts the processes and waits for them.
///
/// # Errors
/// A command that does not train, a build without an engine, a process that failed.
pub fn run(args: LaunchArgs) -> Result<()> {
    let program = std::env::current_exe()?;
    let typed = std::iter::once("gene-bert".into()).chain(args.words.iter().cloned());
    let inner = Cli::from_words(typed)?;
    let Some(flags) = inner.training_flags() else {
        bail!(
            "launch runs training commands only\nhint: gene-bert launch -n 2 -- mlm …, cls … or \
             bincls …"
        );
    };
    let plan = Plan {
        program,
        words: args.words,
        num_processes: args.num_processes,
        num_machines: args.num_machines,
        machine_rank: args.machine_rank,
        master_addr: args.master_addr,
        master_port: args.master_port,
        log: None,
    };
    launch::launch(&plan, flags, args.max_restarts)
}
