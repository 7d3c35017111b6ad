//! Flags and TOML file become one [`RunConfig`].

use std::path::{Path, PathBuf};

use super::settings::{KEYS, RunConfig, Settings};
use super::spelling::nearest;
use super::validate::Invalid;
use crate::file::{FileError, read_string};
use crate::h5ad::MatrixKey;
use crate::tokenize::TokenizeError;

/// Flags that say what to do now rather than what the run is: they are not keys of the file.
const ACTIONS: [&str; 3] = ["config", "resume", "overwrite_output_dir"];

/// Why the settings of a run could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The TOML file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The TOML file has a key that is no setting.
    #[error("{}: unknown key `{key}`\nhint: {hint}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The nearest setting, or where they are listed.
        hint: String,
    },
    /// The TOML file is no TOML, or a value has the wrong type.
    #[error("{}: cannot be read as settings: {}", path.display(), .source.to_string().trim_end())]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: Box<toml::de::Error>,
    },
    /// The file of per-gene bin edges has edges that cannot work.
    #[error("{}: cannot be used as bin edges\n\
             hint: expected JSON {{\"GENE\": [EDGE, …], …}}, edges ascending, the same number for \
             each gene", path.display())]
    BinEdges {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<TokenizeError>,
    },
    /// No kind of bins is set, or more than one.
    #[error(
        "not one kind of bins is set\nhint: set exactly one of bin_edges, bin_edges_path, quantile_bins"
    )]
    NoBins,
    /// The model's configuration cannot be used.
    #[error(transparent)]
    Model(Box<crate::model::ConfigError>),
    /// The model is not there.
    #[error("{}: no such file or folder (pretrained_model_path)\nhint: {hint}", path.display())]
    NoSuchModel {
        /// What was named.
        path: PathBuf,
        /// What to do.
        hint: String,
    },
    /// No model is named, or more than one.
    #[error("no model is set\nhint: set one of pretrained_model_path and model_arch")]
    NoModel,
    /// A checkpoint with weights that do not fit the shape asked for.
    #[error(
        "setting {key}: {asked} was asked for, but the checkpoint's weights have {has}\n\
             hint: leave {key} out, or name a config file instead of the checkpoint to start \
             from random weights"
    )]
    Override {
        /// The setting.
        key: &'static str,
        /// Its value.
        asked: usize,
        /// What the weights have.
        has: usize,
    },
    /// A setting that TOML cannot hold.
    #[error("the settings cannot be written as TOML")]
    Write(#[from] toml::ser::Error),
    /// Settings that contradict each other or cannot work.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Every flag of a training run.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct RunFlags {
    /// Settings from a TOML file, with the same names as the flags; flags win over the file
    #[arg(long, value_name = "FILE.toml", help_heading = "Run")]
    pub config: Option<PathBuf>,
    /// Read layers.NAME: short for --matrix layers.NAME
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "matrix",
        help_heading = "Data"
    )]
    pub layer: Option<String>,
    /// Continue an interrupted run bit for bit, from its last checkpoint or from CHECKPOINT
    #[arg(long, value_name = "CHECKPOINT", num_args = 0..=1, help_heading = "Run")]
    pub resume: Option<Option<PathBuf>>,
    /// Start anew in an output folder that already holds a run
    #[arg(long, help_heading = "Run")]
    pub overwrite_output_dir: bool,
    /// The settings proper.
    #[command(flatten)]
    pub settings: Settings,
}

/// Where to continue from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Resume {
    /// Start a new run.
    #[default]
    No,
    /// The last checkpoint of the output folder.
    Latest,
    /// This checkpoint folder.
    From(PathBuf),
}

impl RunFlags {
    /// Whether and where to continue from.
    pub fn resume(&self) -> Resume {
        match &self.resume {
            None => Resume::No,
            Some(None) => Resume::Latest,
            Some(Some(path)) => Resume::From(path.clone()),
        }
    }

    /// Defaults < `--config` file < flags. Not validated yet.
    ///
    /// # Errors
    /// A file that is unreadable, is no TOML, or has unknown keys or values of the wrong type.
    pub fn resolve(&self) -> Result<RunConfig, ConfigError> {
        self.resolve_over(Settings::default())
    }

    /// `lower` (for example the settings of the checkpoint resumed from) < `--config` file < flags.
    ///
    /// # Errors
    /// As [`RunFlags::resolve`].
    pub fn resolve_over(&self, lower: Settings) -> Result<RunConfig, ConfigError> {
        let file = match &self.config {
            Some(path) => Settings::from_toml(&read_string(path)?, path)?,
            None => Settings::default(),
        };
        let mut flags = self.settings.clone();
        if let Some(layer) = &self.layer {
            flags.matrix = Some(MatrixKey::Layer(layer.clone()));
        }
        Ok(flags.over(file).over(lower).with_defaults())
    }
}

impl Settings {
    /// Reads the text of a TOML file; `path` is for messages.
    ///
    /// # Errors
    /// No TOML, unknown keys, values of the wrong type.
    pub fn from_toml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let wrong = |e| ConfigError::Toml {
            path: path.to_owned(),
            source: Box::new(e),
        };
        let table: toml::Table = toml::from_str(text).map_err(wrong)?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let hint = hint_for(key);
            return Err(ConfigError::UnknownKey {
                path: path.to_owned(),
                key: key.clone(),
                hint,
            });
        }
        toml::from_str(text).map_err(wrong)
    }
}

/// What to write in place of an unknown key.
fn hint_for(key: &str) -> String {
    if key == "layer" {
        return "write `matrix = \"layers.NAME\"`".to_owned();
    }
    if ACTIONS.contains(&key) {
        return format!("give --{key} on the command line; it is not a setting of the run");
    }
    match nearest(key, KEYS.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => {
            "the keys are the names of the flags, with `_`: see `gene-bert check --help`".into()
        }
    }
}

impl RunConfig {
    /// Every setting as TOML, in the order of the table; unset ones are left out. Reads back
    /// through `--config` to the same value.
    ///
    /// # Errors
    /// A number or path that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        Ok(toml::to_string(self)?)
    }

    /// Reads what [`RunConfig::to_toml`] wrote.
    ///
    /// # Errors
    /// As [`RunFlags::resolve`].
    pub fn from_toml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Ok(Settings::from_toml(text, path)?.with_defaults())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: RunFlags,
    }

    fn flags(line: &str) -> RunFlags {
        let words = std::iter::once("x").chain(line.split_whitespace());
        Line::try_parse_from(words)
            .map(|line| line.flags)
            .unwrap_or_else(|e| panic!("{e}"))
    }

    fn file(text: &str) -> Result<RunConfig, String> {
        RunConfig::from_toml(text, Path::new("run.toml")).map_err(|e| e.to_string())
    }

    /// Flags for every setting, with values that are not the defaults.
    fn every_flag() -> String {
        let mut line = String::new();
        for arg in Line::command().get_arguments() {
            let Some(name) = arg.get_long() else { continue };
            let value = match name {
                "config" | "resume" | "layer" | "overwrite-output-dir" | "help" => continue,
                "allow-scaled"
                | "use-flash-attn"
                | "auto-find-batch-size"
                | "balanced-dataset"
                | "recompute"
                | "tf32"
                | "shard-optimizer" => "=true",
                "matrix" => " layers.counts",
                "bin-edges" => " -0.5 0.1 2",
                "unknown-phenotype" => " mask",
                "gene-order" => " expression",
                "compat" => " perturbgene",
                "shuffle" => " sequential",
                "remainder" => " repeat",
                "class-weights" => " none",
                "absent-gene-sampling" => " frequency",
                "lr-scheduler-type" => " inverse_sqrt",
                "device" => " cuda:1",
                "init-gene-embeddings" => " components",
                "dtype" | "reduce-dtype" => " bf16",
                "report-to" => " wandb,mlflow",
                "transform" => " log1p",
                "augment" => " thin:0.5",
                _ if arg.get_help().unwrap().to_string().contains("0.") => " 0.25",
                _ => " 7",
            };
            line.push_str(&format!(" --{name}{value}"));
        }
        line
    }

    #[test]
    fn every_setting_survives_toml() {
        for line in ["", &every_flag()] {
            let config = flags(line).resolve().unwrap();
            let text = config.to_toml().unwrap();
            assert_eq!(file(&text).unwrap(), config, "{text}");
        }
        let given = flags(&every_flag()).settings;
        let text = given.clone().with_defaults().to_toml().unwrap();
        for key in KEYS {
            assert!(
                text.contains(&format!("{key} = ")),
                "{key} is not in\n{text}"
            );
        }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.toml");
        std::fs::write(&path, "seed = 1\nmax_length = 99\nuse_flash_attn = true\n").unwrap();
        let line = format!(
            "--config {} --seed 2 --use-flash-attn=false",
            path.display()
        );
        let config = flags(&line).resolve().unwrap();
        assert_eq!(
            (config.seed, config.max_length, config.use_flash_attn),
            (2, 99, false)
        );
        assert_eq!(config.dataloader_num_workers, 4);
        let lower = Settings {
            seed: Some(5),
            save_steps: Some(3),
            ..Settings::default()
        };
        let config = flags(&line).resolve_over(lower).unwrap();
        assert_eq!((config.seed, config.save_steps), (2, Some(3)));
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_refused_with_the_place() {
        let text = file("max_lenght = 5").unwrap_err();
        assert!(
            text.contains("run.toml: unknown key `max_lenght`"),
            "{text}"
        );
        assert!(text.contains("did you mean `max_length`?"), "{text}");
        let text = file("resume = true").unwrap_err();
        assert!(text.contains("on the command line"), "{text}");
        assert!(
            file("layer = 'counts'")
                .unwrap_err()
                .contains("layers.NAME")
        );
        assert!(
            file("[tokens]\nmax_length = 5")
                .unwrap_err()
                .contains("unknown key `tokens`")
        );
        let text = file("seed = 1\nmax_length = 'five'").unwrap_err();
        assert!(text.contains("line 2") && text.contains("five"), "{text}");
        assert!(
            file("gene_order = 'size'")
                .unwrap_err()
                .contains("expression"),
            "names choices"
        );
        assert!(
            file("matrix = 'counts'")
                .unwrap_err()
                .contains("layers.<name>")
        );
        assert!(file("device = 'gpu'").unwrap_err().contains("cuda:N"));
        assert!(file("seed = ").unwrap_err().contains("run.toml"));
    }

    #[test]
    fn short_forms() {
        assert_eq!(
            flags("--layer counts").resolve().unwrap().matrix,
            MatrixKey::Layer("counts".into())
        );
        assert_eq!(flags("").resume(), Resume::No);
        assert_eq!(flags("--resume").resume(), Resume::Latest);
        assert_eq!(flags("--resume a/b").resume(), Resume::From("a/b".into()));
        assert!(Line::try_parse_from(["x", "--layer", "a", "--matrix", "X"]).is_err());
    }

    /// The help of a flag says its default; this keeps it true.
    #[test]
    fn defaults_in_the_help_are_the_defaults() {
        let text = RunFlags::default().resolve().unwrap().to_toml().unwrap();
        let defaults: toml::Table = toml::from_str(&text).unwrap();
        for arg in Line::command().get_arguments() {
            let Some(name) = arg.get_long().map(|n| n.replace('-', "_")) else {
                continue;
            };
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let said = help
                .split_once("[default: ")
                .map(|(_, s)| s.trim_end_matches(']'));
            match (said, defaults.get(&name)) {
                (None, Some(value)) => {
                    let empty = value.as_array().is_some_and(Vec::is_empty);
                    assert!(
                        empty || value.as_bool() == Some(false),
                        "{name}: {value} is not said"
                    );
                }
                (Some(said), Some(toml::Value::String(value))) => assert_eq!(said, value),
                (Some(said), Some(value)) => {
                    let value = value.as_float().or(value.as_integer().map(|i| i as f64));
                    assert_eq!(said.parse().ok(), value, "{name}");
                }
                (_, None) => {}
            }
        }
    }
}
