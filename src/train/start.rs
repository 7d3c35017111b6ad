//! What a run starts from: vocabulary, tokenization, model shape and weights. Either new (a config
//! file or built-in config, vocabulary and genes from the training files), or those of a checkpoint
//! (`--pretrained_model_path FOLDER` or `--resume`), whose vocabulary, genes and bins come along.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

use super::data::Files;
use crate::config::{Device, RunConfig};
use crate::model::{GeneBertConfig, Parameters};
use crate::prepare::encoding::Encoding;
use crate::tokenize::TokenizeConfig;
use crate::vocab::Vocabulary;

/// What a run starts from, but for its weights.
pub struct Start {
    /// Tokens and genes.
    pub vocabulary: Arc<Vocabulary>,
    /// How cells become tokens.
    pub tokenize: TokenizeConfig,
    /// The model's shape.
    pub model_config: GeneBertConfig,
    checkpoint: Option<PathBuf>,
    resumes: bool,
    device: Device,
    tf32: bool,
}

/// The weights that a run starts from.
pub struct Weights {
    /// All of them.
    pub parameters: Parameters,
    /// Where they come from, for the screen.
    pub origin: String,
    /// Where they live, for the screen.
    pub place: String,
}

impl Start {
    /// Settles all of it.
    ///
    /// # Errors
    /// A file that cannot be read, settings that contradict the checkpoint.
    pub fn new(config: &RunConfig, resume: Option<&Path>, files: &Files) -> Result<Self> {
        let path = config.pretrained_model_path.as_deref();
        let checkpoint = resume.or(path.filter(|path| path.is_dir()));
        let encoding = match (resume, checkpoint) {
            (Some(resumed), _) => Encoding::resumed(config, resumed)?,
            (None, Some(checkpoint)) => Encoding::from_checkpoint(config, checkpoint)?,
            (None, None) => Encoding::from_files(config, &files.train)?,
        };
        let model_config = match resume {
            Some(folder) => GeneBertConfig::from_file(&folder.join("config.json"))?,
            None => config.model_config()?,
        };
        Ok(Self {
            model_config: shaped(model_config, config, &encoding.vocabulary)?,
            vocabulary: encoding.vocabulary,
            tokenize: encoding.tokenize,
            checkpoint: checkpoint.map(Path::to_owned),
            resumes: resume.is_some(),
            device: config.device,
            tf32: config.tf32,
        })
    }

    /// The same with weights on `device`.
    pub fn on(self, device: Device) -> Self {
        Self { device, ..self }
    }

    /// The checkpoint that the run starts from, resumed or not.
    pub fn checkpoint(&self) -> Option<&Path> {
        self.checkpoint.as_deref()
    }

    /// `fresh` weights with those of the checkpoint, if there is one, in their places; of the
    /// latter only those whose names are `wanted`. All of them on the run's device.
    ///
    /// # Errors
    /// A device that cannot be used.
    /// Weights that do not fit the model, or lack where a run is resumed.
    pub fn weights(&self, fresh: Parameters, wanted: impl Fn(&str) -> bool) -> Result<Weights> {
        let (device, place) = self.device.open(self.tf32)?;
        let Some(checkpoint) = &self.checkpoint else {
            return Ok(Weights {
                parameters: fresh.to_device(&device)?,
                origin: "random weights".to_owned(),
                place,
            });
        };
        let report = fresh.load_where(&checkpoint.join("model.safetensors"), wanted)?;
        let mut origin = format!("weights of {}", checkpoint.display());
        if !report.unexpected.is_empty() {
            origin += &format!("; in there but not used: {}", report.unexpected.join(", "));
        }
        if !report.missing.is_empty() {
            let names = report.missing.join(", ");
            origin += &format!("; newly initialised, as not taken from there: {names}");
        }
        if self.resumes {
            report.require_complete()?;
        }
        Ok(Weights {
            parameters: fresh.to_device(&device)?,
            origin,
            place,
        })
    }
}

/// The config with the run's dropout and the vocabulary's sizes.
fn shaped(
    model: GeneBertConfig,
    config: &RunConfig,
    vocabulary: &Vocabulary,
) -> Result<GeneBertConfig> {
    let model = config.as_computed(model);
    let model = model.with_vocabulary(vocabulary.vocab_size(), vocabulary.type_vocab_size());
    model.validate()?;
    Ok(model)
}
