//! What an evaluation found: figures by phenotype and for genes, each next to its baseline, by name
//! for hooks, in one line for the screen and as a table at the end of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::class_figures::Classification;
use crate::metrics::Figures;

/// Which phenotypes a cell showed when one was predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// All phenotypes were hidden.
    AllHidden,
    /// The other phenotypes were visible.
    OthersVisible,
    /// As the masks of a pre-masked set have it.
    AsMasked,
}

/// How well one phenotype is predicted.
#[derive(Debug, Clone, Serialize)]
pub struct PhenotypeFigures {
    /// The obs column.
    pub category: String,
    /// What was hidden.
    pub setting: Setting,
    /// Cells with a known value.
    pub num_cells: u64,
    /// All figures, the choice being among the category's values.
    #[serde(flatten)]
    pub figures: Figures,
    /// The accuracy with the choice among all tokens.
    pub accuracy_whole_vocabulary: f64,
    /// The training cells' most common value.
    pub majority: Option<String>,
    /// Accuracy of always answering it.
    pub majority_accuracy: f64,
    /// Its balanced accuracy.
    pub majority_balanced_accuracy: f64,
    /// Its macro F1.
    pub majority_macro_f1: f64,
}

/// How well masked genes' bins are predicted.
#[derive(Debug, Clone, Serialize)]
pub struct GeneFigures {
    /// Masked genes.
    pub num_genes: u64,
    /// All figures but the AUROC, the choice being among the bins.
    #[serde(flatten)]
    pub figures: Figures,
    /// The accuracy with the choice among all tokens.
    pub accuracy_whole_vocabulary: f64,
    /// Accuracy of answering each gene's most common bin in the training cells.
    pub mode_accuracy: f64,
}

/// One evaluation.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// Optimizer steps done.
    pub step: u64,
    /// Epochs done, as a fraction.
    pub epoch: f64,
    /// Cells.
    pub num_cells: u64,
    /// Mean cross entropy over the positions masked as in training; `None`: nothing was masked.
    pub eval_loss: Option<f64>,
    /// Masked genes; `None`: none was masked.
    pub genes: Option<GeneFigures>,
    /// Every phenotype in every setting.
    pub phenotypes: Vec<PhenotypeFigures>,
    /// The classes of a classifier; `None`: the run trains none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
    /// Wall time, in seconds.
    pub seconds: f64,
}

impl Evaluation {
    /// The figure called `metric`: `eval_loss` (or `loss`), or one of [`Figures::NAMES`]: as it
    /// stands of a classifier, else with `gene_` or `<phenotype>_` (all phenotypes hidden) before it.
    /// `None` where the held-out cells do not tell it, or it is not finite.
    pub fn figure(&self, metric: &str) -> Option<f64> {
        let name = if metric == "loss" {
            "eval_loss"
        } else {
            metric
        };
        let value = self.figures().get(name).copied();
        value.filter(|value| value.is_finite())
    }

    /// Every figure by name.
    pub fn figures(&self) -> BTreeMap<String, f64> {
        let mut all = BTreeMap::new();
        all.extend(self.eval_loss.map(|v| ("eval_loss".to_owned(), v)));
        let hidden = |p: &&PhenotypeFigures| p.setting != Setting::OthersVisible;
        let phenotypes = self.phenotypes.iter().filter(hidden);
        let phenotypes = phenotypes.map(|p| (format!("{}_", p.category), &p.figures));
        let genes = self.genes.iter().map(|g| ("gene_".to_owned(), &g.figures));
        let classes = self.classification.iter();
        let classes = classes.map(|c| (String::new(), &c.figures));
        for (prefix, figures) in phenotypes.chain(genes).chain(classes) {
            let named = figures.named();
            all.extend(named.map(|(name, value)| (format!("{prefix}{name}"), value)));
        }
        all
    }

    /// What constant answers reach, by name.
    pub fn baselines(&self) -> Vec<(String, f64)> {
        let hidden = |p: &&PhenotypeFigures| p.setting != Setting::OthersVisible;
        let phenotypes = self.phenotypes.iter().filter(hidden);
        let mut all: Vec<_> = phenotypes
            .map(|p| {
                (
                    format!("{}_majority_accuracy", p.category),
                    p.majority_accuracy,
                )
            })
            .collect();
        let genes = self.genes.iter();
        all.extend(genes.map(|g| ("gene_mode_accuracy".to_owned(), g.mode_accuracy)));
        let classes = self.classification.iter();
        all.extend(classes.map(|c| ("majority_accuracy".to_owned(), c.majority.accuracy)));
        all
    }

    /// Every figure by name, of an evaluation's line in `metrics.jsonl`.
    pub fn figures_of_line(line: &Value) -> BTreeMap<String, f64> {
        let mut all = BTreeMap::new();
        let mut add = |prefix: String, figures: &Value| {
            for name in Figures::NAMES {
                all.extend(
                    figures[name]
                        .as_f64()
                        .map(|v| (format!("{prefix}{name}"), v)),
                );
            }
        };
        for phenotype in line["phenotypes"].as_array().into_iter().flatten() {
            if phenotype["setting"] != "others_visible" {
                let category = phenotype["category"].as_str().unwrap_or_default();
                add(format!("{category}_"), phenotype);
            }
        }
        add("gene_".to_owned(), &line["genes"]);
        add(String::new(), &line["classification"]);
        all.extend(
            line["eval_loss"]
                .as_f64()
                .map(|v| ("eval_loss".to_owned(), v)),
        );
        all
    }

    /// Whether a run with this evaluation's line in `metrics.jsonl` can have the figure `name`, which
    /// may be undefined at times.
    pub fn line_may_have(line: &Value, name: &str) -> bool {
        let is_figure = |name: &str| Figures::NAMES.contains(&name);
        let phenotypes = line["phenotypes"].as_array().into_iter().flatten();
        let mut categories = phenotypes.filter_map(|phenotype| phenotype["category"].as_str());
        let of = |category: &str| name.strip_prefix(category)?.strip_prefix('_');
        name == "eval_loss"
            || (line["classification"].is_object() && is_figure(name))
            || of("gene").is_some_and(is_figure)
            || categories.any(|category| of(category).is_some_and(is_figure))
    }

    /// The figure called `metric` where it is better than `best`: lower for losses, higher for all
    /// else.
    pub fn better(&self, metric: &str, best: Option<f64>) -> Option<f64> {
        let is_loss = metric.ends_with("loss");
        let is_better = |value: f64, best: f64| if is_loss { value < best } else { value > best };
        let value = self.figure(metric)?;
        best.is_none_or(|best| is_better(value, best))
            .then_some(value)
    }

    /// A line for the screen.
    pub fn one_line(&self) -> String {
        let mut parts = vec![format!("evaluation at step {}", self.step)];
        parts.extend(self.eval_loss.map(|loss| format!("loss {loss:.4}")));
        parts.extend(self.genes.as_ref().map(|g| {
            format!(
                "gene bins {:.3} (per-gene mode {:.3})",
                g.figures.accuracy, g.mode_accuracy
            )
        }));
        parts.extend(
            self.phenotypes
                .iter()
                .filter(|p| p.setting != Setting::OthersVisible)
                .map(|p| {
                    format!(
                        "{} {:.3} (majority {:.3})",
                        p.category, p.figures.accuracy, p.majority_accuracy
                    )
                }),
        );
        parts.extend(self.classification.as_ref().map(Classification::one_line));
        parts.join(" · ")
    }

    /// The table at the end of a run.
    pub fn table(&self) -> String {
        if let Some(classification) = &self.classification {
            return classification.table();
        }
        let head = [
            "predicted",
            "others",
            "number",
            "accuracy",
            "baseline",
            "balanced",
            "macro F1",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.phenotypes.iter().map(|p| {
            let others = match p.setting {
                Setting::AllHidden => "hidden",
                Setting::OthersVisible => "visible",
                Setting::AsMasked => "as masked",
            };
            [
                p.category.clone(),
                others.to_owned(),
                p.num_cells.to_string(),
                format!("{:.3}", p.figures.accuracy),
                format!("{:.3} majority", p.majority_accuracy),
                format!("{:.3}", p.figures.balanced_accuracy),
                format!("{:.3}", p.figures.macro_f1),
            ]
        }));
        rows.extend(self.genes.as_ref().map(|g| {
            [
                "gene bins".to_owned(),
                "visible".to_owned(),
                g.num_genes.to_string(),
                format!("{:.3}", g.figures.accuracy),
                format!("{:.3} per-gene mode", g.mode_accuracy),
                "-".to_owned(),
                format!("{:.3}", g.figures.macro_f1),
            ]
        }));
        columns(&rows)
    }
}

/// Rows as text, every column as wide as its widest cell; the first row is the head.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |c: usize| {
        rows.iter()
            .map(|row| row[c].chars().count())
            .max()
            .unwrap_or(0)
    };
    let line = |row: &[String; N]| {
        let cells = row
            .iter()
            .enumerate()
            .map(|(c, text)| format!("{text:<0$}", width(c)));
        format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::metrics::Predictions;
    use crate::train::classes::Classes;

    fn predictions() -> Predictions {
        let mut predictions = Predictions::new(2);
        for (truth, p) in [(0, 0.7), (1, 0.6), (1, 0.2), (0, 0.9), (1, 0.1)] {
            predictions.add(truth, &[p, 1.0 - p]).unwrap();
        }
        predictions
    }

    fn phenotype(category: &str, setting: Setting, figures: Figures) -> PhenotypeFigures {
        PhenotypeFigures {
            category: category.to_owned(),
            setting,
            num_cells: 5,
            figures,
            accuracy_whole_vocabulary: 0.25,
            majority: None,
            majority_accuracy: 0.5,
            majority_balanced_accuracy: 0.5,
            majority_macro_f1: 0.375,
        }
    }

    /// Of a run that trains phenotypes, and of a classifier.
    fn evaluations() -> [Evaluation; 2] {
        let figures = predictions().figures().unwrap();
        let other = Figures {
            accuracy: 0.125,
            auroc: None,
            ..figures
        };
        let classes = Classes {
            category: "tissue".to_owned(),
            positive: None,
            names: ["lung", "liver"].map(str::to_owned).to_vec(),
        };
        let masked = Evaluation {
            step: 7,
            epoch: 0.5,
            num_cells: 5,
            eval_loss: Some(0.75),
            genes: Some(GeneFigures {
                num_genes: 9,
                figures: other,
                accuracy_whole_vocabulary: 0.25,
                mode_accuracy: 0.5,
            }),
            phenotypes: vec![
                phenotype("sex", Setting::AllHidden, figures),
                phenotype("sex", Setting::OthersVisible, other),
                phenotype("tissue", Setting::AsMasked, other),
            ],
            classification: None,
            seconds: 1.0,
        };
        let classification = Classification::new(&classes, &predictions(), 0).unwrap();
        let classifier = Evaluation {
            genes: None,
            phenotypes: Vec::new(),
            classification: Some(classification),
            ..masked.clone()
        };
        [masked, classifier]
    }

    #[test]
    fn a_line_of_a_run_has_the_figures_of_its_evaluation() {
        for (evaluation, number) in evaluations().iter().zip([32, 12]) {
            let line = serde_json::to_string(evaluation).unwrap();
            let line: Value = serde_json::from_str(&line).unwrap();
            let figures = evaluation.figures();
            assert_eq!(Evaluation::figures_of_line(&line), figures);
            // With an area under the curve, which there is not of genes and of `tissue`: 11, 10,
            // 10 figures, and the loss; of the classifier 11 and the loss.
            assert_eq!(figures.len(), number);
            assert_eq!(figures["eval_loss"], 0.75);
        }
        let [masked, classifier] = evaluations().map(|evaluation| evaluation.figures());
        assert_eq!(
            (masked["sex_accuracy"], masked["gene_accuracy"]),
            (0.8, 0.125)
        );
        assert_eq!(classifier["accuracy"], masked["sex_accuracy"]);
    }
}
