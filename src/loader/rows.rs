//! Batches of rows: cells as numbers, not as tokens, for models that take expression values.
//!
//! A part of a fetch is read as one block, and stays one until its cells are in batches: a batch
//! copies every row once, from the block to its place. The columns of sources that have other genes
//! than the vocabulary, or in another order, are put into its order when they are read.

use std::sync::Arc;

use super::data_set::DataSet;
use super::error::LoaderError;
use super::fetch::{Filled, ReadCells, Wanted};
use crate::cell::{CsrBlock, SparseBatch};
use crate::tokenize::BoundSource;

/// Reads cells as rows.
pub struct Rows {
    data_set: Arc<DataSet>,
    num_genes: usize,
}

/// A row of a block that other cells share.
pub struct RowCell {
    block: Arc<Block>,
    row: usize,
    id: u64,
}

impl RowCell {
    fn entries(&self) -> (&[u32], &[f32]) {
        self.block.row(self.row)
    }
}

impl Rows {
    pub(super) fn new(data_set: Arc<DataSet>) -> Self {
        let num_genes = data_set.bound(0).map_or(0, |bound| bound.num_genes());
        Self {
            data_set,
            num_genes,
        }
    }
}

impl ReadCells for Rows {
    type Cell = RowCell;
    type Batch = SparseBatch;

    fn data_set(&self) -> &DataSet {
        &self.data_set
    }

    fn read_part(&self, part: &[Wanted]) -> Result<Vec<Filled<RowCell>>, LoaderError> {
        let mut filled = Vec::with_capacity(part.len());
        let cells: Vec<u64> = part.iter().map(|wanted| wanted.cell).collect();
        self.data_set.visit_blocks(&cells, |source, rows, cells| {
            let block = Arc::new(Block::of(rows, &self.data_set.members()[source].bound));
            let mut row = 0;
            for (at, &id) in cells.iter().enumerate() {
                row += usize::from(at > 0 && cells[at - 1] != id);
                let block = Arc::clone(&block);
                let slot = part[filled.len()].slot;
                filled.push((slot, Some(RowCell { block, row, id })));
            }
            Ok(())
        })?;
        Ok(filled)
    }

    fn bytes(cell: &RowCell) -> usize {
        let entry = size_of::<u32>() + size_of::<f32>();
        cell.entries().0.len() * entry + size_of::<usize>()
    }

    fn pack(&self, cells: Vec<RowCell>) -> Result<SparseBatch, LoaderError> {
        let num_entries = cells.iter().map(|cell| cell.entries().0.len()).sum();
        let mut batch = SparseBatch {
            starts: Vec::with_capacity(cells.len() + 1),
            columns: Vec::with_capacity(num_entries),
            values: Vec::with_capacity(num_entries),
            num_genes: self.num_genes,
            cells: cells.iter().map(|cell| cell.id).collect(),
        };
        batch.starts.push(0);
        for cell in &cells {
            let (columns, values) = cell.entries();
            batch.columns.extend_from_slice(columns);
            batch.values.extend_from_slice(values);
            batch.starts.push(batch.columns.len());
        }
        Ok(batch)
    }
}

/// Rows one under the other, genes of the vocabulary as columns.
struct Block {
    /// Where each row begins, and where the last one ends.
    starts: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

impl Block {
    /// The rows of a source. Its columns that are no gene of the vocabulary are left out.
    fn of(rows: CsrBlock, bound: &BoundSource) -> Self {
        let (starts, columns, values) = rows.into_raw_storage();
        let block = Self {
            starts,
            columns,
            values,
        };
        let genes = bound.genes_of_columns();
        if (0u32..)
            .zip(genes.clone())
            .all(|(at, gene)| Some(at) == gene)
        {
            return block;
        }
        block.with_genes(&genes.collect::<Vec<_>>())
    }

    fn with_genes(self, genes: &[Option<u32>]) -> Self {
        let mut out = Self {
            starts: vec![0],
            columns: Vec::with_capacity(self.columns.len()),
            values: Vec::with_capacity(self.values.len()),
        };
        let mut row: Vec<(u32, f32)> = Vec::new();
        for at in 0..self.starts.len().saturating_sub(1) {
            let (columns, values) = self.row(at);
            let gene = |column: &u32| genes.get(*column as usize).copied().flatten();
            row.clear();
            row.extend(
                columns
                    .iter()
                    .zip(values)
                    .filter_map(|(column, value)| Some((gene(column)?, *value))),
            );
            row.sort_unstable_by_key(|(gene, _)| *gene);
            out.columns.extend(row.iter().map(|(gene, _)| *gene));
            out.values.extend(row.iter().map(|(_, value)| *value));
            out.starts.push(out.columns.len());
        }
        out
    }

    fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let within = self.starts.get(row).zip(self.starts.get(row + 1));
        let entries = within.and_then(|(start, end)| {
            let columns = self.columns.get(*start..*end);
            columns.zip(self.values.get(*start..*end))
        });
        entries.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_put_in_the_order_of_the_genes() {
        let block = Block {
            starts: vec![0, 3, 3, 4],
            columns: vec![0, 1, 3, 2],
            values: vec![1.0, 2.0, 3.0, 4.0],
        };
        let block = block.with_genes(&[Some(5), None, Some(0), Some(2)]);
        assert_eq!(block.starts, [0, 2, 2, 3]);
        assert_eq!(block.columns, [2, 5, 0]);
        assert_eq!(block.values, [3.0, 1.0, 4.0]);
        assert_eq!(block.row(2), (&[0][..], &[4.0][..]));
    }
}
