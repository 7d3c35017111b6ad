//! The folder of a study: what was asked, every trial, and what can be looked at.
//!
//! | file | what |
//! |---|---|
//! | `study.yaml` | the study file as it was |
//! | `study.json` | seed and trials; replaced whole at every change, so that a killed sweep goes on |
//! | `study.csv` | a row for each trial |
//! | `study.html` | the same to look at, with charts |
//! | `trial-007/` | the run folder of a trial, with `stdout.log` and `stderr.log` |
//! | `study.lock` | held while a sweep works in the folder |

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::study::Study;
use super::trial::{State, Trial};
use crate::file::{self, FileError, TableWriter, read_json, read_string, write_atomic};

const FORMAT: u32 = 1;
const STUDY: &str = "study.yaml";
const RECORD: &str = "study.json";
const LOCK: &str = "study.lock";
/// The table of trials.
pub const TABLE: &str = "study.csv";
/// The page to look at.
pub const PAGE: &str = "study.html";

/// What a sweep is asked to do.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The study file, or the folder of a study to go on with.
    pub study: PathBuf,
    /// The folder; by default the study file's name without its ending.
    pub output: Option<PathBuf>,
    /// Seed of the search; by default 1, or that of the study that goes on.
    pub seed: Option<u64>,
    /// Words for every trial.
    pub more: Vec<String>,
    /// The most trials, in place of the study's `run_cap`.
    pub run_cap: Option<u64>,
    /// Whether to delete a study that is in the folder.
    pub overwrite: bool,
    /// Whether failed trials run again.
    pub retry_failed: bool,
}

/// What `study.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    gene_bert: String,
    name: String,
    seed: u64,
    more: Vec<String>,
    trials: Vec<Trial>,
}

/// A study and the folder it works in.
#[derive(Debug)]
pub struct StudyFolder {
    /// The folder.
    pub path: PathBuf,
    /// The study.
    pub study: Study,
    /// Seed of the search.
    pub seed: u64,
    /// Its trials so far, by number.
    pub trials: Vec<Trial>,
    more: Vec<String>,
    // Held open: the lock ends with the process, however that ends.
    _lock: File,
}

/// A study file read, and what of an earlier sweep goes on.
#[derive(Debug)]
pub struct Plan {
    /// The study.
    pub study: Study,
    /// Seed of the search.
    pub seed: u64,
    path: PathBuf,
    text: String,
    more: Vec<String>,
    before: Option<Record>,
}

/// Reads the study, and what stands in its folder. Writes nothing.
///
/// # Errors
/// A study file that cannot be used, a folder that holds something else or another study.
pub fn plan(asked: &Asked) -> Result<Plan> {
    let goes_on = asked.study.is_dir();
    let (file, path) = if goes_on {
        if !asked.study.join(RECORD).is_file() {
            bail!(
                "{}: there is no study in this folder\nhint: name a study file (YAML), or the \
                 folder that a sweep made",
                asked.study.display()
            );
        }
        (asked.study.join(STUDY), asked.study.clone())
    } else {
        let stem = PathBuf::from(asked.study.file_stem().unwrap_or_default());
        let folder = asked.output.clone().unwrap_or(stem);
        (asked.study.clone(), folder)
    };
    let before = before(&path, asked.overwrite && !goes_on)?;
    let mut more = asked.more.clone();
    if let (true, true, Some(before)) = (goes_on, more.is_empty(), &before) {
        more.clone_from(&before.more);
    }
    let mut study = Study::read(&file, &more)?;
    if let Some(before) = &before {
        check_same(&study, &path, before, asked.seed)?;
    }
    if let (true, Some(before)) = (goes_on, &before) {
        // Where the study names itself after its file, which is called otherwise in the folder.
        study.name.clone_from(&before.name);
    }
    study.run_cap = asked.run_cap.or(study.run_cap);
    if study.max_trials().is_none() {
        bail!(
            "{}: run_cap is not there, and random and bayes have no end of their own\nhint: write \
             run_cap: 24 into the study, or give --run-cap 24",
            file.display()
        );
    }
    let unset = study.command.unset_variables();
    if !unset.is_empty() {
        bail!(
            "{}: command: the environment variable {} is not set\nhint: set it, as in \
             `{1}=… gene-bert sweep …`",
            file.display(),
            unset[0]
        );
    }
    let seed = before.as_ref().map(|before| before.seed);
    Ok(Plan {
        text: read_string(&file)?,
        seed: asked.seed.or(seed).unwrap_or(1),
        study,
        path,
        more,
        before,
    })
}

/// Whether `study` is the one that was begun in `path`.
fn check_same(study: &Study, path: &Path, before: &Record, seed: Option<u64>) -> Result<()> {
    let saved = Study::read(&path.join(STUDY), &before.more)
        .with_context(|| format!("{}: the study that was begun", path.display()))?;
    if let Some(what) = study.difference(&saved) {
        bail!(
            "{}: the study in this folder has other values of {what}\nhint: go on with that one by \
             `gene-bert sweep {0}`, choose another --output, or delete it with --overwrite",
            path.display()
        );
    }
    if seed.is_some_and(|seed| seed != before.seed) {
        bail!(
            "{}: the study in this folder has the seed {}\nhint: leave --seed out to go on with it",
            path.display(),
            before.seed
        );
    }
    Ok(())
}

/// The record in `path`, unless it is to be overwritten.
fn before(path: &Path, overwrite: bool) -> Result<Option<Record>> {
    if path.join(RECORD).is_file() {
        let record: Record = read_json(&path.join(RECORD))?;
        if record.format != FORMAT {
            bail!(
                "{}: format {} is not known to this version, which writes {FORMAT}\nhint: go on \
                 with the version that wrote it, {}",
                path.join(RECORD).display(),
                record.format,
                record.gene_bert
            );
        }
        return Ok((!overwrite).then_some(record));
    }
    let is_free = match fs::read_dir(path) {
        // The lock alone: a sweep that was refused, or killed at once.
        Ok(entries) => entries.flatten().all(|entry| entry.file_name() == LOCK),
        Err(_) => !path.exists(),
    };
    if !is_free {
        bail!(
            "{}: holds something that is no study\nhint: choose another folder with --output",
            path.display()
        );
    }
    Ok(None)
}

impl Plan {
    /// Makes the folder, or takes the one there is, and locks it.
    ///
    /// # Errors
    /// Another sweep works in it, or it cannot be written to.
    pub fn open(self, asked: &Asked) -> Result<StudyFolder> {
        let cannot = |error| FileError::io("make the study's folder", &self.path, error);
        fs::create_dir_all(&self.path).map_err(cannot)?;
        let lock = lock(&self.path)?;
        file::recover(&self.path)?;
        if asked.overwrite && self.before.is_none() {
            clear(&self.path)?;
        }
        let mut trials = self.before.map_or_else(Vec::new, |before| before.trials);
        for trial in &mut trials {
            if asked.retry_failed && trial.state == State::Failed {
                trial.state = State::Running;
                trial.reason = None;
            }
        }
        write_atomic(&self.path.join(STUDY), self.text.as_bytes())?;
        let folder = StudyFolder {
            path: self.path,
            study: self.study,
            seed: self.seed,
            trials,
            more: self.more,
            _lock: lock,
        };
        folder.save()?;
        Ok(folder)
    }
}

fn lock(path: &Path) -> Result<File> {
    let name = path.join(LOCK);
    let opened = OpenOptions::new().create(true).append(true).open(&name);
    let file = opened.map_err(|error| FileError::io("write it", &name, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "{}: another sweep works in this folder\nhint: wait for it, stop it with Ctrl-C, or \
             choose another --output",
            path.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{}: cannot be locked", name.display()))
        }
    }
}

/// Deletes the study in `path`, and nothing else.
fn clear(path: &Path) -> Result<()> {
    let Ok(record) = read_json::<Record>(&path.join(RECORD)) else {
        return Ok(());
    };
    for trial in &record.trials {
        let folder = path.join(trial.folder());
        if folder.is_dir() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("{}: cannot be deleted", folder.display()))?;
        }
    }
    for name in [RECORD, TABLE, PAGE] {
        let _ = fs::remove_file(path.join(name));
    }
    Ok(())
}

impl StudyFolder {
    /// The folder of a trial.
    pub fn of(&self, trial: &Trial) -> PathBuf {
        self.path.join(trial.folder())
    }

    /// Writes `study.json`.
    ///
    /// # Errors
    /// The disk is full.
    pub fn save(&self) -> Result<()> {
        let record = Record {
            format: FORMAT,
            gene_bert: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.study.name.clone(),
            seed: self.seed,
            more: self.more.clone(),
            trials: self.trials.clone(),
        };
        let text = serde_json::to_vec_pretty(&record)?;
        Ok(write_atomic(&self.path.join(RECORD), &text)?)
    }

    /// The best trial so far, with its value.
    pub fn best(&self) -> Option<(&Trial, f64)> {
        let metric = &self.study.metric;
        let valued = self.trials.iter().filter(|trial| trial.has_ended());
        let valued = valued.filter_map(|trial| Some((trial, trial.best(metric)?.1)));
        valued.reduce(|best, one| {
            if metric.is_better(one.1, best.1) {
                one
            } else {
                best
            }
        })
    }

    /// What is said at the end: how many trials ended how, the best one, how to go on.
    pub fn closing(&self) -> String {
        let num = |state| self.trials.iter().filter(|t| t.state == state).count();
        let states = [
            State::Finished,
            State::Stopped,
            State::Failed,
            State::Running,
        ];
        let counted = states.into_iter().filter(|state| num(*state) > 0);
        let counted: Vec<String> = counted
            .map(|state| format!("{} {}", num(state), state.name()))
            .collect();
        let number = self.trials.len();
        let trials = if number == 1 { "trial" } else { "trials" };
        let mut text = format!("{number} {trials}: {}", counted.join(", "));
        if let Some((trial, value)) = self.best() {
            let name = &self.study.metric.name;
            text += &format!("\nbest: trial {}, {name} {value:.4}", trial.number);
            text += &format!(", in {}", self.of(trial).display());
        }
        if num(State::Running) > 0 || crate::train::signal::received() {
            text += &format!("\ngo on with: gene-bert sweep {}", self.path.display());
        }
        text
    }

    /// Writes `study.csv`.
    ///
    /// # Errors
    /// The disk is full.
    pub fn write_table(&self) -> Result<()> {
        let study = &self.study;
        let mut head = vec!["trial", "state"];
        head.extend(study.parameters.iter().map(|p| p.name.as_str()));
        head.extend([
            study.metric.name.as_str(),
            "step",
            "last",
            "evaluations",
            "seconds",
            "reason",
        ]);
        let has_devices = self.trials.iter().any(|trial| trial.device.is_some());
        head.extend(has_devices.then_some("device"));
        head.push("folder");
        let mut table = TableWriter::new(&self.path.join(TABLE), &head)?;
        for trial in &self.trials {
            let (best, last) = (trial.best(&study.metric), trial.history.last());
            let text = |value: Option<String>| value.unwrap_or_default();
            let mut row = vec![trial.number.to_string(), trial.state.name().to_owned()];
            row.extend(
                study
                    .values(&trial.point)
                    .iter()
                    .map(|(_, v)| v.to_string()),
            );
            row.extend([
                text(best.map(|(_, value)| value.to_string())),
                text(best.map(|(step, _)| step.to_string())),
                text(last.map(|(_, value)| value.to_string())),
                trial.history.len().to_string(),
                format!("{:.1}", trial.seconds),
                trial
                    .reason
                    .clone()
                    .unwrap_or_default()
                    .replace('\n', " | "),
            ]);
            row.extend(has_devices.then(|| text(trial.device.clone())));
            row.push(trial.folder());
            table.row(row)?;
        }
        Ok(table.finish()?)
    }
}
