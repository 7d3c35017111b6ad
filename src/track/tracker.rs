//! The one thing that a run sees of its trackers.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::courier::Courier;
use super::entry::{About, End, Entry, Number, Row, Start, State, now};
use super::environment::host;
use super::journal::{Before, Journal};
use super::plan::Plan;
use super::system::Watch;
use super::wandb;

/// Folder of the journal and of what has arrived, in the run folder.
const FOLDER: &str = "tracking";
/// Folder of TensorBoard's files, in the run folder.
pub(super) const TENSORBOARD_FOLDER: &str = "tensorboard";
/// All folders that trackers make in a run folder.
pub const FOLDERS: [&str; 3] = [FOLDER, TENSORBOARD_FOLDER, wandb::FOLDER];
/// Name of the journal in [`tracking_folder`].
pub(super) const JOURNAL: &str = "journal.jsonl";

/// Reports a run to its trackers. Nothing it does fails: what goes wrong is a warning.
#[derive(Debug)]
pub struct Tracker {
    run: Option<Tracked>,
}

/// A run with trackers.
#[derive(Debug)]
struct Tracked {
    folder: PathBuf,
    plan: Plan,
    journal: Arc<Journal>,
    couriers: Vec<Courier>,
    watch: Option<Watch>,
    /// Steps up to which each group of figures was reported before a resume.
    last_steps: BTreeMap<String, u64>,
    step: u64,
    spent: Duration,
    /// Whether something could not be written, which is told once.
    is_full: bool,
}

impl Tracker {
    /// Reports to nobody: what every process of a run gets but the one that writes.
    pub fn none() -> Self {
        Self { run: None }
    }

    /// Begins, or goes on, to report the run in `folder` as `plan` says.
    pub fn start(plan: &Plan, folder: &Path, about: About) -> Self {
        if plan.is_empty() {
            return Self::none();
        }
        let tracked = Tracked::start(plan, folder, about).inspect_err(|error| {
            let folder = tracking_folder(folder);
            let folder = folder.display();
            eprintln!("warning: {folder}: cannot track this run: {error}");
        });
        Self { run: tracked.ok() }
    }

    /// Reports figures of a step under `<group>/<name>`. Steps of a group that were reported
    /// before the run was resumed are left out.
    pub fn log(
        &mut self,
        group: &str,
        step: u64,
        figures: impl IntoIterator<Item = (String, f64)>,
    ) {
        let Some(run) = &mut self.run else { return };
        let began = Instant::now();
        run.step = step;
        if run.last_steps.get(group).is_some_and(|last| step <= *last) {
            return;
        }
        let named = figures.into_iter();
        let named = named.map(|(name, value)| (format!("{group}/{name}"), Number(value)));
        let (time, figures) = (now(), named.collect());
        run.write(&Entry::Row(Row {
            time,
            step,
            figures,
        }));
        run.spent += began.elapsed();
    }

    /// Reports the end and waits, for a bounded time, until everything has arrived.
    pub fn end(&mut self, state: State) {
        if let Some(run) = self.run.take() {
            run.end(state);
        }
    }
}

impl Drop for Tracker {
    /// A run that ended without saying so has failed.
    fn drop(&mut self) {
        self.end(State::Failed);
    }
}

impl Tracked {
    fn start(plan: &Plan, folder: &Path, about: About) -> io::Result<Self> {
        let tracking = tracking_folder(folder);
        fs::create_dir_all(&tracking)?;
        let (journal, Before { id, last_steps, .. }) = Journal::open(&tracking.join(JOURNAL))?;
        let time = now();
        let start = Start {
            time,
            id: id.unwrap_or_else(|| new_id(time, folder)),
            host: host(),
            num_cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            about,
        };
        journal.append(&Entry::Start(start))?;
        let sinks = plan.sinks(folder).into_iter();
        let couriers = sinks.map(|sink| Courier::start(journal.path(), sink));
        let couriers = couriers.collect::<io::Result<_>>()?;
        let journal = Arc::new(journal);
        Ok(Self {
            folder: folder.to_owned(),
            plan: plan.clone(),
            watch: Some(Watch::start(Arc::clone(&journal))),
            journal,
            couriers,
            last_steps,
            step: 0,
            spent: Duration::ZERO,
            is_full: false,
        })
    }

    fn write(&mut self, entry: &Entry) {
        if let Err(error) = self.journal.append(entry)
            && !self.is_full
        {
            self.is_full = true;
            eprintln!(
                "warning: {}: cannot write: {error}\nwarning: the run goes on; its trackers miss \
                 some figures, which stand in metrics.jsonl",
                self.journal.path().display()
            );
        }
    }

    fn end(mut self, state: State) {
        drop(self.watch.take());
        self.write(&Entry::End(End {
            time: now(),
            step: self.step,
            state,
            files: files_to_keep(&self.folder),
            spent_seconds: self.spent.as_secs_f64(),
        }));
        let deadline = Instant::now() + self.plan.wait;
        for courier in &self.couriers {
            courier.ask_to_end(deadline);
        }
        for courier in &self.couriers {
            if let Some(why) = courier.join() {
                let (name, folder) = (courier.name(), self.folder.display());
                eprintln!(
                    "warning: {name} has not everything of this run: {why}\n\
                     hint: the rest is kept; send it later with: gene-bert track {folder}"
                );
            }
        }
    }
}

/// Where the journal of the run in `folder` stands.
pub(super) fn tracking_folder(folder: &Path) -> PathBuf {
    folder.join(FOLDER)
}

/// Eight letters and digits that name a run among all runs; nothing but trackers depends on them.
fn new_id(time: f64, folder: &Path) -> String {
    const SIGNS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let process = std::process::id();
    let seed = format!("{time} {process} {} {}", host(), folder.display());
    let hash = Sha256::digest(seed.as_bytes());
    let signs = hash.iter().take(8);
    signs
        .map(|byte| char::from(SIGNS[usize::from(*byte) % SIGNS.len()]))
        .collect()
}

/// What is kept with a run where a tracker keeps files: settings, metrics, and what evaluations
/// left in folders of the run folder: report, figures, confusion matrices.
pub(super) fn files_to_keep(folder: &Path) -> Vec<String> {
    const REPORT: &str = "report.html";
    let mut files = ["run.toml", "metrics.jsonl"].map(str::to_owned).to_vec();
    let folders = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut reports: Vec<String> = folders
        .filter(|entry| entry.path().join(REPORT).is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    reports.sort();
    for report in reports {
        let tables = fs::read_dir(folder.join(&report)).into_iter().flatten();
        let names = tables.flatten().map(|entry| entry.file_name());
        let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
        names.retain(|name| {
            let is_matrix = name.starts_with("confusion_") && name.ends_with(".csv");
            is_matrix || [REPORT, "metrics.json", "per_class.csv"].contains(&name.as_str())
        });
        names.sort();
        files.extend(names.iter().map(|name| format!("{report}/{name}")));
    }
    files.retain(|file| folder.join(file).is_file());
    files
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reports_of_evaluations_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str| fs::write(dir.path().join(name), "x").unwrap();
        for folder in ["eval", "other"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let names = [
            "report.html",
            "confusion_a.csv",
            "embeddings.csv",
            "metrics.json",
        ];
        names.iter().for_each(|name| put(&format!("eval/{name}")));
        put("other/metrics.json");
        put("metrics.jsonl");
        let kept = ["confusion_a.csv", "metrics.json", "report.html"];
        let kept = kept.map(|name| format!("eval/{name}"));
        assert_eq!(
            files_to_keep(dir.path()),
            [&["metrics.jsonl".to_owned()], &kept[..]].concat()
        );
    }

    #[test]
    fn ids_differ_between_runs() {
        let id = new_id(1.0, Path::new("a"));
        assert!(id.len() == 8 && id.chars().all(char::is_alphanumeric));
        assert_ne!(id, new_id(1.0, Path::new("b")));
    }
}
