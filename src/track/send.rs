//! Sending later what a run's trackers have not yet: for runs that ended while a tracker was down,
//! and for reports that were written after the end.

use std::path::Path;
use std::time::Instant;

use super::courier::Courier;
use super::entry::{End, Entry, State, now};
use super::error::TrackError;
use super::journal::Journal;
use super::plan::Plan;
use super::tracker::{JOURNAL, files_to_keep, tracking_folder};

/// Sends everything that has not arrived of the run in `folder` to the trackers of `plan`, within
/// the plan's wait; returns their names. A run that never said how it ended counts as failed.
///
/// # Errors
/// There is no such run, it is still going, or something has not arrived; what has stays.
pub fn send(plan: &Plan, folder: &Path) -> Result<Vec<&'static str>, TrackError> {
    let tracking = tracking_folder(folder);
    let path = tracking.join(JOURNAL);
    let wrong = |problem: String, hint: &str| TrackError {
        tracker: "track",
        problem: format!("{}: {problem}", folder.display()),
        hint: hint.to_owned(),
    };
    if !path.is_file() {
        let hint = "name the folder of a run that was started with --report-to";
        return Err(wrong("holds no tracked run".to_owned(), hint));
    }
    let unusable = |error: std::io::Error| {
        let hint = "wait until the run has ended, or check who may read and write there";
        wrong(format!("cannot be read: {error}"), hint)
    };
    let (journal, before) = Journal::open(&path).map_err(unusable)?;
    let files = files_to_keep(folder);
    if before.end.as_ref().is_none_or(|end| end.files != files) {
        let end = End {
            time: before.end.as_ref().map_or_else(now, |end| end.time),
            step: before.last_step(),
            state: before.end.as_ref().map_or(State::Failed, |end| end.state),
            files,
            spent_seconds: before.end.map_or(0.0, |end| end.spent_seconds),
        };
        journal.append(&Entry::End(end)).map_err(unusable)?;
    }
    let deadline = Instant::now() + plan.wait;
    let mut couriers = Vec::new();
    for sink in plan.sinks(folder) {
        let courier = Courier::start(&path, sink).map_err(unusable)?;
        courier.ask_to_end(deadline);
        couriers.push(courier);
    }
    for courier in &couriers {
        if let Some(why) = courier.join() {
            let hint = "the rest is kept; send it again later";
            return Err(wrong(
                format!("{} has not everything: {why}", courier.name()),
                hint,
            ));
        }
    }
    Ok(couriers.iter().map(Courier::name).collect())
}
