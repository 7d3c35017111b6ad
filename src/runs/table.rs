//! Runs as a table.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Result, bail};
use serde_json::json;

use super::run::{Run, figure_name};
use crate::config::nearest;
use crate::train::figures::columns;

/// By what runs are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The folder's name.
    Name,
    /// The best value, best first; runs without one last.
    Best,
    /// The last change, newest first.
    Changed,
}

/// Refuses a figure that no run has.
///
/// # Errors
/// There is none of that name; the error names those there are.
pub fn check_metric(runs: &[Run], metric: &str) -> Result<()> {
    let figures = runs.iter().flat_map(|run| &run.evaluations);
    let mut names: Vec<&str> = figures
        .flat_map(|(_, f)| f.keys().map(String::as_str))
        .collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() || names.contains(&figure_name(metric)) {
        return Ok(());
    }
    let hint = match nearest(metric, names.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("there are {}", names.join(", ")),
    };
    bail!("--metric {metric}: no run has this figure\nhint: {hint}");
}

/// Best step and value of a run by `metric`, or by its own metric.
fn best(run: &Run, metric: Option<&str>) -> Option<(u64, f64)> {
    let metric = figure_name(metric.unwrap_or_else(|| run.metric()));
    let (step, figures) = run.best(metric)?;
    Some((step, *figures.get(metric)?))
}

/// Sorts runs; by their best values only where all are judged by one figure.
///
/// # Errors
/// By best, and they are not.
pub fn sort(runs: &mut [Run], order: Order, metric: Option<&str>) -> Result<()> {
    match order {
        Order::Name => runs.sort_by(|a, b| a.path.cmp(&b.path)),
        Order::Changed => runs.sort_by_key(|run| std::cmp::Reverse(run.changed)),
        Order::Best => {
            let Some(common) = common(runs, metric) else {
                bail!(
                    "--sort best: these runs are judged by different figures\nhint: choose one \
                     with --metric"
                );
            };
            let sign = if common.ends_with("loss") { 1.0 } else { -1.0 };
            let key = |run: &Run| best(run, Some(&common)).map_or(f64::INFINITY, |(_, v)| sign * v);
            runs.sort_by(|a, b| key(a).total_cmp(&key(b)));
        }
    }
    Ok(())
}

/// The figure that all runs are judged by.
fn common(runs: &[Run], metric: Option<&str>) -> Option<String> {
    if let Some(metric) = metric {
        return Some(figure_name(metric).to_owned());
    }
    let first = runs.first()?.metric();
    let same = runs.iter().all(|run| run.metric() == first);
    same.then(|| first.to_owned())
}

/// A row for each run, the folder last as it may be long, below `root`.
pub fn table(runs: &[Run], root: &Path, metric: Option<&str>) -> String {
    let common = common(runs, metric);
    let name = common
        .clone()
        .map_or("best".to_owned(), |name| format!("best {name}"));
    let head = [
        "state",
        "job",
        "step",
        "epoch",
        "train loss",
        &name,
        "time",
        "changed",
        "run",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for run in runs {
        let best = best(run, metric).map(|(step, value)| match &common {
            Some(_) => format!("{value:.4} at {step}"),
            None => format!("{} {value:.4} at {step}", run.metric()),
        });
        let below = run.path.strip_prefix(root).unwrap_or(&run.path);
        let below = if below.as_os_str().is_empty() {
            &run.path
        } else {
            below
        };
        rows.push([
            run.state.name().to_owned(),
            run.job().to_owned(),
            steps(run),
            format!("{:.2}", run.epoch),
            run.train_loss
                .map_or("-".to_owned(), |loss| format!("{loss:.4}")),
            best.unwrap_or_else(|| "-".to_owned()),
            duration(run.seconds),
            run.changed.map_or("-".to_owned(), ago),
            below.display().to_string(),
        ]);
    }
    columns(&rows)
}

/// `60/120`, or `60` where epochs say how long it is.
fn steps(run: &Run) -> String {
    match run.config.max_steps {
        Some(most) => format!("{}/{most}", run.step),
        None => run.step.to_string(),
    }
}

/// The runs that were broken off with an error that is known.
pub fn errors(runs: &[Run]) -> Vec<String> {
    let told = runs
        .iter()
        .filter_map(|run| Some((&run.path, run.error.as_ref()?)));
    told.map(|(path, error)| format!("{}: {error}", path.display()))
        .collect()
}

/// A run as one line of JSON.
pub fn json(run: &Run, metric: Option<&str>) -> String {
    let best = best(run, metric);
    let since = run
        .changed
        .and_then(|c| c.duration_since(SystemTime::UNIX_EPOCH).ok());
    json!({
        "run": run.path,
        "state": run.state.name().replace(' ', "_"),
        "job": run.job(),
        "step": run.step,
        "epoch": run.epoch,
        "train_loss": run.train_loss,
        "metric": figure_name(metric.unwrap_or_else(|| run.metric())),
        "best": best.map(|(_, value)| value),
        "best_step": best.map(|(step, _)| step),
        "seconds": run.seconds,
        "changed": since.map(|since| since.as_secs()),
    })
    .to_string()
}

/// `45 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (
        whole / 86400,
        whole / 3600 % 24,
        whole / 60 % 60,
        whole % 60,
    ) {
        (0, 0, 0, _) if seconds < 10.0 => format!("{seconds:.1} s"),
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

/// `5 s ago`, `3 min ago`; what lies ahead, by a wrong clock, is now.
fn ago(time: SystemTime) -> String {
    let seconds = time.elapsed().map_or(0, |elapsed| elapsed.as_secs());
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86400),
    }
}
