//! Evaluation on held-out cells: how well masked tokens are predicted, next to what a constant
//! answer reaches.
//!
//! Passes over the cells, each with masks fixed by (seed, cell id): one masked as in training (the
//! loss, and genes), one with all phenotypes hidden, and, where a cell carries several phenotypes,
//! one for each with the others visible. Predictions are the argmax *within the category* (the
//! bins, for genes); `accuracy_whole_vocabulary` takes it over all tokens. `eval_loss` is the plain
//! cross entropy in nats, without label smoothing.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use super::baseline::Baselines;
use super::figures::{Evaluation, GeneFigures, PhenotypeFigures, Setting};
use crate::cell::PackedBatch;
use crate::loader::{
    DataSet, EvalMasking, Loader, LoaderConfig, MlmCollator, MlmConfig, Sampler, SamplerConfig,
    Selection, Shuffle,
};
use crate::metrics::{Predictions, argmax, softmax};
use crate::model::GeneBertForMaskedLM;
use crate::vocab::Vocabulary;

/// Evaluates a model on the same cells with the same masks each time.
pub struct Evaluator {
    /// The files.
    pub data: Arc<DataSet>,
    /// The held-out cells.
    pub selection: Selection,
    /// Tokens and genes.
    pub vocabulary: Arc<Vocabulary>,
    /// The phenotypes that a cell carries.
    pub phenotypes: Vec<String>,
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
}

/// A labelled position and what the model says of it.
struct Answer<'a> {
    logits: &'a [f32],
    truth: u32,
    token_type: u32,
}

/// Right answers within the category and over all tokens.
struct Tally {
    ids: Range<u32>,
    predictions: Predictions,
    right_in_whole: u64,
    right_by_baseline: u64,
}

impl Tally {
    fn new(ids: Range<u32>, predictions: Predictions) -> Self {
        Self {
            ids,
            predictions,
            right_in_whole: 0,
            right_by_baseline: 0,
        }
    }

    fn add(&mut self, answer: &Answer<'_>, baseline: Option<u32>) {
        let Answer { logits, truth, .. } = *answer;
        let within = &logits[self.ids.start as usize..self.ids.end as usize];
        let class = (truth - self.ids.start) as usize;
        self.predictions.add(class, &softmax(within));
        self.right_in_whole += u64::from(argmax(logits) == truth as usize);
        self.right_by_baseline += u64::from(baseline == Some(truth));
    }

    fn share(&self, right: u64) -> f64 {
        right as f64 / (self.predictions.len() as f64).max(1.0)
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
        let mut loss_sum = 0.0;
        let mut num_labels = 0u64;
        let bins = self.vocabulary.bin_ids();
        let mut genes = Tally::new(bins.clone(), Predictions::without_curves(bins.len()));
        let num_cells = self.pass(model, &EvalMasking::Random, |answer| {
            loss_sum += cross_entropy(answer.logits, answer.truth as usize);
            num_labels += 1;
            if let Some(gene) = self.vocabulary.type_gene(answer.token_type) {
                genes.add(answer, self.baselines.gene_mode(gene));
            }
        })?;
        Ok(Evaluation {
            step,
            epoch,
            num_cells,
            eval_loss: (num_labels > 0).then(|| loss_sum / num_labels as f64),
            genes: gene_figures(&genes),
            phenotypes: self.phenotype_figures(model)?,
            classification: None,
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    fn phenotype_figures(&self, model: &GeneBertForMaskedLM) -> Result<Vec<PhenotypeFigures>> {
        let mut figures = Vec::new();
        if !self.phenotypes.is_empty() {
            figures = self.hiding(model, &EvalMasking::AllPhenotypes, Setting::AllHidden)?;
        }
        if self.phenotypes.len() > 1 {
            for phenotype in &self.phenotypes {
                let masking = EvalMasking::Phenotype(phenotype.clone());
                figures.extend(self.hiding(model, &masking, Setting::OthersVisible)?);
            }
        }
        Ok(figures)
    }

    /// Figures of the phenotypes that `masking` hides.
    fn hiding(
        &self,
        model: &GeneBertForMaskedLM,
        masking: &EvalMasking,
        setting: Setting,
    ) -> Result<Vec<PhenotypeFigures>> {
        let vocabulary = &self.vocabulary;
        let mut tallies = Vec::new();
        for category in &self.phenotypes {
            let ids = (
                vocabulary.category_type(category),
                vocabulary.category_ids(category),
            );
            if let (Some(token_type), Some(ids)) = ids {
                let predictions = Predictions::new(ids.len());
                tallies.push((token_type, category, Tally::new(ids, predictions)));
            }
        }
        self.pass(model, masking, |answer| {
            for (token_type, _, tally) in &mut tallies {
                if *token_type == answer.token_type {
                    tally.add(answer, None);
                }
            }
        })?;
        let answered = tallies
            .into_iter()
            .filter(|(_, _, tally)| !tally.predictions.is_empty());
        Ok(answered
            .map(|(_, category, tally)| self.figures_of(category, setting, &tally))
            .collect())
    }

    fn figures_of(&self, category: &str, setting: Setting, tally: &Tally) -> PhenotypeFigures {
        let majority = self.baselines.majority(category);
        let class = majority.map_or(usize::MAX, |id| (id - tally.ids.start) as usize);
        let constant = tally.predictions.confusion().always(class);
        PhenotypeFigures {
            category: category.to_owned(),
            setting,
            num_cells: tally.predictions.len(),
            figures: tally.predictions.figures(),
            accuracy_whole_vocabulary: tally.share(tally.right_in_whole),
            majority: self.baselines.majority_text(&self.vocabulary, category),
            majority_accuracy: constant.accuracy(),
            majority_balanced_accuracy: constant.balanced_accuracy(),
            majority_macro_f1: constant.macro_f1(),
        }
    }

    /// Shows every labelled position of every cell to `see`; returns the number of cells.
    fn pass(
        &self,
        model: &GeneBertForMaskedLM,
        masking: &EvalMasking,
        mut see: impl FnMut(&Answer<'_>),
    ) -> Result<u64> {
        let weights = self.gene_weights.as_deref();
        let collator =
            MlmCollator::evaluation(&self.vocabulary, &self.masking, self.seed, weights, masking)?;
        let order = SamplerConfig {
            shuffle: Shuffle::Sequential,
            ..SamplerConfig::default()
        };
        let sampler = Sampler::new(order, self.selection.clone(), self.data.len())?;
        let data = Arc::clone(&self.data);
        let mut loader = Loader::new(data, sampler, Arc::new(collator), self.loader.clone())?;
        let mut num_cells = 0;
        while let Some(batch) = loader.next_batch()? {
            num_cells += batch.num_cells() as u64;
            show(model, &batch, &mut see)?;
        }
        Ok(num_cells)
    }
}

fn show(
    model: &GeneBertForMaskedLM,
    batch: &PackedBatch,
    see: &mut impl FnMut(&Answer<'_>),
) -> Result<()> {
    if batch.labels.is_empty() {
        return Ok(());
    }
    let logits = model.forward(batch, None)?; // [num_labels, vocab]
    let width = logits.dim(1)?;
    let logits = logits.flatten_all()?.to_vec1::<f32>()?;
    for (label, logits) in batch.labels.iter().zip(logits.chunks_exact(width)) {
        let token_type = batch.token_type_ids[label.position as usize];
        see(&Answer {
            logits,
            truth: label.token,
            token_type,
        });
    }
    Ok(())
}

fn gene_figures(genes: &Tally) -> Option<GeneFigures> {
    let num_genes = genes.predictions.len();
    (num_genes > 0).then(|| GeneFigures {
        num_genes,
        figures: genes.predictions.figures(),
        accuracy_whole_vocabulary: genes.share(genes.right_in_whole),
        mode_accuracy: genes.share(genes.right_by_baseline),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_of_equal_logits_is_the_logarithm_of_their_number() {
        assert!((cross_entropy(&[5.0; 8], 3) - 8f64.ln()).abs() < 1e-12);
        assert!(cross_entropy(&[0.0, 100.0], 1) < 1e-12);
    }

    #[test]
    fn the_choice_is_within_the_category() {
        let mut tally = Tally::new(4..6, Predictions::new(2));
        let logits = [0.0, 9.0, 0.0, 0.0, 1.0, 2.0, 9.5];
        tally.add(
            &Answer {
                logits: &logits,
                truth: 5,
                token_type: 1,
            },
            Some(4),
        );
        let figures = (
            tally.predictions.figures().accuracy,
            tally.right_in_whole,
            tally.right_by_baseline,
        );
        assert_eq!(figures, (1.0, 0, 0));
    }
}
