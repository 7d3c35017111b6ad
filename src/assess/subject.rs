//! Which cells are evaluated, and from which others the constant answers come.
//!
//! With files, all their cells (those of one part of a split, or `max_cells` of them), bound as `predict` binds them: a phenotype
//! that a file lacks is masked there. Without files, the cells that the run held out, bound as in
//! training, so that the figures are those of the run.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use crate::cell::CellSource;
use crate::config::RunConfig;
use crate::file::expand_paths;
use crate::infer::embed::Pooling;
use crate::infer::{Checkpoint, Model, Reading};
use crate::loader::{CellFile, DataSet, EvalSet, LoaderConfig, Selection};
use crate::train::data::{Data, Files, sets_or_files};
use crate::train::start::Start;

/// What is asked of an evaluation.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// The files; none: the cells that the run held out, or a part of the run's own files.
    pub files: Vec<PathBuf>,
    /// How they are read; `visible` is not used.
    pub reading: Reading,
    /// Phenotypes to predict; none: all that the model was trained with and a file has.
    pub phenotypes: Vec<String>,
    /// obs column by whose values figures are given too.
    pub group_by: Option<String>,
    /// Resamples of the bootstrap; 0: no intervals.
    pub num_resamples: u64,
    /// obs column whose groups of cells are drawn; `None`: cells are.
    pub bootstrap_by: Option<String>,
    /// Seed of masks and resamples; `None`: the run's.
    pub seed: Option<u64>,
    /// Probability that a gene is masked; `None`: as in training.
    pub gene_mask_prob: Option<f64>,
    /// Evaluate at most this many cells, drawn at random.
    pub max_cells: Option<u64>,
    /// Embed at most this many of them, for the map; 0: none.
    pub map_cells: u64,
    /// What stands for a cell in the map.
    pub pooling: Pooling,
    /// Let simple methods learn from the training cells and answer too.
    pub baselines: bool,
    /// The training files, where the run's own paths do not lead to them.
    pub train_data_paths: Vec<String>,
}

/// Why simple methods cannot be asked.
pub(super) const NO_TRAINING: &str = "--baselines: simple methods learn from the training cells, \
     which are not there\nhint: name the files with --train-data-paths";

/// Cells of a data set.
pub(super) struct Cells {
    pub(super) data: Arc<DataSet>,
    pub(super) selection: Selection,
}

/// What an evaluation looks at.
pub(super) struct Subject {
    /// The run's settings.
    pub(super) config: RunConfig,
    /// Seed of masks, resamples and draws of cells.
    pub(super) seed: u64,
    /// The evaluated cells; none where there are `sets`.
    pub(super) cells: Cells,
    /// Pre-masked sets that are evaluated instead.
    pub(super) sets: Vec<EvalSet>,
    /// In words, which they are.
    pub(super) described: String,
    /// The files they are in.
    pub(super) files: Vec<PathBuf>,
    /// The training cells, where they can be read.
    pub(super) training: Option<Cells>,
    pub(super) loader: LoaderConfig,
}

impl Subject {
    /// Settles all of it.
    ///
    /// # Errors
    /// Files that cannot be read or do not fit the checkpoint; no files given, and the run's own
    /// are not to be found, or it held no cells out.
    pub(super) fn settle(checkpoint: &Checkpoint, question: &Question) -> Result<Self> {
        ensure!(
            question.max_cells != Some(0),
            "--max-cells 0: there would be nothing to evaluate\nhint: leave it out to evaluate all \
             cells"
        );
        let mut config = settings(checkpoint, question);
        // The run's own seed says which cells it held out.
        let seed = question.seed.unwrap_or(config.seed);
        if let Some(probability) = question.gene_mask_prob {
            ensure!(
                matches!(checkpoint.model, Model::MaskedLM(_)),
                "--gene-mask-prob: a classifier masks no genes\nhint: leave it out"
            );
            ensure!(
                (0.0..=1.0).contains(&probability),
                "--gene-mask-prob {probability}: expected a probability, 0 to 1"
            );
            config.gene_mask_prob = probability;
        }
        let files = match (&question.reading.part, question.files.is_empty()) {
            (None, true) => return Self::of_run(checkpoint, question, config),
            (Some(_), true) => expand_paths(&config.train_data_paths)?,
            (_, false) => question.files.clone(),
        };
        let (sets, files) = sets_or_files(files)?;
        let cells = match &sets[..] {
            [] => given(checkpoint, question, &files, seed)?,
            _ => Cells::none(),
        };
        let sets = open_sets(checkpoint, &sets)?;
        let training = training(checkpoint, question, &config)?;
        Ok(Self {
            config,
            seed,
            cells,
            described: match &question.reading.part {
                _ if !sets.is_empty() => "pre-masked sets".to_owned(),
                Some(chosen) => format!("part {} of the files, by a split", chosen.part),
                None => "all cells of the files".to_owned(),
            },
            files: if sets.is_empty() {
                files
            } else {
                sets.iter().map(|set| set.path().to_owned()).collect()
            },
            sets,
            training,
            loader: question.reading.loader.clone(),
        })
    }

    fn of_run(checkpoint: &Checkpoint, question: &Question, config: RunConfig) -> Result<Self> {
        let path = checkpoint.path.display();
        let seed = question.seed.unwrap_or(config.seed);
        let context = || {
            format!(
                "{path}: no files were given, and the run's own cannot be used\nhint: name the \
                 files to evaluate, or start this where the run was started"
            )
        };
        if config.train_data_paths.is_empty() {
            bail!("{}", context());
        }
        let files = Files::open(&config).with_context(context)?;
        let data = bind(checkpoint, &config, &files)?;
        eprintln!("{}", data.describe());
        if !data.eval_sets.is_empty() {
            return Ok(Self {
                seed,
                cells: Cells::none(),
                described: "the run's pre-masked sets".to_owned(),
                files: files.eval_sets,
                sets: data.eval_sets,
                training: Some(Cells {
                    data: data.train,
                    selection: data.train_cells,
                }),
                loader: question.reading.loader.clone(),
                config,
            });
        }
        let Some((eval, selection)) = data.eval else {
            bail!(
                "{path}: the run held no cells out (--eval_fraction 0)\nhint: name the files to \
                 evaluate"
            );
        };
        let (source, described) = if files.eval.is_empty() {
            (&files.train, "the cells that the run held out of its files")
        } else {
            (&files.eval, "the run's evaluation files")
        };
        let selection = selection.at_most(eval.len(), question.max_cells, (seed, 2));
        Ok(Self {
            seed,
            cells: Cells {
                data: eval,
                selection,
            },
            sets: Vec::new(),
            described: described.to_owned(),
            files: source.iter().map(|file| file.path().to_owned()).collect(),
            training: Some(Cells {
                data: data.train,
                selection: data.train_cells,
            }),
            loader: question.reading.loader.clone(),
            config,
        })
    }

    /// Whether all that is asked for can be had.
    ///
    /// # Errors
    /// Simple methods without training cells.
    pub(super) fn check(&self, question: &Question) -> Result<()> {
        ensure!(
            !question.baselines || self.training.is_some(),
            "{NO_TRAINING}"
        );
        if let Some(set) = self.sets.first() {
            let flags = [
                ("--group-by", question.group_by.is_some()),
                ("--bootstrap-by", question.bootstrap_by.is_some()),
                ("--baselines", question.baselines),
                ("--max-cells", question.max_cells.is_some()),
                ("--gene-mask-prob", question.gene_mask_prob.is_some()),
            ];
            if let Some((flag, _)) = flags.iter().find(|(_, given)| *given) {
                bail!(
                    "{flag}: {} is a pre-masked set, which holds tokens and masks alone\nhint: leave \
                     it out, or name the h5ad files",
                    set.path().display()
                );
            }
        }
        Ok(())
    }

    /// In words, which cells the constant answers come from.
    pub(super) fn baseline_source(&self) -> &'static str {
        match self.training {
            Some(_) => "the training cells",
            None => {
                "the evaluated cells themselves, as the training files are not there (the best \
                 that constant answers can reach)"
            }
        }
    }

    /// The cells that the constant answers come from.
    pub(super) fn baseline_cells(&self) -> &Cells {
        self.training.as_ref().unwrap_or(&self.cells)
    }
}

impl Cells {
    fn none() -> Self {
        Self {
            data: Arc::new(DataSet::new(Vec::new())),
            selection: Selection::All,
        }
    }
}

fn open_sets(checkpoint: &Checkpoint, paths: &[PathBuf]) -> Result<Vec<EvalSet>> {
    if let (Model::Classifier(..), [path, ..]) = (&checkpoint.model, paths) {
        bail!(
            "{}: a pre-masked set tells no classes of cells\nhint: evaluate a classifier on h5ad \
             files",
            path.display()
        );
    }
    let open = |path: &PathBuf| Ok(EvalSet::open(path, &checkpoint.vocabulary)?);
    paths.iter().map(open).collect()
}

/// The run's settings, with the training files as given. How files are read is as given too, where
/// they are the run's own or given in place of those.
fn settings(checkpoint: &Checkpoint, question: &Question) -> RunConfig {
    let mut settings = checkpoint.run.clone();
    if question.files.is_empty() || !question.train_data_paths.is_empty() {
        settings = question.reading.given.clone().over(settings);
    }
    settings
        .included_phenotypes
        .get_or_insert_with(|| checkpoint.tokenize.included_phenotypes.clone());
    let mut config = settings.with_defaults();
    if !question.train_data_paths.is_empty() {
        config
            .train_data_paths
            .clone_from(&question.train_data_paths);
    }
    config
}

/// The files given, each with the phenotypes it has.
fn given(
    checkpoint: &Checkpoint,
    question: &Question,
    files: &[PathBuf],
    seed: u64,
) -> Result<Cells> {
    let (reading, trained) = (&question.reading, &checkpoint.tokenize);
    let (tokenizer, options) = (reading.tokenizer(checkpoint)?, reading.options(checkpoint));
    let mut members = Vec::new();
    for file in CellFile::all(files, &options)? {
        let columns = file.obs_columns().map_err(anyhow::Error::from_boxed)?;
        let has = |name: &&String| columns.contains(name);
        let shown = trained.included_phenotypes.iter().filter(has);
        let shown: Vec<String> = shown.cloned().collect();
        let bound = Arc::new(tokenizer.bind_showing(file.as_ref(), &shown)?);
        let (cells, genes) = (file.num_cells(), bound.gene_match());
        eprintln!("{}: {cells} cells, {genes}", file.path().display());
        members.push((file as Arc<dyn CellSource>, bound));
    }
    let data = Arc::new(DataSet::new(members));
    if data.is_empty() {
        bail!("the files hold no cells\nhint: look at them with `gene-bert info`");
    }
    let selection = match &reading.part {
        Some(part) => part.cells(&data.sources().collect::<Vec<_>>())?,
        None => Selection::All,
    };
    if selection.len(data.len()) == 0 {
        bail!(
            "no cell of the files is in the part that was asked for\nhint: `gene-bert split` says \
             how many cells each part has"
        );
    }
    let selection = selection.at_most(data.len(), question.max_cells, (seed, 2));
    Ok(Cells { data, selection })
}

/// The training cells of the run; `None` where its files are not to be found.
fn training(
    checkpoint: &Checkpoint,
    question: &Question,
    config: &RunConfig,
) -> Result<Option<Cells>> {
    let mut config = config.clone();
    if config.train_data_paths.is_empty() {
        return Ok(None);
    }
    if !config.eval_data_paths.is_empty() || !question.train_data_paths.is_empty() {
        config.eval_data_paths.clear();
        config.eval_fraction = 0.0;
    }
    let found = Files::open(&config).and_then(|files| bind(checkpoint, &config, &files));
    match found {
        Ok(data) => Ok(Some(Cells {
            data: data.train,
            selection: data.train_cells,
        })),
        Err(error) if !question.train_data_paths.is_empty() => {
            Err(error.context("--train-data-paths"))
        }
        Err(error) => {
            eprintln!("note: the training files cannot be read ({error}); --train-data-paths");
            Ok(None)
        }
    }
}

fn bind(checkpoint: &Checkpoint, config: &RunConfig, files: &Files) -> Result<Data> {
    let start = Start::new(config, Some(&checkpoint.path), files)?;
    Data::bind(config, files, &start)
}
