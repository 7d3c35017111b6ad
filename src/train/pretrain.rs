//! `mlm`: masked pretraining. Brings its loss, its masks and its evaluation to [`super::run`].

use std::sync::Arc;

use anyhow::Result;

use super::baseline::Baselines;
use super::data::{Data, Files};
use super::evaluate::{EvalCells, Evaluator};
use super::figures::Evaluation;
use super::gene_start;
use super::memory::{self, Footprint, LabelRate};
use super::run::{Asked, Prepared, run};
use super::start::Start;
use super::task::Task;
use super::trainer::Outcome;
use crate::config::{Job, RunConfig};
use crate::kernels::lists::Lists;
use crate::loader::{Loader, MlmCollator};
use crate::model::{DropoutKey, GeneBertForMaskedLM, Gradients, LossConfig, StepLoss};

/// Masked tokens are predicted.
struct MaskedTokens {
    model: GeneBertForMaskedLM,
    loss: LossConfig,
    evaluator: Option<Evaluator>,
}

impl Task for MaskedTokens {
    fn loss_and_gradients(
        &self,
        lists: &Lists,
        dropout: DropoutKey,
        gradients: &mut Gradients,
    ) -> Result<StepLoss> {
        let (loss, dropout) = (&self.loss, Some(dropout));
        let loss = self
            .model
            .loss_and_gradients(lists, loss, dropout, gradients);
        Ok(loss?)
    }

    fn evaluates(&self) -> bool {
        self.evaluator.is_some()
    }

    fn evaluate(&self, step: u64, epoch: f64) -> Result<Option<Evaluation>> {
        let evaluator = self.evaluator.as_ref();
        evaluator
            .map(|evaluator| evaluator.evaluate(&self.model, step, epoch))
            .transpose()
    }
}

/// Trains as `config` says: on the ranks that are `asked`, from the start or from a checkpoint.
///
/// # Errors
/// Settings that cannot work, a run folder in use, unreadable files, unknown phenotypes, a
/// checkpoint that does not fit. Nothing is left half-written.
pub fn pretrain(config: &RunConfig, asked: Asked<'_>) -> Result<Outcome> {
    config.validate(Job::Mlm, asked.resume.is_some())?;
    run(config, asked, |config, files| prepare(config, asked, files))
}

fn prepare(config: &RunConfig, asked: Asked<'_>, files: &Files) -> Result<Prepared> {
    let Asked { resume, ranks, .. } = asked;
    let start = Start::new(config, resume, files)?.on(asked.device(config));
    let fresh = GeneBertForMaskedLM::init_parameters(&start.model_config, config.seed)?;
    let mut weights = start.weights(fresh, |_| true)?;
    let data = Data::bind(config, files, &start)?;
    gene_start::settle(config, &start, &data, &mut weights)?;
    println!("{}", data.describe());
    let masking = config.mlm_config();
    let labels = LabelRate {
        per_token: masking.gene_mask_prob,
        per_cell: masking.phenotype_mask_prob * config.included_phenotypes.len() as f64,
    };
    let footprint = Footprint {
        model: &start.model_config,
        parameters: &weights.parameters,
        labels,
        first_tokens: false,
    };
    let config = &memory::settle(config, asked, &data, &footprint)?;
    let seed = config.seed;
    let num_genes = start.vocabulary.genes().len();
    let sampling = config.absent_gene_sampling;
    let gene_weights = (data.train).gene_weights(sampling, &data.train_cells, num_genes)?;
    let sampler = data.sampler(config, &data.train_cells, ranks)?;
    let collator =
        MlmCollator::training(&start.vocabulary, &masking, seed, gene_weights.as_deref())?;
    let loader = Loader::new(
        Arc::clone(&data.train),
        sampler,
        Arc::new(collator),
        config.loader_config(),
    )?;
    let eval_loader = config.eval_loader_config();
    let cells = match &data.eval {
        Some((eval, selection)) => Some(EvalCells::Files(Arc::clone(eval), selection.clone())),
        None if data.eval_sets.is_empty() => None,
        None => Some(EvalCells::Sets(data.eval_sets.clone())),
    };
    let evaluator = match cells {
        None => None,
        Some(cells) => Some(Evaluator {
            cells,
            vocabulary: Arc::clone(&start.vocabulary),
            phenotypes: config.included_phenotypes.clone(),
            asked: config.included_phenotypes.clone(),
            baselines: Baselines::count(
                &data.train,
                &data.looking_sampler(config)?,
                &start.vocabulary,
                (&masking, gene_weights.as_deref(), seed),
                &eval_loader,
            )?,
            masking,
            gene_weights,
            seed,
            loader: eval_loader,
            ranks: Arc::clone(ranks),
        }),
    };
    let task = MaskedTokens {
        model: GeneBertForMaskedLM::new(&start.model_config, &weights.parameters)?,
        loss: LossConfig {
            label_smoothing: config.label_smoothing,
            ..LossConfig::default()
        },
        evaluator,
    };
    Ok(Prepared {
        config: config.clone(),
        model_json: serde_json::to_value(&start.model_config)?,
        start,
        weights,
        loader,
        task: Box::new(task),
        command: "mlm",
    })
}
