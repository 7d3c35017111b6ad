//! The table for the screen: a row per column and setting, next to its baseline.

use super::summary::{ColumnSummary, Interval, MethodSummary, Summary, setting_text};
use crate::train::figures::columns;

impl Summary {
    /// A compact table; intervals stand in brackets.
    pub fn table(&self) -> String {
        let head = [
            "predicted",
            "model sees",
            "number",
            "accuracy",
            "baseline",
            "balanced",
            "macro F1",
            "AUROC",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        for column in &self.columns {
            rows.push(row(column));
            rows.extend(column.baselines.iter().map(method_row));
        }
        rows.extend(self.genes.iter().map(|genes| {
            let f = &genes.figures;
            let accuracy = genes.intervals.get("accuracy");
            [
                "gene bins".to_owned(),
                "the rest".to_owned(),
                f.num_genes.to_string(),
                with_interval(f.figures.accuracy, accuracy),
                format!("{:.3} per-gene mode", f.mode_accuracy),
                format!("{:.3}", f.figures.balanced_accuracy),
                format!("{:.3}", f.figures.macro_f1),
                "-".to_owned(),
            ]
        }));
        let mut text = format!(
            "Evaluated: {} cells ({}); baselines from {}\n{}",
            self.num_cells,
            self.cells,
            self.baselines_from,
            columns(&rows)
        );
        for column in &self.columns {
            text += &left_out(column);
        }
        text
    }
}

fn row(column: &ColumnSummary) -> [String; 8] {
    let f = &column.figures;
    [
        column.category.clone(),
        setting_text(column.setting).to_owned(),
        column.num_cells.to_string(),
        with_interval(f.accuracy, column.intervals.get("accuracy")),
        format!("{:.3} majority", column.majority.accuracy),
        format!("{:.3}", f.balanced_accuracy),
        with_interval(f.macro_f1, column.intervals.get("macro_f1")),
        f.auroc
            .map_or_else(|| "-".to_owned(), |area| format!("{area:.3}")),
    ]
}

fn method_row(method: &MethodSummary) -> [String; 8] {
    let f = &method.figures;
    [
        String::new(),
        method.description.to_owned(),
        String::new(),
        with_interval(f.accuracy, method.intervals.get("accuracy")),
        String::new(),
        format!("{:.3}", f.balanced_accuracy),
        with_interval(f.macro_f1, method.intervals.get("macro_f1")),
        f.auroc
            .map_or_else(|| "-".to_owned(), |area| format!("{area:.3}")),
    ]
}

fn with_interval(value: f64, interval: Option<&Interval>) -> String {
    match interval {
        Some(Interval { low, high }) => format!("{value:.3} [{low:.3}, {high:.3}]"),
        None => format!("{value:.3}"),
    }
}

/// Which cells the figures do not count.
fn left_out(column: &ColumnSummary) -> String {
    if column.num_missing + column.num_unknown == 0 {
        return String::new();
    }
    let mut text = format!(
        "  {} ({}): not counted: {} cells without a value",
        column.category,
        setting_text(column.setting),
        column.num_missing
    );
    if column.num_unknown > 0 {
        let names = column.unknown_values.join(", ");
        text += &format!(
            ", {} with a value that the model never learned ({names})",
            column.num_unknown
        );
    }
    text + "\n"
}
