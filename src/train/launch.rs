//! `gene-bert launch`: the ranks of a training command on this machine, started again from the last
//! checkpoint when one of them is lost.
//!
//! What a rank refuses as the user's mistake (exit code 1) is not tried again.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use anyhow::{Result, bail};

use super::checkpoint;
use super::engine;
use super::session::{self, run_folder};
use crate::config::RunFlags;
use crate::dist::processes::{self, Plan, Starter};

/// Exit code of a rank that met a mistake of the user's.
const USER_ERROR: u8 = 1;

/// A run whose ranks have ended without having finished it.
#[derive(Debug, thiserror::Error)]
#[error("{failure}{}{}", tries(.restarts), place(.last))]
pub struct RunFailed {
    /// Which rank failed first, and how.
    pub failure: String,
    /// Step of the last checkpoint, if there is one.
    pub last: Option<u64>,
    /// Exit code of the command.
    pub code: u8,
    /// How often the ranks were started again.
    pub restarts: u32,
}

fn tries(restarts: &u32) -> String {
    match restarts {
        0 => String::new(),
        n => format!(", after {n} restart(s)"),
    }
}

fn place(last: &Option<u64>) -> String {
    match last {
        None => String::new(),
        Some(step) => format!("; the last checkpoint is of step {step}"),
    }
}

/// Runs `plan`, whose words are those of a training command with `flags`, and again at most
/// `max_restarts` times.
///
/// # Errors
/// A build without an engine, a machine that is none of the run's; [`RunFailed`].
pub fn launch(plan: &Plan, flags: &RunFlags, max_restarts: u32) -> Result<()> {
    if plan.num_processes == 0 || plan.num_machines == 0 {
        bail!("0 processes cannot train\nhint: give 1 or more");
    }
    if plan.machine_rank >= plan.num_machines {
        bail!(
            "--machine-rank {} is not below --num-machines {}\nhint: machines count from 0",
            plan.machine_rank,
            plan.num_machines
        );
    }
    let given = flags.resolve()?;
    let starter = Starter::of_ranks(engine::is_on_gpus(given.device)?)?;
    if plan.num_machines > 1 && (starter == Starter::Mpirun || plan.master_port.is_none()) {
        bail!(
            "several machines need --master-addr and --master-port of the first one, and a build \
             with MPICH or NCCL\nhint: a build with Open MPI runs on several machines under its own mpirun, \
             or srun --mpi=pmix"
        );
    }
    let folder = run_folder(flags, &given);
    processes::pass_signals_on()?;
    let mut plan = plan.clone();
    plan.log = folder.as_deref().map(|folder| session::log(folder, 0));
    for restarts in 0.. {
        let ended = processes::run(&plan, starter)?;
        let Some(failure) = ended.failure else {
            return Ok(());
        };
        let last = folder.as_deref().and_then(last_step);
        let code = ended.code;
        if code == USER_ERROR || ended.interrupted || restarts == max_restarts {
            return Err(RunFailed {
                failure,
                last,
                code,
                restarts,
            }
            .into());
        }
        let from = match last {
            Some(step) => format!("from step {step}"),
            None => "from the beginning".to_owned(),
        };
        eprintln!(
            "{failure}; starting all again {from} (restart {} of {max_restarts})",
            restarts + 1
        );
        plan.words = again(&plan.words, folder.as_deref().filter(|_| last.is_some()));
    }
    Ok(())
}

fn last_step(folder: &Path) -> Option<u64> {
    let saved = checkpoint::list(folder).ok()?;
    saved.last().map(|saved| saved.step)
}

/// The words that go on from the last checkpoint in `folder`, or, where there is none, begin anew.
fn again(words: &[OsString], folder: Option<&Path>) -> Vec<OsString> {
    let dashed = |word: &OsString| word.to_string_lossy().replace('_', "-");
    let mut kept = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        match dashed(word).as_str() {
            "--overwrite-output-dir" => {}
            "--resume" if folder.is_some() => {
                words.next_if(|value| !value.to_string_lossy().starts_with("--"));
            }
            name if folder.is_some() && name.starts_with("--resume=") => {}
            _ => kept.push(word.clone()),
        }
    }
    match folder {
        Some(folder) => kept.extend(["--resume".as_ref(), folder.as_os_str()].map(OsStr::to_owned)),
        None => kept.push("--overwrite-output-dir".into()),
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_resumes_the_run_folder_or_begins_anew() {
        let again = |line: &str, folder: Option<&str>| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let words = again(&words, folder.map(Path::new));
            let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            words.join(" ")
        };
        for line in [
            "mlm --seed 1 --resume x/checkpoint-3",
            "mlm --resume --seed 1",
            "mlm --seed 1 --overwrite_output_dir",
            "mlm --seed 1 --resume=y",
        ] {
            assert_eq!(
                again(line, Some("run")),
                "mlm --seed 1 --resume run",
                "{line}"
            );
        }
        assert_eq!(
            again("mlm --output_dir run", None),
            "mlm --output_dir run --overwrite-output-dir"
        );
    }
}
