//! One evaluation from start to end.

use anyhow::Result;

use super::answer::{Found, answer, counted_up};
use super::intervals::Bootstrap;
use super::map::{Map, draw, embed};
use super::report::Training;
use super::simple;
use super::subject::{Question, Subject};
use super::summary::{EmbeddingSummary, Summary};
use super::sums;
use super::units::Units;
use crate::config::RunConfig;
use crate::infer::Checkpoint;
use crate::metrics::Predictions;

/// One column's answers behind its summary.
pub(super) struct Column {
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
    /// Where cells lie by their embeddings, if any was embedded.
    pub map: Option<Map>,
    /// What the run wrote while it trained, if the checkpoint lies in its folder.
    pub training: Option<Training>,
    /// The run's settings.
    pub config: RunConfig,
}

impl Assessed {
    /// The run's settings, name and value.
    ///
    /// # Errors
    /// They cannot be written as TOML.
    pub(super) fn settings(&self) -> Result<Vec<(String, String)>> {
        let text = self.config.to_toml()?;
        let lines = text.lines().filter_map(|line| line.split_once(" = "));
        Ok(lines
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }
}

/// Evaluates a checkpoint; `progress` is told what is done and which share of it.
///
/// # Errors
/// Files that cannot be read or do not fit, columns that are not there, nothing to evaluate.
pub fn assess(
    checkpoint: &Checkpoint,
    question: &Question,
    progress: &mut dyn FnMut(&'static str, f64),
) -> Result<Assessed> {
    let subject = Subject::settle(checkpoint, question)?;
    subject.check(question)?;
    // Before the model is asked: what cannot be had.
    let bootstrap = Bootstrap {
        seed: subject.seed,
        num_resamples: question.num_resamples,
        units: match &question.bootstrap_by {
            Some(column) => Some(Units::several(&subject.cells, column)?),
            None => None,
        },
    };
    let groups = question.group_by.as_deref();
    let groups = groups.map(|column| Units::new(&subject.cells.data, column));
    let groups = groups.transpose()?;
    let answered = answer(checkpoint, question, &subject, &mut |share| {
        progress("evaluating", share);
    })?;
    let found = (&subject, answered.columns.as_slice());
    let map = map(checkpoint, question, found, groups.as_ref(), progress)?;
    let (map, embedding) = map.map_or((None, None), |(map, summary)| (Some(map), Some(summary)));
    let found = (&subject, answered.columns.as_slice());
    let mut simple = Vec::new();
    if question.baselines {
        simple = simple::answer(checkpoint, question, found, progress)?;
    }
    simple.resize_with(answered.columns.len(), Vec::new);
    let columns = answered.columns.iter().zip(&simple);
    let columns = columns
        .map(|(found, simple)| sums::of_column(found, simple, &bootstrap, groups.as_ref()))
        .collect::<Result<_>>()?;
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
        seed: subject.seed,
        num_resamples: question.num_resamples,
        resampled_by: question.bootstrap_by.clone(),
        eval_loss: answered.eval_loss,
        genes,
        columns,
        embedding,
    };
    Ok(Assessed {
        summary,
        map,
        training: Training::of(&checkpoint.path),
        config: subject.config,
    })
}

/// Embeds some of the evaluated cells and lays them out; `None` where none is asked for.
fn map(
    checkpoint: &Checkpoint,
    question: &Question,
    (subject, found): (&Subject, &[Found]),
    groups: Option<&Units>,
    progress: &mut dyn FnMut(&'static str, f64),
) -> Result<Option<(Map, EmbeddingSummary)>> {
    if question.map_cells == 0 || !subject.sets.is_empty() {
        return Ok(None);
    }
    let (cells, seed) = (&subject.cells, subject.seed);
    let num_cells = cells.data.len();
    let (all, limit) = (cells.selection.clone(), Some(question.map_cells));
    let selection = all.at_most(num_cells, limit, (seed, 3));
    let mut seen = counted_up(selection.len(num_cells), |share| {
        progress("embedding", share)
    });
    let chosen = (cells, &selection);
    let (pooling, loader) = (&question.pooling, &subject.loader);
    let embedded = embed(checkpoint, chosen, pooling, loader, &mut seen)?;
    let groups = (question.group_by.as_deref(), groups);
    Ok(Some(draw(embedded, (subject, found), groups, pooling)))
}
