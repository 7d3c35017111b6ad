//! The folder of an evaluation:
//!
//! | file | what |
//! |---|---|
//! | `report.html` | the same for the eye: one page with charts, as [`super::report`] |
//! | `metrics.json` | everything, as [`super::summary::Summary`] |
//! | `per_class.csv` | precision, recall, F1, AUROC of every class |
//! | `confusion_NAME.csv` | counts, rows true, columns predicted; one per column and setting |
//! | `groups.csv` | all figures by the values of the column that groups cells |
//!
//! It appears whole or not at all. An older one is replaced only where asked, and only if it is
//! the folder of an evaluation.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::job::Assessed;
use super::report::{Report, page};
use super::summary::{ColumnSummary, Summary, setting_text};
use crate::file::{StagedDir, write_atomic};
use crate::metrics::Figures;

const METRICS: &str = "metrics.json";

/// Whether the folder may be written, before anything is computed.
///
/// # Errors
/// It exists and may not be replaced, or holds something else than an evaluation.
pub fn check(folder: &Path, overwrite: bool) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let path = folder.display();
    ensure!(
        folder.is_dir(),
        "{path}: is a file, expected a folder to be made\nhint: name another"
    );
    let is_empty = std::fs::read_dir(folder)
        .with_context(|| format!("{path}: cannot be listed"))?
        .next()
        .is_none();
    if is_empty {
        return Ok(());
    }
    ensure!(
        folder.join(METRICS).is_file() && !folder.join("run.toml").exists(),
        "{path}: holds something else than an evaluation\nhint: name a folder that does not exist"
    );
    ensure!(
        overwrite,
        "{path}: exists already\nhint: --overwrite replaces this evaluation"
    );
    Ok(())
}

/// Writes the folder.
///
/// # Errors
/// It cannot be written; what stood there is then still there.
pub fn write(folder: &Path, assessed: &Assessed) -> Result<()> {
    let summary = &assessed.summary;
    let settings = assessed.settings()?;
    let report = Report {
        summary,
        map: assessed.map.as_ref(),
        training: assessed.training.as_ref(),
        settings: &settings,
    };
    let staged = StagedDir::new(folder)?;
    let dir = staged.path();
    write_atomic(&dir.join(METRICS), &serde_json::to_vec_pretty(summary)?)?;
    write_atomic(&dir.join("report.html"), page(&report).as_bytes())?;
    write_atomic(&dir.join("per_class.csv"), &per_class(summary)?)?;
    for column in &summary.columns {
        let names: Vec<&str> = column.classes.iter().map(|c| c.name.as_str()).collect();
        let bytes = confusion(&names, &column.confusion)?;
        let name = format!("confusion_{}.csv", column.file_name());
        write_atomic(&dir.join(name), &bytes)?;
    }
    if let Some(genes) = &summary.genes {
        let names: Vec<&str> = genes.bins.iter().map(String::as_str).collect();
        let bytes = confusion(&names, &genes.confusion)?;
        write_atomic(&dir.join("confusion_gene_bins.csv"), &bytes)?;
    }
    if summary
        .columns
        .iter()
        .any(|column| !column.groups.is_empty())
    {
        write_atomic(&dir.join("groups.csv"), &groups(summary)?)?;
    }
    staged.commit()?;
    Ok(())
}

fn finished(writer: csv::Writer<Vec<u8>>) -> Result<Vec<u8>> {
    let bytes = writer.into_inner();
    bytes.map_err(|error| anyhow::anyhow!("cannot make a CSV table: {}", error.error()))
}

fn per_class(summary: &Summary) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "predicted",
        "model_sees",
        "class",
        "support",
        "answered",
        "precision",
        "recall",
        "f1",
        "auroc",
    ])?;
    for column in &summary.columns {
        for class in &column.classes {
            let f = &class.figures;
            writer.write_record([
                column.category.as_str(),
                setting_text(column.setting),
                &class.name,
                &f.support.to_string(),
                &f.predicted.to_string(),
                &f.precision.to_string(),
                &f.recall.to_string(),
                &f.f1.to_string(),
                &class
                    .auroc
                    .map_or_else(String::new, |area| area.to_string()),
            ])?;
        }
    }
    finished(writer)
}

/// The first column is the true class.
fn confusion(names: &[&str], counts: &[Vec<u64>]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([&["true \\ predicted"], names].concat())?;
    for (name, row) in names.iter().zip(counts) {
        let row = row.iter().map(u64::to_string);
        writer.write_record([(*name).to_owned()].into_iter().chain(row))?;
    }
    finished(writer)
}

fn groups(summary: &Summary) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let fixed = [
        "predicted",
        "model_sees",
        "group",
        "cells",
        "majority_accuracy",
    ];
    let head = fixed.iter().chain(&Figures::NAMES).chain(&["log_loss"]);
    writer.write_record(head)?;
    let rows = |column: &ColumnSummary| -> Vec<Vec<String>> {
        let row = |group: &super::summary::GroupSummary| {
            let mut row = vec![
                column.category.clone(),
                setting_text(column.setting).to_owned(),
                group.group.clone(),
                group.num_cells.to_string(),
                group.majority_accuracy.to_string(),
            ];
            let named: Vec<(&str, f64)> = group.figures.named().collect();
            row.extend(Figures::NAMES.iter().map(|name| {
                let value = named.iter().find(|(other, _)| other == name);
                value.map_or_else(String::new, |(_, value)| value.to_string())
            }));
            row.push(group.figures.log_loss.to_string());
            row
        };
        column.groups.iter().map(row).collect()
    };
    for row in summary.columns.iter().flat_map(rows) {
        writer.write_record(row)?;
    }
    finished(writer)
}
