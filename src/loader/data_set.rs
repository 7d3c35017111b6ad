//! Many sources as one: cells numbered from 0 over all sources, in the order given.

use std::ops::Range;
use std::sync::Arc;

use super::error::LoaderError;
use super::masking::AbsentGeneSampling;
use super::sampler::Selection;
use crate::cell::{CellSource, CsrBlock, TokenizedCell};
use crate::tokenize::{BoundSource, Draw};

/// Cells on which the frequency of genes is counted.
const WEIGHT_CELLS: u64 = 20_000;
/// Cells read at a time when genes are counted.
const COUNTED_TOGETHER: usize = 256;

/// One source with the tokenizer bound to its columns.
pub(super) struct Member {
    pub(super) source: Arc<dyn CellSource>,
    pub(super) bound: Arc<BoundSource>,
}

/// The cells of all sources. Sources without cells are fine.
pub struct DataSet {
    members: Vec<Member>,
    /// First cell of each source, and one past the last: [number of sources + 1].
    offsets: Vec<u64>,
}

impl DataSet {
    /// One data set of all `sources`, in this order.
    pub fn new(sources: Vec<(Arc<dyn CellSource>, Arc<BoundSource>)>) -> Self {
        let mut offsets = vec![0];
        let mut end = 0;
        for (source, _) in &sources {
            end += source.num_cells();
            offsets.push(end);
        }
        let members = sources
            .into_iter()
            .map(|(source, bound)| Member { source, bound })
            .collect();
        Self { members, offsets }
    }

    /// Number of cells over all sources.
    pub fn len(&self) -> u64 {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Whether there is no cell at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of sources, empty ones included.
    pub fn num_sources(&self) -> usize {
        self.members.len()
    }

    /// Source `index`.
    pub fn source(&self, index: usize) -> Option<&Arc<dyn CellSource>> {
        self.members.get(index).map(|member| &member.source)
    }

    /// All sources, in their order.
    pub fn sources(&self) -> impl Iterator<Item = &dyn CellSource> {
        self.members.iter().map(|member| member.source.as_ref())
    }

    /// The tokenizer bound to source `index`.
    pub fn bound(&self, index: usize) -> Option<&Arc<BoundSource>> {
        self.members.get(index).map(|member| &member.bound)
    }

    /// The cells of source `index`, as cells of the data set; empty beyond the last source.
    pub fn cells_of(&self, index: usize) -> Range<u64> {
        match (self.offsets.get(index), self.offsets.get(index + 1)) {
            (Some(&first), Some(&end)) => first..end,
            _ => self.len()..self.len(),
        }
    }

    /// Source and row of a cell; `None` beyond the last cell.
    pub fn locate(&self, cell: u64) -> Option<(usize, u64)> {
        if cell >= self.len() {
            return None;
        }
        let source = self.offsets.partition_point(|&first| first <= cell) - 1;
        Some((source, cell - self.offsets[source]))
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Reads and tokenises cells and hands each to `each`, with the genes that its source
    /// measures; `None` for a cell that the tokenizer skips. `draws` are cells, ascending, each
    /// with what stands for the epoch in its random streams; a cell that occurs several times is
    /// read once. Cells that are trained on may be augmented.
    pub(super) fn visit(
        &self,
        draws: &[(u64, u64)],
        (seed, augments): (u64, bool),
        mut each: impl FnMut(u64, Option<TokenizedCell>, &[u32]),
    ) -> Result<(), LoaderError> {
        let cells: Vec<u64> = draws.iter().map(|(cell, _)| *cell).collect();
        let mut draws = draws.iter();
        self.visit_blocks(&cells, |source, block, own| {
            let (first, member) = (self.offsets[source], &self.members[source]);
            let measured = member.bound.measured_genes();
            let (mut i, mut previous) = (0, None);
            for (&cell, &(_, epoch)) in own.iter().zip(draws.by_ref()) {
                i += usize::from(previous.is_some_and(|previous| previous != cell));
                previous = Some(cell);
                let row = cell - first;
                let stored = block.indptr().outer_inds_sz(i);
                let (columns, values) = (&block.indices()[stored.clone()], &block.data()[stored]);
                let draw = Draw {
                    seed,
                    epoch,
                    cell,
                    augments,
                };
                let tokens = member.bound.tokenize(row, columns, values, draw);
                let tokens = tokens.map_err(|cause| LoaderError::Tokenize {
                    path: member.source.path().to_path_buf(),
                    row,
                    cause: Box::new(cause),
                })?;
                each(cell, tokens, measured);
            }
            Ok(())
        })
    }

    /// Reads cells, ascending, as one block for each source, and hands `each` the source, the
    /// block and the cells that it stands for; a cell that occurs several times is read once.
    pub(super) fn visit_blocks(
        &self,
        cells: &[u64],
        mut each: impl FnMut(usize, CsrBlock, &[u64]) -> Result<(), LoaderError>,
    ) -> Result<(), LoaderError> {
        for (source, here) in by_source(&self.offsets, cells) {
            let first = self.offsets[source];
            let ranges = merge_rows(here.iter().map(|cell| cell - first));
            let rows = read_rows(self.members[source].source.as_ref(), &ranges)?;
            each(source, rows, here)?;
        }
        Ok(())
    }

    /// What absent genes are drawn by: in how many of (at most) 20,000 of the selected cells each
    /// of `num_genes` genes is expressed; `None` where they are drawn uniformly.
    ///
    /// # Errors
    /// As [`DataSet::expressed_counts`].
    pub fn gene_weights(
        &self,
        sampling: AbsentGeneSampling,
        selection: &Selection,
        num_genes: usize,
    ) -> Result<Option<Vec<f64>>, LoaderError> {
        match sampling {
            AbsentGeneSampling::Uniform => Ok(None),
            AbsentGeneSampling::Frequency => {
                let counts = self.expressed_counts(selection, WEIGHT_CELLS, num_genes)?;
                Ok(Some(counts))
            }
        }
    }

    /// In how many of (at most) `num_cells` of the selected cells each of `num_genes` genes is
    /// expressed. The cells are spread evenly over the selection.
    ///
    /// # Errors
    /// A cell that cannot be read or made into tokens.
    pub fn expressed_counts(
        &self,
        selection: &Selection,
        num_cells: u64,
        num_genes: usize,
    ) -> Result<Vec<f64>, LoaderError> {
        let mut counts = vec![0.0; num_genes];
        let selected = selection.len(self.len());
        let num_cells = num_cells.min(selected);
        let place = |n: u64| (u128::from(n) * u128::from(selected) / u128::from(num_cells)) as u64;
        let cell = |n| (selection.cell(place(n)), 0);
        let cells: Vec<(u64, u64)> = (0..num_cells).map(cell).collect();
        for part in cells.chunks(COUNTED_TOGETHER) {
            self.visit(part, (0, false), |_, tokens, _| {
                for gene in tokens.iter().flat_map(|tokens| &tokens.expressed) {
                    if let Some(count) = counts.get_mut(*gene as usize) {
                        *count += 1.0;
                    }
                }
            })?;
        }
        Ok(counts)
    }
}

/// `cells`, ascending, by the source that holds them: sources begin at `offsets`, the last of which is
/// their end. What lies beyond is left out.
pub(super) fn by_source<'a>(
    offsets: &'a [u64],
    cells: &'a [u64],
) -> impl Iterator<Item = (usize, &'a [u64])> {
    let mut rest = cells;
    std::iter::from_fn(move || {
        let first = *rest.first()?;
        let source = offsets.partition_point(|start| *start <= first) - 1;
        let end = *offsets.get(source + 1)?;
        let (here, after) = rest.split_at(rest.partition_point(|cell| *cell < end));
        rest = after;
        Some((source, here))
    })
}

/// The rows of `ranges` of a source, as many as there must be.
pub(super) fn read_rows(
    source: &dyn CellSource,
    ranges: &[Range<u64>],
) -> Result<CsrBlock, LoaderError> {
    let path = || source.path().to_path_buf();
    let block = source
        .read_ranges(ranges)
        .map_err(|cause| LoaderError::Read {
            path: path(),
            first: ranges.first().map_or(0, |range| range.start),
            end: ranges.last().map_or(0, |range| range.end),
            cause,
        })?;
    let expected = ranges.iter().map(|r| r.end - r.start).sum::<u64>() as usize;
    let got = block.rows();
    if got != expected {
        return Err(LoaderError::RowCount {
            path: path(),
            expected,
            got,
        });
    }
    Ok(block)
}

/// Ascending rows, of which some may be equal, as ranges of adjacent ones.
pub(super) fn merge_rows(rows: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for row in rows {
        match ranges.last_mut() {
            Some(last) if last.end == row => last.end += 1,
            Some(last) if last.end == row + 1 => {}
            _ => ranges.push(row..row + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_divided_by_source() {
        let divide = |cells| by_source(&[0, 2, 2, 5], cells).collect::<Vec<_>>();
        assert_eq!(
            divide(&[0, 1, 1, 2, 4]),
            [(0, &[0, 1, 1][..]), (2, &[2, 4][..])]
        );
        assert_eq!(divide(&[4, 5, 9]), [(2, &[4][..])]);
        assert!(divide(&[]).is_empty());
    }

    #[test]
    fn adjacent_rows_are_read_together() {
        assert_eq!(
            merge_rows([2, 3, 3, 4, 7, 7, 7, 9, 10].into_iter()),
            [2..5, 7..8, 9..11]
        );
        assert!(merge_rows(std::iter::empty()).is_empty());
    }
}
