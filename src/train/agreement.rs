//! Whether all ranks are about to train the same model on the same cells: each tells what it has,
//! and any difference ends the run before its first step, naming the rank and what differs.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::buffers::{read, to_host};
use crate::config::RunConfig;
use crate::dist::Ranks;
use crate::loader::LoaderState;
use crate::parameters::Parameters;
use crate::vocab::Vocabulary;

/// Settings that may differ between machines without changing the result.
const OF_THE_MACHINE: [&str; 6] = [
    "output_dir",
    "threads",
    "dataloader_num_workers",
    "device",
    "train_data_paths",
    "eval_data_paths",
];

/// What one rank has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    version: String,
    settings: String,
    vocabulary: String,
    weights: String,
    step: u64,
    data: LoaderState,
}

impl Fingerprint {
    pub fn new(
        config: &RunConfig,
        vocabulary: &Vocabulary,
        parameters: &Parameters,
        step: u64,
        data: LoaderState,
    ) -> Result<Self> {
        let mut weights = Sha256::new();
        for (name, var) in parameters.iter() {
            weights.update(name);
            for value in &*read::<f32>(&to_host(var.as_tensor())?)? {
                weights.update(value.to_le_bytes());
            }
        }
        let weights = weights.finalize();
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            settings: config.to_toml()?,
            vocabulary: vocabulary.fingerprint(),
            weights: weights.iter().map(|byte| format!("{byte:02x}")).collect(),
            step,
            data,
        })
    }

    /// What of `other`, rank `rank`'s, is not as here, rank 0's.
    fn differences(&self, other: &Self, rank: usize) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut compare = |what: &str, here: &str, there: &str| {
            if here != there {
                found.push(format!(
                    "{what} is {there} on rank {rank}, {here} on rank 0"
                ));
            }
        };
        let short = |hash: &str| hash.chars().take(12).collect::<String>();
        compare("the version of gene-bert", &self.version, &other.version);
        let (here, there) = (&self.vocabulary, &other.vocabulary);
        compare("the vocabulary", &short(here), &short(there));
        let place = |state: &Fingerprint| format!("step {}", state.step);
        compare("the checkpoint", &place(self), &place(other));
        compare("weights", &short(&self.weights), &short(&other.weights));
        let data = |state: &Fingerprint| serde_json::to_string(&state.data);
        compare("the data", &data(self)?, &data(other)?);
        let read = |text: &str| RunConfig::from_toml(text, Path::new("settings of a rank"));
        let (here, there) = (read(&self.settings)?, read(&other.settings)?);
        for name in there.differences(&here) {
            if !OF_THE_MACHINE.contains(&name) {
                let (here, there) = (line(&self.settings, name), line(&other.settings, name));
                compare(&format!("--{name}"), here, there);
            }
        }
        Ok(found)
    }
}

/// The value of `name` as the settings have it.
fn line<'t>(settings: &'t str, name: &str) -> &'t str {
    let lines = settings.lines().filter_map(|line| line.split_once(" = "));
    let mut lines = lines.filter(|(key, _)| *key == name);
    lines.next().map_or("not set", |(_, value)| value)
}

/// Compares what all ranks have.
///
/// # Errors
/// They differ: says in what.
pub(super) fn check(ranks: &Ranks, own: &Fingerprint) -> Result<()> {
    if ranks.world() == 1 {
        return Ok(());
    }
    let messages = ranks.group().gather(serde_json::to_vec(own)?)?;
    let mut all = Vec::new();
    for (rank, message) in messages.iter().enumerate() {
        let theirs: Fingerprint = serde_json::from_slice(message)
            .with_context(|| format!("rank {rank} runs another version of gene-bert"))?;
        all.push(theirs);
    }
    let mut found = Vec::new();
    for (rank, theirs) in all.iter().enumerate().skip(1) {
        found.extend(all[0].differences(theirs, rank)?);
    }
    if found.is_empty() {
        return Ok(());
    }
    bail!(
        "the ranks are not about to train the same: {}\nhint: every rank needs the same command, \
         files and build",
        found.join("; ")
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn differences_name_the_rank_and_the_values() {
        let print = |seed: u64, threads: usize, weights: &str| Fingerprint {
            version: "1".to_owned(),
            settings: RunConfig {
                seed,
                threads: Some(threads),
                ..RunConfig::default()
            }
            .to_toml()
            .unwrap(),
            vocabulary: "v".to_owned(),
            weights: weights.to_owned(),
            step: 0,
            data: serde_json::from_value(serde_json::json!({
                "epoch": 0, "position": 0, "seed": 1, "shuffle": "block", "block_cells": 1,
                "buffer_cells": 1, "sources": [], "selected_cells": 1, "selection": "all",
            }))
            .unwrap(),
        };
        let first = print(1, 1, "aa");
        assert!(first.differences(&print(1, 9, "aa"), 1).unwrap().is_empty());
        let found = first.differences(&print(2, 1, "bb"), 3).unwrap();
        assert_eq!(
            found,
            [
                "weights is bb on rank 3, aa on rank 0",
                "--seed is 2 on rank 3, 1 on rank 0"
            ]
        );
    }
}
