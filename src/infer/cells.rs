//! The cells of one file, batch after batch in the order of its rows.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Checkpoint;
use crate::cell::{CellSource, PackedBatch};
use crate::h5ad::{H5ad, OpenOptions};
use crate::loader::{
    Collator, DataSet, Loader, LoaderConfig, Sampler, SamplerConfig, Selection, Shuffle,
};
use crate::tokenize::{BoundSource, TokenizeConfig, Tokenizer, UnknownPhenotype};

/// A bar is shown for what takes longer.
const QUIET: Duration = Duration::from_secs(2);

/// How files are read.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Which matrix, and where the gene ids are.
    pub open: OpenOptions,
    /// Cells per batch, reader threads.
    pub loader: LoaderConfig,
    /// obs columns whose values the model may see; all other phenotypes are `[MASK]`.
    pub visible: Vec<String>,
    /// Least share of the checkpoint's genes that a file must have; `None`: as in training.
    pub min_gene_overlap: Option<f64>,
    /// Whether values that look scaled are let through.
    pub allow_scaled: bool,
}

/// One file, matched with a checkpoint.
pub(super) struct Cells {
    pub(super) file: Arc<H5ad>,
    bound: Arc<BoundSource>,
    loader: LoaderConfig,
}

impl Cells {
    /// Opens a file and matches its genes and visible phenotypes.
    ///
    /// # Errors
    /// A file that cannot be read, too few known genes, a visible column that is not there or that
    /// the model was not trained with.
    pub(super) fn open(path: &Path, checkpoint: &Checkpoint, reading: &Reading) -> Result<Self> {
        let file = Arc::new(H5ad::open(path, &reading.open)?);
        let trained = &checkpoint.tokenize;
        let settings = TokenizeConfig {
            unknown_phenotype: UnknownPhenotype::Mask,
            min_gene_overlap: reading.min_gene_overlap.unwrap_or(trained.min_gene_overlap),
            allow_scaled: reading.allow_scaled || trained.allow_scaled,
            ..trained.clone()
        };
        let tokenizer = Tokenizer::new(Arc::clone(&checkpoint.vocabulary), settings)?;
        let bound = Arc::new(tokenizer.bind_showing(file.as_ref(), &reading.visible)?);
        eprintln!(
            "{}: {} cells, {}",
            path.display(),
            file.num_cells(),
            bound.gene_match()
        );
        Ok(Self {
            file,
            bound,
            loader: reading.loader.clone(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.file.num_cells() as usize
    }

    pub(super) fn cell_names(&self) -> Result<Vec<String>> {
        self.file.cell_names().map_err(anyhow::Error::from_boxed)
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
        let source = Arc::clone(&self.file) as Arc<dyn CellSource>;
        let data = Arc::new(DataSet::new(vec![(source, Arc::clone(&self.bound))]));
        let order = SamplerConfig {
            shuffle: Shuffle::Sequential,
            ..SamplerConfig::default()
        };
        let sampler = Sampler::new(order, Selection::All, data.len())?;
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
        let bar = ProgressBar::with_draw_target(
            Some(self.file.num_cells()),
            ProgressDrawTarget::hidden(),
        );
        Ok(bar.with_style(ProgressStyle::with_template(style)?))
    }
}
