//! W&B offline: `wandb/offline-run-<time>-<id>/run-<id>.wandb` in the run folder, one for each
//! process that worked on the run, as W&B's own client does; `wandb sync` sends them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message;
use serde_json::{Value, json};

use super::labels::Labels;
use super::log_file::LogFile;
use super::messages::{
    Config, Exit, Files, FilesItem, Header, History, Item, Kind, Preempting, Record, RunRecord,
    Stats, StatsItem, Step, Summary, Timestamp, VersionInfo,
};
use super::run::{METADATA, Run, metadata, run_id, system};
use crate::track::State;
use crate::track::entry::{End, Entry, Start};
use crate::track::sink::{Sink, Trouble};

/// Folder of all files, in the run folder.
pub(in crate::track) const FOLDER: &str = "wandb";
/// The exit code of a run that failed.
pub(super) const FAILED: i32 = 1;
/// The exit code of a run that a signal ended.
pub(super) const INTERRUPTED: i32 = 130;
/// The oldest W&B server that can read what is written.
const MIN_CONSUMER: &str = "0.9.0";

/// The file of this process.
pub(in crate::track) struct Offline {
    labels: Labels,
    run_folder: PathBuf,
    run: Run,
    /// The file and the folder it stands in, once there is something to write.
    file: Option<(LogFile, PathBuf)>,
    num_records: i64,
}

impl Offline {
    /// Of the run in `run_folder`.
    pub(in crate::track) fn new(labels: Labels, run_folder: &Path) -> Self {
        Self {
            labels,
            run_folder: run_folder.to_owned(),
            run: Run::default(),
            file: None,
            num_records: 0,
        }
    }

    fn write(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut run = self.run.clone();
        let mut kinds = Vec::new();
        for entry in entries {
            run.see(entry);
            let Some(start) = &run.start else { continue };
            if self.file.is_none() {
                let begun = self.begin(start)?;
                kinds.push(Kind::Header(header()));
                kinds.push(Kind::Run(Box::new(self.run_record(start))));
                self.file = Some(begun);
            }
            kinds.extend(self.records(&run, entry)?);
        }
        let mut num_records = self.num_records;
        let records = kinds.into_iter().map(|kind| {
            num_records += 1;
            let (num, kind) = (num_records, Some(kind));
            Record { num, kind }.encode_to_vec()
        });
        let records: Vec<_> = records.collect();
        if let Some((file, _)) = &mut self.file {
            file.append(&records)?;
        }
        (self.run, self.num_records) = (run, num_records);
        Ok(())
    }

    /// Makes the folder and the file.
    fn begin(&self, start: &Start) -> io::Result<(LogFile, PathBuf)> {
        let id = run_id(&self.labels, start);
        let name = format!("offline-run-{}-{id}", timestamp(crate::track::entry::now()));
        let folder = self.run_folder.join(FOLDER).join(name);
        fs::create_dir_all(folder.join("files"))?;
        let metadata = serde_json::to_vec_pretty(&metadata(start))?;
        fs::write(folder.join("files").join(METADATA), metadata)?;
        let file = LogFile::create(&folder.join(format!("run-{id}.wandb")))?;
        Ok((file, folder))
    }

    fn run_record(&self, start: &Start) -> RunRecord {
        let about = &start.about;
        let or_else = |label: &Option<String>, other: &str| match label {
            Some(label) => label.clone(),
            None => other.to_owned(),
        };
        let config = about.config.as_object().into_iter().flatten();
        let update = config.map(|(key, value)| Item::plain(key, value));
        RunRecord {
            run_id: run_id(&self.labels, start).to_owned(),
            entity: or_else(&self.labels.entity, ""),
            project: self.labels.project.clone(),
            config: Some(Config {
                update: update.collect(),
            }),
            run_group: or_else(&self.labels.group, ""),
            job_type: or_else(&self.labels.job_type, &about.command),
            display_name: or_else(&self.labels.name, &about.name),
            notes: or_else(&self.labels.notes, ""),
            tags: self.labels.tags.clone(),
            host: start.host.clone(),
            start_time: Some(Timestamp::new(start.time)),
        }
    }

    fn records(&self, run: &Run, entry: &Entry) -> io::Result<Vec<Kind>> {
        Ok(match entry {
            Entry::Start(_) => Vec::new(),
            Entry::Row(row) => {
                let line = run.history(row);
                vec![Kind::History(History {
                    item: line.iter().map(|(k, v)| Item::nested(k, v)).collect(),
                    step: Some(Step {
                        num: row.step as i64,
                    }),
                })]
            }
            Entry::System(figures) => {
                let items = system(figures);
                let items = items.iter().map(|(key, value)| StatsItem {
                    key: key.clone(),
                    value_json: value.to_string(),
                });
                vec![Kind::Stats(Stats {
                    timestamp: Some(Timestamp::new(figures.time)),
                    item: items.collect(),
                })]
            }
            Entry::End(end) => self.end(run, end)?,
        })
    }

    fn end(&self, run: &Run, end: &End) -> io::Result<Vec<Kind>> {
        let mut names = vec![METADATA.to_owned()];
        if let Some((_, folder)) = &self.file {
            for name in &end.files {
                let copy = folder.join("files").join(name);
                fs::create_dir_all(copy.parent().unwrap_or(folder))?;
                fs::copy(self.run_folder.join(name), copy)?;
                names.push(name.clone());
            }
        }
        let files = names.into_iter().map(|path| FilesItem { path, policy: 1 });
        let summary = run.summary(end.time, end.step);
        let mut kinds = vec![
            Kind::Summary(Summary {
                update: summary.iter().map(|(k, v)| Item::nested(k, v)).collect(),
            }),
            Kind::Files(Files {
                files: files.collect(),
            }),
        ];
        if end.state == State::Interrupted {
            kinds.push(Kind::Preempting(Preempting {}));
        }
        kinds.push(Kind::Exit(Exit {
            exit_code: exit_code(end.state),
            runtime: run.runtime(end.time) as i32,
        }));
        Ok(kinds)
    }
}

/// How W&B counts the end of a run.
pub(super) fn exit_code(state: State) -> i32 {
    match state {
        State::Finished => 0,
        State::Interrupted => INTERRUPTED,
        State::Failed => FAILED,
    }
}

fn header() -> Header {
    Header {
        version_info: Some(VersionInfo {
            producer: concat!("gene-bert ", env!("CARGO_PKG_VERSION")).to_owned(),
            min_consumer: MIN_CONSUMER.to_owned(),
        }),
    }
}

/// Seconds since 1970 as `YYYYMMDD_HHMMSS` (UTC), by Hinnant's `civil_from_days`.
fn timestamp(time: f64) -> String {
    let seconds = time.max(0.0) as u64;
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{year:04}{month:02}{day:02}_{hour:02}{minute:02}{:02}",
        second % 60
    )
}

impl Sink for Offline {
    fn name(&self) -> &'static str {
        "wandb-offline"
    }

    fn resume(&mut self, state: &Value) -> bool {
        match serde_json::from_value(state["run"].clone()) {
            Ok(run) => {
                self.run = run;
                true
            }
            Err(_) => false,
        }
    }

    fn state(&self) -> Value {
        json!({ "run": self.run })
    }

    fn deliver(&mut self, entries: &[Entry]) -> Result<(), Trouble> {
        self.write(entries).map_err(|error| {
            let folder = self.run_folder.join(FOLDER);
            Trouble::Later(format!("{}: cannot write: {error}", folder.display()))
        })
    }

    fn pace(&self) -> Duration {
        Duration::from_secs(2)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::track::entry::{Number, Row};
    use crate::track::environment::Environment;
    use crate::track::wandb::log_file::reading::records;
    use crate::track::{About, entry};

    #[test]
    fn times_are_civil() {
        assert_eq!(timestamp(0.0), "19700101_000000");
        assert_eq!(timestamp(951_827_696.0), "20000229_123456");
        assert_eq!(timestamp(1_798_761_599.9), "20261231_235959");
    }

    fn entries() -> Vec<Entry> {
        let about = About {
            name: "first".to_owned(),
            command: "mlm".to_owned(),
            config: json!({ "seed": 3, "model": { "dim": 8 } }),
        };
        let start = entry::Start {
            time: 100.5,
            id: "abcd1234".to_owned(),
            host: "here".to_owned(),
            num_cpus: 2,
            about,
        };
        let row = |step| {
            let figures = [("train/loss".to_owned(), Number(f64::NAN))].into();
            let time = 101.0 + step as f64;
            Entry::Row(Row {
                time,
                step,
                figures,
            })
        };
        let end = entry::End {
            time: 110.5,
            step: 2,
            state: State::Interrupted,
            files: vec!["run.toml".to_owned()],
            spent_seconds: 0.0,
        };
        vec![Entry::Start(start), row(1), row(2), Entry::End(end)]
    }

    #[test]
    fn the_file_holds_what_was_reported() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("run.toml"), "seed = 3\n").unwrap();
        let labels = Labels::of(&Environment::new(&|_| None)).unwrap();
        let mut sink = Offline::new(labels, dir.path());
        let entries = entries();
        sink.deliver(&entries[..2]).unwrap();
        sink.deliver(&entries[2..]).unwrap();
        let (_, folder) = sink.file.as_ref().unwrap();
        let bytes = fs::read(folder.join("run-abcd1234.wandb")).unwrap();
        assert_eq!(
            fs::read(folder.join("files/run.toml")).unwrap(),
            b"seed = 3\n"
        );
        let records = records(&bytes).into_iter();
        let records: Vec<Record> = records
            .map(|bytes| Record::decode(&bytes[..]).unwrap())
            .collect();
        let numbers: Vec<i64> = records.iter().map(|record| record.num).collect();
        assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
        let kinds: Vec<Kind> = records.into_iter().map(|r| r.kind.unwrap()).collect();
        let [
            Kind::Header(_),
            Kind::Run(run),
            Kind::History(_),
            Kind::History(second),
            Kind::Summary(_),
            Kind::Files(files),
            Kind::Preempting(_),
            Kind::Exit(exit),
        ] = &kinds[..]
        else {
            panic!("{kinds:?}")
        };
        assert_eq!(
            (run.run_id.as_str(), run.project.as_str()),
            ("abcd1234", "gene-bert")
        );
        let config = &run.config.as_ref().unwrap().update;
        assert_eq!(config[0], Item::plain("seed", &json!(3)));
        assert_eq!(second.step, Some(Step { num: 2 }));
        let item = |name| second.item.iter().find(|i| i.nested_key == [name]).unwrap();
        assert_eq!(item("train/loss").value_json, "\"NaN\"");
        assert_eq!(item("_runtime").value_json, "2.5");
        assert_eq!(files.files.len(), 2);
        assert_eq!((exit.exit_code, exit.runtime), (INTERRUPTED, 10));
    }
}
