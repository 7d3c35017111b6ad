//! The sweep: chooses trials, keeps as many running as asked, writes down what came of them.
//!
//! Where results matter (bayes, early termination, a target), trial k of a sweep with N at a time
//! is chosen by, and compared with, the results of the trials up to k − N, and begins when all of
//! those have ended. So a study gives the same trials whichever of those running ends first, and
//! after any interruption; the price is that a place may stand empty while a long trial runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::child::{self, Running};
use super::command::Filling;
use super::folder::StudyFolder;
use super::place::Place;
use super::report;
use super::search::suggest;
use super::study::Study;
use super::tpe::Observation;
use super::trial::{Logged, State, Trial, read_logged};
use crate::train::{checkpoint, signal};

/// How often children are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Every so many ticks what they have logged is read.
const TICKS_PER_LOOK: u64 = 10;
/// So many trials, all failed, end a sweep.
const FAILED_AT_FIRST: usize = 3;
/// What the sweep says to Ctrl-C.
const STOPPING: &str = "asking the trials to save and end; once more to leave them to it";

/// What the sweep tells while it works.
#[derive(Debug)]
pub enum Said {
    /// Something happened: a line.
    Line(String),
    /// How it stands: a phrase, and the share that is done, 0..=1.
    Status(String, f64),
}

/// Runs the study to its end, or until Ctrl-C, a trial at a time in each of `places`.
///
/// # Errors
/// A folder that cannot be written to; the first trials all fail.
pub fn run(folder: &mut StudyFolder, places: &[Place], say: &mut dyn FnMut(Said)) -> Result<()> {
    signal::install(STOPPING);
    let mut sweep = Sweep {
        waiting: folder
            .trials
            .iter()
            .filter(|t| !t.has_ended())
            .map(|t| t.number - 1)
            .collect(),
        folder,
        places,
        running: BTreeMap::new(),
        is_exhausted: false,
        say,
    };
    let outcome = sweep.work();
    // Whatever happened, no child is left alone, and what is known is written.
    sweep.end_all();
    let written = report::write(sweep.folder);
    outcome.and(written)
}

struct Sweep<'a> {
    folder: &'a mut StudyFolder,
    places: &'a [Place],
    /// Trials that an earlier sweep began, by index.
    waiting: Vec<usize>,
    /// Trials that run, by index, with the index of their place.
    running: BTreeMap<usize, (usize, Running)>,
    is_exhausted: bool,
    say: &'a mut dyn FnMut(Said),
}

impl Sweep<'_> {
    fn work(&mut self) -> Result<()> {
        for tick in 0u64.. {
            self.settle_ended()?;
            if signal::received() {
                break;
            }
            self.check_first_trials()?;
            while self.running.len() < self.places.len() && self.begin_one()? {}
            if self.running.is_empty() {
                break;
            }
            if tick.is_multiple_of(TICKS_PER_LOOK) {
                self.end_early();
                let (text, share) = self.status();
                (self.say)(Said::Status(text, share));
            }
            sleep(TICK);
        }
        Ok(())
    }

    /// Begins the next trial if there is one and it may begin.
    fn begin_one(&mut self) -> Result<bool> {
        if !self.waiting.is_empty() {
            let index = self.waiting.remove(0);
            return self.continue_trial(index).map(|()| true);
        }
        let index = self.folder.trials.len();
        let seen = if self.folder.study.needs_results() {
            (index + 1).saturating_sub(self.places.len())
        } else {
            0
        };
        let known = &self.folder.trials[..seen.min(index)];
        if self.is_exhausted || !known.iter().all(Trial::has_ended) || self.is_target_reached(known)
        {
            return Ok(false);
        }
        let observations: Vec<Observation> = known.iter().map(|t| self.observe(t)).collect();
        let tried: Vec<&[f64]> = self
            .folder
            .trials
            .iter()
            .map(|t| t.point.as_slice())
            .collect();
        let study = &self.folder.study;
        let Some(point) = suggest(study, self.folder.seed, index, &tried, &observations) else {
            self.is_exhausted = true;
            return Ok(false);
        };
        let parameters = study.values(&point).into_iter();
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.json()));
        self.folder.trials.push(Trial {
            number: index + 1,
            state: State::Running,
            parameters: parameters.collect(),
            point,
            seen,
            history: Vec::new(),
            seconds: 0.0,
            tries: 0,
            reason: None,
            device: None,
        });
        self.start(index, &[])?;
        Ok(true)
    }

    fn observe(&self, trial: &Trial) -> Observation {
        let metric = &self.folder.study.metric;
        Observation {
            point: trial.point.clone(),
            score: trial.best(metric).map(|(_, value)| metric.score(value)),
        }
    }

    fn is_target_reached(&self, known: &[Trial]) -> bool {
        let metric = &self.folder.study.metric;
        let best = known.iter().filter_map(|trial| trial.best(metric));
        best.into_iter()
            .any(|(_, value)| metric.reaches_target(value))
    }

    /// A trial that an earlier sweep began: what it left is taken, or it goes on, or it begins anew.
    fn continue_trial(&mut self, index: usize) -> Result<()> {
        let path = self.folder.of(&self.folder.trials[index]);
        let mut told = false;
        while child::is_running(&path) {
            if signal::received() {
                return Ok(());
            }
            if !told {
                let text = format!(
                    "trial {} of an earlier sweep still saves; waiting",
                    index + 1
                );
                (self.say)(Said::Line(text));
                told = true;
            }
            sleep(TICK);
        }
        let logged = read_logged(&path, &self.folder.study.metric);
        if self.ends_early_at(index, &logged).is_some() || logged.is_complete {
            return self.settle(index, logged, Ok(()));
        }
        let template = &self.folder.study.command;
        if !template.can_resume() {
            remove(&path)?;
            return self.start(index, &[]);
        }
        if checkpoint::list(&path)?.is_empty() {
            return self.start(index, &["--overwrite-output-dir".to_owned()]);
        }
        self.start(index, &["--resume".to_owned()])
    }

    fn start(&mut self, index: usize, again: &[String]) -> Result<()> {
        let taken: Vec<usize> = self.running.values().map(|(place, _)| *place).collect();
        let free = (0..self.places.len()).find(|place| !taken.contains(place));
        let at = free.unwrap_or_default();
        let place = &self.places[at];
        self.folder.trials[index].tries += 1;
        self.folder.trials[index].device.clone_from(&place.text);
        self.folder.save()?;
        let trial = &self.folder.trials[index];
        let (path, study) = (self.folder.of(trial), &self.folder.study);
        let filling = Filling {
            values: &study.values(&trial.point),
            folder: &path,
            threads: place.threads,
            device: place.device,
            again,
        };
        fs::create_dir_all(&path).with_context(|| format!("{}: cannot be made", path.display()))?;
        let words = study.command.fill(&filling)?;
        let variables = variables(study, &trial.folder());
        match child::start(&words, &path, &variables, &place.cores) {
            Ok(running) => {
                self.running.insert(index, (at, running));
                Ok(())
            }
            Err(error) => {
                let logged = Logged::default();
                self.settle(index, logged, Err(format!("{error:#}")))
            }
        }
    }

    /// The bracket at which a trial with these values ends early.
    fn ends_early_at(&self, index: usize, logged: &Logged) -> Option<u64> {
        let rule = self.folder.study.early_terminate.as_ref()?;
        let metric = &self.folder.study.metric;
        let trials = &self.folder.trials;
        let known = trials[..trials[index].seen.min(index)].iter();
        let known = known.filter(|trial| trial.state != State::Failed);
        let others: Vec<Vec<f64>> = known.map(|trial| trial.scores(metric)).collect();
        let others: Vec<&[f64]> = others.iter().map(Vec::as_slice).collect();
        let own: Vec<f64> = logged
            .history
            .iter()
            .map(|(_, v)| metric.score(*v))
            .collect();
        rule.ends_at(&own, &others)
    }

    /// Asks the trials to end that early termination ends, or that will never have the metric.
    fn end_early(&mut self) {
        let indices: Vec<usize> = self.running.keys().copied().collect();
        for index in indices {
            let path = self.folder.of(&self.folder.trials[index]);
            let logged = read_logged(&path, &self.folder.study.metric);
            if (logged.is_hopeless || self.ends_early_at(index, &logged).is_some())
                && let Some((_, running)) = self.running.get_mut(&index)
            {
                running.ask_to_end();
            }
        }
    }

    fn settle_ended(&mut self) -> Result<()> {
        let mut ended = Vec::new();
        for (&index, (_, running)) in &mut self.running {
            if let Some(status) = running.ended()? {
                ended.push((index, status));
            }
        }
        for (index, status) in ended {
            let Some((_, running)) = self.running.remove(&index) else {
                continue;
            };
            self.folder.trials[index].seconds += running.elapsed().as_secs_f64();
            let path = self.folder.of(&self.folder.trials[index]);
            let logged = read_logged(&path, &self.folder.study.metric);
            let outcome = if status.success() {
                Ok(())
            } else {
                Err(running.reason(status))
            };
            self.settle(index, logged, outcome)?;
        }
        Ok(())
    }

    /// Writes down what came of a trial that has ended, or was interrupted.
    fn settle(&mut self, index: usize, logged: Logged, outcome: Result<(), String>) -> Result<()> {
        let bracket = self.ends_early_at(index, &logged);
        let metric = &self.folder.study.metric;
        let knows_its_end = self.folder.study.command.can_resume();
        let trial = &mut self.folder.trials[index];
        trial.history = logged.history;
        match (outcome, bracket) {
            (Err(reason), None) => {
                trial.state = State::Failed;
                trial.reason = Some(reason);
            }
            (_, Some(bracket)) => {
                trial.state = State::Stopped;
                trial
                    .history
                    .truncate(usize::try_from(bracket).unwrap_or(usize::MAX));
                let why = format!("at evaluation {bracket} not among the best that got there");
                trial.reason = Some(why);
            }
            (Ok(()), None) if !logged.is_complete && knows_its_end && !logged.is_hopeless => {}
            (Ok(()), None) if trial.history.is_empty() => {
                trial.state = State::Failed;
                let there = match logged.others.as_slice() {
                    [] => "no evaluation at all".to_owned(),
                    some => some.join(", "),
                };
                let name = &metric.name;
                trial.reason = Some(format!("its run has no figure `{name}`; it has {there}"));
            }
            (Ok(()), None) => trial.state = State::Finished,
        }
        self.folder.save()?;
        self.tell(index);
        self.folder.write_table()
    }

    /// `[ 7/24] trial 7 finished · eval_loss 1.234, best so far · 41 s · a=1 b=2 · about 5 min left`
    fn tell(&mut self, index: usize) {
        let (folder, trial) = (&*self.folder, &self.folder.trials[index]);
        let (ended, total) = self.counts();
        let (number, state) = (trial.number, trial.state.name());
        let mut parts = vec![format!(
            "[{ended:>2}/{total}] trial {number:>3} {state:<13}"
        )];
        if let Some((_, value)) = trial.best(&folder.study.metric) {
            let is_best = folder
                .best()
                .is_some_and(|(best, _)| best.number == trial.number);
            let best = if is_best { ", best so far" } else { "" };
            parts.push(format!("{} {value:.4}{best}", folder.study.metric.name));
        }
        parts.push(duration(trial.seconds));
        parts.extend(trial.device.clone());
        let values = folder.study.values(&trial.point);
        let searched = folder.study.parameters.iter().zip(values);
        let searched = searched.filter(|(p, _)| !p.distribution.is_constant());
        let values: Vec<String> = searched
            .map(|(p, (_, value))| format!("{}={value}", p.name))
            .collect();
        parts.extend((!values.is_empty()).then(|| values.join(" ")));
        parts.extend(self.left().filter(|_| ended < total));
        let mut line = parts.join(" · ");
        if let (State::Failed, Some(reason)) = (trial.state, &trial.reason) {
            line += &format!("\n    {}", reason.replace('\n', "\n    "));
        }
        (self.say)(Said::Line(line));
    }

    /// `12 of 24 trials · best 1.234 (trial 7) · 2 running · about 5 min left`
    fn status(&self) -> (String, f64) {
        let (ended, total) = self.counts();
        let mut parts = vec![format!("{ended} of {total} trials")];
        if let Some((trial, value)) = self.folder.best() {
            parts.push(format!("best {value:.4} (trial {})", trial.number));
        }
        parts.push(format!("{} running", self.running.len()));
        parts.extend(self.left());
        (parts.join(" · "), ended as f64 / total.max(1) as f64)
    }

    /// Trials that have ended, and those that there will be at most.
    fn counts(&self) -> (usize, usize) {
        let ended = self.folder.trials.iter().filter(|t| t.has_ended()).count();
        let total = self.folder.study.max_trials().unwrap_or(0);
        (ended, usize::try_from(total).unwrap_or(ended).max(ended))
    }

    /// The time left, were the other trials as long as those that ended.
    fn left(&self) -> Option<String> {
        let (ended, total) = self.counts();
        let spent = self.folder.trials.iter().filter(|t| t.has_ended());
        let mean = spent.map(|t| t.seconds).sum::<f64>() / ended as f64;
        let of_running = |r: &Running| r.elapsed().as_secs_f64().min(mean);
        let now: f64 = self.running.values().map(|(_, r)| of_running(r)).sum();
        let left = (mean * (total - ended) as f64 - now) / self.places.len() as f64;
        (ended > 0).then(|| format!("about {} left", duration(left.max(0.0))))
    }

    /// Ends a sweep whose first trials all failed: the rest would fail alike.
    fn check_first_trials(&self) -> Result<()> {
        let trials = &self.folder.trials;
        let failed = trials.iter().filter(|trial| trial.state == State::Failed);
        let others = trials
            .iter()
            .any(|t| matches!(t.state, State::Finished | State::Stopped));
        let all = usize::try_from(self.folder.study.max_trials().unwrap_or(u64::MAX));
        let enough = FAILED_AT_FIRST.min(all.unwrap_or(usize::MAX));
        if others || failed.clone().count() < enough {
            return Ok(());
        }
        let reason = failed.clone().find_map(|trial| trial.reason.clone());
        let which = match failed.count() {
            1 => "the only trial failed, with".to_owned(),
            number => format!("the first {number} trials all failed, the first one with"),
        };
        bail!(
            "{which}: {}\nhint: put that right, then run again with `gene-bert sweep {} \
             --retry-failed`",
            reason.unwrap_or_default().trim_start_matches("error: "),
            self.folder.path.display()
        );
    }

    /// Asks every child to end and waits for it.
    fn end_all(&mut self) {
        for (_, running) in self.running.values_mut() {
            running.ask_to_end();
        }
        while !self.running.is_empty() {
            // Only the disk can fail here, and what is on it is whole: the next sweep reads it.
            if self.settle_ended().is_err() {
                return;
            }
            sleep(TICK);
        }
    }
}

/// What trackers are told by environment variables, `None` for those to take away: a name of its
/// own for each trial, and no run that all of them would go on with. What the user has set wins,
/// with the trial behind a run's name.
fn variables(study: &Study, trial: &str) -> Vec<(&'static str, Option<String>)> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let named = |name: &str| {
        let base = set(name).unwrap_or_else(|| study.name.clone());
        Some(format!("{base}-{trial}"))
    };
    let or = |name: &str, other: &Option<String>| set(name).or_else(|| other.clone());
    vec![
        ("WANDB_RUN_ID", None),
        ("MLFLOW_RUN_ID", None),
        ("WANDB_NAME", named("WANDB_NAME")),
        ("MLFLOW_RUN_NAME", named("MLFLOW_RUN_NAME")),
        (
            "WANDB_RUN_GROUP",
            or("WANDB_RUN_GROUP", &Some(study.name.clone())),
        ),
        ("WANDB_PROJECT", or("WANDB_PROJECT", &study.project)),
        ("WANDB_ENTITY", or("WANDB_ENTITY", &study.entity)),
    ]
}

fn remove(path: &Path) -> Result<()> {
    if !path.is_dir() {
        return Ok(());
    }
    fs::remove_dir_all(path).with_context(|| format!("{}: cannot be deleted", path.display()))
}

/// `45 s`, `3 min 20 s`, `2 h 5 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) if seconds < 10.0 => format!("{seconds:.1} s"),
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}
