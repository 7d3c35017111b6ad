//! What a study knows of its trials: a run that a sweep ended early, as others were better, looks
//! interrupted by itself, and is not to be resumed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::run::{Run, State};
use crate::file::read_json;

/// Notes which of the runs are trials that their study ended early.
pub fn note(runs: &mut [Run]) {
    let mut studies: BTreeMap<PathBuf, Value> = BTreeMap::new();
    let unfinished = |run: &&mut Run| run.state == State::Interrupted;
    for run in runs.iter_mut().filter(unfinished) {
        let whole = run.path.canonicalize().unwrap_or_else(|_| run.path.clone());
        let Some((study, name)) = whole.parent().zip(whole.file_name()) else {
            continue;
        };
        let record = studies
            .entry(study.to_owned())
            .or_insert_with(|| read_json(&study.join("study.json")).unwrap_or_default());
        if let Some(why) = reason(record, Path::new(name)) {
            run.state = State::Stopped(format!("by its study, {why}"));
        }
    }
}

/// Why the trial in the folder `name` was ended early, if it was.
fn reason(record: &Value, name: &Path) -> Option<String> {
    let number: u64 = name.to_str()?.strip_prefix("trial-")?.parse().ok()?;
    let mut trials = record["trials"].as_array()?.iter();
    let trial = trials.find(|trial| trial["number"] == number)?;
    let reason = trial["reason"]
        .as_str()
        .filter(|_| trial["state"] == "stopped")?;
    Some(reason.to_owned())
}
