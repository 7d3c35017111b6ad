//! Evaluation on held-out cells: how well masked tokens are predicted, next to what a constant
//! answer reaches.
//!
//! Passes over the cells, each with masks fixed by (seed, cell id): one masked as in training (the
//! loss, and genes), one with all phenotypes hidden, and, where a cell carries several phenotypes,
//! one for each with the others visible. Predictions are the argmax *within the category* (the
//! bins, for genes); `accuracy_whole_vocabulary` takes it over all tokens. `eval_loss` is the plain
//! cross entropy in nats, without label smoothing.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::answers::{Answer, Answers, Collected, ColumnAnswers, GeneAnswers};
use super::baseline::Baselines;
use super::figures::{Evaluation, PhenotypeFigures, Setting};
use super::gathered::gather;
use crate::cell::PackedBatch;
use crate::dist::Ranks;
use crate::loader::{
    DataSet, EvalMasking, EvalSet, Loader, LoaderConfig, MlmCollator, MlmConfig, Sampler,
    SamplerConfig, Selection, Shuffle,
};
use crate::model::GeneBertForMaskedLM;
use crate::vocab::Vocabulary;

/// The cells that a model is evaluated on.
#[derive(Clone)]
pub enum EvalCells {
    /// Of files, masked as each pass wants it.
    Files(Arc<DataSet>, Selection),
    /// Masked beforehand.
    Sets(Vec<EvalSet>),
}

/// Evaluates a model on the same cells with the same masks each time.
pub struct Evaluator {
    /// The held-out cells.
    pub cells: EvalCells,
    /// Tokens and genes.
    pub vocabulary: Arc<Vocabulary>,
    /// The phenotypes that a cell carries.
    pub phenotypes: Vec<String>,
    /// Those of them that are predicted.
    pub asked: Vec<String>,
    /// How training masks, which the first pass repeats.
    pub masking: MlmConfig,
    /// How often each gene is expressed, where absent genes are drawn by it.
    pub gene_weights: Option<Vec<f64>>,
    /// Seed of the masks.
    pub seed: u64,
    /// Readers and batch size.
    pub loader: LoaderConfig,
    /// What constant answers reach.
    pub baselines: Baselines,
    /// Those that share the cells: each asks its own copy of the model about a part of them.
    pub ranks: Arc<Ranks>,
}

/// What one rank, or all together, have found.
#[derive(Serialize, Deserialize)]
struct Found {
    num_cells: u64,
    loss_sum: f64,
    num_labels: u64,
    genes: GeneAnswers,
    /// By the token type of their phenotype.
    columns: Vec<(u32, ColumnAnswers)>,
}

impl Found {
    fn new(evaluator: &Evaluator) -> Self {
        Self {
            num_cells: 0,
            loss_sum: 0.0,
            num_labels: 0,
            genes: GeneAnswers::new(evaluator.vocabulary.bin_ids()),
            columns: Vec::new(),
        }
    }

    /// Adds the answer to whatever was masked as in training.
    fn see(&mut self, evaluator: &Evaluator, answer: &Answer<'_>) -> Result<()> {
        self.loss_sum += cross_entropy(answer.logits, answer.truth as usize);
        self.num_labels += 1;
        if let Some(gene) = evaluator.vocabulary.type_gene(answer.token_type) {
            let mode = evaluator.baselines.gene_mode(gene);
            self.genes.add(answer, mode)?;
        }
        Ok(())
    }

    fn absorb(&mut self, other: Self) -> Result<()> {
        self.num_cells += other.num_cells;
        self.loss_sum += other.loss_sum;
        self.num_labels += other.num_labels;
        self.genes.absorb(other.genes)?;
        for ((_, column), (_, theirs)) in self.columns.iter_mut().zip(other.columns) {
            column.answers.absorb(theirs.answers)?;
        }
        Ok(())
    }
}

/// Cross entropy of one row, in nats.
fn cross_entropy(logits: &[f32], truth: usize) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    sum.ln() - f64::from(logits[truth] - max)
}

impl Evaluator {
    /// All figures of `model`.
    ///
    /// # Errors
    /// Unreadable cells, or an error of the model.
    pub fn evaluate(
        &self,
        model: &GeneBertForMaskedLM,
        step: u64,
        epoch: f64,
    ) -> Result<Evaluation> {
        let began = Instant::now();
        let found = self.collect(model, &mut |_| ())?;
        let phenotypes = found.columns.iter().map(|column| self.figures_of(column));
        Ok(Evaluation {
            step,
            epoch,
            num_cells: found.num_cells,
            eval_loss: found.eval_loss,
            genes: found.genes.figures(),
            phenotypes: phenotypes.collect::<Result<_>>()?,
            classification: None,
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    /// How often [`Evaluator::collect`] reads every cell.
    pub fn num_passes(&self) -> u64 {
        if matches!(self.cells, EvalCells::Sets(_)) {
            return 1;
        }
        let one_by_one = if self.phenotypes.len() > 1 {
            self.asked.len() as u64
        } else {
            0
        };
        1 + u64::from(!self.asked.is_empty()) + one_by_one
    }

    /// All answers of `model`. `seen` is told of each batch how many cells it had.
    ///
    /// # Errors
    /// As [`Evaluator::evaluate`].
    pub fn collect(
        &self,
        model: &GeneBertForMaskedLM,
        seen: &mut dyn FnMut(u64),
    ) -> Result<Collected> {
        let mut found = match &self.cells {
            EvalCells::Sets(sets) => self.ask_sets(model, sets, seen)?,
            EvalCells::Files(..) => self.ask_files(model, seen)?,
        };
        if self.ranks.world() > 1 {
            let mut parts = gather(&self.ranks, found)?.into_iter();
            found = parts.next().context("no rank has answered")?;
            parts.try_for_each(|part| found.absorb(part))?;
        }
        let num_labels = found.num_labels;
        Ok(Collected {
            num_cells: found.num_cells,
            eval_loss: (num_labels > 0).then(|| found.loss_sum / num_labels as f64),
            genes: found.genes,
            columns: with_answers(found.columns),
        })
    }

    fn ask_files(&self, model: &GeneBertForMaskedLM, seen: &mut dyn FnMut(u64)) -> Result<Found> {
        let mut found = Found::new(self);
        found.num_cells = self.pass((model, &EvalMasking::Random), seen, |answer| {
            found.see(self, answer)
        })?;
        if !self.asked.is_empty() {
            found.columns = self.hiding(
                (model, &EvalMasking::AllPhenotypes),
                Setting::AllHidden,
                seen,
            )?;
        }
        if self.phenotypes.len() > 1 {
            for phenotype in &self.asked {
                let masking = EvalMasking::Phenotype(phenotype.clone());
                let more = self.hiding((model, &masking), Setting::OthersVisible, seen)?;
                found.columns.extend(more);
            }
        }
        Ok(found)
    }

    /// Answers for the phenotypes, of which `masking` hides some.
    fn hiding(
        &self,
        (model, masking): (&GeneBertForMaskedLM, &EvalMasking),
        setting: Setting,
        seen: &mut dyn FnMut(u64),
    ) -> Result<Vec<(u32, ColumnAnswers)>> {
        let mut columns = self.columns(setting);
        self.pass((model, masking), seen, |answer| add(&mut columns, answer))?;
        Ok(columns)
    }

    /// The answers to whatever the sets hide.
    fn ask_sets(
        &self,
        model: &GeneBertForMaskedLM,
        sets: &[EvalSet],
        seen: &mut dyn FnMut(u64),
    ) -> Result<Found> {
        let mut found = Found::new(self);
        found.columns = self.columns(Setting::AsMasked);
        let (mut first, mut number) = (0, 0);
        for set in sets {
            for batch in set.batches(self.loader.batch_cells, first) {
                let batch = batch?;
                let num_cells = batch.num_cells() as u64;
                if number % self.ranks.world() == self.ranks.rank() {
                    show(model, &batch, &mut |answer: &Answer<'_>| {
                        found.see(self, answer)?;
                        add(&mut found.columns, answer)
                    })?;
                    found.num_cells += num_cells;
                }
                first += num_cells;
                number += 1;
                seen(num_cells);
            }
        }
        Ok(found)
    }

    /// Room for answers, by the token type of their phenotype.
    fn columns(&self, setting: Setting) -> Vec<(u32, ColumnAnswers)> {
        let vocabulary = &self.vocabulary;
        let mut columns = Vec::new();
        for category in &self.asked {
            let ids = (
                vocabulary.category_type(category),
                vocabulary.category_ids(category),
            );
            if let (Some(token_type), Some(ids)) = ids {
                let column = ColumnAnswers {
                    category: category.clone(),
                    setting,
                    answers: Answers::new(ids),
                };
                columns.push((token_type, column));
            }
        }
        columns
    }

    /// The figures of one phenotype, next to the majority's.
    ///
    /// # Errors
    /// Probabilities that went to the disk cannot be read.
    pub fn figures_of(&self, column: &ColumnAnswers) -> Result<PhenotypeFigures> {
        let (category, answers) = (&column.category, &column.answers);
        let majority = self.baselines.majority(category);
        let class = majority.map_or(usize::MAX, |id| answers.class_of(id));
        let constant = answers.predictions.confusion().always(class);
        Ok(PhenotypeFigures {
            category: category.to_owned(),
            setting: column.setting,
            num_cells: answers.predictions.len(),
            figures: answers.predictions.figures()?,
            accuracy_whole_vocabulary: answers.accuracy_in_whole(),
            majority: self.baselines.majority_text(&self.vocabulary, category),
            majority_accuracy: constant.accuracy(),
            majority_balanced_accuracy: constant.balanced_accuracy(),
            majority_macro_f1: constant.macro_f1(),
        })
    }

    /// Shows every labelled position of every cell to `see`; returns the number of cells.
    fn pass(
        &self,
        (model, masking): (&GeneBertForMaskedLM, &EvalMasking),
        seen: &mut dyn FnMut(u64),
        mut see: impl FnMut(&Answer<'_>) -> Result<()>,
    ) -> Result<u64> {
        let EvalCells::Files(data, selection) = &self.cells else {
            return Ok(0);
        };
        let weights = self.gene_weights.as_deref();
        let collator =
            MlmCollator::evaluation(&self.vocabulary, &self.masking, self.seed, weights, masking)?;
        let order = SamplerConfig {
            shuffle: Shuffle::Sequential,
            ..SamplerConfig::default()
        };
        let sampler = Sampler::new(order, selection.clone(), data.len())?;
        let sampler = sampler.for_rank(self.ranks.rank(), self.ranks.world())?;
        let data = Arc::clone(data);
        let mut loader = Loader::new(data, sampler, Arc::new(collator), self.loader.clone())?;
        let mut num_cells = 0;
        while let Some(batch) = loader.next_batch()? {
            num_cells += batch.num_cells() as u64;
            show(model, &batch, &mut see)?;
            seen(batch.num_cells() as u64);
        }
        Ok(num_cells)
    }
}

/// Adds the answer to the column that it is for, if it is for one.
fn add(columns: &mut [(u32, ColumnAnswers)], answer: &Answer<'_>) -> Result<()> {
    for (token_type, column) in columns {
        if *token_type == answer.token_type {
            column.answers.add(answer)?;
        }
    }
    Ok(())
}

/// Those that were asked for at all.
fn with_answers(columns: Vec<(u32, ColumnAnswers)>) -> Vec<ColumnAnswers> {
    let columns = columns.into_iter().map(|(_, column)| column);
    columns
        .filter(|column| !column.answers.cells.is_empty())
        .collect()
}

fn show(
    model: &GeneBertForMaskedLM,
    batch: &PackedBatch,
    see: &mut impl FnMut(&Answer<'_>) -> Result<()>,
) -> Result<()> {
    if batch.labels.is_empty() {
        return Ok(());
    }
    let logits = model.forward(batch, None)?; // [num_labels, vocab]
    let width = logits.dim(1)?;
    let logits = logits.flatten_all()?.to_vec1::<f32>()?;
    let mut place = 0;
    for (label, logits) in batch.labels.iter().zip(logits.chunks_exact(width)) {
        let token_type = batch.token_type_ids[label.position as usize];
        while batch.cu_seqlens[place + 1] <= label.position {
            place += 1;
        }
        see(&Answer {
            cell: batch.cells[place],
            logits,
            truth: label.token,
            token_type,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_of_equal_logits_is_the_logarithm_of_their_number() {
        assert!((cross_entropy(&[5.0; 8], 3) - 8f64.ln()).abs() < 1e-12);
        assert!(cross_entropy(&[0.0, 100.0], 1) < 1e-12);
    }
}
