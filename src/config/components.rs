//! The settings of each component, taken out of a [`RunConfig`].

use super::settings::RunConfig;
use crate::h5ad::{OpenOptions, ValuePolicy};

/// Settings that change where, how fast or how loudly a run goes, but not what it computes: they
/// may differ when a run is resumed.
const FREE_ON_RESUME: [&str; 16] = [
    "train_data_paths",
    "eval_data_paths",
    "shard_size",
    "vocab_path",
    "bin_edges_path",
    "pretrained_model_path",
    "output_dir",
    "per_device_eval_batch_size",
    "eval_steps",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    "dataloader_num_workers",
    "threads",
    "device",
    "use_flash_attn",
];

impl RunConfig {
    /// How the h5ad files are opened.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions {
            matrix: self.matrix.clone(),
            gene_id_column: self.gene_id_column.clone(),
            values: if self.allow_scaled {
                ValuePolicy::Any
            } else {
                ValuePolicy::NonNegative
            },
            ..OpenOptions::default()
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::config::Settings;

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
    fn free_settings_are_settings() {
        for name in FREE_ON_RESUME {
            assert!(crate::config::settings::KEYS.contains(&name), "{name}");
        }
    }
}
