//! The page.

use std::fmt::Write;

use super::training::Training;
use super::{columns, map};
use crate::assess::map::Map;
use crate::assess::summary::{Interval, Summary, setting_text};
use crate::page::document;
use crate::page::html::{card, count, figure, text};

/// What a report shows.
#[derive(Debug)]
pub struct Report<'a> {
    /// All figures.
    pub summary: &'a Summary,
    /// Where cells lie by their embeddings, if they were embedded.
    pub map: Option<&'a Map>,
    /// The run's own curves, if there are any.
    pub training: Option<&'a Training>,
    /// The run's settings, name and value.
    pub settings: &'a [(String, String)],
}

/// The page as HTML: whole, with nothing from elsewhere.
pub fn page(report: &Report<'_>) -> String {
    let summary = report.summary;
    let mut body = head(summary);
    body += "<h2>At a glance</h2>";
    body += &card(
        true,
        "Accuracy",
        &glance(summary),
        "Bar: the model. Upright mark: the best constant answer. Thin line: 95 % interval, where asked for.",
    );
    for column in &summary.columns {
        let _ = write!(
            body,
            "<h2>{} <small>{} · {} cells</small></h2>{}",
            text(&column.category),
            setting_text(column.setting),
            count(column.num_cells),
            columns::cards(column)
        );
        if column.num_missing + column.num_unknown > 0 {
            let _ = write!(
                body,
                "<p class=soft>Not counted: {} cells without a value, {} with a value that the model \
                 never learned{}.</p>",
                count(column.num_missing),
                count(column.num_unknown),
                named(&column.unknown_values)
            );
        }
    }
    if let Some(genes) = &summary.genes {
        let _ = write!(body, "<h2>Masked genes</h2>{}", columns::genes(genes));
    }
    if let (Some(map), Some(embedding)) = (report.map, &summary.embedding) {
        let _ = write!(
            body,
            "<h2>Embeddings</h2><div class=grid>{}</div>",
            map::cards(map, embedding)
        );
    }
    if let Some(training) = report.training {
        let _ = write!(
            body,
            "<h2>Training</h2><div class=grid>{}</div>",
            training.cards()
        );
    }
    body += &settings(report.settings);
    let title = format!("{} · evaluation", summary.checkpoint);
    let footer = format!(
        "gene-bert {} · every figure stands in metrics.json beside this page",
        text(summary.gene_bert)
    );
    document(&title, &body, &footer, "", "")
}

fn named(values: &[String]) -> String {
    if values.is_empty() {
        return String::new();
    }
    format!(" ({})", text(&values.join(", ")))
}

fn head(summary: &Summary) -> String {
    let mut facts = format!(
        "<li><b>{}</b> cells: {}</li><li>constant answers from {}</li>",
        count(summary.num_cells),
        text(&summary.cells),
        text(&summary.baselines_from)
    );
    if summary.num_resamples > 0 {
        let _ = write!(
            facts,
            "<li>95 % intervals from <b>{}</b> resamples of {}</li>",
            count(summary.num_resamples),
            summary
                .resampled_by
                .as_ref()
                .map_or_else(|| "cells".to_owned(), |by| text(by))
        );
    }
    let files = summary
        .files
        .iter()
        .map(|file| text(file))
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "<h1>{}</h1><p class=soft>{}</p><ul class=facts>{facts}</ul>\
         <p class=soft style=\"margin-top:8px\">Files: {files}</p>\n",
        text(&summary.checkpoint),
        text(&summary.model),
    )
}

fn glance(summary: &Summary) -> String {
    let mut out = String::from("<div class=glance>");
    for column in &summary.columns {
        out += &bar(
            (&column.category, setting_text(column.setting)),
            (column.figures.accuracy, column.intervals.get("accuracy")),
            (column.majority.accuracy, "most common class"),
        );
        for method in &column.baselines {
            out += &thin_bar(method.description, method.figures.accuracy);
        }
    }
    if let Some(genes) = &summary.genes {
        out += &bar(
            ("gene bins", "masked genes"),
            (
                genes.figures.figures.accuracy,
                genes.intervals.get("accuracy"),
            ),
            (genes.figures.mode_accuracy, "each gene's most common bin"),
        );
    }
    out + "</div>"
}

fn bar(
    (name, detail): (&str, &str),
    (value, interval): (f64, Option<&Interval>),
    (baseline, baseline_name): (f64, &str),
) -> String {
    let percent = |share: f64| format!("{:.2}%", share.clamp(0.0, 1.0) * 100.0);
    let (whisker, range) = match interval {
        None => (String::new(), String::new()),
        Some(Interval { low, high }) => (
            format!(
                "<u style=\"left:{};width:{}\"></u>",
                percent(*low),
                percent(high - low)
            ),
            format!(
                " <small style=\"display:inline\">{} – {}</small>",
                figure(*low),
                figure(*high)
            ),
        ),
    };
    format!(
        "<div class=what>{}<small>{}</small></div>\
         <div class=bar><i style=\"width:{}\"></i>{whisker}<b style=\"left:{}\"></b></div>\
         <div class=number><span>{}{range}</span><small>{} {}</small></div>",
        text(name),
        text(detail),
        percent(value),
        percent(baseline),
        figure(value),
        figure(baseline),
        text(baseline_name),
    )
}

/// A method to compare with, beneath the model.
fn thin_bar(name: &str, value: f64) -> String {
    format!(
        "<div class=\"what thin\"><small>{}</small></div>\
         <div class=\"bar thin\"><i style=\"width:{:.2}%\"></i></div>\
         <div class=number><small>{}</small></div>",
        text(name),
        value.clamp(0.0, 1.0) * 100.0,
        figure(value)
    )
}

fn settings(settings: &[(String, String)]) -> String {
    if settings.is_empty() {
        return String::new();
    }
    let mut keys =
        String::from("<details open><summary>All settings of the run</summary><div class=keys>");
    for (name, value) in settings {
        let _ = write!(keys, "<div><b>{}</b> = {}</div>", text(name), text(value));
    }
    keys += "</div></details>";
    format!("<h2>Settings</h2><div class=card>{keys}</div>")
}
