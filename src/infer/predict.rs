//! Predictions: the most probable values of a phenotype (by masking it) or of a classifier's column.
//!
//! Probabilities are the softmax over the values of the category alone. All phenotypes asked for
//! are predicted in one pass, each without seeing the others. Several models read the file one
//! after the other, each in its own way, and the mean of their probabilities counts.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};

use super::cells::Cells;
use super::vote::Vote;
use super::{Checkpoint, Model, Reading, Rows};
use crate::cell::{Label, PackedBatch, TokenizedCell};
use crate::loader::{CollatedCell, Collator, PlainCollator};
use crate::train::classes::Classes;
use crate::vocab::phenotype_token;

/// Values kept per cell.
pub const NUM_BEST: usize = 3;

/// The most probable values of one column for every cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The phenotype, or the classifier's obs column.
    pub category: String,
    /// The values that can be predicted, in the model's order, spelled as the file does where it
    /// has the column.
    pub values: Vec<String>,
    /// Number of values kept per cell: [`NUM_BEST`], or fewer where there are fewer values.
    pub num_best: usize,
    /// Values by number, the most probable first: [cells, num_best].
    pub best: Vec<u32>,
    /// Their probabilities, likewise.
    pub probabilities: Vec<f32>,
    /// How often the most probable value is the file's own, of the cells that have one of `values`.
    pub agreement: Option<Agreement>,
}

/// Predictions beside what the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// Cells whose value the model can predict.
    pub num_cells: u64,
    /// Of those, predicted the same.
    pub num_same: u64,
}

/// The predictions for one file, in the order of its rows.
#[derive(Debug, Clone, PartialEq)]
pub struct CellPredictions {
    /// Which rows they are.
    pub rows: Rows,
    /// Names of the cells.
    pub cell_names: Vec<String>,
    /// One per column asked for.
    pub columns: Vec<Prediction>,
}

/// Predicts `phenotypes` (none: all that the model can) of every cell of a file, or of one part of
/// it, by one model or by the mean of several that tell the same values.
///
/// # Errors
/// No checkpoint, a file that cannot be read or does not fit one of them, a phenotype that a model
/// was not trained with or whose values differ between them, or one that is to be visible too.
pub fn cells(
    checkpoints: &[Checkpoint],
    path: &Path,
    reading: &Reading,
    phenotypes: &[String],
) -> Result<CellPredictions> {
    let [first, ..] = checkpoints else {
        bail!("no checkpoint was given\nhint: --checkpoint RUN");
    };
    let mut columns = asked(first, reading, phenotypes)?;
    let cells = Cells::open(path, first, reading)?;
    for column in &mut columns {
        column.reserve(cells.len(), checkpoints.len());
    }
    add_all(first, &cells, &mut columns)?;
    for checkpoint in &checkpoints[1..] {
        let its_own = asked(checkpoint, reading, phenotypes)?;
        go_on_with(&mut columns, its_own, checkpoint)?;
        add_all(
            checkpoint,
            &Cells::open(path, checkpoint, reading)?,
            &mut columns,
        )?;
    }
    let columns = columns.into_iter().map(|column| column.finish(&cells));
    Ok(CellPredictions {
        columns: columns.collect::<Result<_>>()?,
        rows: cells.rows(),
        cell_names: cells.cell_names()?,
    })
}

/// Adds what one model says of every cell.
fn add_all(checkpoint: &Checkpoint, cells: &Cells, columns: &mut [Column]) -> Result<()> {
    match &checkpoint.model {
        Model::MaskedLM(model) => {
            let types = columns.iter().map(|column| column.token_type).collect();
            cells.for_each_batch(Arc::new(AskingCollator { types }), |batch| {
                if batch.labels.is_empty() {
                    return Ok(());
                }
                let logits = model.forward(batch, None)?; // [labels, V]
                let width = logits.dim(1)?;
                let logits = logits.flatten_all()?.to_vec1::<f32>()?;
                for (label, logits) in batch.labels.iter().zip(logits.chunks_exact(width)) {
                    let kind = batch.token_type_ids[label.position as usize];
                    let column = columns.iter_mut().find(|column| column.token_type == kind);
                    if let Some(column) = column {
                        column.add(&logits[column.ids.clone()]);
                    }
                }
                Ok(())
            })
        }
        Model::Classifier(model, _) => {
            cells.for_each_batch(Arc::new(PlainCollator), |batch: &PackedBatch| {
                let logits = model.forward(batch, None)?; // [B, classes]
                let width = logits.dim(1)?;
                let logits = logits.flatten_all()?.to_vec1::<f32>()?;
                logits
                    .chunks_exact(width)
                    .for_each(|row| columns[0].add(row));
                Ok(())
            })
        }
    }
}

/// Makes the columns ready for the next model, which has numbers of its own for the same values.
fn go_on_with(columns: &mut [Column], next: Vec<Column>, checkpoint: &Checkpoint) -> Result<()> {
    let tells = |columns: &[Column]| -> Vec<_> {
        let told = columns
            .iter()
            .map(|c| (c.category.clone(), c.tokens.clone()));
        told.collect()
    };
    let (expected, found) = (tells(columns), tells(&next));
    ensure!(
        expected == found,
        "{}: it predicts other values than the first checkpoint: expected {expected:?}, found \
         {found:?}\nhint: probabilities are averaged over models of the same columns and values",
        checkpoint.path.display()
    );
    for (column, next) in columns.iter_mut().zip(next) {
        (column.token_type, column.ids) = (next.token_type, next.ids);
    }
    Ok(())
}

/// A column while it is being predicted.
struct Column {
    category: String,
    values: Vec<String>,
    /// The token of each value; for a classifier of one value against all others, only its own.
    tokens: Vec<String>,
    token_type: u32,
    ids: std::ops::Range<usize>,
    vote: Vote,
    best: Vec<u32>,
    probabilities: Vec<f32>,
}

fn asked(checkpoint: &Checkpoint, reading: &Reading, wanted: &[String]) -> Result<Vec<Column>> {
    let columns = match &checkpoint.model {
        Model::MaskedLM(_) => masked_columns(checkpoint, reading, wanted)?,
        Model::Classifier(_, classes) => {
            let category = &classes.category;
            if let Some(other) = wanted.iter().find(|name| *name != category) {
                bail!(
                    "--phenotypes {other}: this is a classifier of {category}\nhint: leave \
                     --phenotypes out, or use a checkpoint of `gene-bert mlm`"
                );
            }
            vec![Column::of_classes(classes)]
        }
    };
    ensure!(
        !columns.is_empty(),
        "{}: the model was trained without phenotypes: there is nothing to predict\nhint: \
         `gene-bert mlm --included_phenotypes cell_type …` trains one that predicts them",
        checkpoint.path.display()
    );
    Ok(columns)
}

fn masked_columns(
    checkpoint: &Checkpoint,
    reading: &Reading,
    wanted: &[String],
) -> Result<Vec<Column>> {
    let included = &checkpoint.tokenize.included_phenotypes;
    if let Some(unknown) = wanted.iter().find(|name| !included.contains(name)) {
        bail!(
            "--phenotypes {unknown}: the model was not trained with this phenotype\nhint: it was \
             with: {}",
            included.join(", ")
        );
    }
    if let Some(both) = wanted.iter().find(|name| reading.visible.contains(name)) {
        bail!(
            "--phenotypes {both}: it is among --visible-phenotypes too\nhint: what the model sees \
             it cannot predict; name it in one place only"
        );
    }
    let hidden = included
        .iter()
        .filter(|name| !reading.visible.contains(name));
    let wanted = hidden.filter(|name| wanted.is_empty() || wanted.contains(name));
    let vocabulary = &checkpoint.vocabulary;
    let column = |category: &String| {
        let ids = vocabulary.category_ids(category)?;
        let ids = ids.start as usize..ids.end as usize;
        let tokens = vocabulary.tokens()[ids.clone()].to_vec();
        Some(Column {
            category: category.clone(),
            values: tokens.iter().map(|token| bare(token).to_owned()).collect(),
            tokens,
            token_type: vocabulary.category_type(category)?,
            ids,
            vote: Vote::default(),
            best: Vec::new(),
            probabilities: Vec::new(),
        })
    };
    Ok(wanted.filter_map(column).collect())
}

impl Column {
    fn of_classes(classes: &Classes) -> Self {
        let tokens = match &classes.positive {
            Some(positive) => vec![String::new(), positive.clone()],
            None => classes.names.iter().map(|n| phenotype_token(n)).collect(),
        };
        Self {
            category: classes.category.clone(),
            values: classes.names.clone(),
            tokens,
            token_type: 0,
            ids: 0..classes.len(),
            vote: Vote::default(),
            best: Vec::new(),
            probabilities: Vec::new(),
        }
    }

    fn num_best(&self) -> usize {
        self.values.len().min(NUM_BEST)
    }

    fn reserve(&mut self, num_cells: usize, num_models: usize) {
        self.vote = Vote::of(num_models, num_cells);
        self.best.reserve(num_cells * self.num_best());
        self.probabilities.reserve(num_cells * self.num_best());
    }

    /// The next cell, by a model's logits over the values.
    fn add(&mut self, logits: &[f32]) {
        let Some(probabilities) = self.vote.add(softmax(logits)) else {
            return;
        };
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let of = |value: u32| probabilities[value as usize];
        order.sort_by(|&a, &b| of(b).total_cmp(&of(a)));
        for &value in order.iter().take(self.num_best()) {
            self.best.push(value);
            self.probabilities.push(of(value) as f32);
        }
    }

    fn finish(mut self, cells: &Cells) -> Result<Prediction> {
        let num_best = self.num_best();
        ensure!(
            self.best.len() == num_best * cells.len(),
            "{}: {} predictions for {} cells",
            self.category,
            self.best.len(),
            cells.len()
        );
        let agreement = self.compare(cells, num_best)?;
        Ok(Prediction {
            category: self.category,
            values: self.values,
            num_best,
            best: self.best,
            probabilities: self.probabilities,
            agreement,
        })
    }

    /// Takes over the file's spelling and counts agreement, where it has the column.
    fn compare(&mut self, cells: &Cells, num_best: usize) -> Result<Option<Agreement>> {
        let Some(labels) = cells.column(&self.category)? else {
            return Ok(None);
        };
        let of_code: Vec<Option<usize>> = labels
            .values
            .iter()
            .map(|value| self.number_of(&phenotype_token(value)))
            .collect();
        if self.tokens.iter().all(|token| !token.is_empty()) {
            for (value, number) in labels.values.iter().zip(&of_code) {
                if let Some(number) = *number {
                    self.values[number].clone_from(value);
                }
            }
        }
        let mut agreement = Agreement {
            num_cells: 0,
            num_same: 0,
        };
        let rows = cells.rows().read.into_iter();
        for (row, best) in rows.zip(self.best.chunks_exact(num_best)) {
            let code = labels.codes.get(row as usize).copied().flatten();
            if let Some(truth) = code.and_then(|code| *of_code.get(code as usize)?) {
                agreement.num_cells += 1;
                agreement.num_same += u64::from(best[0] as usize == truth);
            }
        }
        Ok((agreement.num_cells > 0).then_some(agreement))
    }

    /// The value with this token; one without a token stands for all others.
    fn number_of(&self, token: &str) -> Option<usize> {
        let find = |wanted: &str| self.tokens.iter().position(|t| t == wanted);
        find(token).or_else(|| find(""))
    }
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |&logit: &f32| (f64::from(logit) - f64::from(highest)).exp();
    let mut weights: Vec<f64> = logits.iter().map(weight).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    weights
}

fn bare(token: &str) -> &str {
    let inner = token.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    inner.unwrap_or(token)
}

/// Asks for the token of each phenotype of `types`, which is masked already.
struct AskingCollator {
    types: Vec<u32>,
}

impl Collator for AskingCollator {
    fn collate(&self, cell: TokenizedCell, measured: &[u32], epoch: u64, id: u64) -> CollatedCell {
        let mut cell = PlainCollator.collate(cell, measured, epoch, id);
        for (position, kind) in (0..).zip(&cell.token_type_ids) {
            if self.types.contains(kind) {
                let token = cell.input_ids[position as usize];
                cell.labels.push(Label { position, token });
            }
        }
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_with_their_probabilities() {
        let classes = Classes {
            category: "tissue".to_owned(),
            positive: None,
            names: ["a", "b", "c", "d"].map(str::to_owned).to_vec(),
        };
        let mut column = Column::of_classes(&classes);
        column.add(&[0.0, 2f32.ln(), 4f32.ln(), f32::NEG_INFINITY]);
        column.add(&[0.0; 4]);
        assert_eq!(column.best, [2, 1, 0, 0, 1, 2]);
        let expected = [4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0, 0.25, 0.25, 0.25];
        for (found, expected) in column.probabilities.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn whatever_is_not_the_positive_value_is_the_other() {
        let classes = Classes {
            category: "tissue".to_owned(),
            positive: Some("[lung]".to_owned()),
            names: ["not lung", "lung"].map(str::to_owned).to_vec(),
        };
        let column = Column::of_classes(&classes);
        assert_eq!(column.number_of("[lung]"), Some(1));
        assert_eq!(column.number_of("[liver]"), Some(0));
    }
}
