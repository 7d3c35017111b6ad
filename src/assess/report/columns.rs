//! The section of one obs column in one setting: all figures next to what simpler methods reach,
//! the confusion matrix, the reliability curve, the classes, the groups.

use super::charts::{heat_map, reliability};
use crate::assess::summary::{ColumnSummary, GeneSummary, Interval};
use crate::metrics::Figures;
use crate::page::html::{card, count, figure, table, text};

/// Names of the figures, as [`Figures::NAMES`] has them, for readers.
const SPELLED: [(&str, &str); 12] = [
    ("accuracy", "accuracy"),
    ("balanced_accuracy", "balanced accuracy"),
    ("macro_precision", "macro precision"),
    ("macro_recall", "macro recall"),
    ("macro_f1", "macro F1"),
    ("weighted_f1", "weighted F1"),
    ("f1_harmonic", "F1, harmonic"),
    ("top3_accuracy", "top-3 accuracy"),
    ("mcc", "MCC"),
    ("kappa", "kappa"),
    ("auroc", "AUROC"),
    ("log_loss", "log loss"),
];
/// Rows of the table by class that are shown at once.
const SHOWN_CLASSES: usize = 16;

/// One method's figures by name.
struct Method {
    name: String,
    values: Vec<(&'static str, f64)>,
}

/// All cards of a column.
pub(super) fn cards(column: &ColumnSummary) -> String {
    let majority = &column.majority;
    let constant = Method {
        name: "always the most common".to_owned(),
        values: vec![
            ("accuracy", majority.accuracy),
            ("balanced_accuracy", majority.balanced_accuracy),
            ("macro_precision", majority.macro_precision),
            ("macro_recall", majority.macro_recall),
            ("macro_f1", majority.macro_f1),
            ("weighted_f1", majority.weighted_f1),
            ("f1_harmonic", majority.f1_harmonic),
            ("mcc", 0.0),
            ("kappa", 0.0),
            ("auroc", 0.5),
        ],
    };
    let simple = column.baselines.iter().map(|method| {
        let mut values: Vec<(&str, f64)> = method.figures.named().collect();
        values.push(("log_loss", method.figures.log_loss));
        Method {
            name: method.description.to_owned(),
            values,
        }
    });
    let others: Vec<Method> = std::iter::once(constant).chain(simple).collect();
    let mut caption = format!(
        "The most common class of the training cells is {}.",
        text(&majority.class)
    );
    if let Some(whole) = column.accuracy_whole_vocabulary {
        caption += &format!(
            " With the choice among all tokens, accuracy is {}.",
            figure(whole)
        );
    }
    let names: Vec<&str> = column
        .classes
        .iter()
        .map(|class| class.name.as_str())
        .collect();
    let mut out = String::from("<div class=grid>");
    out += &card(
        false,
        "Figures",
        &figures(&column.figures, &column.intervals, &others),
        &caption,
    );
    out += &card(
        false,
        "Confusion matrix",
        &heat_map(&names, &column.confusion),
        "Rows: true class. Columns: answer. Shaded by the share of the row.",
    );
    out += &card(
        false,
        "Reliability",
        &reliability(&column.reliability),
        &format!(
            "On the dashed line, an answer given with 80 % is right in 80 % of the cells. Mean \
             distance from it (expected calibration error): {}. Bars: how many answers.",
            figure(column.reliability.expected_calibration_error)
        ),
    );
    out += &card(false, "Classes", &classes(column), "");
    if !column.groups.is_empty() {
        out += &card(true, "Groups of cells", &groups(column), "");
    }
    out + "</div>"
}

/// The card of masked genes.
pub(super) fn genes(genes: &GeneSummary) -> String {
    let f = &genes.figures;
    let others = [Method {
        name: "each gene's most common bin".to_owned(),
        values: vec![("accuracy", f.mode_accuracy)],
    }];
    let names: Vec<&str> = genes.bins.iter().map(String::as_str).collect();
    let mut out = String::from("<div class=grid>");
    out += &card(
        false,
        "Figures",
        &figures(&f.figures, &genes.intervals, &others),
        &format!(
            "{} masked genes. With the choice among all tokens, accuracy is {}.",
            count(f.num_genes),
            figure(f.accuracy_whole_vocabulary)
        ),
    );
    out += &card(
        false,
        "Confusion matrix",
        &heat_map(&names, &genes.confusion),
        "Rows: true bin. Columns: answer. Shaded by the share of the row.",
    );
    out + "</div>"
}

fn figures(
    own: &Figures,
    intervals: &std::collections::BTreeMap<String, Interval>,
    others: &[Method],
) -> String {
    let mut named: Vec<(&str, f64)> = own.named().collect();
    named.push(("log_loss", own.log_loss));
    let value = |values: &[(&'static str, f64)], name: &str| {
        values
            .iter()
            .find(|(other, _)| *other == name)
            .map(|(_, value)| *value)
    };
    let mut head = vec![String::new(), "model".to_owned()];
    head.extend(others.iter().map(|method| method.name.clone()));
    let mut rows = Vec::new();
    for (name, spelled) in SPELLED {
        let Some((_, model)) = named.iter().find(|(other, _)| *other == name) else {
            continue;
        };
        let range = intervals
            .get(name)
            .map_or_else(String::new, |Interval { low, high }| {
                format!(
                    "<span class=range>{} – {}</span>",
                    figure(*low),
                    figure(*high)
                )
            });
        let mut row = vec![spelled.to_owned(), format!("{}{range}", figure(*model))];
        let other =
            |method: &Method| value(&method.values, name).map_or_else(|| "–".to_owned(), figure);
        row.extend(others.iter().map(other));
        rows.push(row);
    }
    table(&head, &rows)
}

fn classes(column: &ColumnSummary) -> String {
    let mut classes: Vec<_> = column.classes.iter().collect();
    classes.sort_by_key(|class| std::cmp::Reverse(class.figures.support));
    let head = ["class", "cells", "precision", "recall", "F1", "AUROC"].map(str::to_owned);
    let row = |class: &&crate::train::class_figures::OneClass| {
        let f = &class.figures;
        vec![
            text(&class.name),
            count(f.support),
            figure(f.precision),
            figure(f.recall),
            figure(f.f1),
            class.auroc.map_or_else(|| "–".to_owned(), figure),
        ]
    };
    let rows: Vec<Vec<String>> = classes.iter().map(row).collect();
    let (first, rest) = rows.split_at(rows.len().min(SHOWN_CLASSES));
    let mut out = table(&head, first);
    if !rest.is_empty() {
        let rest_table = table(&head, rest);
        out += &format!(
            "<details><summary>{} rarer classes</summary>{rest_table}</details>",
            rest.len()
        );
    }
    out
}

fn groups(column: &ColumnSummary) -> String {
    let head = [
        "group",
        "cells",
        "accuracy",
        "always the most common",
        "balanced accuracy",
        "macro F1",
        "AUROC",
    ];
    let row = |group: &crate::assess::summary::GroupSummary| {
        vec![
            text(&group.group),
            count(group.num_cells),
            figure(group.figures.accuracy),
            figure(group.majority_accuracy),
            figure(group.figures.balanced_accuracy),
            figure(group.figures.macro_f1),
            group.figures.auroc.map_or_else(|| "–".to_owned(), figure),
        ]
    };
    let rows: Vec<Vec<String>> = column.groups.iter().map(row).collect();
    table(&head.map(str::to_owned), &rows)
}
