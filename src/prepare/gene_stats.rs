//! `gene-bert genes stats`: figures of each gene over the cells of any number of files.
//!
//! One pass: sums, the number of cells that express a gene, and the middle of its non-zero values.
//! A gene is looked at in the files that have it only; of how many cells they are, is told. Memory
//! grows with the genes, not with the cells.

use std::path::Path;

use super::moments::Moments;
use super::passes::{FileChoice, FileSet, Progress, Rows};
use super::shared_genes::Genes;
use super::sketch::Sketch;
use super::{GenesError, PrepareError};
use crate::cell::CellSource;
use crate::file::{FileError, TableWriter};
use crate::h5ad::H5ad;
use crate::tokenize::{BoundTransform, Needs, Transform};
use crate::vocab::{GenesFrom, NO_GENE};

/// The columns of the table; scanpy's names where scanpy has the figure.
const COLUMNS: [&str; 9] = [
    "gene",
    "n_cells",
    "n_cells_by_counts",
    "detection_rate",
    "pct_dropout_by_counts",
    "total_counts",
    "mean_counts",
    "variance",
    "nonzero_median",
];

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The files.
    pub choice: FileChoice,
    /// What is done to the values of each cell before.
    pub transform: Transform,
}

/// Figures of a gene.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneFigures {
    /// Its id.
    pub gene: String,
    /// Cells of the files that have it.
    pub num_cells: u64,
    /// Cells that express it.
    pub num_expressing: u64,
    /// Sum of its values.
    pub total: f64,
    /// Mean over the cells.
    pub mean: f64,
    /// Variance over the cells, n − 1 in the denominator; none of less than two cells.
    pub variance: Option<f64>,
    /// Median of its values that are not zero.
    pub nonzero_median: Option<f64>,
}

/// Figures of all genes.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneStats {
    /// The genes, in the order in which the files have them.
    pub genes: Vec<GeneFigures>,
    /// Files read.
    pub num_files: usize,
    /// Cells read.
    pub num_cells: u64,
    /// What a user should know although nothing is wrong.
    pub notes: Vec<String>,
}

/// Sums so far.
struct Sums {
    moments: Moments,
    expressing: Vec<u64>,
    middles: Vec<Sketch>,
}

/// A file whose first rows were read: its columns' genes, and its number of cells.
type FileStart = (Vec<u32>, u64);

/// Reads the files.
///
/// # Errors
/// Files that cannot be read, or that have no gene; a value that is no number.
pub fn gene_stats(request: &Request, progress: Progress<'_>) -> Result<GeneStats, PrepareError> {
    let mut seen = Genes::default();
    let files = FileSet::new(&request.choice, |file| {
        seen.look(file);
        Ok(())
    })?;
    let (genes, notes) = seen.finish(GenesFrom::Union)?;
    let mut num_cells = vec![0; genes.len()];
    let mut sums = Sums {
        moments: Moments::new(genes.len()),
        expressing: vec![0; genes.len()],
        middles: vec![Sketch::new(); genes.len()],
    };
    request.transform.require(Needs::Values, "transform")?;
    let transform = request.transform.bind(&[])?;
    let open = |file: &H5ad| Ok(genes.of_columns(file.gene_ids()));
    let map = |rows: Rows<'_, Vec<u32>>| {
        let first = (rows.first == 0).then(|| (rows.opened.clone(), rows.source.num_cells()));
        Ok((first, values(rows, &transform)?))
    };
    let merge = |(first, values): (Option<FileStart>, Vec<(u32, f32)>)| {
        if let Some((columns, cells)) = first {
            for gene in columns {
                num_cells
                    .get_mut(gene as usize)
                    .into_iter()
                    .for_each(|n| *n += cells);
            }
        }
        values
            .iter()
            .for_each(|&(gene, value)| sums.add(gene, value));
        Ok(())
    };
    files.pass(open, map, merge, progress)?;
    let figures = genes.ids().iter().zip(num_cells).enumerate();
    let figures = figures.map(|(gene, (id, cells))| sums.figures(gene, id, cells));
    Ok(GeneStats {
        genes: figures.collect(),
        num_files: files.len(),
        num_cells: files.num_cells(),
        notes,
    })
}

/// The values of some rows by gene.
fn values(
    mut rows: Rows<'_, Vec<u32>>,
    transform: &BoundTransform,
) -> Result<Vec<(u32, f32)>, PrepareError> {
    if !transform.is_none() {
        let starts = rows.cells.indptr().raw_storage().to_vec();
        let data = rows.cells.data_mut();
        for row in starts.windows(2) {
            if let Some(row) = data.get_mut(row[0]..row[1]) {
                transform.apply_values(row);
            }
        }
    }
    if let Some((_, (row, column))) = rows.cells.iter().find(|(value, _)| !value.is_finite()) {
        let (source, genes) = (rows.source, rows.source.gene_ids());
        return Err(GenesError::NotFinite {
            path: source.path().to_owned(),
            matrix: source.matrix().to_string(),
            row: rows.first + row as u64,
            gene: genes.get(column as usize).cloned().unwrap_or_default(),
        }
        .into());
    }
    let entries = rows.cells.indices().iter().zip(rows.cells.data());
    let gene = |column: &u32| {
        rows.opened
            .get(*column as usize)
            .copied()
            .unwrap_or(NO_GENE)
    };
    Ok(entries
        .map(|(column, &value)| (gene(column), value))
        .collect())
}

impl Sums {
    fn add(&mut self, gene: u32, value: f32) {
        let at = gene as usize;
        if let (Some(expressing), Some(middle)) =
            (self.expressing.get_mut(at), self.middles.get_mut(at))
        {
            *expressing += 1;
            middle.add(value);
            self.moments.add(gene, f64::from(value));
        }
    }

    fn figures(&self, gene: usize, id: &str, num_cells: u64) -> GeneFigures {
        GeneFigures {
            gene: id.to_owned(),
            num_cells,
            num_expressing: self.expressing[gene],
            total: self.moments.sums(gene)[0],
            mean: if num_cells == 0 {
                0.0
            } else {
                self.moments.mean(gene, num_cells)
            },
            variance: (num_cells > 1).then(|| self.moments.variance(gene, num_cells)),
            nonzero_median: self.middles[gene].median(),
        }
    }
}

impl GeneFigures {
    /// Share of the cells that express it, 0..=1.
    pub fn detection_rate(&self) -> f64 {
        self.num_expressing as f64 / self.num_cells.max(1) as f64
    }
}

impl GeneStats {
    /// Writes the table, whole or not at all.
    ///
    /// # Errors
    /// A folder that cannot be written to, a full disk.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        let mut table = TableWriter::new(path, &COLUMNS)?;
        let some = |value: Option<f64>| value.map(|v| v.to_string()).unwrap_or_default();
        for gene in &self.genes {
            table.row([
                gene.gene.clone(),
                gene.num_cells.to_string(),
                gene.num_expressing.to_string(),
                gene.detection_rate().to_string(),
                (100.0 * (1.0 - gene.detection_rate())).to_string(),
                gene.total.to_string(),
                gene.mean.to_string(),
                some(gene.variance),
                some(gene.nonzero_median),
            ])?;
        }
        table.finish()
    }
}
