//! A trial as a child process: started in its own folder, watched, asked to end.
//!
//! The child's standard input is a pipe that this process holds. Its end, whether we close it or
//! die, asks the run to save a checkpoint and end, so that no run outlives a killed sweep for long.
//! Its standard output is a locked file: while the lock is held, the child lives, whoever started
//! it. Ctrl-C reaches this process only, which then asks each child.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::place::bound_to;
use crate::train::signal;

const OUT: &str = "stdout.log";
const ERR: &str = "stderr.log";
/// Lines and bytes of an error that are kept.
const REASON_LINES: usize = 6;
const REASON_BYTES: u64 = 2000;

/// A running trial.
#[derive(Debug)]
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    errors: PathBuf,
    errors_before: u64,
    began: Instant,
}

/// Starts `words` (the program first) for the trial in `folder`, which is made, bound to `cores`
/// (any, where there are none).
///
/// # Errors
/// A program that is not there, a folder that cannot be made, a child that still runs in it.
pub fn start(
    words: &[String],
    folder: &Path,
    variables: &[(&str, Option<String>)],
    cores: &BTreeSet<usize>,
) -> Result<Running> {
    let cannot = || format!("{}: cannot make the trial's folder", folder.display());
    fs::create_dir_all(folder).with_context(cannot)?;
    let out = open_log(&folder.join(OUT))?;
    out.try_lock()
        .with_context(|| format!("{}: an earlier try still runs", folder.display()))?;
    let errors = folder.join(ERR);
    let err = open_log(&errors)?;
    let errors_before = err.metadata().map(|m| m.len()).unwrap_or_default();
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .env(signal::STOP_AT_EOF, "1")
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(err);
    for (name, value) in variables {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = bound_to(cores, || command.spawn())
        .with_context(|| format!("{}: cannot be started", words[0]))?;
    Ok(Running {
        input: child.stdin.take(),
        child,
        errors,
        errors_before,
        began: Instant::now(),
    })
}

/// Whether a child of an earlier sweep still runs in `folder`.
pub fn is_running(folder: &Path) -> bool {
    let file = OpenOptions::new().append(true).open(folder.join(OUT));
    file.is_ok_and(|file| file.try_lock().is_err())
}

fn open_log(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("{}: cannot be written", path.display()))
}

impl Running {
    /// Whether and how it has ended.
    ///
    /// # Errors
    /// The operating system cannot tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Asks it to save and end.
    pub fn ask_to_end(&mut self) {
        self.input = None;
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Why it failed: how it ended, and the last it said.
    pub fn reason(&self, status: ExitStatus) -> String {
        let said = last_lines(&self.errors, self.errors_before);
        match status.code() {
            Some(_) if !said.is_empty() => said,
            _ => format!("{status}\n{said}").trim_end().to_owned(),
        }
    }
}

/// The last lines of a file that were written behind `from`.
fn last_lines(path: &Path, from: u64) -> String {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(end.saturating_sub(REASON_BYTES))))?;
        file.read_to_end(&mut text)
    });
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    // An error is a paragraph at the end: what stands before it is of no interest.
    let begins = lines.iter().rposition(|line| line.starts_with("error: "));
    let from = begins
        .unwrap_or(0)
        .max(lines.len().saturating_sub(REASON_LINES));
    lines[from..].join("\n")
}
