//! The shape of a model: Hugging Face's `config.json`, every key honoured.
//!
//! DistilBERT's own names (`dim`, `hidden_dim`, `n_layers`, `n_heads`, `dropout`,
//! `attention_dropout`, `activation`) are read as well. Keys that say nothing about this model
//! (bookkeeping, positions) are accepted and listed in [`GeneBertConfig::ignored`]; any other
//! unknown key is refused. Vocabulary sizes may be absent in a file: the run's vocabulary sets them
//! ([`GeneBertConfig::with_vocabulary`]).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::file::{self, FileError};
use crate::kernels::activation::Activation;
use crate::kernels::products::Precision;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key that means nothing here, or a value of the wrong kind.
    #[error("{}: not a model configuration: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, naming the key.
        source: serde_json::Error,
    },
    /// The same setting twice, under two names.
    #[error("{}: both `{first}` and `{second}` are given\nhint: they mean the same; keep one",
            path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// One name.
        first: String,
        /// The other.
        second: String,
    },
    /// A value out of range.
    #[error("model configuration: {key} is {found}, expected {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// No built-in configuration of that name.
    #[error("no built-in model is called `{name}`\nhint: there are {}", names.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
        /// Those there are.
        names: Vec<&'static str>,
    },
}

/// The activation between the two halves of the feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HiddenAct {
    /// Exact GELU.
    #[default]
    Gelu,
    /// ReLU.
    Relu,
}

impl From<HiddenAct> for Activation {
    fn from(act: HiddenAct) -> Self {
        match act {
            HiddenAct::Gelu => Activation::Gelu,
            HiddenAct::Relu => Activation::Relu,
        }
    }
}

/// The shape of a model, under Hugging Face's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeneBertConfig {
    /// Number of tokens V; 0 where the vocabulary is to set it.
    pub vocab_size: usize,
    /// Number of token types; 0 where the vocabulary is to set it.
    pub type_vocab_size: usize,
    /// Width D of a token's state. Default 768.
    pub hidden_size: usize,
    /// Number of blocks. Default 6.
    pub num_hidden_layers: usize,
    /// Number of attention heads; divides `hidden_size`. Default 12.
    pub num_attention_heads: usize,
    /// Width F inside the feed-forward network. Default 3072.
    pub intermediate_size: usize,
    /// Activation of the feed-forward network (the masked-token head always has GELU).
    pub hidden_act: HiddenAct,
    /// Dropout of embeddings and of each feed-forward network. Default 0.1.
    pub hidden_dropout_prob: f64,
    /// Dropout of attention probabilities. Default 0.1.
    pub attention_probs_dropout_prob: f64,
    /// Dropout before the classifier's last layer. Default 0.2.
    pub seq_classif_dropout: f64,
    /// Standard deviation of fresh weights. Default 0.02.
    pub initializer_range: f64,
    /// Added to the variance in LayerNorm. Default 1e-12.
    pub layer_norm_eps: f64,
    /// Token whose word row is zero and stays so. Default 3.
    pub pad_token_id: usize,
    /// Whether the masked-token head projects with the word table instead of its own. Default no.
    pub tie_word_embeddings: bool,
    /// Number of classes, for the classifier. Default 2.
    pub num_labels: usize,
    /// In what matrix products are computed: a choice of the run, not of the shape, and in no file.
    #[serde(skip)]
    pub precision: Precision,
    /// Whether training keeps no more than the input of each block and computes it once more on the
    /// way back; as `precision`, in no file.
    #[serde(skip)]
    pub recompute: bool,
    /// Keys of the file that mean nothing to this model.
    #[serde(skip)]
    pub ignored: Vec<String>,
}

impl Default for GeneBertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 0,
            type_vocab_size: 0,
            hidden_size: 768,
            num_hidden_layers: 6,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: HiddenAct::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            seq_classif_dropout: 0.2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: 3,
            tie_word_embeddings: false,
            num_labels: 2,
            precision: Precision::F32,
            recompute: false,
            ignored: Vec::new(),
        }
    }
}

/// DistilBERT's name, ours.
const ALIASES: [(&str, &str); 7] = [
    ("dim", "hidden_size"),
    ("hidden_dim", "intermediate_size"),
    ("n_layers", "num_hidden_layers"),
    ("n_heads", "num_attention_heads"),
    ("dropout", "hidden_dropout_prob"),
    ("attention_dropout", "attention_probs_dropout_prob"),
    ("activation", "hidden_act"),
];

/// Hugging Face's keys that do not apply to a positionless encoder, or are bookkeeping.
const IGNORED: [&str; 20] = [
    "_name_or_path",
    "architectures",
    "auto_map",
    "binary_label",
    "bos_token_id",
    "classifier_dropout",
    "cls_token_id",
    "dtype",
    "eos_token_id",
    "max_position_embeddings",
    "model_type",
    "output_past",
    "phenotype_category",
    "position_embedding_type",
    "problem_type",
    "qa_dropout",
    "sinusoidal_pos_embds",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];

/// The built-in configurations, by name.
const BUILT_IN: [(&str, &str); 4] = [
    (
        "distilbert_base",
        include_str!("../../model_configs/distilbert_base.json"),
    ),
    (
        "distilbert_small",
        include_str!("../../model_configs/distilbert_small.json"),
    ),
    (
        "distilbert_tiny",
        include_str!("../../model_configs/distilbert_tiny.json"),
    ),
    (
        "quickstart",
        include_str!("../../model_configs/quickstart.json"),
    ),
];

impl GeneBertConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// The file cannot be read, has an unknown key, or a value out of range.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        Self::from_map(file::read_json(path)?, path)
    }

    /// The built-in configuration called `name`.
    ///
    /// # Errors
    /// There is none of that name; the error lists them.
    pub fn built_in(name: &str) -> Result<Self, ConfigError> {
        let path = PathBuf::from(format!("model_configs/{name}.json"));
        let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) else {
            let names = Self::built_in_names();
            return Err(ConfigError::Unknown {
                name: name.to_owned(),
                names,
            });
        };
        match serde_json::from_str(text) {
            Ok(map) => Self::from_map(map, &path),
            Err(source) => Err(ConfigError::Json { path, source }),
        }
    }

    /// Names of the built-in configurations.
    pub fn built_in_names() -> Vec<&'static str> {
        BUILT_IN.iter().map(|(name, _)| *name).collect()
    }

    fn from_map(mut map: Map<String, Value>, path: &Path) -> Result<Self, ConfigError> {
        let mut ignored = Vec::new();
        map.retain(|key, _| {
            let known = !IGNORED.contains(&key.as_str());
            if !known {
                ignored.push(key.clone());
            }
            known
        });
        if let Some(labels) = map.remove("id2label") {
            ignored.push("label2id".into());
            map.remove("label2id");
            let count = labels.as_object().map_or(0, Map::len);
            map.entry("num_labels").or_insert_with(|| count.into());
        }
        for (theirs, ours) in ALIASES {
            let Some(value) = map.remove(theirs) else {
                continue;
            };
            if map.insert(ours.to_owned(), value).is_some() {
                let (first, second) = (theirs.to_owned(), ours.to_owned());
                return Err(ConfigError::Twice {
                    path: path.to_owned(),
                    first,
                    second,
                });
            }
        }
        let json = |source| ConfigError::Json {
            path: path.to_owned(),
            source,
        };
        let config: Self = serde_json::from_value(Value::Object(map)).map_err(json)?;
        config.check_shape()?;
        Ok(Self { ignored, ..config })
    }

    /// The same model over a vocabulary of these sizes.
    #[must_use]
    pub fn with_vocabulary(self, vocab_size: usize, type_vocab_size: usize) -> Self {
        Self {
            vocab_size,
            type_vocab_size,
            ..self
        }
    }

    /// Checks every value, the vocabulary's sizes included.
    ///
    /// # Errors
    /// A value is out of range; the error names key, value and range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_shape()?;
        for (key, size) in [
            ("vocab_size", self.vocab_size),
            ("type_vocab_size", self.type_vocab_size),
        ] {
            in_range(
                key,
                size,
                (1..=u32::MAX as usize).contains(&size),
                "at least 1",
            )?;
        }
        let pad = self.pad_token_id;
        in_range(
            "pad_token_id",
            pad,
            pad < self.vocab_size,
            "less than vocab_size",
        )
    }

    fn check_shape(&self) -> Result<(), ConfigError> {
        for (key, size) in [
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("num_labels", self.num_labels),
        ] {
            in_range(key, size, (1..=1 << 20).contains(&size), "1 to 1048576")?;
        }
        let layers = self.num_hidden_layers;
        in_range("num_hidden_layers", layers, layers <= 1024, "0 to 1024")?;
        let divides = self.hidden_size.is_multiple_of(self.num_attention_heads);
        let expected = format!("a divisor of hidden_size {}", self.hidden_size);
        in_range(
            "num_attention_heads",
            self.num_attention_heads,
            divides,
            &expected,
        )?;
        for (key, p) in [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            (
                "attention_probs_dropout_prob",
                self.attention_probs_dropout_prob,
            ),
            ("seq_classif_dropout", self.seq_classif_dropout),
        ] {
            in_range(
                key,
                p,
                (0.0..1.0).contains(&p),
                "at least 0 and less than 1",
            )?;
        }
        let (range, eps) = (self.initializer_range, self.layer_norm_eps);
        in_range(
            "initializer_range",
            range,
            range.is_finite() && range >= 0.0,
            "at least 0",
        )?;
        in_range(
            "layer_norm_eps",
            eps,
            eps.is_finite() && eps > 0.0,
            "more than 0",
        )
    }
}

fn in_range<T: ToString>(
    key: &'static str,
    found: T,
    holds: bool,
    expected: &str,
) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::Value {
        key,
        found: found.to_string(),
        expected: expected.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Result<GeneBertConfig, ConfigError> {
        GeneBertConfig::from_map(
            serde_json::from_str(text).unwrap(),
            Path::new("config.json"),
        )
    }

    #[test]
    fn distilberts_names_are_read_and_positions_are_named_as_ignored() {
        let config = parse(
            r#"{"dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 4, "dropout": 0.3,
                "attention_dropout": 0.2, "activation": "relu", "max_position_embeddings": 512,
                "initializer_range": 0.5, "model_type": "distilbert", "vocab_size": 9}"#,
        )
        .unwrap();
        assert_eq!((config.hidden_size, config.intermediate_size), (64, 128));
        assert_eq!(
            (config.num_hidden_layers, config.num_attention_heads),
            (2, 4)
        );
        assert_eq!(config.hidden_dropout_prob, 0.3);
        assert_eq!(config.attention_probs_dropout_prob, 0.2);
        assert_eq!(config.hidden_act, HiddenAct::Relu);
        assert_eq!(config.ignored, ["max_position_embeddings", "model_type"]);
        assert!(
            config
                .validate()
                .unwrap_err()
                .to_string()
                .contains("type_vocab_size is 0")
        );
        assert!(config.with_vocabulary(9, 5).validate().is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |text: &str| parse(text).unwrap_err().to_string();
        assert!(message(r#"{"hidden_sise": 64}"#).contains("hidden_sise"));
        assert!(message(r#"{"hidden_act": "swish"}"#).contains("swish"));
        assert!(message(r#"{"hidden_act": "swish"}"#).contains("gelu"));
        assert!(message(r#"{"dim": 64, "hidden_size": 64}"#).contains("`dim`"));
        let heads = message(r#"{"hidden_size": 64, "num_attention_heads": 5}"#);
        assert!(
            heads.contains("num_attention_heads is 5") && heads.contains("64"),
            "{heads}"
        );
        assert!(message(r#"{"hidden_dropout_prob": 1.0}"#).contains("less than 1"));
        let unknown = GeneBertConfig::built_in("gpt").unwrap_err().to_string();
        assert!(unknown.contains("distilbert_base"), "{unknown}");
    }

    #[test]
    fn built_in_configurations_are_read_and_survive_a_round_trip() {
        for name in GeneBertConfig::built_in_names() {
            let config = GeneBertConfig::built_in(name)
                .unwrap()
                .with_vocabulary(300, 900);
            config.validate().unwrap();
            let text = serde_json::to_string(&config).unwrap();
            let again = parse(&text).unwrap();
            assert_eq!(
                again,
                GeneBertConfig {
                    ignored: vec![],
                    ..config
                }
            );
        }
    }
}
