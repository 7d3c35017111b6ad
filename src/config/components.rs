//! The settings of each component, taken out of a [`RunConfig`].

use std::collections::BTreeMap;
use std::path::Path;

use super::choices::Dtype;
use super::resolve::ConfigError;
use super::settings::{RunConfig, Settings};
use crate::file::read_json;
use crate::h5ad::{GeneMap, OpenOptions, ValuePolicy};
use crate::kernels::products::Precision;
use crate::loader::{
    DataSet, LoaderConfig, LoaderError, MlmConfig, OrderBy, Remainder, Sampler, SamplerConfig,
    Selection, Shuffle,
};
use crate::model::GeneBertConfig;
use crate::optim::{AdamWConfig, ScheduleConfig};
use crate::tokenize::{Bins, TokenizeConfig};

/// Settings that change where, how fast or how loudly a run goes, but not what it computes: they
/// may differ when a run is resumed.
const FREE_ON_RESUME: [&str; 25] = [
    "train_data_paths",
    "eval_data_paths",
    "split_file",
    "shard_size",
    "gene_map",
    "vocab_path",
    "bin_edges_path",
    "pretrained_model_path",
    "output_dir",
    "per_device_eval_batch_size",
    "auto_find_batch_size",
    "eval_steps",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    "report_to",
    "report_wait",
    "dataloader_num_workers",
    "reduce_bucket_mib",
    "shard_optimizer",
    "rank_timeout",
    "recompute",
    "threads",
    "device",
    "use_flash_attn",
];

/// The model's configuration in a checkpoint folder.
const CONFIG_FILE: &str = "config.json";
const DEFAULT_EPOCHS: f64 = 3.0;

impl RunConfig {
    /// How the h5ad files are opened.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions {
            matrix: self.matrix.clone(),
            gene_id_column: self.gene_id_column.clone(),
            gene_map: self.gene_map.as_deref().map(GeneMap::at),
            values: if self.allow_scaled {
                ValuePolicy::Any
            } else {
                ValuePolicy::NonNegative
            },
            ..OpenOptions::default()
        }
    }

    /// How cells become tokens; reads the file of per-gene edges, where there is one.
    ///
    /// # Errors
    /// An edge file that is absent, is no JSON object gene → edges, or has edges that do not
    /// ascend or differ in number; no bins at all (see [`RunConfig::validate`]).
    pub fn tokenize_config(&self) -> Result<TokenizeConfig, ConfigError> {
        Ok(self.tokenize_with(self.bins()?))
    }

    /// How cells become tokens with these bins, such as a checkpoint's.
    pub fn tokenize_with(&self, bins: Bins) -> TokenizeConfig {
        TokenizeConfig {
            bins,
            included_phenotypes: self.included_phenotypes.clone(),
            max_length: self.max_length,
            num_top_genes: self.num_top_genes,
            gene_order: self.gene_order,
            transform: self.transform.clone(),
            augment: self.augment.clone(),
            unknown_phenotype: self.unknown_phenotype,
            min_gene_overlap: self.min_gene_overlap,
            allow_scaled: self.allow_scaled,
            compat: self.compat,
        }
    }

    /// Between which values the bins are.
    ///
    /// # Errors
    /// As [`RunConfig::tokenize_config`].
    pub fn bins(&self) -> Result<Bins, ConfigError> {
        match (&self.bin_edges, &self.bin_edges_path, self.quantile_bins) {
            (Some(edges), None, None) => Ok(Bins::Shared(edges.clone())),
            (None, Some(path), None) => {
                let genes: BTreeMap<String, Vec<f64>> = read_json(path)?;
                let bins = Bins::PerGene(genes);
                let wrong = |e| ConfigError::BinEdges {
                    path: path.clone(),
                    source: Box::new(e),
                };
                bins.num_edges().map_err(wrong)?;
                Ok(bins)
            }
            (None, None, Some(number)) => Ok(Bins::Quantile(number)),
            _ => Err(ConfigError::NoBins),
        }
    }

    /// What is masked.
    pub fn mlm_config(&self) -> MlmConfig {
        MlmConfig {
            gene_mask_prob: self.gene_mask_prob,
            phenotype_mask_prob: self.phenotype_mask_prob,
            absent_gene_sampling: self.absent_gene_sampling,
            compat: self.compat,
        }
    }

    /// The obs column that the order of the training cells goes by, if any.
    pub fn order_by(&self) -> Option<OrderBy> {
        let balance = self.balance_by.clone().map(OrderBy::Balance);
        let weight = self.weight_by.clone().map(OrderBy::Weight);
        let group = self.group_by.clone().map(OrderBy::Group);
        balance.or(weight).or(group)
    }

    /// In which order one process trains on the cells.
    pub fn sampler_config(&self) -> SamplerConfig {
        let by_default = match self.order_by() {
            Some(OrderBy::Balance(_) | OrderBy::Weight(_)) => Shuffle::Weighted,
            Some(OrderBy::Group(_)) => Shuffle::Grouped,
            None => Shuffle::Block,
        };
        SamplerConfig {
            seed: self.seed,
            shuffle: self.shuffle.unwrap_or(by_default),
            block_cells: self.block_cells,
            buffer_cells: self.buffer_cells,
            group_cells: self.per_device_train_batch_size,
            remainder: self.remainder,
            ..SamplerConfig::default()
        }
    }

    /// The order of training over `cells` of `data`, and the number of them that it leaves out
    /// because the obs column that it goes by says nothing of them.
    ///
    /// # Errors
    /// A setting that cannot work; a column that does not exist or cannot be gone by.
    pub fn sampler(&self, cells: Selection, data: &DataSet) -> Result<(Sampler, u64), LoaderError> {
        match self.order_by() {
            Some(by) => by.sampler(self.sampler_config(), cells, data),
            None => Ok((Sampler::new(self.sampler_config(), cells, data.len())?, 0)),
        }
    }

    /// A random order in which training cells are looked at before training: each once, whatever
    /// the order of training.
    pub fn looking_sampler_config(&self) -> SamplerConfig {
        SamplerConfig {
            shuffle: Shuffle::Block,
            remainder: Remainder::Pad,
            ..self.sampler_config()
        }
    }

    /// In which order one process evaluates: as the files have the cells.
    pub fn eval_sampler_config(&self) -> SamplerConfig {
        SamplerConfig {
            shuffle: Shuffle::Sequential,
            remainder: Remainder::Pad,
            ..self.sampler_config()
        }
    }

    /// How training cells are batched and read ahead.
    pub fn loader_config(&self) -> LoaderConfig {
        LoaderConfig {
            num_workers: self.dataloader_num_workers,
            batch_cells: self.per_device_train_batch_size,
            augments: true,
            ..LoaderConfig::default()
        }
    }

    /// How evaluation cells are batched and read ahead.
    pub fn eval_loader_config(&self) -> LoaderConfig {
        LoaderConfig {
            batch_cells: self.per_device_eval_batch_size,
            augments: false,
            ..self.loader_config()
        }
    }

    /// The shape of the model: built in, from a config file, or from a checkpoint folder; its
    /// vocabulary's sizes are as they stand there.
    ///
    /// # Errors
    /// No such model, a config that cannot be used, or one that the overrides do not fit.
    pub fn model_config(&self) -> Result<GeneBertConfig, ConfigError> {
        let wrong = |e| ConfigError::Model(Box::new(e));
        let mut config = match (&self.pretrained_model_path, &self.model_arch) {
            (Some(path), None) if !path.exists() => return Err(no_such_model(path)),
            (Some(path), None) => {
                let file = if path.is_dir() {
                    path.join(CONFIG_FILE)
                } else {
                    path.clone()
                };
                GeneBertConfig::from_file(&file).map_err(wrong)?
            }
            (None, Some(name)) => GeneBertConfig::built_in(name).map_err(wrong)?,
            _ => return Err(ConfigError::NoModel),
        };
        let has_weights = self
            .pretrained_model_path
            .as_ref()
            .is_some_and(|path| path.is_dir());
        for (key, asked, has) in [
            (
                "num_hidden_layers",
                self.num_hidden_layers,
                &mut config.num_hidden_layers,
            ),
            (
                "num_attention_heads",
                self.num_attention_heads,
                &mut config.num_attention_heads,
            ),
        ] {
            let Some(asked) = asked else { continue };
            if has_weights && asked != *has {
                return Err(ConfigError::Override {
                    key,
                    asked,
                    has: *has,
                });
            }
            *has = asked;
        }
        let sized = config.clone().with_vocabulary(config.pad_token_id + 1, 1);
        sized.validate().map_err(wrong)?;
        Ok(config)
    }

    /// `model` as this run computes it: precision, what is kept for the way back, dropout.
    pub fn as_computed(&self, mut model: GeneBertConfig) -> GeneBertConfig {
        model.precision = self.precision();
        model.recompute = self.recompute;
        if let Some(dropout) = self.hidden_dropout_prob {
            model.hidden_dropout_prob = dropout;
        }
        if let Some(dropout) = self.attention_probs_dropout_prob {
            model.attention_probs_dropout_prob = dropout;
        }
        model
    }

    /// In what matrix products are computed: on a GPU bf16, on the CPU f32, unless said otherwise.
    pub fn precision(&self) -> Precision {
        match self.dtype {
            None | Some(Dtype::Auto) if self.device.gpu().is_some() => Precision::Bf16,
            None => Precision::F32,
            Some(dtype) => dtype.precision(),
        }
    }

    /// The optimizer's numbers.
    pub fn adamw_config(&self) -> AdamWConfig {
        AdamWConfig {
            beta1: self.adam_beta1,
            beta2: self.adam_beta2,
            eps: self.adam_epsilon,
            weight_decay: self.weight_decay,
        }
    }

    /// The learning rate of each of `total_steps` optimizer steps.
    pub fn schedule_config(&self, total_steps: u64) -> ScheduleConfig {
        let (rate, schedule) = (self.learning_rate, self.lr_scheduler_type);
        match self.warmup_steps {
            Some(warmup_steps) => ScheduleConfig {
                learning_rate: rate,
                warmup_steps,
                schedule,
            },
            None => {
                ScheduleConfig::with_warmup_ratio(rate, self.warmup_ratio, total_steps, schedule)
            }
        }
    }

    /// Whether any kind of bins is set.
    pub fn gives_bins(&self) -> bool {
        self.bin_edges.is_some() || self.bin_edges_path.is_some() || self.quantile_bins.is_some()
    }

    /// Optimizer steps of the whole run, of which an epoch takes `steps_per_epoch`.
    pub fn total_steps(&self, steps_per_epoch: u64) -> u64 {
        let epochs = self.num_train_epochs.unwrap_or(DEFAULT_EPOCHS);
        let steps = || (epochs * steps_per_epoch as f64).ceil() as u64;
        self.max_steps.unwrap_or_else(steps)
    }

    /// Names of the settings that differ from those of the run that `saved` it and without which
    /// it cannot go on as if never interrupted. Paths may differ (files may have been moved): the
    /// fingerprints of what they hold are checked where they are opened.
    pub fn hinders_resume(&self, saved: &Self) -> Vec<&'static str> {
        let mut names = self.differences(saved);
        names.retain(|name| !FREE_ON_RESUME.contains(name));
        names
    }
}

impl From<TokenizeConfig> for Settings {
    /// What [`RunConfig::tokenize_with`] takes, without the bins; all else is unset.
    fn from(tokenize: TokenizeConfig) -> Self {
        Self {
            included_phenotypes: Some(tokenize.included_phenotypes),
            max_length: Some(tokenize.max_length),
            num_top_genes: tokenize.num_top_genes,
            gene_order: tokenize.gene_order,
            transform: Some(tokenize.transform),
            unknown_phenotype: Some(tokenize.unknown_phenotype),
            min_gene_overlap: Some(tokenize.min_gene_overlap),
            allow_scaled: Some(tokenize.allow_scaled),
            compat: tokenize.compat,
            ..Self::default()
        }
    }
}

/// What to say of a model that is not there: a built-in one may be meant.
fn no_such_model(path: &Path) -> ConfigError {
    let names = GeneBertConfig::built_in_names();
    let hint = match names.iter().find(|name| path == Path::new(name)) {
        Some(name) => format!("the built-in model is --model_arch {name}"),
        None => "name a model config (JSON) or a checkpoint folder, or a built-in model by \
                 --model_arch"
            .to_owned(),
    };
    let path = path.to_owned();
    ConfigError::NoSuchModel { path, hint }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_what_changes_the_result_hinders_a_resume() {
        let saved = RunConfig::default();
        let config = Settings {
            dataloader_num_workers: Some(9),
            output_dir: Some("moved".into()),
            seed: Some(43),
            ..Settings::default()
        }
        .with_defaults();
        assert_eq!(config.hinders_resume(&saved), ["seed"]);
        let mut names = config.differences(&saved);
        names.sort_unstable();
        assert_eq!(names, ["dataloader_num_workers", "output_dir", "seed"]);
    }

    #[test]
    fn per_gene_edges_are_read_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edges.json");
        let mut config = Settings {
            bin_edges_path: Some(path.clone()),
            ..Settings::default()
        }
        .with_defaults();
        let bins = |text: &str| {
            std::fs::write(&path, text).unwrap();
            config.tokenize_config().map(|c| c.bins).map_err(|e| {
                let source = std::error::Error::source(&e).map(ToString::to_string);
                format!("{e} / {}", source.unwrap_or_default())
            })
        };
        let Ok(Bins::PerGene(genes)) = bins(r#"{"A": [0.5, 1], "B": [2, 3]}"#) else {
            panic!()
        };
        assert_eq!(genes["B"], [2.0, 3.0]);
        for text in [
            r#"{"A": [1, 1]}"#,
            r#"{"A": [1], "B": [1, 2]}"#,
            "{}",
            "[1, 2]",
            "{",
        ] {
            let error = bins(text).unwrap_err();
            assert!(error.contains("edges.json"), "{text}: {error}");
        }
        config.bin_edges = Some(vec![1.0]);
        assert!(config.tokenize_config().is_err());
    }

    #[test]
    fn models_come_from_a_name_a_file_or_a_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let json = r#"{"dim": 32, "n_heads": 4, "hidden_dim": 64, "n_layers": 3}"#;
        std::fs::write(dir.path().join("config.json"), json).unwrap();
        let config = |settings: Settings| {
            settings
                .with_defaults()
                .model_config()
                .map_err(|e| e.to_string())
        };
        let at = |path: &std::path::Path| Settings {
            pretrained_model_path: Some(path.to_owned()),
            ..Settings::default()
        };
        let file = dir.path().join("config.json");
        assert_eq!(config(at(&file)).unwrap().num_hidden_layers, 3);
        let deeper = Settings {
            num_hidden_layers: Some(5),
            ..at(&file)
        };
        assert_eq!(config(deeper).unwrap().num_hidden_layers, 5);
        assert_eq!(config(at(dir.path())).unwrap().num_hidden_layers, 3);
        let deeper = Settings {
            num_hidden_layers: Some(5),
            ..at(dir.path())
        };
        assert!(config(deeper).unwrap_err().contains("hint: "));
        let heads = Settings {
            num_attention_heads: Some(5),
            ..at(&file)
        };
        assert!(config(heads).unwrap_err().contains("num_attention_heads"));
        let missing = config(at("distilbert_tiny".as_ref())).unwrap_err();
        assert!(missing.contains("hint: the built-in model is --model_arch distilbert_tiny"));
        let missing = config(at(&dir.path().join("absent"))).unwrap_err();
        assert!(missing.contains("absent: no such file or folder"));
        for name in GeneBertConfig::built_in_names() {
            let named = Settings {
                model_arch: Some(name.to_owned()),
                ..Settings::default()
            };
            assert!(config(named).is_ok(), "{name}");
        }
        assert!(config(Settings::default()).is_err());
    }

    #[test]
    fn token_settings_survive_the_way_back() {
        let tokenize = TokenizeConfig {
            included_phenotypes: vec!["sex".to_owned()],
            max_length: 77,
            num_top_genes: Some(5),
            gene_order: Some(crate::tokenize::GeneOrder::Random),
            min_gene_overlap: 0.25,
            allow_scaled: true,
            compat: Some(crate::tokenize::Compat::Perturbgene),
            ..TokenizeConfig::default()
        };
        let config = Settings::from(tokenize.clone()).with_defaults();
        assert_eq!(config.tokenize_with(tokenize.bins.clone()), tokenize);
    }

    #[test]
    fn warm_up_by_share_or_by_steps() {
        let mut config = RunConfig {
            warmup_ratio: 0.1,
            ..RunConfig::default()
        };
        assert_eq!(config.schedule_config(101).warmup_steps, 11);
        config.warmup_steps = Some(7);
        assert_eq!(config.schedule_config(101).warmup_steps, 7);
    }

    #[test]
    fn steps_by_epochs_or_by_number() {
        let mut config = RunConfig::default();
        assert_eq!(config.total_steps(7), 21);
        config.num_train_epochs = Some(0.5);
        assert_eq!(config.total_steps(7), 4);
        config.max_steps = Some(5);
        assert_eq!(config.total_steps(7), 5);
    }

    #[test]
    fn free_settings_are_settings() {
        for name in FREE_ON_RESUME {
            assert!(crate::config::settings::KEYS.contains(&name), "{name}");
        }
    }
}
