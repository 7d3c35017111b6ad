//! One evaluation from start to end.

use anyhow::Result;

use super::answer::answer;
use super::intervals::Bootstrap;
use super::subject::{Question, Subject};
use super::summary::Summary;
use super::sums;
use super::units::Units;
use crate::config::RunConfig;
use crate::infer::Checkpoint;
use crate::metrics::Predictions;

/// One column's answers behind its summary.
pub struct Column {
    /// The evaluated cells with a known value, as cells of the data set.
    pub cells: Vec<u64>,
    /// What was predicted for each.
    pub predictions: Predictions,
    /// Names of all classes.
    pub names: Vec<String>,
}

/// An evaluation with what is behind it.
pub struct Assessed {
    /// What is written.
    pub summary: Summary,
    /// The answers, in the order of the summary's columns.
    pub columns: Vec<Column>,
    /// The run's settings.
    pub config: RunConfig,
}

/// Evaluates a checkpoint; `progress` is told the share that is done.
///
/// # Errors
/// Files that cannot be read or do not fit, columns that are not there, nothing to evaluate.
pub fn assess(
    checkpoint: &Checkpoint,
    question: &Question,
    progress: &mut dyn FnMut(f64),
) -> Result<Assessed> {
    let subject = Subject::settle(checkpoint, question)?;
    // Before the model is asked: what cannot be had.
    let bootstrap = Bootstrap {
        seed: subject.config.seed,
        num_resamples: question.num_resamples,
        units: match &question.bootstrap_by {
            Some(column) => Some(Units::several(&subject.cells, column)?),
            None => None,
        },
    };
    let groups = question.group_by.as_deref();
    let groups = groups.map(|column| Units::new(&subject.cells.data, column));
    let groups = groups.transpose()?;
    let answered = answer(checkpoint, question, &subject, progress)?;
    let mut columns = Vec::new();
    let mut summaries = Vec::new();
    for found in answered.columns {
        summaries.push(sums::of_column(&found, &bootstrap, groups.as_ref()));
        columns.push(found.column);
    }
    let genes = answered.genes.as_ref();
    let genes = genes.and_then(|genes| sums::of_genes(genes, &bootstrap));
    let summary = Summary {
        format: 1,
        gene_bert: env!("CARGO_PKG_VERSION"),
        checkpoint: checkpoint.path.display().to_string(),
        model: checkpoint.describe(),
        files: (subject.files.iter().map(|path| path.display().to_string())).collect(),
        cells: subject.described.clone(),
        num_cells: answered.num_cells,
        baselines_from: subject.baseline_source().to_owned(),
        seed: subject.config.seed,
        num_resamples: question.num_resamples,
        resampled_by: question.bootstrap_by.clone(),
        eval_loss: answered.eval_loss,
        genes,
        columns: summaries,
    };
    Ok(Assessed {
        summary,
        columns,
        config: subject.config,
    })
}
