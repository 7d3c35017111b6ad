//! The way to the best trial, the best trials' curves, the importance of parameters.

use std::fmt::Write;

use crate::page::curves::{self, Points};
use crate::page::html::{card, text};
use crate::page::svg::Frame;
use crate::sweep::folder::StudyFolder;
use crate::sweep::importance::importance as importance_of;
use crate::sweep::study::Method;
use crate::sweep::trial::{State, Trial};
use crate::sweep::value::Value;

/// Trials whose curves are drawn.
const CURVES: usize = 6;

/// A value of the metric, to four places or digits.
pub(super) fn value(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 || (size < 1e-3 && size > 0.0) => format!("{value:.3e}"),
        _ => format!("{value:.4}"),
    }
}

/// The trials with a result, best first.
pub(super) fn ranked(folder: &StudyFolder) -> Vec<(&Trial, f64)> {
    let metric = &folder.study.metric;
    let ended = folder.trials.iter().filter(|trial| trial.has_ended());
    let mut ranked: Vec<(&Trial, f64)> = ended
        .filter_map(|trial| Some((trial, trial.best(metric)?.1)))
        .collect();
    ranked.sort_by(|a, b| metric.score(a.1).total_cmp(&metric.score(b.1)));
    ranked
}

/// Range of values with a little room; diverged ones are left out of it.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let mut sorted: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let (Some(&low), Some(&high)) = (sorted.first(), sorted.last()) else {
        return (0.0, 1.0);
    };
    let room = ((high - low) * 0.06).max(1e-6);
    (low - room, high + room)
}

/// The value of each trial, and the best up to it.
pub(super) fn history(folder: &StudyFolder) -> String {
    let metric = &folder.study.metric;
    let values: Vec<(&Trial, f64)> = folder
        .trials
        .iter()
        .filter(|trial| trial.has_ended())
        .filter_map(|trial| Some((trial, trial.best(metric)?.1)))
        .collect();
    let frame = Frame {
        width: 540.0,
        height: 330.0,
        x: (0.0, folder.trials.len().max(1) as f64 + 0.5),
        y: range(values.iter().map(|(_, value)| *value)),
        x_label: "trial",
        y_label: &metric.name,
    };
    let mut best: Points = Vec::new();
    for (trial, value) in &values {
        let last = best.last().map(|point| point.1);
        let now = match last {
            Some(last) if !metric.is_better(*value, last) => last,
            _ => *value,
        };
        best.extend(last.map(|last| (trial.number as f64, last)));
        best.push((trial.number as f64, now));
    }
    let mut inside = frame.curve(&best, "var(--accent)", false);
    for (trial, value) in &values {
        let class = if trial.state == State::Stopped {
            "dot hollow"
        } else {
            "dot"
        };
        let _ = write!(
            inside,
            "<circle class=\"{class}\" data-trial={} cx={:.1} cy={:.1} r=4><title>trial {}: {}\
             </title></circle>",
            trial.number,
            frame.at_x(trial.number as f64),
            frame.at_y(*value),
            trial.number,
            self::value(*value)
        );
    }
    let caption =
        "Dots: the best evaluation of each trial; hollow: stopped early. Line: the best so far.";
    card(
        false,
        "Trials in their order",
        &frame.svg("trials in their order", &inside),
        caption,
    )
}

/// The metric over the steps of the best trials.
pub(super) fn curves(folder: &StudyFolder) -> String {
    let ranked = ranked(folder);
    let points = |trial: &Trial| -> Points {
        let points = trial.history.iter();
        points.map(|&(step, value)| (step as f64, value)).collect()
    };
    let shown: Vec<(String, Points)> = ranked
        .iter()
        .take(CURVES)
        .map(|(trial, value)| {
            (
                format!("{} ({})", trial.number, self::value(*value)),
                points(trial),
            )
        })
        .collect();
    if shown.is_empty() {
        return String::new();
    }
    let lines: Vec<curves::Line<'_>> = shown
        .iter()
        .enumerate()
        .map(|(n, (name, points))| (name.clone(), points, false, n))
        .collect();
    let title = format!("The best {} while they trained", shown.len());
    curves::chart(&title, &folder.study.metric.name, None, &lines)
}

/// The importance of the parameters that were searched.
pub(super) fn importance(folder: &StudyFolder) -> String {
    let study = &folder.study;
    let searched: Vec<usize> = (0..study.parameters.len())
        .filter(|&n| !study.parameters[n].distribution.is_constant())
        .collect();
    let ranked = ranked(folder);
    let rows: Vec<Vec<f64>> = ranked
        .iter()
        .map(|(trial, _)| searched.iter().map(|&n| trial.point[n]).collect())
        .collect();
    let target: Vec<f64> = ranked.iter().map(|(_, value)| *value).collect();
    let Some(found) = importance_of(&rows, &target, folder.seed) else {
        return String::new();
    };
    let mut order: Vec<usize> = (0..searched.len()).collect();
    order.sort_by(|&a, &b| found.shares[b].total_cmp(&found.shares[a]));
    let mut inside = String::from("<div class=glance>");
    for n in order {
        let parameter = &study.parameters[searched[n]];
        // Places rise with values, but for inverse scales; of words they mean nothing.
        let ends = [0.0, 1.0].map(|u| parameter.distribution.at(u));
        let correlation = match ends {
            [
                Value::Number { value: low, .. },
                Value::Number { value: high, .. },
            ] => {
                let sign = if high < low { -1.0 } else { 1.0 };
                format!("rank correlation {:+.2}", sign * found.correlations[n])
            }
            _ => "no order".to_owned(),
        };
        let _ = write!(
            inside,
            "<div class=what>{}</div><div class=bar><i style=\"width:{:.1}%\"></i></div>\
             <div class=number><span>{:.0} %</span><small>{correlation}</small></div>",
            text(&parameter.name),
            found.shares[n] * 100.0,
            found.shares[n] * 100.0,
        );
    }
    inside += "</div>";
    let trust = match found.explained {
        e if e < 0.2 => "Hardly more than nothing: do not read much into the shares.",
        e if e < 0.5 => "The shares are a hint.",
        _ => "",
    };
    let together = match study.method {
        Method::Bayes => {
            " The search chose good values together, so that one may look better for another's sake."
        }
        _ => "",
    };
    let caption = format!(
        "Of {} trials, 200 regression trees learned the ranking by {}; the bar tells by how much their \
         error on trials that they had not seen grew when that parameter was shuffled, as a share of \
         all. They explain {:.0} % of the variance of unseen trials' ranks. {trust} Rank correlation: \
         Spearman's, with {}.{together}",
        ranked.len(),
        text(&study.metric.name),
        (found.explained * 100.0).max(0.0),
        text(&study.metric.name),
    );
    format!(
        "<h2>Importance</h2>{}",
        card(true, "Which parameters mattered", &inside, &caption)
    )
}
