//! Log-normalised expression of the genes that all files share, read cell by cell: counts are
//! scaled to 10,000 per cell and their log(1 + x) taken; values that are logarithms already stay.

use std::ops::Range;

use anyhow::Result;

use super::subject::Cells;
use crate::cell::CellSource;
use crate::loader::DataSet;
use crate::vocab::Vocabulary;

/// Sum of a cell's counts after scaling.
const TOTAL: f32 = 1e4;
/// Rows by which a file's kind of values is told.
const SAMPLED: u64 = 64;
/// Fractions up to this size are taken for logarithms.
const LARGEST_LOGARITHM: f32 = 25.0;
/// Rows that are read together.
const TOGETHER: usize = 256;
const NO_GENE: u32 = u32::MAX;

/// How one file is read.
struct Columns {
    /// The shared gene of each column.
    gene_of: Vec<u32>,
    are_logarithms: bool,
}

/// The expression of the same genes in every cell of a data set.
pub(super) struct Expression<'a> {
    cells: &'a Cells,
    sources: Vec<Columns>,
    num_genes: usize,
}

impl<'a> Expression<'a> {
    /// That of several sets of cells, in the genes that the model knows and every file has.
    ///
    /// # Errors
    /// Unreadable cells.
    pub(super) fn shared(vocabulary: &Vocabulary, sets: [&'a Cells; 2]) -> Result<[Self; 2]> {
        let mut in_all = vec![true; vocabulary.genes().len()];
        for source in sets.iter().flat_map(|cells| sources(&cells.data)) {
            let mut has = vec![false; in_all.len()];
            for id in source.gene_ids() {
                if let Some(gene) = vocabulary.genes().get(id) {
                    has[gene.0 as usize] = true;
                }
            }
            in_all
                .iter_mut()
                .zip(has)
                .for_each(|(all, has)| *all &= has);
        }
        let mut number = vec![NO_GENE; in_all.len()];
        let mut num_genes = 0;
        for (number, _) in number
            .iter_mut()
            .zip(&in_all)
            .filter(|(_, shared)| **shared)
        {
            *number = num_genes;
            num_genes += 1;
        }
        let [first, second] = sets;
        let of = |cells: &'a Cells| -> Result<Self> {
            let columns = sources(&cells.data).map(|source| {
                let gene = |id: &String| {
                    vocabulary
                        .genes()
                        .get(id)
                        .map(|gene| number[gene.0 as usize])
                };
                Ok(Columns {
                    gene_of: source
                        .gene_ids()
                        .iter()
                        .map(|id| gene(id).unwrap_or(NO_GENE))
                        .collect(),
                    are_logarithms: are_logarithms(source)?,
                })
            });
            Ok(Self {
                cells,
                sources: columns.collect::<Result<_>>()?,
                num_genes: num_genes as usize,
            })
        };
        Ok([of(first)?, of(second)?])
    }

    /// Number of shared genes.
    pub(super) fn num_genes(&self) -> usize {
        self.num_genes
    }

    /// Shows every selected cell, in order, with the genes that it expresses, ascending, and their
    /// values.
    ///
    /// # Errors
    /// Unreadable cells.
    pub(super) fn for_each(&self, mut see: impl FnMut(u64, &[u32], &[f32])) -> Result<()> {
        let data = &self.cells.data;
        let mut entries: Vec<(u32, f32)> = Vec::new();
        let mut cells = self.cells.selection.cells(data.len()).peekable();
        for (index, columns) in self.sources.iter().enumerate() {
            let (Some(source), own) = (data.source(index), data.cells_of(index)) else {
                continue;
            };
            loop {
                let here = std::iter::from_fn(|| cells.next_if(|&cell| cell < own.end));
                let rows: Vec<u64> = here.take(TOGETHER).map(|cell| cell - own.start).collect();
                if rows.is_empty() {
                    break;
                }
                let block = source
                    .read_ranges(&ranges(&rows))
                    .map_err(anyhow::Error::from_boxed)?;
                for (row, values) in rows.iter().zip(block.outer_iterator()) {
                    columns.expression(values.indices(), values.data(), &mut entries);
                    let genes: Vec<u32> = entries.iter().map(|(gene, _)| *gene).collect();
                    let values: Vec<f32> = entries.iter().map(|(_, value)| *value).collect();
                    see(own.start + row, &genes, &values);
                }
            }
        }
        Ok(())
    }
}

impl Columns {
    fn expression(&self, columns: &[u32], values: &[f32], entries: &mut Vec<(u32, f32)>) {
        entries.clear();
        let sum: f32 = values.iter().sum();
        let scale = if sum > 0.0 { TOTAL / sum } else { 0.0 };
        for (&column, &value) in columns.iter().zip(values) {
            let gene = self
                .gene_of
                .get(column as usize)
                .copied()
                .unwrap_or(NO_GENE);
            if gene != NO_GENE && value != 0.0 {
                let value = if self.are_logarithms {
                    value
                } else {
                    (value * scale).ln_1p()
                };
                entries.push((gene, value));
            }
        }
        entries.sort_unstable_by_key(|(gene, _)| *gene);
    }
}

fn sources(data: &DataSet) -> impl Iterator<Item = &dyn CellSource> {
    let sources = (0..data.num_sources()).filter_map(|index| data.source(index));
    sources.map(|source| source.as_ref() as &dyn CellSource)
}

/// Whether values are small and have fractions, by a few rows.
fn are_logarithms(source: &dyn CellSource) -> Result<bool> {
    let rows = 0..source.num_cells().min(SAMPLED);
    let block = source
        .read_ranges(&[rows])
        .map_err(anyhow::Error::from_boxed)?;
    let values = block.data();
    let has_fractions = values.iter().any(|value| value.fract() != 0.0);
    Ok(has_fractions && values.iter().all(|&value| value < LARGEST_LOGARITHM))
}

/// Ascending rows as ranges.
fn ranges(rows: &[u64]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for &row in rows {
        match ranges.last_mut() {
            Some(last) if last.end == row => last.end += 1,
            _ => ranges.push(row..row + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_scaled_and_logarithms_stay() {
        let columns = |are_logarithms| Columns {
            gene_of: vec![1, NO_GENE, 0],
            are_logarithms,
        };
        let mut entries = Vec::new();
        columns(false).expression(&[0, 1, 2], &[1.0, 2.0, 1.0], &mut entries);
        assert_eq!(entries, [(0, 2500f32.ln_1p()), (1, 2500f32.ln_1p())]);
        columns(true).expression(&[0, 2], &[1.5, 0.0], &mut entries);
        assert_eq!(entries, [(1, 1.5)]);
        assert_eq!(ranges(&[2, 3, 7]), [2..4, 7..8]);
    }
}
