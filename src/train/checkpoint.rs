//! Checkpoints: a folder that other tools read and a run continues from.
//!
//! | file | what |
//! |---|---|
//! | `config.json` | the model's shape, Hugging Face's keys |
//! | `model.safetensors` | weights, f32, the names of DistilBERT |
//! | `tokenizer.json` | a Hugging Face tokenizers file (WordLevel) |
//! | `gene_bert.json` | genes, bins, tokenization settings, fingerprint |
//! | `run.toml` | the resolved configuration |
//! | `trainer_state.json` | step, place in the data, hooks' state |
//! | `optimizer.safetensors` | AdamW's moments (not in `checkpoint-best`) |
//!
//! A checkpoint is written under a temporary name and renamed when it is whole, so that a folder
//! named `checkpoint-*` is always whole, whatever kills the process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::shard::Shards;
use crate::file::{StagedDir, read_json, write_atomic};
use crate::loader::LoaderState;
use crate::model::Parameters;
use crate::optim::AdamW;
use crate::tokenize::TokenizeConfig;
use crate::vocab::Vocabulary;

const FORMAT: u32 = 1;
/// The best checkpoint's folder, beside `checkpoint-<step>`.
pub const BEST: &str = "checkpoint-best";

/// Where a run stands between two steps.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerState {
    /// Version of this file.
    pub format: u32,
    /// Optimizer steps done.
    pub step: u64,
    /// Place in the data.
    pub loader: LoaderState,
    /// Cells seen.
    pub num_cells: u64,
    /// Real tokens seen.
    pub num_tokens: u64,
    /// Steps left out because their loss or gradient was not finite.
    pub skipped_steps: u64,
    /// Cells of this epoch that were skipped, as a phenotype is unknown.
    #[serde(default)]
    pub skipped_cells: u64,
    /// Processes that the run began with: its batch sizes are for so many. Default 1.
    #[serde(default = "one")]
    pub num_processes: u64,
    /// Each hook's state under its name.
    pub hooks: BTreeMap<String, Value>,
}

fn one() -> u64 {
    1
}

impl TrainerState {
    /// The state before the first step of a run in `num_processes`.
    pub fn new(loader: LoaderState, num_processes: u64) -> Self {
        Self {
            format: FORMAT,
            step: 0,
            loader,
            num_cells: 0,
            num_tokens: 0,
            skipped_steps: 0,
            skipped_cells: 0,
            num_processes,
            hooks: BTreeMap::new(),
        }
    }
}

/// Everything a checkpoint holds.
pub struct Contents<'a> {
    /// `config.json`: the model's shape, and what it answers.
    pub model_json: &'a Value,
    /// Its weights.
    pub parameters: &'a Parameters,
    /// Tokens and genes.
    pub vocabulary: &'a Vocabulary,
    /// How cells become tokens.
    pub tokenize: &'a TokenizeConfig,
    /// The resolved configuration.
    pub run_toml: &'a str,
    /// Where the run stands.
    pub state: &'a TrainerState,
    /// AdamW's moments; `None`: a checkpoint to use, not to continue from.
    pub optimizer: Option<&'a AdamW>,
    /// How the moments are divided over ranks, where they are: the others give theirs meanwhile.
    pub(super) shards: Option<&'a Shards>,
}

/// Writes a checkpoint folder, replacing one of that name.
///
/// # Errors
/// A file that cannot be written (a full disk, say); what stood under `path` is then still there.
pub fn save(path: &Path, contents: &Contents<'_>) -> Result<()> {
    let staged = StagedDir::new(path)?;
    let dir = staged.path();
    let json = |value: &Value| serde_json::to_vec_pretty(value);
    write_atomic(&dir.join("config.json"), &json(contents.model_json)?)?;
    contents.parameters.save(&dir.join("model.safetensors"))?;
    contents
        .vocabulary
        .save(dir, &serde_json::to_value(contents.tokenize)?)?;
    write_atomic(&dir.join("run.toml"), contents.run_toml.as_bytes())?;
    let state = serde_json::to_value(contents.state)?;
    write_atomic(&dir.join("trainer_state.json"), &json(&state)?)?;
    if let Some(optimizer) = contents.optimizer {
        let path = dir.join("optimizer.safetensors");
        match contents.shards {
            None => optimizer.save(&path)?,
            Some(shards) => optimizer.save_all(&path, |p, own| shards.whole(p, own))?,
        }
    }
    staged.commit()?;
    Ok(())
}

/// Reads a checkpoint's place in the run.
///
/// # Errors
/// No such checkpoint, one without `trainer_state.json`, or of another format.
pub fn load_state(checkpoint: &Path) -> Result<TrainerState> {
    let path = checkpoint.join("trainer_state.json");
    let state: TrainerState = read_json(&path)?;
    if state.format != FORMAT {
        bail!(
            "{}: format {} is not known to this version, which writes {FORMAT}\n\
             hint: continue with the version of gene-bert that wrote it",
            path.display(),
            state.format
        );
    }
    Ok(state)
}

/// A checkpoint that a run can continue from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Optimizer steps done.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
}

/// The `checkpoint-<step>` folders of a run, by ascending step; none if there is no such folder.
///
/// # Errors
/// A folder that cannot be listed.
pub fn list(output_dir: &Path) -> Result<Vec<Saved>> {
    let mut saved = Vec::new();
    if !output_dir.is_dir() {
        return Ok(saved);
    }
    let context = || format!("{}: cannot list the folder", output_dir.display());
    for entry in fs::read_dir(output_dir).with_context(context)? {
        let entry = entry.with_context(context)?;
        let name = entry.file_name();
        let step = name
            .to_str()
            .and_then(|n| n.strip_prefix("checkpoint-")?.parse().ok());
        if let Some(step) = step {
            saved.push(Saved {
                step,
                path: entry.path(),
            });
        }
    }
    saved.sort_by_key(|s| s.step);
    Ok(saved)
}

/// The checkpoint to continue from: `path` itself, or the latest of the run folder `path`.
///
/// # Errors
/// A folder that holds no checkpoint with an optimizer's state.
pub fn to_resume(path: &Path) -> Result<PathBuf> {
    if path.join("trainer_state.json").is_file() {
        if !path.join("optimizer.safetensors").is_file() {
            bail!(
                "{}: this checkpoint holds weights but no optimizer state, so the run cannot \
                 continue from it\nhint: resume from one of {}/checkpoint-<step>, or start a new \
                 run from these weights with --pretrained_model_path",
                path.display(),
                path.parent().unwrap_or(path).display()
            );
        }
        return Ok(path.to_owned());
    }
    match list(path)?.pop() {
        Some(last) => Ok(last.path),
        None => bail!(
            "{}: there is no checkpoint to resume from\nhint: leave --resume out to start anew",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_latest_checkpoint_is_resumed_and_temporary_ones_are_not_seen() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "checkpoint-9",
            "checkpoint-10",
            "checkpoint-best",
            ".checkpoint-11.tmp",
        ] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let steps: Vec<u64> = list(dir.path()).unwrap().iter().map(|s| s.step).collect();
        assert_eq!(steps, [9, 10]);
        assert_eq!(
            to_resume(dir.path()).unwrap(),
            dir.path().join("checkpoint-10")
        );
        assert!(to_resume(&dir.path().join("nothing")).is_err());
    }
}
