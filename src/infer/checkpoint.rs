//! A checkpoint, opened for use rather than for training.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use candle_core::Device;

use crate::config::{Dtype, Settings};
use crate::model::{
    GeneBertConfig, GeneBertForMaskedLM, GeneBertForSequenceClassification, Precision,
};
use crate::prepare::encoding;
use crate::tokenize::TokenizeConfig;
use crate::train::classes::Classes;
use crate::vocab::Vocabulary;

/// What a checkpoint holds.
#[derive(Debug)]
pub enum Model {
    /// Of `mlm`: fills in masked tokens.
    MaskedLM(GeneBertForMaskedLM),
    /// Of `cls`: says the class of a cell.
    Classifier(GeneBertForSequenceClassification, Classes),
}

/// A model with everything that cells need to become its input.
#[derive(Debug)]
pub struct Checkpoint {
    /// The folder.
    pub path: PathBuf,
    /// Tokens and genes.
    pub vocabulary: Arc<Vocabulary>,
    /// How cells become tokens, as in training.
    pub tokenize: TokenizeConfig,
    /// How its run was set, as far as that is known.
    pub run: Settings,
    /// The model's shape.
    pub config: GeneBertConfig,
    /// The model.
    pub model: Model,
}

impl Checkpoint {
    /// Opens a checkpoint folder, or the best (else the last) checkpoint of a run folder, to be
    /// computed as in its run, on the CPU.
    ///
    /// # Errors
    /// No checkpoint there, or one with a file missing or damaged.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_as(path, None, &Device::Cpu)
    }

    /// As [`Checkpoint::open`], on a device, with matrix products of this type; `None`: as in its
    /// run.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_as(path: &Path, dtype: Option<Dtype>, device: &Device) -> Result<Self> {
        let path = find(path)?;
        let (vocabulary, tokenize) = encoding::load(&path)?;
        let mut run = encoding::run_settings(&path)?;
        run.allow_scaled = run.allow_scaled.or(Some(tokenize.allow_scaled));
        if let Some(map) = run.gene_map.take_if(|map| !map.is_file()) {
            eprintln!(
                "note: {}: the run's gene map {} is not there; --gene-map names another",
                path.display(),
                map.display()
            );
        }
        let mut config = GeneBertConfig::from_file(&path.join("config.json"))?;
        config.validate()?;
        config.precision = match dtype.or(run.dtype) {
            Some(Dtype::Auto) if device.is_cuda() => Precision::Bf16,
            Some(dtype) => dtype.precision(),
            None => config.precision,
        };
        let expected = (vocabulary.vocab_size(), vocabulary.type_vocab_size());
        if (config.vocab_size, config.type_vocab_size) != expected {
            bail!(
                "{}: config.json says {} tokens and {} token types, gene_bert.json has {} and {}\n\
                 hint: the files of a checkpoint belong together; copy its folder whole",
                path.display(),
                config.vocab_size,
                config.type_vocab_size,
                expected.0,
                expected.1
            );
        }
        let model = load(&path, &config, device)?;
        Ok(Self {
            path,
            vocabulary: Arc::new(vocabulary),
            tokenize,
            run,
            config,
            model,
        })
    }

    /// One line for the screen.
    pub fn describe(&self) -> String {
        let kind = match &self.model {
            Model::MaskedLM(_) => "masked language model".to_owned(),
            Model::Classifier(_, classes) => {
                format!(
                    "classifier of {} ({} classes)",
                    classes.category,
                    classes.len()
                )
            }
        };
        format!(
            "Model: {kind}, {} blocks, hidden size {}, {} genes, from {}",
            self.config.num_hidden_layers,
            self.config.hidden_size,
            self.vocabulary.genes().len(),
            self.path.display()
        )
    }
}

fn find(path: &Path) -> Result<PathBuf> {
    let has_weights = |folder: &Path| folder.join("model.safetensors").is_file();
    if has_weights(path) {
        return Ok(path.to_owned());
    }
    let best = path.join("checkpoint-best");
    if has_weights(&best) {
        return Ok(best);
    }
    let last = crate::train::checkpoint::list(path)?.pop();
    last.map(|saved| saved.path).with_context(|| {
        format!(
            "{}: there is no checkpoint: expected a folder with model.safetensors, or a run folder \
             with checkpoint-best or checkpoint-<step>\nhint: name the folder that `gene-bert mlm` \
             or `cls` wrote (--output_dir)",
            path.display()
        )
    })
}

fn load(path: &Path, config: &GeneBertConfig, device: &Device) -> Result<Model> {
    let weights = path.join("model.safetensors");
    let Some(classes) = Classes::load(path)? else {
        let parameters = GeneBertForMaskedLM::init_parameters(config, 0)?.to_device(device)?;
        parameters.load(&weights)?.require_complete()?;
        let model = GeneBertForMaskedLM::new(config, &parameters)?;
        return Ok(Model::MaskedLM(model));
    };
    let parameters = GeneBertForSequenceClassification::init_parameters(config, 0)?;
    let parameters = parameters.to_device(device)?;
    parameters.load(&weights)?.require_complete()?;
    let model = GeneBertForSequenceClassification::new(config, &parameters)?;
    Ok(Model::Classifier(model, classes))
}
