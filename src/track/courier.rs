//! The thread of one tracker: reads the journal, hands entries on, tries again later where that
//! fails, and notes on disk how far it is (`tracking/<tracker>.json`).
//!
//! Waiting times double from one second to a minute. The first failure is told once, and that it
//! answers again is told too.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::journal::Reader;
use super::sink::{Sink, Trouble};
use crate::file::{read_json, write_atomic};

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Longest time between two tries while the run's end waits.
const WAIT_AT_END: Duration = Duration::from_secs(1);

/// How far a tracker is.
#[derive(Debug, Serialize, Deserialize)]
struct Progress {
    /// Bytes of the journal that have arrived.
    delivered_bytes: u64,
    state: Value,
}

/// What the run and the thread tell each other.
#[derive(Debug, Default)]
struct Talk {
    /// Until when the run's end waits; set once the journal is complete.
    deadline: Option<Instant>,
    /// Whether the thread is done.
    is_done: bool,
    /// Why something has not arrived.
    trouble: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    talk: Mutex<Talk>,
    changed: Condvar,
}

impl Shared {
    fn talk(&self) -> MutexGuard<'_, Talk> {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits so long, or until the run's end is told, if it was not yet; returns the deadline.
    fn wait(&self, time: Duration) -> Option<Instant> {
        let talk = self.talk();
        let knew = talk.deadline.is_some();
        let until = |talk: &mut Talk| talk.deadline.is_none() || knew;
        let waited = self.changed.wait_timeout_while(talk, time, until);
        waited.unwrap_or_else(PoisonError::into_inner).0.deadline
    }
}

/// The run's end of it.
#[derive(Debug)]
pub(super) struct Courier {
    name: &'static str,
    shared: Arc<Shared>,
}

impl Courier {
    /// Begins to bring the entries of `journal` to `sink`, from where it was left.
    ///
    /// # Errors
    /// The journal cannot be read, or there can be no more threads.
    pub(super) fn start(journal: &Path, mut sink: Box<dyn Sink>) -> std::io::Result<Self> {
        let name = sink.name();
        let progress_path = journal.with_file_name(format!("{name}.json"));
        let saved: Option<Progress> = read_json(&progress_path).ok();
        let at = match saved {
            Some(saved) if sink.resume(&saved.state) => saved.delivered_bytes,
            _ => 0,
        };
        let shared = Arc::new(Shared::default());
        let mut round = Round {
            reader: Reader::open(journal, at)?,
            sink,
            progress_path,
            shared: Arc::clone(&shared),
            failures: 0,
        };
        let thread = thread::Builder::new().name(name.to_owned());
        thread.spawn(move || round.run())?;
        Ok(Self { name, shared })
    }

    /// Tells it that the journal is complete and until when it is waited for.
    pub(super) fn ask_to_end(&self, deadline: Instant) {
        self.shared.talk().deadline = Some(deadline);
        self.shared.changed.notify_all();
    }

    /// Waits until everything has arrived, or the deadline; returns what kept it, if not.
    pub(super) fn join(&self) -> Option<String> {
        let mut talk = self.shared.talk();
        while !talk.is_done {
            let left = talk.deadline.unwrap_or_else(Instant::now);
            let left = left.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let slow = || "it is too slow".to_owned();
                return Some(talk.trouble.clone().unwrap_or_else(slow));
            }
            let waited = self.shared.changed.wait_timeout(talk, left);
            talk = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        talk.trouble.clone()
    }

    /// The tracker's name.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }
}

/// The thread's end of it.
struct Round {
    reader: Reader,
    sink: Box<dyn Sink>,
    progress_path: PathBuf,
    shared: Arc<Shared>,
    /// Failures in a row.
    failures: u32,
}

impl Round {
    fn run(&mut self) {
        let mut deadline = self.shared.wait(FIRST_WAIT);
        loop {
            let wait = match self.pass() {
                Ok(()) if deadline.is_some() => break self.done(None),
                Ok(()) => self.sink.pace(),
                Err(Trouble::Never(why)) => {
                    eprintln!(
                        "warning: {}: {why}\nwarning: the run goes on without it",
                        self.sink.name()
                    );
                    break self.done(Some(why));
                }
                Err(Trouble::Later(why)) => self.failed(why),
            };
            let is_over = |deadline: Instant| deadline <= Instant::now();
            if deadline.is_some_and(is_over) {
                return;
            }
            let wait = if deadline.is_some() {
                wait.min(WAIT_AT_END)
            } else {
                wait
            };
            deadline = self.shared.wait(wait);
        }
    }

    /// Delivers all there is.
    fn pass(&mut self) -> Result<(), Trouble> {
        let mut has_delivered = false;
        loop {
            let begin = self.reader.at();
            let batch = self.reader.next_batch().map_err(|error| {
                Trouble::Later(format!("the run's journal cannot be read: {error}"))
            })?;
            if batch.entries.is_empty() {
                break;
            }
            if let Err(trouble) = self.sink.deliver(&batch.entries) {
                let _ = self.reader.seek(begin);
                return Err(trouble);
            }
            self.note(batch.end)?;
            self.recovered();
            has_delivered = true;
        }
        if !has_delivered {
            self.sink.alive()?;
            self.recovered();
        }
        Ok(())
    }

    fn note(&self, delivered_bytes: u64) -> Result<(), Trouble> {
        let state = self.sink.state();
        let progress = Progress {
            delivered_bytes,
            state,
        };
        let bytes = serde_json::to_vec_pretty(&progress).unwrap_or_default();
        write_atomic(&self.progress_path, &bytes).map_err(|e| Trouble::Later(e.to_string()))
    }

    /// Takes note of a failure; returns how long to wait.
    fn failed(&mut self, why: String) -> Duration {
        if self.failures == 0 {
            eprintln!(
                "warning: {}: {why}\nwarning: the run goes on; what has not arrived is kept and \
                 sent later",
                self.sink.name()
            );
        }
        self.shared.talk().trouble = Some(why);
        self.failures += 1;
        let doubled = FIRST_WAIT * 2u32.saturating_pow(self.failures.min(10) - 1);
        doubled.min(LONGEST_WAIT)
    }

    fn recovered(&mut self) {
        if self.failures > 0 {
            eprintln!("note: {} answers again", self.sink.name());
            self.failures = 0;
            self.shared.talk().trouble = None;
        }
    }

    fn done(&self, trouble: Option<String>) {
        let mut talk = self.shared.talk();
        talk.is_done = true;
        talk.trouble = trouble;
        self.shared.changed.notify_all();
    }
}
