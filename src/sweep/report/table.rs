//! The table of trials.

use std::fmt::Write;

use super::charts::{ranked, value};
use crate::page::html::text;
use crate::sweep::folder::StudyFolder;
use crate::sweep::runner::duration;
use crate::sweep::trial::Trial;

/// One cell: what it shows, and what it is sorted by.
struct Cell {
    shown: String,
    key: String,
}

impl Cell {
    fn number(shown: String, key: f64) -> Self {
        let key = key.to_string();
        Self { shown, key }
    }

    fn text(shown: &str) -> Self {
        Self {
            shown: shown.to_owned(),
            key: shown.to_owned(),
        }
    }

    fn empty() -> Self {
        Self::text("")
    }
}

/// The card: the best trials first, those without a result last.
pub(super) fn card_of(folder: &StudyFolder) -> String {
    let study = &folder.study;
    let ranked = ranked(folder);
    let mut order: Vec<&Trial> = ranked.iter().map(|(trial, _)| *trial).collect();
    let has_none = |trial: &&Trial| ranked.iter().all(|(other, _)| other.number != trial.number);
    order.extend(folder.trials.iter().filter(has_none));
    let searched: Vec<usize> = (0..study.parameters.len())
        .filter(|&n| !study.parameters[n].distribution.is_constant())
        .collect();
    let mut head: Vec<&str> = vec!["trial", study.metric.name.as_str()];
    head.extend(searched.iter().map(|&n| study.parameters[n].name.as_str()));
    head.extend(["state", "best at step", "last", "evaluations", "time"]);
    let mut out = String::from("<div class=\"card scroll\"><table class=sortable><thead><tr>");
    for (n, name) in head.iter().enumerate() {
        let sorted = match (n, study.metric.maximize) {
            (1, true) => " aria-sort=descending",
            (1, false) => " aria-sort=ascending",
            _ => "",
        };
        // Long names break at their underscores.
        let name = text(name).replace('_', "_<wbr>");
        let _ = write!(out, "<th{sorted}><button>{name}</button></th>");
    }
    out += "</tr></thead><tbody>";
    for trial in order {
        let _ = write!(out, "<tr data-trial={}>", trial.number);
        for cell in row(folder, trial, &searched) {
            let _ = write!(
                out,
                "<td data-key=\"{}\">{}</td>",
                text(&cell.key),
                text(&cell.shown)
            );
        }
        out += "</tr>";
    }
    out + "</tbody></table></div>"
}

fn row(folder: &StudyFolder, trial: &Trial, searched: &[usize]) -> Vec<Cell> {
    let study = &folder.study;
    let best = trial.best(&study.metric);
    let mut cells = vec![Cell::number(trial.number.to_string(), trial.number as f64)];
    cells.push(best.map_or_else(Cell::empty, |(_, v)| Cell::number(value(v), v)));
    let values = study.values(&trial.point);
    for &n in searched {
        let value = &values[n].1;
        let shown = value.to_string();
        cells.push(match value.number() {
            Some(number) => Cell::number(shown, number),
            None => Cell::text(&shown),
        });
    }
    cells.push(Cell::text(trial.state.name()));
    let step = |(step, _): (u64, f64)| Cell::number(step.to_string(), step as f64);
    cells.push(best.map_or_else(Cell::empty, step));
    let last = trial.history.last();
    cells.push(last.map_or_else(Cell::empty, |(_, v)| Cell::number(value(*v), *v)));
    let number = trial.history.len();
    cells.push(Cell::number(number.to_string(), number as f64));
    cells.push(Cell::number(duration(trial.seconds), trial.seconds));
    cells
}
