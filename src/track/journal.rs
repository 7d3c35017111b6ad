//! The journal of a run: `tracking/journal.jsonl`, appended to by the run, read by couriers.
//!
//! A reader joins the rows of one step into one, because a step's training figures and its
//! evaluation are written one after the other. The last row of the journal is therefore held back
//! until another step, a start or an end follows it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::entry::{End, Entry, Row};

/// Most rows handed on at once.
const MOST_ROWS: usize = 500;

/// What a journal holds from before.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// The run's name among all runs.
    pub(super) id: Option<String>,
    /// The last step of each group of figures (`train` of `train/loss`).
    pub(super) last_steps: BTreeMap<String, u64>,
    /// How the run ended, if it said so.
    pub(super) end: Option<End>,
}

impl Before {
    /// The last step that any figure is of.
    pub(super) fn last_step(&self) -> u64 {
        self.last_steps.values().copied().max().unwrap_or(0)
    }
}

/// The writing end; shared by the run and what watches the machine.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

impl Journal {
    /// Opens the journal at `path`, creates it where there is none, and cuts off a line that a
    /// crash left unfinished. One process at a time has it open for writing.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Before)> {
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).read(true).open(path)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(io::Error::other("another process is working on this run"));
        }
        let mut before = Before::default();
        let mut reader = Reader::open(path, 0)?;
        while let Some((entry, _)) = reader.next_line()? {
            match entry {
                Entry::Start(start) => {
                    before.id = before.id.or(Some(start.id));
                    before.end = None;
                }
                Entry::Row(row) => {
                    for name in row.figures.keys() {
                        before.last_steps.insert(group(name).to_owned(), row.step);
                    }
                }
                Entry::End(end) => before.end = Some(end),
                Entry::System(_) => {}
            }
        }
        file.set_len(reader.at)?;
        let (path, file) = (path.to_owned(), Mutex::new(file));
        Ok((Self { path, file }, before))
    }

    /// Where it stands.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends an entry, whole or not at all.
    pub(super) fn append(&self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = file.metadata()?.len();
        file.write_all(&line).inspect_err(|_| {
            // A part of it may have been written.
            let _ = file.set_len(whole);
        })
    }
}

/// The group of a figure: `train` of `train/loss`.
pub(super) fn group(name: &str) -> &str {
    name.split_once('/').map_or(name, |(group, _)| group)
}

/// The reading end.
#[derive(Debug)]
pub(super) struct Reader {
    lines: BufReader<File>,
    /// Where the next entry begins.
    at: u64,
}

/// Entries to hand on.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    /// Where the entries after them begin.
    pub(super) end: u64,
}

impl Reader {
    /// Reads the journal at `path` from byte `at`, the beginning of an entry.
    pub(super) fn open(path: &Path, at: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        // A journal shorter than that is another one: it is read from its beginning.
        let at = if at <= file.metadata()?.len() { at } else { 0 };
        file.seek(SeekFrom::Start(at))?;
        let lines = BufReader::new(file);
        Ok(Self { lines, at })
    }

    /// Where the next entry begins.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next entry and where it begins; lines that are no entry are passed over.
    fn next_line(&mut self) -> io::Result<Option<(Entry, u64)>> {
        loop {
            let mut line = Vec::new();
            let begin = self.at;
            let length = self.lines.read_until(b'\n', &mut line)? as u64;
            if line.last() != Some(&b'\n') {
                self.lines.seek(SeekFrom::Start(begin))?;
                return Ok(None);
            }
            self.at += length;
            if let Ok(entry) = serde_json::from_slice(&line) {
                return Ok(Some((entry, begin)));
            }
        }
    }

    /// The next entries; none where there are none yet.
    pub(super) fn next_batch(&mut self) -> io::Result<Batch> {
        let mut entries = Vec::new();
        // The row whose step may still go on, and where it begins.
        let mut open: Option<(Row, u64)> = None;
        let mut num_rows = 0;
        while num_rows < MOST_ROWS {
            let Some((entry, begin)) = self.next_line()? else {
                break;
            };
            match (entry, &mut open) {
                (Entry::Row(row), Some((last, _))) if last.step == row.step => {
                    last.figures.extend(row.figures);
                }
                (Entry::Row(row), _) => {
                    entries.extend(open.take().map(|(row, begin)| (Entry::Row(row), begin)));
                    open = Some((row, begin));
                    num_rows += 1;
                }
                (system @ Entry::System(_), _) => entries.push((system, begin)),
                (other, _) => {
                    entries.extend(open.take().map(|(row, begin)| (Entry::Row(row), begin)));
                    entries.push((other, begin));
                }
            }
        }
        if let Some((_, begin)) = open {
            // What came after it is read again with it.
            entries.retain(|(_, at)| *at < begin);
            self.at = begin;
            self.lines.seek(SeekFrom::Start(begin))?;
        }
        let entries = entries.into_iter().map(|(entry, _)| entry).collect();
        let end = self.at;
        Ok(Batch { entries, end })
    }

    /// Goes back to byte `at`.
    pub(super) fn seek(&mut self, at: u64) -> io::Result<()> {
        self.at = at;
        self.lines.seek(SeekFrom::Start(at)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::track::State;
    use crate::track::entry::{Number, System};

    fn row(step: u64, name: &str) -> Entry {
        let figures = [(name.to_owned(), Number(step as f64))].into();
        let time = step as f64;
        Entry::Row(Row {
            time,
            step,
            figures,
        })
    }

    fn system() -> Entry {
        let figures = [("cpu".to_owned(), Number(1.0))].into();
        Entry::System(System { time: 0.5, figures })
    }

    fn end() -> Entry {
        Entry::End(End {
            time: 9.0,
            step: 2,
            state: State::Finished,
            files: Vec::new(),
            spent_seconds: 0.0,
        })
    }

    #[test]
    fn rows_of_one_step_are_joined_and_the_last_is_held_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let (journal, _) = Journal::open(&path).unwrap();
        let mut reader = Reader::open(&path, 0).unwrap();
        for entry in [row(1, "train/a"), system(), row(1, "eval/b")] {
            journal.append(&entry).unwrap();
        }
        let batch = reader.next_batch().unwrap();
        assert!(batch.entries.is_empty() && batch.end == 0);
        journal.append(&row(2, "train/a")).unwrap();
        let batch = reader.next_batch().unwrap();
        let [Entry::System(_), Entry::Row(first)] = &batch.entries[..] else {
            panic!("{:?}", batch.entries)
        };
        assert_eq!((first.step, first.figures.len()), (1, 2));
        journal.append(&end()).unwrap();
        let mut later = Reader::open(&path, batch.end).unwrap();
        let batch = later.next_batch().unwrap();
        assert_eq!(batch.entries, [row(2, "train/a"), end()]);
        assert_eq!(batch.end, std::fs::metadata(&path).unwrap().len());
    }

    #[test]
    fn every_row_arrives_once_however_the_batches_fall() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let (journal, _) = Journal::open(&path).unwrap();
        let mut seen = Vec::new();
        let mut reader = Reader::open(&path, 0).unwrap();
        for step in 0..2_000 {
            journal.append(&row(step, "train/a")).unwrap();
            if step % 700 == 3 {
                seen.extend(reader.next_batch().unwrap().entries);
            }
        }
        journal.append(&end()).unwrap();
        loop {
            let batch = reader.next_batch().unwrap();
            if batch.entries.is_empty() {
                break;
            }
            seen.extend(batch.entries);
        }
        let expected: Vec<Entry> = (0..2_000).map(|step| row(step, "train/a")).collect();
        assert_eq!(seen[..2_000], expected);
        assert_eq!(seen[2_000..], [end()]);
    }

    #[test]
    fn a_broken_last_line_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let (journal, _) = Journal::open(&path).unwrap();
        journal.append(&row(4, "train/a")).unwrap();
        journal.append(&row(6, "eval/a")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert!(Journal::open(&path).is_err(), "two processes at once");
        drop(journal);
        std::fs::write(&path, [&whole[..], b"{\"event\":\"ro"].concat()).unwrap();
        let (_, before) = Journal::open(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        let steps: Vec<_> = before.last_steps.into_iter().collect();
        assert_eq!(steps, [("eval".to_owned(), 6), ("train".to_owned(), 4)]);
    }
}
