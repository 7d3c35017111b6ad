//! The cells that a classifier is evaluated on, and what it says of them.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::class_figures::Classification;
use super::classes::Classes;
use super::classify::labels;
use super::figures::Evaluation;
use super::gathered::gather;
use crate::dist::Ranks;
use crate::loader::{
    ClassCollator, DataSet, Loader, LoaderConfig, NO_CLASS, Sampler, SamplerConfig, Selection,
};
use crate::metrics::{Predictions, softmax};
use crate::model::GeneBertForSequenceClassification;

/// Cells with a class.
pub struct HeldOut {
    data: Arc<DataSet>,
    cells: Selection,
    class_of: Arc<[u32]>,
    classes: Classes,
    majority: usize,
    order: SamplerConfig,
    loader: LoaderConfig,
    ranks: Arc<Ranks>,
    /// Cells that were left out, as they have no class.
    pub num_without: u64,
}

impl HeldOut {
    /// Those of `cells` that have a class; `majority` is the most common one of the training cells,
    /// `order` sequential.
    ///
    /// # Errors
    /// None of them has a class.
    pub fn new(
        (data, cells): (&Arc<DataSet>, &Selection),
        class_of: Arc<[u32]>,
        classes: &Classes,
        majority: usize,
        (order, loader): (SamplerConfig, LoaderConfig),
    ) -> Result<Self> {
        let selected = cells.cells(data.len());
        let kept: Vec<u64> = selected
            .filter(|&cell| class_of[cell as usize] != NO_CLASS)
            .collect();
        if kept.is_empty() {
            bail!(
                "obs column `{}`: no evaluation cell has a class\nhint: give other evaluation \
                 files; in training, --eval_fraction 0 goes without evaluation",
                classes.category
            );
        }
        Ok(Self {
            num_without: cells.len(data.len()) - kept.len() as u64,
            data: Arc::clone(data),
            cells: Selection::Rows(kept.into()),
            class_of,
            classes: classes.clone(),
            majority,
            order,
            loader,
            ranks: Arc::new(Ranks::alone()),
        })
    }

    /// Shared over `ranks`: each predicts its part, and all get the figures of the whole.
    #[must_use]
    pub fn on(self, ranks: &Arc<Ranks>) -> Self {
        let ranks = Arc::clone(ranks);
        Self { ranks, ..self }
    }

    /// All figures of `model`.
    ///
    /// # Errors
    /// Unreadable cells, or an error of the model.
    pub fn evaluate(
        &self,
        model: &GeneBertForSequenceClassification,
        step: u64,
        epoch: f64,
    ) -> Result<Evaluation> {
        let began = Instant::now();
        let found = self.figures_of(&self.collect(model, &mut |_| ())?.1)?;
        Ok(Evaluation {
            step,
            epoch,
            num_cells: found.num_cells,
            eval_loss: (found.num_cells > 0).then_some(found.figures.log_loss),
            genes: None,
            phenotypes: Vec::new(),
            classification: Some(found),
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    /// The figures of predictions, next to the majority's.
    ///
    /// # Errors
    /// Probabilities that went to the disk cannot be read.
    pub fn figures_of(&self, predictions: &Predictions) -> Result<Classification> {
        Ok(Classification::new(
            &self.classes,
            predictions,
            self.majority,
        )?)
    }

    /// How many cells have a class.
    pub fn len(&self) -> u64 {
        self.cells.len(self.data.len())
    }

    /// Whether none has: never.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every cell and what `model` predicts for it, rank by rank. `seen` is told of each batch how many cells it
    /// had.
    ///
    /// # Errors
    /// As [`HeldOut::evaluate`].
    pub fn collect(
        &self,
        model: &GeneBertForSequenceClassification,
        seen: &mut dyn FnMut(u64),
    ) -> Result<(Vec<u64>, Predictions)> {
        let sampler = Sampler::new(self.order.clone(), self.cells.clone(), self.data.len())?;
        let sampler = sampler.for_rank(self.ranks.rank(), self.ranks.world())?;
        let data = Arc::clone(&self.data);
        let collator = Arc::new(ClassCollator::new(Arc::clone(&self.class_of)));
        let mut loader = Loader::new(data, sampler, collator, self.loader.clone())?;
        let mut predictions = Predictions::new(self.classes.len());
        let mut cells = Vec::new();
        while let Some(batch) = loader.next_batch()? {
            if batch.num_cells() == 0 {
                continue;
            }
            let logits = model.forward(&batch, None)?; // [B, classes]
            let logits = logits.to_vec2::<f32>()?;
            for (truth, logits) in labels(&batch).into_iter().zip(logits) {
                predictions.add(truth as usize, &softmax(&logits))?;
            }
            cells.extend_from_slice(&batch.cells);
            seen(batch.num_cells() as u64);
        }
        let mut parts = gather(&self.ranks, (cells, predictions))?.into_iter();
        let (mut cells, mut predictions) = parts.next().context("no rank has answered")?;
        for (more, theirs) in parts {
            cells.extend(more);
            predictions.absorb(theirs)?;
        }
        Ok((cells, predictions))
    }
}
