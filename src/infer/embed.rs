//! Embeddings: the last hidden states of the encoder, one vector per cell or per gene.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Result, bail};
use candle_core::Tensor;

use super::cells::Cells;
use super::gather::{mean_of_cells, positions_of};
use super::{Checkpoint, Model, Reading, Rows};
use crate::cell::{GeneId, PackedBatch};
use crate::file::Spool;
use crate::h5ad::edit::ObsmArray;
use crate::kernels::rows;
use crate::loader::PlainCollator;

/// Which vector stands for a cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Pooling {
    /// The state of `[CLS]`: what a classifier reads.
    #[default]
    Cls,
    /// The mean over all tokens of the cell.
    Mean,
    /// The state where this phenotype stands: what its prediction is read from.
    Phenotype(String),
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cls => "cls",
            Self::Mean => "mean",
            Self::Phenotype(name) => name,
        })
    }
}

impl FromStr for Pooling {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "cls" => Self::Cls,
            "mean" => Self::Mean,
            phenotype => Self::Phenotype(phenotype.to_owned()),
        })
    }
}

/// Takes the embeddings of cells, in the order of their rows.
pub trait Sink {
    /// What there is in the end.
    type Done;

    /// Takes those of the next cells: [cells, hidden size].
    ///
    /// # Errors
    /// They cannot be written.
    fn add(&mut self, values: Vec<f32>) -> Result<()>;

    /// There are no more.
    ///
    /// # Errors
    /// The file cannot be finished.
    fn finish(self) -> Result<Self::Done>;
}

/// Embeddings for an h5ad file, kept on the disk until all are there: a row for each of its cells,
/// NaN where one was not read.
pub struct ForH5ad {
    cells: Embedded,
    values: Spool,
    num_read: usize,
}

impl ForH5ad {
    /// For these cells, on the disk of `folder`.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn new(cells: Embedded, folder: &Path) -> Result<Self> {
        Ok(Self {
            cells,
            values: Spool::new(folder)?,
            num_read: 0,
        })
    }

    /// Fills up to this row with NaN.
    fn skip_to(&mut self, row: u64) -> Result<()> {
        let absent = vec![f32::NAN; self.cells.width];
        while self.values.len() < row * self.cells.width as u64 {
            self.values.extend(&absent)?;
        }
        Ok(())
    }
}

impl Sink for ForH5ad {
    type Done = ObsmArray;

    fn add(&mut self, values: Vec<f32>) -> Result<()> {
        if self.cells.rows.read.len() as u64 == self.cells.rows.num_rows {
            return Ok(self.values.extend(&values)?);
        }
        for values in values.chunks_exact(self.cells.width.max(1)) {
            if let Some(&row) = self.cells.rows.read.get(self.num_read) {
                self.skip_to(row)?;
                self.values.extend(values)?;
                self.num_read += 1;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<ObsmArray> {
        self.skip_to(self.cells.rows.num_rows)?;
        Ok(ObsmArray {
            width: self.cells.width,
            values: self.values,
        })
    }
}

/// Which cells are embedded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedded {
    /// Their rows.
    pub rows: Rows,
    /// Numbers of an embedding.
    pub width: usize,
    /// Their names.
    pub cell_names: Vec<String>,
}

/// The embeddings of genes, in the order of the checkpoint's vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneEmbeddings {
    /// Ids of the genes.
    pub gene_ids: Vec<String>,
    /// In how many cells each gene was seen; 1 where the embedding does not come from cells.
    pub num_cells: Vec<u64>,
    /// Numbers of an embedding.
    pub width: usize,
    /// [genes, width].
    pub values: Vec<f32>,
}

/// The last hidden states [T, D] of a batch.
fn states(model: &Model, batch: &PackedBatch) -> Result<Tensor> {
    Ok(match model {
        Model::MaskedLM(model) => model.last_hidden_state(batch)?,
        Model::Classifier(model, _) => model.last_hidden_state(batch)?,
    })
}

/// Embeds every cell of a file, or of one part of it, into the sink that `open` makes once the
/// cells are known.
///
/// # Errors
/// A file that cannot be read or does not fit the checkpoint, a phenotype that it was not trained
/// with; a sink that fails.
pub fn cells<S: Sink>(
    checkpoint: &Checkpoint,
    path: &Path,
    reading: &Reading,
    pooling: &Pooling,
    open: impl FnOnce(Embedded) -> Result<S>,
) -> Result<S::Done> {
    if let Pooling::Phenotype(name) = pooling {
        slot(checkpoint, name)?;
    }
    let cells = Cells::open(path, checkpoint, reading)?;
    let mut sink = open(Embedded {
        rows: cells.rows(),
        width: checkpoint.config.hidden_size,
        cell_names: cells.cell_names()?,
    })?;
    cells.for_each_batch(Arc::new(PlainCollator), |batch| {
        let pooled = pooled(checkpoint, batch, pooling)?; // [B, D]
        sink.add(pooled.flatten_all()?.to_vec1::<f32>()?)
    })?;
    sink.finish()
}

/// The vector of each cell of a batch, [B, hidden size].
///
/// # Errors
/// A phenotype that the model was not trained with, or an error of the model.
pub fn pooled(checkpoint: &Checkpoint, batch: &PackedBatch, pooling: &Pooling) -> Result<Tensor> {
    let states = states(&checkpoint.model, batch)?; // [T, D]
    Ok(match pooling {
        Pooling::Phenotype(name) => {
            rows::gather(&states, positions_of(batch, slot(checkpoint, name)?))?
        }
        Pooling::Mean => mean_of_cells(batch, &states)?,
        Pooling::Cls => rows::gather(&states, &batch.cu_seqlens[..batch.num_cells()])?,
    })
}

/// The token type of a phenotype that stands in every cell.
fn slot(checkpoint: &Checkpoint, name: &str) -> Result<u32> {
    let included = &checkpoint.tokenize.included_phenotypes;
    match checkpoint.vocabulary.category_type(name) {
        Some(token_type) if included.iter().any(|p| p == name) => Ok(token_type),
        _ => bail!(
            "--pooling {name}: the model was not trained with this phenotype\nhint: cls, mean, or \
             one of: {}",
            if included.is_empty() {
                "(it has no phenotypes)".to_owned()
            } else {
                included.join(", ")
            }
        ),
    }
}

/// The embedding of each gene's token type, without any cell.
///
/// # Errors
/// The weights cannot be read.
pub fn genes_without_context(checkpoint: &Checkpoint) -> Result<GeneEmbeddings> {
    let table = match &checkpoint.model {
        Model::MaskedLM(model) => model.token_type_embeddings()?,
        Model::Classifier(model, _) => model.token_type_embeddings()?,
    };
    let genes = checkpoint.vocabulary.genes();
    let first = checkpoint.vocabulary.gene_type(GeneId(0)) as usize;
    let rows = table.narrow(0, first, genes.len())?;
    Ok(GeneEmbeddings {
        gene_ids: genes.ids().to_vec(),
        num_cells: vec![1; genes.len()],
        width: checkpoint.config.hidden_size,
        values: rows.flatten_all()?.to_vec1()?,
    })
}

/// The mean of each gene's last hidden state over the cells of `paths` in whose tokens it occurs;
/// zeros for genes that occur in none.
///
/// # Errors
/// As [`cells`].
pub fn genes_in_context(
    checkpoint: &Checkpoint,
    paths: &[std::path::PathBuf],
    reading: &Reading,
) -> Result<GeneEmbeddings> {
    let vocabulary = &checkpoint.vocabulary;
    let (genes, width) = (vocabulary.genes(), checkpoint.config.hidden_size);
    let mut sums = vec![0f64; genes.len() * width];
    let mut num_cells = vec![0u64; genes.len()];
    for path in paths {
        let cells = Cells::open(path, checkpoint, reading)?;
        cells.for_each_batch(Arc::new(PlainCollator), |batch| {
            let states = states(&checkpoint.model, batch)?
                .flatten_all()?
                .to_vec1::<f32>()?;
            for (&kind, state) in batch.token_type_ids.iter().zip(states.chunks_exact(width)) {
                if let Some(GeneId(gene)) = vocabulary.type_gene(kind) {
                    let gene = gene as usize;
                    num_cells[gene] += 1;
                    let sum = &mut sums[gene * width..(gene + 1) * width];
                    sum.iter_mut()
                        .zip(state)
                        .for_each(|(sum, &x)| *sum += f64::from(x));
                }
            }
            Ok(())
        })?;
    }
    let means = sums.chunks_exact(width.max(1)).zip(&num_cells);
    let values = means
        .flat_map(|(sum, &n)| sum.iter().map(move |sum| (sum / n.max(1) as f64) as f32))
        .collect();
    Ok(GeneEmbeddings {
        gene_ids: genes.ids().to_vec(),
        num_cells,
        width,
        values,
    })
}
