//! What a study would run, without running it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::command::Filling;
use super::place::Place;
use super::search::suggest;
use super::study::{Method, Study};

/// Trials that are listed.
const LISTED: usize = 1000;

/// The space, the command of the first trial, and every trial that can be told beforehand, with
/// what would hinder it, where each runs in the order of `places`.
pub fn trials(study: &Study, seed: u64, places: &[Place]) -> String {
    let mut out = String::new();
    let width = study
        .parameters
        .iter()
        .map(|p| p.name.len())
        .max()
        .unwrap_or(0);
    for parameter in &study.parameters {
        let about = parameter.distribution.describe();
        let _ = writeln!(out, "{:width$}  {about}", parameter.name);
    }
    let most = study.max_trials().unwrap_or(0);
    let _ = writeln!(out, "\nAt most {most} trials, by {}.", study.metric.name);
    if let Some(rule) = &study.early_terminate {
        let shown: Vec<String> = rule.brackets.iter().take(6).map(u64::to_string).collect();
        let _ = writeln!(out, "Compared after {} evaluations, …", shown.join(", "));
    }
    let mut points: Vec<Vec<f64>> = Vec::new();
    while points.len() < LISTED {
        let tried: Vec<&[f64]> = points.iter().map(Vec::as_slice).collect();
        let Some(point) = suggest(study, seed, points.len(), &tried, &[]) else {
            break;
        };
        points.push(point);
        if study.method == Method::Bayes {
            // The others follow from results.
            break;
        }
    }
    let mut hindered = 0;
    // What hinders trials, and the first of them.
    let mut said: BTreeMap<String, usize> = BTreeMap::new();
    for (n, point) in points.iter().enumerate() {
        let values = study.values(point);
        let folder = Path::new("FOLDER").join(format!("trial-{:03}", n + 1));
        let filling = Filling {
            values: &values,
            folder: &folder,
            threads: places[n % places.len()].threads,
            device: places[n % places.len()].device,
            again: &[],
        };
        if n == 0 {
            let words = study.command.show(&filling);
            let _ = writeln!(out, "\nThe first trial runs\n  {words}\n");
        }
        let both = study.parameters.iter().zip(&values);
        let searched = both.filter(|(p, _)| !p.distribution.is_constant());
        let shown: Vec<String> = searched
            .map(|(_, (name, value))| format!("{name}={value}"))
            .collect();
        let line = format!("trial {:>3}  {}", n + 1, shown.join("  "));
        let _ = writeln!(out, "{}", line.trim_end());
        if let Some(what) = study.command.hindrance(&filling) {
            hindered += 1;
            let told = match said.get(&what) {
                Some(first) => format!("as trial {first}"),
                None => what.replace('\n', "\n    "),
            };
            let _ = writeln!(out, "    would fail: {told}");
            said.entry(what).or_insert(n + 1);
        }
    }
    if study.method == Method::Bayes {
        out += "… and so on, by the results\n";
    }
    if hindered > 0 {
        let _ = writeln!(out, "\n{hindered} of these trials would fail.");
    }
    out
}
