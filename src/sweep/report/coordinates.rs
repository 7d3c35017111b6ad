//! Parallel coordinates: an axis for each parameter that was searched and one for the metric, a
//! line for each trial, the better ones stronger.

use std::fmt::Write;

use super::charts::{ranked, value};
use crate::page::html::{card, shortened, text};
use crate::page::svg::{number, ticks};
use crate::sweep::distribution::Distribution;
use crate::sweep::folder::StudyFolder;
use crate::sweep::parameter::Parameter;
use crate::sweep::trial::{State, Trial};

const HEIGHT: f64 = 340.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 18.0;
const SIDE: f64 = 70.0;
/// Least distance between two axes.
const GAP: f64 = 150.0;
/// Values of a parameter that are named on its axis.
const NAMED: usize = 12;

struct Axis<'a> {
    name: &'a str,
    /// Place 0..1, from below, and label.
    ticks: Vec<(f64, String)>,
}

/// The card; nothing where there is no trial to show.
pub(super) fn card_of(folder: &StudyFolder) -> String {
    let study = &folder.study;
    let searched: Vec<usize> = (0..study.parameters.len())
        .filter(|&n| !study.parameters[n].distribution.is_constant())
        .collect();
    let ranked = ranked(folder);
    if ranked.len() < 2 || searched.is_empty() {
        return String::new();
    }
    let range = range(&ranked);
    let mut axes: Vec<Axis<'_>> = searched
        .iter()
        .map(|&n| axis(&study.parameters[n]))
        .collect();
    axes.push(metric_axis(&study.metric.name, range));
    let gap = GAP.max(960.0 / axes.len() as f64);
    let width = (axes.len() - 1) as f64 * gap + 2.0 * SIDE;
    let at_x = |n: usize| SIDE + n as f64 * (width - 2.0 * SIDE) / (axes.len() - 1) as f64;
    let at_y = |place: f64| HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM);
    let mut inside = String::new();
    // The best ones last, above the others.
    for (rank, (trial, result)) in ranked.iter().enumerate().rev() {
        let mut places: Vec<f64> = searched
            .iter()
            .map(|&n| shown_place(&study.parameters[n].distribution, trial.point[n]))
            .collect();
        places.push(metric_place(*result, range));
        let path = path(
            places
                .iter()
                .enumerate()
                .map(|(n, &place)| (at_x(n), at_y(place))),
        );
        inside += &line(&path, trial, *result, rank, ranked.len());
    }
    for (n, axis) in axes.iter().enumerate() {
        inside += &draw_axis(
            axis,
            at_x(n),
            (at_y(1.0), at_y(0.0)),
            gap,
            n + 1 == axes.len(),
        );
    }
    let svg = format!(
        "<div class=scroll><svg class=coordinates viewBox=\"0 0 {width:.0} {HEIGHT}\" \
         style=\"min-width:{:.0}px\" role=img aria-label=\"parallel coordinates\">{inside}</svg></div>",
        width * 0.9
    );
    let caption = "A line for each trial with a result: the stronger, the better; dashed: stopped \
                   early. Axes are spaced as their distribution is (a log-uniform one \
                   logarithmically). Point at a line, or at a row of the table.";
    format!(
        "<h2>Parallel coordinates</h2>{}",
        card(true, "Parameters and result of every trial", &svg, caption)
    )
}

/// Least and greatest finite result.
fn range(ranked: &[(&Trial, f64)]) -> (f64, f64) {
    let values = ranked.iter().map(|(_, value)| *value);
    let finite = values.filter(|value| value.is_finite());
    finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

fn metric_place(value: f64, (low, high): (f64, f64)) -> f64 {
    ((value - low) / (high - low).max(1e-300)).clamp(0.0, 1.0)
}

fn metric_axis(name: &str, range: (f64, f64)) -> Axis<'_> {
    let inner = ticks(range).into_iter();
    let inner = inner.map(|tick| (metric_place(tick, range), number(tick)));
    Axis {
        name,
        ticks: inner.collect(),
    }
}

/// Where on its axis a parameter stands: values in equal steps, or the place itself.
fn shown_place(distribution: &Distribution, place: f64) -> f64 {
    let Some(number) = distribution.num_values() else {
        return place;
    };
    let value = distribution.at(place);
    let found = (0..number).find(|&n| distribution.at(distribution.place_of(n)) == value);
    (found.unwrap_or(0) as f64 + 0.5) / number as f64
}

fn axis(parameter: &Parameter) -> Axis<'_> {
    let distribution = &parameter.distribution;
    let label = |u: f64| shortened(&distribution.at(u).to_string(), 18);
    let ticks = match distribution.num_values() {
        Some(number) if number <= NAMED => (0..number)
            .map(|n| {
                (
                    (n as f64 + 0.5) / number as f64,
                    label(distribution.place_of(n)),
                )
            })
            .collect(),
        _ => [0.0, 0.25, 0.5, 0.75, 1.0]
            .map(|u| (u, brief(distribution, u)))
            .to_vec(),
    };
    Axis {
        name: &parameter.name,
        ticks,
    }
}

/// A number on an axis, to two digits.
fn brief(distribution: &Distribution, u: f64) -> String {
    // What has no end begins and ends where hardly anything is beyond.
    let u = if distribution.is_bounded() {
        u
    } else {
        u.clamp(0.001, 0.999)
    };
    match distribution.at(u).number() {
        Some(number) if number != 0.0 && !(1e-3..1e4).contains(&number.abs()) => {
            format!("{number:.1e}")
        }
        Some(number) => format!("{}", (number * 1000.0).round() / 1000.0),
        None => String::new(),
    }
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut out = String::new();
    let mut before: Option<(f64, f64)> = None;
    for (x, y) in points {
        let _ = match before {
            None => write!(out, "M{x:.1} {y:.1}"),
            Some((bx, by)) => {
                let middle = (bx + x) / 2.0;
                write!(out, "C{middle:.1} {by:.1} {middle:.1} {y:.1} {x:.1} {y:.1}")
            }
        };
        before = Some((x, y));
    }
    out
}

fn line(path: &str, trial: &Trial, result: f64, rank: usize, number: usize) -> String {
    // 1 for the best, 0 for the last.
    let good = 1.0 - rank as f64 / (number - 1).max(1) as f64;
    let dashed = if trial.state == State::Stopped {
        " dashed"
    } else {
        ""
    };
    format!(
        "<path class=\"trial{dashed}\" data-trial={} style=\"--share:{:.0}%;--strength:{:.2};\
         --width:{:.1}\" d=\"{path}\"><title>trial {}: {}</title></path>",
        trial.number,
        good * good * 100.0,
        0.25 + 0.75 * good * good,
        1.2 + 1.6 * good.powi(4),
        trial.number,
        value(result),
    )
}

fn draw_axis(
    axis: &Axis<'_>,
    x: f64,
    (top, bottom): (f64, f64),
    gap: f64,
    is_last: bool,
) -> String {
    let class = if is_last { "strong last" } else { "strong" };
    let mut out = format!(
        "<path class=axis d=\"M{x:.1} {top:.1}V{bottom:.1}\"/><text class=\"{class}\" x={x:.1} y=20 \
         text-anchor=middle>{}</text>",
        text(&shortened(axis.name, (gap / 8.0) as usize))
    );
    for (place, label) in &axis.ticks {
        let y = bottom + (top - bottom) * place;
        let _ = write!(
            out,
            "<path class=axis d=\"M{:.1} {y:.1}h8\"/><text class=tick x={:.1} y={:.1} \
             text-anchor=start>{}</text>",
            x - 4.0,
            x + 8.0,
            y + 4.0,
            text(label)
        );
    }
    out
}
