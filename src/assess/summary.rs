//! What an evaluation found, as it stands in `metrics.json`.

use std::collections::BTreeMap;

use serde::Serialize;

pub use super::intervals::Interval;
use crate::metrics::{Figures, Reliability};
use crate::train::class_figures::{MajorityFigures, OneClass};
use crate::train::figures::{GeneFigures, Setting};

/// An evaluation.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Version of this file.
    pub format: u32,
    /// The program's version.
    pub gene_bert: &'static str,
    /// The checkpoint's folder.
    pub checkpoint: String,
    /// The model in a line.
    pub model: String,
    /// The files with the evaluated cells.
    pub files: Vec<String>,
    /// Which of their cells.
    pub cells: String,
    /// How many.
    pub num_cells: u64,
    /// Which cells the constant answers come from.
    pub baselines_from: String,
    /// Seed of masks and resamples.
    pub seed: u64,
    /// Resamples behind the intervals; 0: there are none.
    pub num_resamples: u64,
    /// obs column whose groups were drawn; `None`: cells were.
    pub resampled_by: Option<String>,
    /// Mean cross entropy in nats, over positions masked as in training, or over cells.
    pub eval_loss: Option<f64>,
    /// Masked genes, if any was masked.
    pub genes: Option<GeneSummary>,
    /// Every phenotype in every setting, or a classifier's column.
    pub columns: Vec<ColumnSummary>,
    /// The embeddings of some of the cells; `None`: none was made.
    pub embedding: Option<EmbeddingSummary>,
}

/// Whether cells of one label lie together.
#[derive(Debug, Clone, Serialize)]
pub struct EmbeddingSummary {
    /// What stands for a cell: cls, mean or a phenotype.
    pub pooling: String,
    /// How many cells, drawn from the evaluated ones.
    pub num_cells: u64,
    /// Numbers of an embedding.
    pub width: usize,
    /// By obs column: those with at least two values.
    pub labels: Vec<LabelSummary>,
}

/// Labels against as many clusters (k-means), and against distances.
#[derive(Debug, Clone, Serialize)]
pub struct LabelSummary {
    /// The obs column.
    pub category: String,
    /// Labels that occur.
    pub num_classes: usize,
    /// Of labels and clusters.
    pub adjusted_rand_index: f64,
    /// The same.
    pub normalized_mutual_information: f64,
    /// Of labels, by Euclidean distance.
    pub silhouette: Option<f64>,
}

/// Masked genes.
#[derive(Debug, Clone, Serialize)]
pub struct GeneSummary {
    /// All figures.
    #[serde(flatten)]
    pub figures: GeneFigures,
    /// Names of the classes: the bins.
    pub bins: Vec<String>,
    /// Counts by true and predicted bin.
    pub confusion: Vec<Vec<u64>>,
    /// Of the accuracy and of the baseline's.
    pub intervals: BTreeMap<String, Interval>,
}

/// One obs column in one setting.
#[derive(Debug, Clone, Serialize)]
pub struct ColumnSummary {
    /// The obs column.
    pub category: String,
    /// What else the model saw; `None` of a classifier.
    pub setting: Option<Setting>,
    /// Cells with a value that the model knows.
    pub num_cells: u64,
    /// Cells without a value.
    pub num_missing: u64,
    /// Cells with a value that the model does not know.
    pub num_unknown: u64,
    /// The most common of those values, at most five.
    pub unknown_values: Vec<String>,
    /// All figures, the choice being among the category's values.
    #[serde(flatten)]
    pub figures: Figures,
    /// Intervals by the names of figures.
    pub intervals: BTreeMap<String, Interval>,
    /// The accuracy with the choice among all tokens; `None` of a classifier.
    pub accuracy_whole_vocabulary: Option<f64>,
    /// Always answering the most common value.
    pub majority: MajorityFigures,
    /// What simple methods reach on the same cells, where asked for.
    pub baselines: Vec<MethodSummary>,
    /// Whether probabilities can be believed.
    pub reliability: Reliability,
    /// By class: those that occur in truth or prediction.
    pub classes: Vec<OneClass>,
    /// Counts by true (rows) and predicted class (columns), in the order of `classes`.
    pub confusion: Vec<Vec<u64>>,
    /// By the values of the column given as `--group-by`.
    pub groups: Vec<GroupSummary>,
}

/// What another method reaches, having learned from the training cells.
#[derive(Debug, Clone, Serialize)]
pub struct MethodSummary {
    /// Its name.
    pub method: &'static str,
    /// In words.
    pub description: &'static str,
    /// All figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// Intervals by the names of figures.
    pub intervals: BTreeMap<String, Interval>,
}

/// The cells with one value of the column that groups them.
#[derive(Debug, Clone, Serialize)]
pub struct GroupSummary {
    /// The value.
    pub group: String,
    /// Cells.
    pub num_cells: u64,
    /// Accuracy of always answering the most common value of all training cells.
    pub majority_accuracy: f64,
    /// All figures.
    #[serde(flatten)]
    pub figures: Figures,
}

impl ColumnSummary {
    /// Name of the column with its setting, fit for a file.
    pub fn file_name(&self) -> String {
        let fit = |c: char| {
            if c.is_alphanumeric() || "-.".contains(c) {
                c
            } else {
                '_'
            }
        };
        let name: String = self.category.chars().map(fit).collect();
        match self.setting {
            None => name,
            Some(Setting::AllHidden) => format!("{name}_all_hidden"),
            Some(Setting::OthersVisible) => format!("{name}_others_visible"),
            Some(Setting::AsMasked) => format!("{name}_as_masked"),
        }
    }
}

/// A setting in words.
pub fn setting_text(setting: Option<Setting>) -> &'static str {
    match setting {
        None => "classifier",
        Some(Setting::AllHidden) => "others hidden",
        Some(Setting::OthersVisible) => "others visible",
        Some(Setting::AsMasked) => "as the set has it",
    }
}
