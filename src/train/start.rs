//! What a run starts from: vocabulary, tokenization, model shape and weights. Either new (a config
//! file or built-in config, vocabulary and genes from the training files), or those of a checkpoint
//! (`--pretrained_model_path FOLDER` or `--resume`), whose vocabulary, genes and bins come along.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use super::data::Files;
use crate::config::RunConfig;
use crate::model::{GeneBertConfig, GeneBertForMaskedLM, Parameters};
use crate::prepare::encoding::Encoding;
use crate::tokenize::TokenizeConfig;
use crate::vocab::Vocabulary;

/// What a run starts from.
pub struct Start {
    /// Tokens and genes.
    pub vocabulary: Arc<Vocabulary>,
    /// How cells become tokens.
    pub tokenize: TokenizeConfig,
    /// The model's shape.
    pub model_config: GeneBertConfig,
    /// All weights.
    pub parameters: Parameters,
    /// Where the weights come from, for the screen.
    pub origin: String,
}

impl Start {
    /// Settles all of it.
    ///
    /// # Errors
    /// A file that cannot be read, settings that contradict the checkpoint, weights that do not
    /// fit the model.
    pub fn new(config: &RunConfig, resume: Option<&Path>, files: &Files) -> Result<Self> {
        let path = config.pretrained_model_path.as_deref();
        let checkpoint = resume.or(path.filter(|path| path.is_dir()));
        match checkpoint {
            Some(checkpoint) => Self::from_checkpoint(config, checkpoint),
            None => Self::anew(config, files),
        }
    }

    fn anew(config: &RunConfig, files: &Files) -> Result<Self> {
        let model_config = config.model_config()?;
        let Encoding {
            vocabulary,
            tokenize,
        } = Encoding::from_files(config, &files.train)?;
        let model_config = shaped(model_config, config, &vocabulary)?;
        let parameters = GeneBertForMaskedLM::init_parameters(&model_config, config.seed)?;
        let origin = "random weights".to_owned();
        Ok(Self {
            vocabulary,
            tokenize,
            model_config,
            parameters,
            origin,
        })
    }

    fn from_checkpoint(config: &RunConfig, checkpoint: &Path) -> Result<Self> {
        let Encoding {
            vocabulary,
            tokenize,
        } = Encoding::from_checkpoint(config, checkpoint)?;
        let model_config = GeneBertConfig::from_file(&checkpoint.join("config.json"))?;
        let model_config = shaped(model_config, config, &vocabulary)?;
        let parameters = GeneBertForMaskedLM::init_parameters(&model_config, config.seed)?;
        let report = parameters.load(&checkpoint.join("model.safetensors"))?;
        let mut origin = format!("weights of {}", checkpoint.display());
        if !report.missing.is_empty() {
            origin += &format!("; random, as not in there: {}", report.missing.join(", "));
        }
        if !report.unexpected.is_empty() {
            origin += &format!("; in there but not used: {}", report.unexpected.join(", "));
        }
        Ok(Self {
            vocabulary,
            tokenize,
            model_config,
            parameters,
            origin,
        })
    }
}

/// The config with the run's dropout and the vocabulary's sizes.
fn shaped(
    mut model: GeneBertConfig,
    config: &RunConfig,
    vocabulary: &Vocabulary,
) -> Result<GeneBertConfig> {
    if let Some(dropout) = config.hidden_dropout_prob {
        model.hidden_dropout_prob = dropout;
    }
    if let Some(dropout) = config.attention_probs_dropout_prob {
        model.attention_probs_dropout_prob = dropout;
    }
    let model = model.with_vocabulary(vocabulary.vocab_size(), vocabulary.type_vocab_size());
    model.validate()?;
    Ok(model)
}
