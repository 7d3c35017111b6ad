//! A training command from its flags on: joins the other processes of the run, if there are any,
//! settles the settings, trains, and parts from the others, in good order or with the reason.
//!
//! Only the first rank prints; what the others say goes to `logs/rank-N.log` in the run folder, and so
//! does, under `gene-bert launch`, what the first one prints.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::run::Asked;
use super::{classify, engine, pretrain, resume, threads};
use crate::config::{Job, Resume, RunConfig, RunFlags};
use crate::dist::Ranks;
use crate::dist::place::Place;
use crate::kernels::parallel::compute_with;

/// Resolves the settings, with a checkpoint's own below the rest where one is resumed, and trains.
///
/// # Errors
/// Settings that cannot work, processes that do not find one another, and whatever keeps the run
/// from its end.
pub fn train(flags: &RunFlags, job: Job) -> Result<()> {
    let given = flags.resolve()?;
    let ranks = Arc::new(join(&given)?);
    let trained = on(&ranks, flags, &given, job);
    let why = trained.as_ref().err().map(|error| format!("{error:#}"));
    ranks.leave(why.as_deref());
    trained
}

/// The ranks that the environment tells of; one process where it tells of none.
fn join(given: &RunConfig) -> Result<Ranks> {
    let Some(place) = Place::from_environment()? else {
        return Ok(Ranks::alone());
    };
    let engine = engine::of_rank(given.device, &place)?;
    let limit = Duration::from_secs(given.rank_timeout);
    Ok(Ranks::join(place, engine, limit)?)
}

fn on(ranks: &Arc<Ranks>, flags: &RunFlags, given: &RunConfig, job: Job) -> Result<()> {
    if let Some(folder) = run_folder(flags, given) {
        let log = folder
            .join("logs")
            .join(format!("rank-{}.log", ranks.rank()));
        let context = || format!("{}: cannot write the log", log.display());
        ranks.print_to(&log).with_context(context)?;
    }
    flags.validate_for(job)?;
    let (config, resumed) = resume::settle(flags)?;
    compute_with(config.threads.or(threads::of_rank(ranks)));
    for note in config.notes() {
        eprintln!("note: {note}");
    }
    let asked = Asked {
        ranks,
        overwrite: flags.overwrite_output_dir && resumed.is_none(),
        resume: resumed.as_deref(),
    };
    match job {
        Job::Mlm => pretrain::pretrain(&config, asked).map(drop),
        Job::Cls | Job::Bincls => classify::classify(&config, job, asked).map(drop),
    }
}

/// Where the run folder keeps what a rank says.
pub(super) fn log(folder: &Path, rank: usize) -> PathBuf {
    folder.join("logs").join(format!("rank-{rank}.log"))
}

/// The folder of the run that the flags ask for, as far as they tell it.
pub(super) fn run_folder(flags: &RunFlags, given: &RunConfig) -> Option<PathBuf> {
    let of_resumed = || match flags.resume() {
        Resume::From(path) if path.join("trainer_state.json").is_file() => {
            path.parent().map(Path::to_owned)
        }
        Resume::From(path) => Some(path),
        Resume::No | Resume::Latest => None,
    };
    given.output_dir.clone().or_else(of_resumed)
}
