//! What an evaluation of a classifier found, next to always answering the most common class.

use serde::Serialize;

use super::classes::Classes;
use super::figures::columns;
use crate::file::FileError;
use crate::metrics::{ClassFigures, Confusion, Figures, Predictions};

/// Rows of the table by class that the screen shows; the rarest are left out.
const SHOWN_CLASSES: usize = 40;

/// How well cells are classified.
#[derive(Debug, Clone, Serialize)]
pub struct Classification {
    /// The obs column.
    pub category: String,
    /// Cells.
    pub num_cells: u64,
    /// All figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// What a constant answer reaches.
    pub majority: MajorityFigures,
    /// By class, in their order.
    pub classes: Vec<OneClass>,
}

/// One row of the table by class.
#[derive(Debug, Clone, Serialize)]
pub struct OneClass {
    /// Its name.
    pub name: String,
    /// How well it is told from the others.
    #[serde(flatten)]
    pub figures: ClassFigures,
    /// Area under the ROC curve, this class against the rest.
    pub auroc: Option<f64>,
}

/// The figures of always answering one class.
#[derive(Debug, Clone, Serialize)]
pub struct MajorityFigures {
    /// The most common class of the training cells.
    pub class: String,
    /// Share that is right.
    pub accuracy: f64,
    /// 1 / number of classes in the truth.
    pub balanced_accuracy: f64,
    /// Mean F1 over the classes in the truth.
    pub macro_f1: f64,
    /// Mean F1 weighted by the number of cells.
    pub weighted_f1: f64,
    /// Harmonic mean of macro precision and macro recall.
    pub f1_harmonic: f64,
    /// Mean precision over the classes in the truth.
    pub macro_precision: f64,
    /// Mean recall over the same classes.
    pub macro_recall: f64,
}

impl Classification {
    /// The figures of `predictions` of `classes`, `majority` being the most common of the training
    /// cells.
    ///
    /// # Errors
    /// Probabilities that went to the disk cannot be read.
    pub fn new(
        classes: &Classes,
        predictions: &Predictions,
        majority: usize,
    ) -> Result<Self, FileError> {
        let areas = predictions.auroc_per_class()?;
        let present: Vec<f64> = areas.iter().copied().flatten().collect();
        let rows = predictions.per_class().into_iter().zip(areas);
        let named = classes.names.iter().zip(rows);
        let constant = predictions.confusion().always(majority);
        let name = classes.names.get(majority).cloned().unwrap_or_default();
        Ok(Self {
            category: classes.category.clone(),
            num_cells: predictions.len(),
            figures: predictions.figures_with(&present),
            majority: MajorityFigures::new(name, &constant),
            classes: named
                .map(|(name, (figures, auroc))| OneClass {
                    name: name.clone(),
                    figures,
                    auroc,
                })
                .collect(),
        })
    }

    /// A part of a line for the screen.
    pub fn one_line(&self) -> String {
        format!(
            "{} {:.3} (majority {:.3}) · macro F1 {:.3}",
            self.category, self.figures.accuracy, self.majority.accuracy, self.figures.macro_f1
        )
    }

    /// Two tables: all figures next to the majority's, and the figures by class.
    pub fn table(&self) -> String {
        let (f, m) = (&self.figures, &self.majority);
        let head = [
            self.category.clone(),
            "model".to_owned(),
            format!("always {:?}", m.class),
        ];
        let row = |name: &str, value: f64, constant: Option<f64>| {
            let constant = constant.map_or_else(|| "-".to_owned(), |c| format!("{c:.3}"));
            [name.to_owned(), format!("{value:.3}"), constant]
        };
        let mut rows = vec![
            head,
            row("accuracy", f.accuracy, Some(m.accuracy)),
            row(
                "balanced accuracy",
                f.balanced_accuracy,
                Some(m.balanced_accuracy),
            ),
            row(
                "macro precision",
                f.macro_precision,
                Some(m.macro_precision),
            ),
            row("macro recall", f.macro_recall, Some(m.macro_recall)),
            row("macro F1", f.macro_f1, Some(m.macro_f1)),
            row("weighted F1", f.weighted_f1, Some(m.weighted_f1)),
            row("F1, harmonic", f.f1_harmonic, Some(m.f1_harmonic)),
            row("top-3 accuracy", f.top3_accuracy, None),
            row("MCC", f.mcc, Some(0.0)),
            row("kappa", f.kappa, Some(0.0)),
        ];
        rows.extend(f.auroc.map(|auroc| row("AUROC", auroc, Some(0.5))));
        rows.push(row("log loss", f.log_loss, None));
        format!("{}\n{}", columns(&rows), self.class_table())
    }

    fn class_table(&self) -> String {
        let mut shown: Vec<&OneClass> = self.classes.iter().collect();
        shown.retain(|class| class.figures.is_present());
        let left_out = shown.len().saturating_sub(SHOWN_CLASSES);
        shown.sort_by_key(|class| std::cmp::Reverse(class.figures.support));
        shown.truncate(SHOWN_CLASSES);
        let head = ["class", "cells", "precision", "recall", "F1", "AUROC"];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(shown.iter().map(
            |OneClass {
                 name,
                 figures,
                 auroc,
             }| {
                [
                    name.clone(),
                    figures.support.to_string(),
                    format!("{:.3}", figures.precision),
                    format!("{:.3}", figures.recall),
                    format!("{:.3}", figures.f1),
                    auroc.map_or_else(|| "-".to_owned(), |a| format!("{a:.3}")),
                ]
            },
        ));
        let mut table = columns(&rows);
        if left_out > 0 {
            table += &format!("  … and {left_out} rarer classes: see metrics.jsonl\n");
        }
        table
    }
}

impl MajorityFigures {
    /// Those of the matrix of always answering `class`.
    pub fn new(class: String, constant: &Confusion) -> Self {
        Self {
            class,
            accuracy: constant.accuracy(),
            balanced_accuracy: constant.balanced_accuracy(),
            macro_f1: constant.macro_f1(),
            weighted_f1: constant.weighted_f1(),
            f1_harmonic: constant.f1_harmonic(),
            macro_precision: constant.macro_precision(),
            macro_recall: constant.macro_recall(),
        }
    }
}
