//! What a model answered at the labelled positions of an evaluation, with the cell of each, from
//! which figures are made, of all cells or of some.
//!
//! The choice is among the values of the category (or the bins); whether it is right among all
//! tokens is kept besides. Of genes, whose positions are many, only sums by cell are kept.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::figures::{GeneFigures, Setting};
use crate::file::FileError;
use crate::metrics::{Predictions, argmax, softmax};

/// A labelled position and what the model says of it.
pub(super) struct Answer<'a> {
    pub(super) cell: u64,
    pub(super) logits: &'a [f32],
    pub(super) truth: u32,
    pub(super) token_type: u32,
}

/// All answers of one evaluation.
#[derive(Debug)]
pub struct Collected {
    /// Cells.
    pub num_cells: u64,
    /// Mean cross entropy over the positions masked as in training; `None`: nothing was masked.
    pub eval_loss: Option<f64>,
    /// Masked genes.
    pub genes: GeneAnswers,
    /// Every phenotype in every setting.
    pub columns: Vec<ColumnAnswers>,
}

/// The answers for one phenotype in one setting.
#[derive(Debug, Serialize, Deserialize)]
pub struct ColumnAnswers {
    /// The obs column.
    pub category: String,
    /// What was hidden.
    pub setting: Setting,
    /// One answer per cell with a known value.
    pub answers: Answers,
}

/// Answers among the tokens of one category.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answers {
    ids: Range<u32>,
    /// The cells of the data set, as many as predictions.
    pub cells: Vec<u64>,
    /// What was predicted for each.
    pub predictions: Predictions,
    right_in_whole: u64,
}

impl Answers {
    pub(super) fn new(ids: Range<u32>) -> Self {
        let predictions = Predictions::new(ids.len());
        Self {
            ids,
            cells: Vec::new(),
            predictions,
            right_in_whole: 0,
        }
    }

    pub(super) fn add(&mut self, answer: &Answer<'_>) -> Result<(), FileError> {
        let within = &answer.logits[self.ids.start as usize..self.ids.end as usize];
        self.cells.push(answer.cell);
        self.right_in_whole += u64::from(argmax(answer.logits) == answer.truth as usize);
        let class = self.class_of(answer.truth);
        self.predictions.add(class, &softmax(within))
    }

    /// Adds the answers for other cells.
    pub(super) fn absorb(&mut self, other: Self) -> Result<(), FileError> {
        self.cells.extend(other.cells);
        self.right_in_whole += other.right_in_whole;
        self.predictions.absorb(other.predictions)
    }

    /// The number of a token within its category.
    pub fn class_of(&self, token: u32) -> usize {
        token.wrapping_sub(self.ids.start) as usize
    }

    /// The accuracy with the choice among all tokens.
    pub fn accuracy_in_whole(&self) -> f64 {
        share(self.right_in_whole, self.predictions.len())
    }
}

/// The masked genes of one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenesOfCell {
    /// The cell of the data set.
    pub cell: u64,
    /// Masked genes.
    pub num_genes: u64,
    /// Those whose bin was predicted.
    pub right: u64,
    /// Those whose bin is the gene's most common one.
    pub right_by_mode: u64,
}

/// The answers for masked genes.
#[derive(Debug, Serialize, Deserialize)]
pub struct GeneAnswers {
    ids: Range<u32>,
    /// What was predicted, without curves.
    pub predictions: Predictions,
    /// The same by cell, cells without a masked gene left out.
    pub cells: Vec<GenesOfCell>,
    right_in_whole: u64,
}

impl GeneAnswers {
    pub(super) fn new(ids: Range<u32>) -> Self {
        Self {
            predictions: Predictions::without_curves(ids.len()),
            ids,
            cells: Vec::new(),
            right_in_whole: 0,
        }
    }

    pub(super) fn add(&mut self, answer: &Answer<'_>, mode: Option<u32>) -> Result<(), FileError> {
        let within = &answer.logits[self.ids.start as usize..self.ids.end as usize];
        let class = (answer.truth - self.ids.start) as usize;
        let probabilities = softmax(within);
        if self
            .cells
            .last()
            .is_none_or(|last| last.cell != answer.cell)
        {
            self.cells.push(GenesOfCell {
                cell: answer.cell,
                num_genes: 0,
                right: 0,
                right_by_mode: 0,
            });
        }
        if let Some(own) = self.cells.last_mut() {
            own.num_genes += 1;
            own.right += u64::from(argmax(&probabilities) == class);
            own.right_by_mode += u64::from(mode == Some(answer.truth));
        }
        self.right_in_whole += u64::from(argmax(answer.logits) == answer.truth as usize);
        self.predictions.add(class, &probabilities)
    }

    /// Adds the answers for other cells.
    pub(super) fn absorb(&mut self, other: Self) -> Result<(), FileError> {
        self.cells.extend(other.cells);
        self.right_in_whole += other.right_in_whole;
        self.predictions.absorb(other.predictions)
    }

    /// All figures; `None`: no gene was masked.
    pub fn figures(&self) -> Option<GeneFigures> {
        let num_genes = self.predictions.len();
        let by_mode = self.cells.iter().map(|cell| cell.right_by_mode).sum();
        (num_genes > 0).then(|| GeneFigures {
            num_genes,
            figures: self.predictions.figures_with(&[]),
            accuracy_whole_vocabulary: share(self.right_in_whole, num_genes),
            mode_accuracy: share(by_mode, num_genes),
        })
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / (whole as f64).max(1.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LOGITS: [f32; 7] = [0.0, 9.0, 0.0, 0.0, 1.0, 2.0, 9.5];

    fn answer(cell: u64) -> Answer<'static> {
        Answer {
            cell,
            logits: &LOGITS,
            truth: 5,
            token_type: 1,
        }
    }

    #[test]
    fn the_choice_is_within_the_category() {
        let mut answers = Answers::new(4..6);
        answers.add(&answer(8)).unwrap();
        assert_eq!(answers.predictions.figures().unwrap().accuracy, 1.0);
        assert_eq!(answers.accuracy_in_whole(), 0.0);
        assert_eq!(
            (answers.cells.as_slice(), answers.class_of(4)),
            (&[8][..], 0)
        );
    }

    #[test]
    fn genes_are_summed_by_cell() {
        let mut genes = GeneAnswers::new(4..6);
        for (cell, mode) in [(3, Some(5)), (3, Some(4)), (7, None)] {
            genes.add(&answer(cell), mode).unwrap();
        }
        let sums: Vec<_> = genes
            .cells
            .iter()
            .map(|c| (c.cell, c.num_genes, c.right))
            .collect();
        assert_eq!(sums, [(3, 2, 2), (7, 1, 1)]);
        let figures = genes.figures().unwrap();
        assert_eq!((figures.num_genes, figures.mode_accuracy), (3, 1.0 / 3.0));
        assert!(GeneAnswers::new(4..6).figures().is_none());
    }
}
