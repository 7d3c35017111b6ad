//! The cells of a run: files opened, bound to the vocabulary, divided into training and held-out.
//!
//! Who is held out is settled by [`Divided`].

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::divided::Divided;
use super::start::Start;
use super::values::Kinds;
use crate::cell::CellSource;
use crate::config::RunConfig;
use crate::dist::Ranks;
use crate::file::expand_paths;
use crate::loader::{CellFile, DataSet, EvalSet, Loader, PlainCollator, Sampler, Selection};
use crate::tokenize::Tokenizer;

/// The opened files.
pub struct Files {
    /// Of the training cells.
    pub train: Vec<Arc<CellFile>>,
    /// Of the evaluation cells; none where a share is held out.
    pub eval: Vec<Arc<CellFile>>,
    /// Pre-masked sets to evaluate on instead.
    pub eval_sets: Vec<PathBuf>,
}

/// The cells of a run.
pub struct Data {
    /// The training files (held-out cells of theirs included).
    pub train: Arc<DataSet>,
    /// The cells trained on.
    pub train_cells: Selection,
    /// The evaluation files and cells, if there are any.
    pub eval: Option<(Arc<DataSet>, Selection)>,
    /// Pre-masked sets that are evaluated on instead.
    pub eval_sets: Vec<EvalSet>,
    report: String,
}

impl Files {
    /// Opens every file that the settings name.
    ///
    /// # Errors
    /// A pattern without a file, a file that cannot be read.
    pub fn open(config: &RunConfig) -> Result<Self> {
        let options = config.open_options();
        let (eval_sets, eval) = sets_or_files(expand_paths(&config.eval_data_paths)?)?;
        let files = Self {
            train: CellFile::all(&expand_paths(&config.train_data_paths)?, &options)?,
            eval: CellFile::all(&eval, &options)?,
            eval_sets,
        };
        if let Some(note) = config.shard_size.and_then(|size| files.other_lengths(size)) {
            eprintln!("note: {note}");
        }
        Ok(files)
    }

    /// Which files have another number of cells than `--shard_size` says; the first ten by name.
    fn other_lengths(&self, expected: u64) -> Option<String> {
        const SHOWN: usize = 10;
        let all = || self.train.iter().chain(&self.eval);
        let others: Vec<&Arc<CellFile>> = all().filter(|f| f.num_cells() != expected).collect();
        if others.is_empty() {
            return None;
        }
        let name = |f: &&Arc<CellFile>| format!("{} has {}", f.path().display(), f.num_cells());
        let names: Vec<String> = others.iter().take(SHOWN).map(name).collect();
        let more = if others.len() > SHOWN { ", …" } else { "" };
        Some(format!(
            "{} of {} files have another number of cells than --shard_size {expected} says, and are \
             read whole: {}{more}",
            others.len(),
            all().count(),
            names.join(", ")
        ))
    }
}

impl Data {
    /// Matches the files' genes and phenotypes with the vocabulary and settles who is held out.
    ///
    /// # Errors
    /// Too few known genes, an obs column that does not exist, an unknown value, values that look
    /// scaled.
    pub fn bind(config: &RunConfig, files: &Files, start: &Start) -> Result<Self> {
        let tokenizer = Tokenizer::new(Arc::clone(&start.vocabulary), start.tokenize.clone())?;
        let (mut report, mut kinds) = (Vec::new(), Kinds::new(config));
        let mut bind = |files: &[Arc<CellFile>]| -> Result<Arc<DataSet>> {
            let mut members = Vec::new();
            for file in files {
                let bound = tokenizer.bind(file.as_ref())?;
                report.push(format!(
                    "{}: {} cells; {}; {}",
                    file.path().display(),
                    file.num_cells(),
                    kinds.look_at(file)?,
                    bound.gene_match()
                ));
                members.push((Arc::clone(file) as Arc<dyn CellSource>, Arc::new(bound)));
            }
            Ok(Arc::new(DataSet::new(members)))
        };
        let train = bind(&files.train)?;
        let eval_files = (!files.eval.is_empty())
            .then(|| bind(&files.eval))
            .transpose()?;
        for note in kinds.notes() {
            eprintln!("note: {note}");
        }
        let divided = match eval_files {
            Some(eval) => Divided::by_files(config, eval),
            None if !files.eval_sets.is_empty() => Divided::all_train(),
            None => Divided::within(config, &train)?,
        };
        report.extend(divided.report);
        let mut eval_sets = Vec::new();
        for path in &files.eval_sets {
            let set = EvalSet::open(path, &start.vocabulary)?;
            let (cells, labels) = (set.num_cells(), set.num_labels());
            report.push(format!(
                "{}: {cells} cells, {labels} masked tokens",
                path.display()
            ));
            eval_sets.push(set);
        }
        Ok(Self {
            train,
            train_cells: divided.train,
            eval: divided.eval,
            eval_sets,
            report: report.join("\n"),
        })
    }

    /// Files, cells and matched genes, for the screen.
    pub fn describe(&self) -> String {
        let num = |data: &DataSet, cells: &Selection| cells.len(data.len());
        let held_out = self
            .eval
            .as_ref()
            .map_or(0, |(data, cells)| num(data, cells));
        let masked: u64 = self.eval_sets.iter().map(EvalSet::num_cells).sum();
        let held_out = held_out + masked;
        format!(
            "{}\nCells: {} to train on, {held_out} held out for evaluation",
            self.report,
            num(&self.train, &self.train_cells),
        )
    }

    /// Lengths in tokens of at most `num_cells` training cells, spread over the files.
    ///
    /// # Errors
    /// Unreadable cells.
    pub fn lengths(&self, config: &RunConfig, num_cells: u64) -> Result<Vec<usize>> {
        let total = self.train.len();
        let apart = self.train_cells.len(total).div_ceil(num_cells.max(1));
        let cells = self.train_cells.cells(total);
        let some: Vec<u64> = cells.step_by(apart.max(1) as usize).collect();
        let order = config.eval_sampler_config();
        let sampler = Sampler::new(order, Selection::Rows(some.into()), total)?;
        let data = Arc::clone(&self.train);
        let settings = config.eval_loader_config();
        let mut loader = Loader::new(data, sampler, Arc::new(PlainCollator), settings)?;
        let mut lengths = Vec::new();
        while let Some(batch) = loader.next_batch()? {
            let ends = batch.cu_seqlens.windows(2);
            lengths.extend(ends.map(|pair| (pair[1] - pair[0]) as usize));
        }
        Ok(lengths)
    }

    /// The order of training over `cells` of the training files, as this rank takes part in it.
    ///
    /// # Errors
    /// A setting that cannot work, a column that does not exist or cannot be gone by.
    pub fn sampler(&self, config: &RunConfig, cells: &Selection, ranks: &Ranks) -> Result<Sampler> {
        let (sampler, left_out) = config.sampler(cells.clone(), &self.train)?;
        if left_out > 0 {
            eprintln!(
                "note: {left_out} of {} training cells have no value (or weight 0) in the column \
                 that the order goes by, and are left out",
                sampler.len()
            );
        }
        Ok(sampler.for_rank(ranks.rank(), ranks.world())?)
    }

    /// An order in which training cells are looked at before training, each once.
    ///
    /// # Errors
    /// A setting that cannot work.
    pub fn looking_sampler(&self, config: &RunConfig) -> Result<Sampler> {
        let (order, cells) = (config.looking_sampler_config(), self.train_cells.clone());
        Ok(Sampler::new(order, cells, self.train.len())?)
    }
}

/// Pre-masked sets and h5ad files, of which only one kind may be there.
///
/// # Errors
/// Both are.
pub fn sets_or_files(paths: Vec<PathBuf>) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (sets, files): (Vec<PathBuf>, Vec<PathBuf>) =
        paths.into_iter().partition(|path| EvalSet::is_one(path));
    if let ([set, ..], [file, ..]) = (&sets[..], &files[..]) {
        bail!(
            "{} is a pre-masked set and {} is not: their figures do not go together\nhint: evaluate \
             on one kind at a time",
            set.display(),
            file.display()
        );
    }
    Ok((sets, files))
}
