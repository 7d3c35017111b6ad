//! `cls` and `bincls`: cells are classified by the state of `[CLS]`. Brings its loss (each cell
//! weighted by its class), its classes and its evaluation to [`super::run`].
//!
//! Cells without a class are left out and counted, in training and in evaluation. Frequencies and
//! the majority baseline are those of the training cells.

use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::classes::Classes;
use super::data::{Data, Files};
use super::figures::Evaluation;
use super::gene_start;
use super::held_out::HeldOut;
use super::labelled::Labelled;
use super::memory::{self, Footprint, LabelRate};
use super::run::{Asked, Prepared, run};
use super::start::{Start, Weights};
use super::task::Task;
use super::trainer::Outcome;
use crate::cell::PackedBatch;
use crate::config::{ClassWeights, FreezeEncoder, Job, RunConfig};
use crate::kernels::lists::Lists;
use crate::loader::{ClassCollator, Loader};
use crate::model::{
    DropoutKey, GeneBertConfig, GeneBertForSequenceClassification, Gradients, LossConfig, Spread,
    StepLoss,
};
use crate::tokenize::Compat;

/// The classes of cells are predicted.
struct CellClasses {
    model: GeneBertForSequenceClassification,
    loss: LossConfig,
    held_out: Option<HeldOut>,
}

impl Task for CellClasses {
    fn loss_and_gradients(
        &self,
        lists: &Lists,
        dropout: DropoutKey,
        gradients: &mut Gradients,
    ) -> Result<StepLoss> {
        let (loss, dropout) = (&self.loss, Some(dropout));
        let loss = self
            .model
            .loss_and_gradients(lists, &lists.labels, loss, dropout, gradients);
        Ok(loss?)
    }

    fn evaluates(&self) -> bool {
        self.held_out.is_some()
    }

    fn evaluate(&self, step: u64, epoch: f64) -> Result<Option<Evaluation>> {
        let held_out = self.held_out.as_ref();
        held_out
            .map(|held_out| held_out.evaluate(&self.model, step, epoch))
            .transpose()
    }
}

/// The class of each cell of a batch.
pub(super) fn labels(batch: &PackedBatch) -> Vec<u32> {
    batch.labels.iter().map(|label| label.token).collect()
}

/// Trains a classifier as `config` says; otherwise as [`super::pretrain::pretrain`].
///
/// # Errors
/// As there; classes that cannot be had or told apart.
pub fn classify(config: &RunConfig, job: Job, asked: Asked<'_>) -> Result<Outcome> {
    config.validate(job, asked.resume.is_some())?;
    run(config, asked, |config, files| prepare(config, asked, files))
}

fn prepare(config: &RunConfig, asked: Asked<'_>, files: &Files) -> Result<Prepared> {
    let Asked { resume, ranks, .. } = asked;
    if let Some(set) = files.eval_sets.first() {
        bail!(
            "{}: a pre-masked set tells no classes of cells\nhint: evaluate a classifier on h5ad \
             files",
            set.display()
        );
    }
    let mut start = Start::new(config, resume, files)?.on(asked.device(config));
    let classes = match resume {
        Some(checkpoint) => Classes::load(checkpoint)?.with_context(|| {
            format!(
                "{}: holds no classifier\nhint: `gene-bert mlm` resumes pretraining; \
                 --pretrained_model_path starts a classifier from it",
                checkpoint.display()
            )
        })?,
        None => Classes::settle(config, &start, &files.train)?,
    };
    start.model_config.num_labels = classes.len();
    let mut weights = weights(config, &start, &classes)?;
    let data = Data::bind(config, files, &start)?;
    gene_start::settle(config, &start, &data, &mut weights)?;
    println!("{}", data.describe());
    let footprint = Footprint {
        model: &start.model_config,
        parameters: &weights.parameters,
        labels: LabelRate {
            per_token: 0.0,
            per_cell: 1.0,
        },
        first_tokens: config.device.gpu().is_none(),
    };
    let config = &memory::settle(config, asked, &data, &footprint)?;
    let unknown = config.unknown_phenotype;
    let class_of = classes.of_cells(&data.train, unknown)?;
    let labelled = Labelled::new(&data.train_cells, &class_of, &classes)?;
    println!("{}", labelled.describe(&classes));
    let held_out = match &data.eval {
        None => None,
        Some((eval, cells)) => {
            let class_of = if Arc::ptr_eq(eval, &data.train) {
                Arc::clone(&class_of)
            } else {
                classes.of_cells(eval, unknown)?
            };
            let majority = labelled.majority();
            let held_out = HeldOut::new(
                (eval, cells),
                class_of,
                &classes,
                majority,
                (config.eval_sampler_config(), config.eval_loader_config()),
            )?;
            let held_out = held_out.on(ranks);
            if held_out.num_without > 0 {
                println!(
                    "Left out: {} held-out cells without a class",
                    held_out.num_without
                );
            }
            Some(held_out)
        }
    };
    let labelled = if config.balanced_dataset {
        labelled.balanced(&class_of, config.seed)
    } else {
        labelled
    };
    let sampler = data.sampler(config, &labelled.cells, ranks)?;
    let loader = Loader::new(
        Arc::clone(&data.train),
        sampler,
        Arc::new(ClassCollator::new(class_of)),
        config.loader_config(),
    )?;
    let task = CellClasses {
        model: model(config, &start.model_config, &weights)?,
        loss: LossConfig {
            label_smoothing: config.label_smoothing,
            class_weights: match config.class_weights {
                ClassWeights::InverseFrequency => Some(labelled.weights()),
                ClassWeights::None => None,
            },
            spread: match config.compat {
                Some(Compat::Perturbgene) => Spread::ByClass,
                None => Spread::ByLabel,
            },
        },
        held_out,
    };
    Ok(Prepared {
        config: config.clone(),
        model_json: classes.write_into(serde_json::to_value(&start.model_config)?),
        start,
        weights,
        loader,
        task: Box::new(task),
        command: "cls",
    })
}

/// Fresh weights, with the checkpoint's in their places. Its last layer is used only if it is of
/// the same classes.
fn weights(config: &RunConfig, start: &Start, classes: &Classes) -> Result<Weights> {
    let fresh =
        GeneBertForSequenceClassification::init_parameters(&start.model_config, config.seed)?;
    let same_classes = match start.checkpoint() {
        Some(checkpoint) => Classes::load(checkpoint)?.as_ref() == Some(classes),
        None => false,
    };
    start.weights(fresh, |name| {
        same_classes || !name.starts_with("classifier.")
    })
}

fn model(
    config: &RunConfig,
    shape: &GeneBertConfig,
    weights: &Weights,
) -> Result<GeneBertForSequenceClassification> {
    let model = GeneBertForSequenceClassification::new(shape, &weights.parameters)?;
    let num_blocks = shape.num_hidden_layers;
    Ok(match config.freeze_encoder {
        None => model,
        Some(FreezeEncoder::All) => model.with_frozen_blocks(num_blocks),
        Some(FreezeEncoder::Blocks(frozen)) if frozen <= num_blocks => {
            model.with_frozen_blocks(frozen)
        }
        Some(FreezeEncoder::Blocks(frozen)) => bail!(
            "--freeze_encoder {frozen}: the model has {num_blocks} blocks\nhint: give 0 to \
             {num_blocks}, or no number to freeze the whole encoder"
        ),
    })
}
