//! The first thing a new user runs: cells in, a small pretrained model out, and the proof that it
//! learned something: hidden phenotypes of held-out cells, next to the majority class.
//!
//! Without data of the user's, two h5ad files are simulated (`prepare::simulate`). It is an
//! ordinary run of `train::pretrain` with small settings; nothing here trains by itself.
//!
//! The settings are what learns fast on few cells (`tests/bench/README.md` has the log): few masked
//! genes, which would otherwise outweigh the phenotypes in the loss forty to one; small batches;
//! each cell's highest genes only; and initial weights wide enough for a hidden size of 64.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::config::{RunConfig, Settings};
use crate::dist::Ranks;
use crate::prepare::simulate;
use crate::train::figures::{Evaluation, PhenotypeFigures, Setting};
use crate::train::pretrain;
use crate::train::run::Asked;

/// Cells simulated where there are no data.
const SIMULATED_CELLS: usize = 2_000;

/// What `quickstart` is asked to do.
#[derive(Debug, Clone)]
pub struct Quickstart {
    /// h5ad files; none: simulate some.
    pub data: Vec<PathBuf>,
    /// obs columns to predict; none: those of the simulated files.
    pub phenotypes: Vec<String>,
    /// The run folder; a number is appended if it exists.
    pub output_dir: PathBuf,
    /// Passes over the cells.
    pub num_train_epochs: f64,
    /// Most tokens per cell.
    pub max_length: usize,
    /// Run seed.
    pub seed: u64,
    /// Compute threads; `None`: one per core.
    pub threads: Option<usize>,
}

/// Runs it and returns the evaluation of the held-out cells.
///
/// # Errors
/// Unreadable files, an obs column that does not exist, a folder that cannot be written.
pub fn run(quickstart: &Quickstart) -> Result<Evaluation> {
    let output_dir = free_folder(&quickstart.output_dir);
    let simulated = quickstart.data.is_empty();
    let (files, phenotypes) = if simulated {
        let dir = data_folder(&output_dir);
        let files = simulate::simulate(&dir, quickstart.seed, SIMULATED_CELLS)?;
        println!(
            "No --data given: simulated {SIMULATED_CELLS} cells (negative-binomial counts of cell \
             types with marker genes;\nthese are not real cells) in {}\n",
            list(&files)
        );
        let all = ["cell_type", "sex", "tissue"].map(str::to_owned).to_vec();
        let given = Some(quickstart.phenotypes.clone()).filter(|given| !given.is_empty());
        (files, given.unwrap_or(all))
    } else {
        (quickstart.data.clone(), quickstart.phenotypes.clone())
    };
    if phenotypes.is_empty() {
        bail!(
            "--data was given without --phenotypes\nhint: name the obs columns to predict, for \
             example --phenotypes cell_type; `gene-bert info {}` lists those there are",
            files[0].display()
        );
    }
    let config = settings(quickstart, &files, phenotypes, &output_dir)?;
    let outcome = pretrain::pretrain(&config, Asked::anew(&Arc::new(Ranks::alone())))?;
    let evaluation = outcome
        .evaluation
        .context("the run ended before its evaluation")?;
    println!("{}", verdict(&evaluation));
    println!("{}", next_steps(&files, &output_dir, &outcome.checkpoint));
    Ok(evaluation)
}

fn settings(
    quickstart: &Quickstart,
    files: &[PathBuf],
    phenotypes: Vec<String>,
    output_dir: &Path,
) -> Result<RunConfig> {
    let settings = Settings {
        train_data_paths: Some(files.iter().map(|f| f.display().to_string()).collect()),
        included_phenotypes: Some(phenotypes),
        unknown_phenotype: Some(crate::tokenize::UnknownPhenotype::Skip),
        model_arch: Some("quickstart".to_owned()),
        transform: Some("normalize_total:1e4+log1p".parse()?),
        bin_edges: Some(vec![0.01, 1.0, 2.0, 3.0]),
        gene_order: Some(crate::tokenize::GeneOrder::Expression),
        max_length: Some(quickstart.max_length),
        gene_mask_prob: Some(0.05),
        phenotype_mask_prob: Some(0.8),
        eval_fraction: Some(0.2),
        num_train_epochs: Some(quickstart.num_train_epochs),
        per_device_train_batch_size: Some(8),
        learning_rate: Some(1e-3),
        warmup_ratio: Some(0.1),
        seed: Some(quickstart.seed),
        threads: quickstart.threads,
        output_dir: Some(output_dir.to_owned()),
        ..Settings::default()
    };
    Ok(settings.with_defaults())
}

/// `wanted`, or the first of `wanted-2`, `wanted-3`, … that does not exist.
fn free_folder(wanted: &Path) -> PathBuf {
    let numbered = |n: u32| PathBuf::from(format!("{}-{n}", wanted.display()));
    let mut folder = wanted.to_owned();
    let mut n = 2;
    while folder.exists() {
        folder = numbered(n);
        n += 1;
    }
    folder
}

/// Where the simulated cells of a run go: beside its folder.
fn data_folder(output_dir: &Path) -> PathBuf {
    let mut name = output_dir.file_name().unwrap_or_default().to_owned();
    name.push(".data");
    output_dir.with_file_name(name)
}

fn list(files: &[PathBuf]) -> String {
    files
        .iter()
        .map(|f| f.display().to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

/// One sentence per phenotype, from the cells whose phenotypes were all hidden.
fn verdict(evaluation: &Evaluation) -> String {
    let hidden = evaluation
        .phenotypes
        .iter()
        .filter(|p| p.setting == Setting::AllHidden);
    let line = |p: &PhenotypeFigures| {
        format!(
            "{}: hidden, and predicted right in {:.1} % of {} held-out cells; always answering {} \
             is right in {:.1} % ({:.1} times that)",
            p.category,
            100.0 * p.figures.accuracy,
            p.num_cells,
            p.majority.as_deref().unwrap_or("the most common value"),
            100.0 * p.majority_accuracy,
            p.figures.accuracy / p.majority_accuracy.max(1e-9),
        )
    };
    hidden.map(line).collect::<Vec<_>>().join("\n")
}

fn next_steps(files: &[PathBuf], run_folder: &Path, checkpoint: &Path) -> String {
    format!(
        "\nNext:\n  \
         gene-bert info {}\n      what is in the file: layers, obs columns, problems\n  \
         gene-bert quickstart --data FILE.h5ad --phenotypes COLUMN\n      the same on your cells\n  \
         gene-bert mlm --help\n      every setting of a real run; this run's are in {}\n  \
         {}\n      the model: config.json, model.safetensors and tokenizer.json are Hugging Face's \
         formats",
        files[0].display(),
        run_folder.join("run.toml").display(),
        checkpoint.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_simulated_cells_of_its_own() {
        let folder = |run: &str| data_folder(Path::new(run));
        assert_eq!(folder("q/v1.0"), Path::new("q/v1.0.data"));
        assert_eq!(folder("q/v1.1"), Path::new("q/v1.1.data"));
        assert_eq!(folder("run"), Path::new("run.data"));
    }
}
