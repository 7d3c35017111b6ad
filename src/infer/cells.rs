//! The cells of one file, or those of one part of a split, batch after batch in the order of its
//! rows.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Checkpoint, Model};
use crate::cell::{CellSource, PackedBatch};
use crate::config::Settings;
use crate::h5ad::OpenOptions;
use crate::loader::split::PartChoice;
use crate::loader::{
    CellColumn, CellFile, Collator, DataSet, Loader, LoaderConfig, Sampler, SamplerConfig,
    Selection, Shuffle,
};
use crate::tokenize::{TokenizeConfig, Tokenizer, UnknownPhenotype};

/// A bar is shown for what takes longer.
const QUIET: Duration = Duration::from_secs(2);

/// How files are read.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// What was given for this reading (matrix, gene ids, least overlap, whether values that look
    /// scaled are let through); all else is as in the checkpoint's run.
    pub given: Settings,
    /// Cells per batch, reader threads.
    pub loader: LoaderConfig,
    /// obs columns whose values the model may see; all other phenotypes are `[MASK]`. None: a
    /// classifier sees those of its training that the file has, other models see none.
    pub visible: Vec<String>,
    /// The part of a split that is read; `None`: all cells.
    pub part: Option<PartChoice>,
}

impl Reading {
    /// Which matrix of a file is read for a checkpoint, and where its gene ids are.
    pub fn options(&self, checkpoint: &Checkpoint) -> OpenOptions {
        let settings = self.given.clone().over(checkpoint.run.clone());
        settings.with_defaults().open_options()
    }

    /// Makes tokens as in training; values that the checkpoint does not know are masked.
    ///
    /// # Errors
    /// Settings of the checkpoint that cannot work.
    pub fn tokenizer(&self, checkpoint: &Checkpoint) -> Result<Tokenizer> {
        let trained = &checkpoint.tokenize;
        let settings = TokenizeConfig {
            unknown_phenotype: UnknownPhenotype::Mask,
            min_gene_overlap: self
                .given
                .min_gene_overlap
                .unwrap_or(trained.min_gene_overlap),
            allow_scaled: self.given.allow_scaled.unwrap_or(trained.allow_scaled),
            ..trained.clone()
        };
        Ok(Tokenizer::new(
            Arc::clone(&checkpoint.vocabulary),
            settings,
        )?)
    }

    /// The phenotypes of a file that a model may see.
    fn visible_in(&self, file: &CellFile, checkpoint: &Checkpoint) -> Result<Vec<String>> {
        if !self.visible.is_empty() || matches!(checkpoint.model, Model::MaskedLM(_)) {
            return Ok(self.visible.clone());
        }
        let trained = checkpoint.tokenize.included_phenotypes.iter();
        let columns = file.obs_columns().map_err(anyhow::Error::from_boxed)?;
        let has = |name: &String| columns.contains(name);
        let (there, absent): (Vec<String>, Vec<String>) = trained.cloned().partition(has);
        if !absent.is_empty() {
            eprintln!(
                "warning: {}: has no obs column {}, which the classifier was trained to see; \
                 expect worse answers",
                file.path().display(),
                absent.join(", ")
            );
        }
        Ok(there)
    }

    /// Whether a file has any cell that is to be read.
    ///
    /// # Errors
    /// A file that cannot be read, or that the split was not made from.
    pub fn has_cells(&self, path: &Path, checkpoint: &Checkpoint) -> Result<bool> {
        let Some(part) = &self.part else {
            return Ok(true);
        };
        let files = CellFile::all(&[path.to_owned()], &self.options(checkpoint))?;
        let sources: Vec<&dyn CellSource> = files.iter().map(|file| file.as_ref() as _).collect();
        let num_cells = sources.iter().map(|source| source.num_cells()).sum();
        Ok(part.cells(&sources)?.len(num_cells) > 0)
    }
}

/// Rows of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// Those that were read, ascending.
    pub read: Vec<u64>,
    /// All that the file has.
    pub num_rows: u64,
}

impl Rows {
    /// Values of the rows that were read, `width` of each, as values of all rows: `absent` where one
    /// was not read.
    pub fn spread<T: Clone>(&self, values: Vec<T>, width: usize, absent: T) -> Vec<T> {
        if self.read.len() as u64 == self.num_rows {
            return values;
        }
        let mut spread = vec![absent; self.num_rows as usize * width];
        for (row, values) in self.read.iter().zip(values.chunks_exact(width.max(1))) {
            let start = *row as usize * width;
            spread[start..start + width].clone_from_slice(values);
        }
        spread
    }
}

/// One file, matched with a checkpoint.
pub(super) struct Cells {
    data: Arc<DataSet>,
    loader: LoaderConfig,
    selection: Selection,
}

impl Cells {
    /// Opens a file and matches its genes and visible phenotypes.
    ///
    /// # Errors
    /// A file that cannot be read, too few known genes, a visible column that is not there or that
    /// the model was not trained with.
    pub(super) fn open(path: &Path, checkpoint: &Checkpoint, reading: &Reading) -> Result<Self> {
        let tokenizer = reading.tokenizer(checkpoint)?;
        let (mut members, mut matches) = (Vec::new(), Vec::new());
        for file in CellFile::all(&[path.to_owned()], &reading.options(checkpoint))? {
            let visible = reading.visible_in(file.as_ref(), checkpoint)?;
            let bound = Arc::new(tokenizer.bind_showing(file.as_ref(), &visible)?);
            matches.push(bound.gene_match().to_string());
            members.push((file as Arc<dyn CellSource>, bound));
        }
        let data = Arc::new(DataSet::new(members));
        let selection = match &reading.part {
            Some(part) => part.cells(&data.sources().collect::<Vec<_>>())?,
            None => Selection::All,
        };
        matches.dedup();
        eprintln!(
            "{}: {} cells, {}",
            path.display(),
            selection.len(data.len()),
            matches.join("; ")
        );
        Ok(Self {
            data,
            loader: reading.loader.clone(),
            selection,
        })
    }

    /// Number of cells that are read.
    pub(super) fn len(&self) -> usize {
        self.selection.len(self.data.len()) as usize
    }

    /// The rows that are read.
    pub(super) fn rows(&self) -> Rows {
        let num_rows = self.data.len();
        Rows {
            read: self.selection.cells(num_rows).collect(),
            num_rows,
        }
    }

    /// An obs column of all cells; `None` where a part of them has none of this name.
    ///
    /// # Errors
    /// A column that cannot be read.
    pub(super) fn column(&self, name: &str) -> Result<Option<CellColumn>> {
        for source in self.data.sources() {
            let columns = source.obs_columns().map_err(anyhow::Error::from_boxed)?;
            if !columns.iter().any(|column| column == name) {
                return Ok(None);
            }
        }
        Ok(Some(CellColumn::read(self.data.sources(), name)?))
    }

    /// The names of the cells that are read.
    pub(super) fn cell_names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for source in self.data.sources() {
            names.extend(source.cell_names().map_err(anyhow::Error::from_boxed)?);
        }
        if self.selection == Selection::All {
            return Ok(names);
        }
        let name = |row: u64| names.get(row as usize).cloned();
        Ok(self.rows().read.into_iter().filter_map(name).collect())
    }

    /// Shows every batch, in order, with a progress bar where it takes long.
    ///
    /// # Errors
    /// Unreadable cells, or whatever `see` fails with.
    pub(super) fn for_each_batch(
        &self,
        collator: Arc<dyn Collator>,
        mut see: impl FnMut(&PackedBatch) -> Result<()>,
    ) -> Result<()> {
        let data = Arc::clone(&self.data);
        let order = SamplerConfig {
            shuffle: Shuffle::Sequential,
            ..SamplerConfig::default()
        };
        let sampler = Sampler::new(order, self.selection.clone(), data.len())?;
        let mut loader = Loader::new(data, sampler, collator, self.loader.clone())?;
        let (began, bar) = (Instant::now(), self.bar()?);
        while let Some(batch) = loader.next_batch()? {
            see(&batch)?;
            if began.elapsed() > QUIET && bar.is_hidden() {
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            bar.inc(batch.num_cells() as u64);
        }
        bar.finish_and_clear();
        let seconds = began.elapsed().as_secs_f64();
        let rate = self.len() as f64 / seconds.max(1e-9);
        eprintln!("{} cells in {seconds:.1} s ({rate:.0} cells/s)", self.len());
        Ok(())
    }

    fn bar(&self) -> Result<ProgressBar> {
        let style = "{bar:30} {pos}/{len} cells · {per_sec} · {eta} left";
        let bar =
            ProgressBar::with_draw_target(Some(self.len() as u64), ProgressDrawTarget::hidden());
        Ok(bar.with_style(ProgressStyle::with_template(style)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_were_not_read_are_absent() {
        let rows = Rows {
            read: vec![1, 3],
            num_rows: 4,
        };
        let spread = rows.spread(vec![1, 2, 3, 4], 2, -1);
        assert_eq!(spread, [-1, -1, 1, 2, -1, -1, 3, 4]);
        assert_eq!(rows.spread(Vec::<i32>::new(), 0, -1), Vec::<i32>::new());
    }
}
