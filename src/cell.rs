//! The nouns that cross rooms: a source of cells, a cell's tokens, a batch of them.
//!
//! Legend of shapes: a batch is *packed*: the tokens of its cells stand one after the other in
//! flat arrays of length T, and `cu_seqlens` (length B + 1, first 0, last T) says where each cell
//! begins. There is no padding anywhere.

use std::ops::Range;
use std::path::Path;

/// Rows of cells × columns of the source's genes, compressed by row. Within a row the columns
/// ascend, no column occurs twice and no value is zero.
pub type CsrBlock = sprs::CsMatI<f32, u32, usize>;

/// The error of any cell source; its text names the file and the place.
pub type SourceError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Position of a gene in the gene vocabulary, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GeneId(pub u32);

/// A gene id as it is compared: an Ensembl id loses its version suffix (`ENSG00000141510.18` →
/// `ENSG00000141510`), a symbol stays as it is.
pub fn canonical_gene_id(id: &str) -> &str {
    let Some((stem, version)) = id.rsplit_once('.') else {
        return id;
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let digits = stem.trim_start_matches(|c: char| c.is_ascii_uppercase());
    let ensembl = stem.starts_with("ENS") && digits.len() >= 6 && is_number(digits);
    if ensembl && is_number(version) {
        stem
    } else {
        id
    }
}

/// Position of a token in the token vocabulary, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u32);

/// One obs column as categories and codes, whatever its encoding in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The distinct values, in the file's own order for categoricals, sorted otherwise.
    pub categories: Vec<String>,
    /// One code per cell: an index into `categories`, or −1 where the value is missing.
    pub codes: Vec<i32>,
}

impl Labels {
    /// The value of cell `row`, `None` where it is missing.
    pub fn value(&self, row: usize) -> Option<&str> {
        let code = usize::try_from(*self.codes.get(row)?).ok()?;
        self.categories.get(code).map(String::as_str)
    }
}

/// Anything that cells can be read from: an h5ad file, a memory-mapped store, cells in memory.
///
/// Shared by reader threads: every method takes `&self` and may run in several threads at once.
pub trait CellSource: Send + Sync {
    /// Where the cells come from, for messages.
    fn path(&self) -> &Path;
    /// Number of cells (rows).
    fn num_cells(&self) -> u64;
    /// The gene id of every column, as the source spells it (no version suffix removed).
    fn gene_ids(&self) -> &[String];
    /// The rows of `ranges` (ascending, not overlapping), one under the other.
    ///
    /// # Errors
    /// Unreadable data, or a value that is negative, NaN or infinite where the source was told to
    /// refuse it: the error names file, row and gene.
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<CsrBlock, SourceError>;
    /// The names of the obs columns.
    ///
    /// # Errors
    /// Unreadable data.
    fn obs_columns(&self) -> Result<Vec<String>, SourceError>;
    /// One obs column, all cells.
    ///
    /// # Errors
    /// No such column (the error lists those there are), or one that has no categories to name.
    fn labels(&self, column: &str) -> Result<Labels, SourceError>;
    /// The name of every cell (the obs index).
    ///
    /// # Errors
    /// Unreadable data.
    fn cell_names(&self) -> Result<Vec<String>, SourceError>;
}

/// The tokens of one cell: `[CLS]`, phenotypes, genes, `[EOS]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenizedCell {
    /// Token ids, length L.
    pub input_ids: Vec<u32>,
    /// Token type ids, length L: 0 special, 1..=C phenotype category, C+1+g gene g.
    pub token_type_ids: Vec<u32>,
    /// Every expressed gene of the cell (bin ≥ 1), ascending [`GeneId`]s, also those cut off by
    /// truncation: masking draws absent genes outside of it.
    pub expressed: Vec<u32>,
}

/// A batch of cells as rows of numbers, compressed by row; within a row the columns ascend.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SparseBatch {
    /// Where each cell begins, `[B + 1]`; first 0, last N.
    pub starts: Vec<usize>,
    /// Gene of the vocabulary of each value, `[N]`.
    pub columns: Vec<u32>,
    /// The values that are not zero, `[N]`.
    pub values: Vec<f32>,
    /// Genes of the vocabulary.
    pub num_genes: usize,
    /// The cells of the batch as indices into the data set, `[B]`.
    pub cells: Vec<u64>,
}

/// A labelled position of a packed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Index into the batch's flat arrays, 0..T.
    pub position: u32,
    /// The token to predict there.
    pub token: u32,
}

/// A batch of cells, packed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackedBatch {
    /// Token ids, `[T]`.
    pub input_ids: Vec<u32>,
    /// Token type ids, `[T]`.
    pub token_type_ids: Vec<u32>,
    /// Start of each cell, `[B + 1]`; first 0, last T.
    pub cu_seqlens: Vec<u32>,
    /// The labelled positions, ascending; empty where nothing was masked.
    pub labels: Vec<Label>,
    /// The cells of the batch as indices into the data set, `[B]`.
    pub cells: Vec<u64>,
}

impl PackedBatch {
    /// Number of cells B.
    pub fn num_cells(&self) -> usize {
        self.cu_seqlens.len().saturating_sub(1)
    }

    /// Number of real tokens T.
    pub fn num_tokens(&self) -> usize {
        self.input_ids.len()
    }

    /// Its cells in runs, as many one after the other as have `most_tokens` tokens together; a longer
    /// cell is a run of its own.
    pub fn runs(&self, most_tokens: usize) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for cell in 0..self.num_cells() {
            let tokens = |first: usize| self.cu_seqlens[cell + 1] - self.cu_seqlens[first];
            match runs.last_mut() {
                Some(run) if tokens(run.start) as usize <= most_tokens => run.end = cell + 1,
                _ => runs.push(cell..cell + 1),
            }
        }
        runs
    }

    /// The batch of some of its cells.
    #[must_use]
    pub fn part(&self, cells: Range<usize>) -> Self {
        let starts = &self.cu_seqlens[cells.start..=cells.end];
        let (first, end) = (starts[0], starts[cells.len()]);
        let tokens = first as usize..end as usize;
        let labels = self.labels.iter();
        let labels = labels.filter(|label| (first..end).contains(&label.position));
        Self {
            input_ids: self.input_ids[tokens.clone()].to_vec(),
            token_type_ids: self.token_type_ids[tokens].to_vec(),
            cu_seqlens: starts.iter().map(|start| start - first).collect(),
            labels: labels
                .map(|label| Label {
                    position: label.position - first,
                    ..*label
                })
                .collect(),
            cells: self.cells[cells].to_vec(),
        }
    }

    /// Number of tokens that the same batch has when every cell is padded to its longest.
    pub fn num_padded_tokens(&self) -> usize {
        let longest = self
            .cu_seqlens
            .windows(2)
            .map(|w| w[1] - w[0])
            .max()
            .unwrap_or(0);
        longest as usize * self.num_cells()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ensembl_ids_lose_a_version() {
        assert_eq!(canonical_gene_id("ENSG00000141510.18"), "ENSG00000141510");
        assert_eq!(
            canonical_gene_id("ENSMUSG00000059552.3"),
            "ENSMUSG00000059552"
        );
        for same in [
            "AC000.1",
            "RP11-34P13.7",
            "ENSG00000141510",
            "ENSG1.x",
            "TP53",
            ".",
        ] {
            assert_eq!(canonical_gene_id(same), same);
        }
    }

    #[test]
    fn parts_of_a_batch_hold_whole_cells_and_their_labels() {
        let batch = PackedBatch {
            input_ids: (0..10).collect(),
            token_type_ids: (10..20).collect(),
            cu_seqlens: vec![0, 2, 2, 7, 8, 10],
            labels: [1, 4, 9]
                .map(|position| Label {
                    position,
                    token: position,
                })
                .to_vec(),
            cells: vec![5, 6, 7, 8, 9],
        };
        let runs = |most| batch.runs(most);
        assert_eq!(runs(3), [0..2, 2..3, 3..5]);
        assert_eq!(runs(1), [0..1, 1..2, 2..3, 3..4, 4..5]);
        assert_eq!((runs(100), runs(8)), (vec![0..5], vec![0..4, 4..5]));
        assert!(PackedBatch::default().runs(5).is_empty());
        assert_eq!(batch.part(0..5), batch);
        let part = batch.part(2..4);
        assert_eq!(part.input_ids, [2, 3, 4, 5, 6, 7]);
        assert_eq!((part.cu_seqlens, part.cells), (vec![0, 5, 6], vec![7, 8]));
        assert_eq!(
            part.labels,
            [Label {
                position: 2,
                token: 4
            }]
        );
    }
}
