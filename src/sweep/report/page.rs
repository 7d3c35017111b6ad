//! The page.

use std::fmt::Write;

use super::{charts, coordinates, table};
use crate::page::document;
use crate::page::html::{card, count, text};
use crate::sweep::folder::StudyFolder;
use crate::sweep::runner::duration;
use crate::sweep::study::Method;
use crate::sweep::trial::{State, Trial};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The page as HTML: whole, with nothing from elsewhere.
pub(super) fn page(folder: &StudyFolder) -> String {
    let study = &folder.study;
    let mut body = head(folder);
    body += &best(folder);
    body += "<div class=grid>";
    body += &charts::history(folder);
    body += &charts::curves(folder);
    body += "</div>";
    body += &coordinates::card_of(folder);
    body += &charts::importance(folder);
    let _ = write!(body, "<h2>Trials</h2>{}", table::card_of(folder));
    body += &failed(folder);
    body += &space(folder);
    let footer = format!(
        "gene-bert {} · the same figures stand in study.csv beside this page",
        env!("CARGO_PKG_VERSION")
    );
    document(
        &format!("{} · study", study.name),
        &body,
        &footer,
        STYLE,
        SCRIPT,
    )
}

fn head(folder: &StudyFolder) -> String {
    let study = &folder.study;
    let num = |state| folder.trials.iter().filter(|t| t.state == state).count() as u64;
    let method = match study.method {
        Method::Grid => "grid search",
        Method::Random => "random search",
        Method::Bayes => "Bayesian search (TPE)",
    };
    let goal = if study.metric.maximize {
        "highest"
    } else {
        "lowest"
    };
    let mut facts = format!(
        "<li>{method}, seed <b>{}</b></li><li><b>{}</b> trials</li>",
        folder.seed,
        count(folder.trials.len() as u64)
    );
    for (state, name) in [
        (State::Finished, "finished"),
        (State::Stopped, "stopped early"),
        (State::Failed, "failed"),
        (State::Running, "unfinished"),
    ] {
        if num(state) > 0 {
            let _ = write!(facts, "<li><b>{}</b> {name}</li>", num(state));
        }
    }
    let seconds: f64 = folder.trials.iter().map(|trial| trial.seconds).sum();
    let _ = write!(
        facts,
        "<li><b>{}</b> of training</li><li>{goal} <b>{}</b> is best</li>",
        duration(seconds),
        text(&study.metric.name)
    );
    let about = study.description.as_deref().unwrap_or_default();
    format!(
        "<h1>{}</h1><p class=soft>{}</p><ul class=facts>{facts}</ul>\n",
        text(&study.name),
        text(about)
    )
}

fn best(folder: &StudyFolder) -> String {
    let Some((trial, value)) = folder.best() else {
        return "<h2>Best trial</h2><div class=card>No trial has a result yet.</div>".to_owned();
    };
    let study = &folder.study;
    let step = trial.best(&study.metric).map_or(0, |(step, _)| step);
    let mut inside = format!(
        "<div class=best><div class=big>{}</div><div class=soft>{}, at step {} · {} · {} · {}</div></div>\
         <div class=chips>",
        charts::value(value),
        text(&study.metric.name),
        count(step),
        trial.state.name(),
        duration(trial.seconds),
        text(&trial.folder()),
    );
    for (parameter, (name, value)) in study.parameters.iter().zip(study.values(&trial.point)) {
        if !parameter.distribution.is_constant() {
            let _ = write!(
                inside,
                "<span>{} <b>{}</b></span>",
                text(name),
                text(&value.to_string())
            );
        }
    }
    inside += "</div>";
    format!(
        "<h2>Best trial <small>number {}</small></h2><div class=card>{inside}</div>\n",
        trial.number
    )
}

fn failed(folder: &StudyFolder) -> String {
    let failed: Vec<&Trial> = folder
        .trials
        .iter()
        .filter(|trial| trial.state == State::Failed)
        .collect();
    if failed.is_empty() {
        return String::new();
    }
    let mut inside = String::new();
    for trial in failed {
        let _ = write!(
            inside,
            "<h3>Trial {}</h3><pre>{}</pre>",
            trial.number,
            text(trial.reason.as_deref().unwrap_or_default())
        );
    }
    format!("<h2>Failed trials</h2><div class=card>{inside}</div>")
}

fn space(folder: &StudyFolder) -> String {
    let mut keys = String::from("<div class=keys>");
    for parameter in &folder.study.parameters {
        let _ = write!(
            keys,
            "<div><b>{}</b>: {}</div>",
            text(&parameter.name),
            text(&parameter.distribution.describe())
        );
    }
    format!(
        "<h2>Parameters</h2>{}",
        card(
            true,
            "What was searched, and what was fixed",
            &(keys + "</div>"),
            ""
        )
    )
}
