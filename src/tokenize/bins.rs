//! From a value to its bin: the number of edges that are ≤ the value, as numpy's
//! `digitize(x, edges)`; an f32 value is compared with f64 edges.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TokenizeError;
use crate::vocab::{GeneVocab, canonical_gene_id};

/// Between which values the bins are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bins {
    /// The same edges for every gene, ascending.
    Shared(Vec<f64>),
    /// Edges by gene id, the same number for each, ascending.
    PerGene(BTreeMap<String, Vec<f64>>),
    /// This many bins, cut at the quantiles of each cell's own non-zero values; bin 0 stays
    /// empty. The k-th edge is the smallest value with at least k/n of the values below it.
    Quantile(usize),
}

impl Bins {
    /// Number n of edges; there are n + 1 bins.
    ///
    /// # Errors
    /// No edges, edges that do not ascend, or different numbers of edges.
    pub fn num_edges(&self) -> Result<usize, TokenizeError> {
        match self {
            Self::Shared(edges) => check(edges, "bin_edges").map(|()| edges.len()),
            Self::Quantile(0) => Err(bins("quantile_bins", "is 0; expected 1 bin or more")),
            Self::Quantile(n) => Ok(*n),
            Self::PerGene(genes) => {
                let mut sizes = genes
                    .iter()
                    .map(|(gene, edges)| check(edges, gene).map(|()| (gene, edges.len())));
                let Some(first) = sizes.next() else {
                    return Err(bins("bin_edges_path", "names no gene"));
                };
                let (first_gene, expected) = first?;
                for size in sizes {
                    let (gene, found) = size?;
                    if found != expected {
                        let what = format!("has {found} edges, but {first_gene} has {expected}");
                        return Err(bins(gene, what));
                    }
                }
                Ok(expected)
            }
        }
    }

    /// The edges by gene of the vocabulary.
    ///
    /// # Errors
    /// A gene of the vocabulary without edges.
    pub(super) fn resolve(&self, genes: &GeneVocab) -> Result<Edges, TokenizeError> {
        let num_edges = self.num_edges()?;
        match self {
            Self::Shared(edges) => Ok(Edges::Shared(edges.clone())),
            Self::Quantile(n) => Ok(Edges::Quantile(*n)),
            Self::PerGene(given) => {
                let by_id: BTreeMap<&str, &Vec<f64>> = given
                    .iter()
                    .map(|(gene, edges)| (canonical_gene_id(gene), edges))
                    .collect();
                let mut flat = Vec::with_capacity(genes.len() * num_edges);
                for gene in genes.ids() {
                    let Some(edges) = by_id.get(gene.as_str()) else {
                        return Err(bins(gene, "has no edges, but is in the gene vocabulary"));
                    };
                    flat.extend_from_slice(edges);
                }
                Ok(Edges::PerGene { num_edges, flat })
            }
        }
    }
}

fn bins(place: impl Into<String>, what: impl Into<String>) -> TokenizeError {
    TokenizeError::Bins {
        place: place.into(),
        what: what.into(),
    }
}

fn check(edges: &[f64], place: &str) -> Result<(), TokenizeError> {
    if edges.is_empty() {
        return Err(bins(place, "has no edges; expected one or more"));
    }
    match edges
        .windows(2)
        .find(|w| w[1] <= w[0] || w[1].is_nan() || w[0].is_nan())
    {
        Some(pair) => Err(bins(
            place,
            format!("edges must ascend, found {} then {}", pair[0], pair[1]),
        )),
        None if edges[0].is_nan() => Err(bins(place, "has an edge that is NaN")),
        None => Ok(()),
    }
}

/// Edges ready for use.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Edges {
    Shared(Vec<f64>),
    PerGene { num_edges: usize, flat: Vec<f64> },
    Quantile(usize),
}

/// Number of `edges` ≤ `value`.
pub(super) fn bin(value: f32, edges: &[f64]) -> u32 {
    let value = f64::from(value);
    if edges.len() <= 8 {
        edges.iter().map(|&edge| u32::from(edge <= value)).sum()
    } else {
        edges.partition_point(|&edge| edge <= value) as u32
    }
}

impl Edges {
    /// The edges of a gene; for quantiles, those of the cell, in `of_cell`.
    pub(super) fn of<'a>(&'a self, gene: u32, of_cell: &'a [f64]) -> &'a [f64] {
        match self {
            Self::Shared(edges) => edges,
            Self::PerGene { num_edges, flat } => &flat[gene as usize * num_edges..][..*num_edges],
            Self::Quantile(_) => of_cell,
        }
    }

    /// Edges at the quantiles of a cell's non-zero values, into `edges`; nothing for other kinds.
    pub(super) fn cut(&self, values: &[f32], sorted: &mut Vec<f32>, edges: &mut Vec<f64>) {
        let Self::Quantile(n) = self else { return };
        sorted.clear();
        sorted.extend_from_slice(values);
        sorted.sort_unstable_by(f32::total_cmp);
        edges.clear();
        if let Some(last) = sorted.len().checked_sub(1) {
            edges.extend((0..*n).map(|k| f64::from(sorted[(k * sorted.len() / n).min(last)])));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_value_on_an_edge_belongs_to_the_upper_bin() {
        let edges = [1.0, 2.0, 3.0];
        let bins: Vec<u32> = [0.5, 1.0, 1.5, 3.0, 9.0].map(|v| bin(v, &edges)).to_vec();
        assert_eq!(bins, [0, 1, 1, 3, 3]);
        // 0.1f32 is slightly above the f64 0.1.
        assert_eq!(bin(0.1, &[0.1]), 1);
        let many: Vec<f64> = (0..20).map(f64::from).collect();
        assert_eq!((bin(7.0, &many), bin(-1.0, &many)), (8, 0));
    }

    #[test]
    fn wrong_edges_are_named() {
        for (bins, word) in [
            (Bins::Shared(vec![]), "no edges"),
            (Bins::Shared(vec![2.0, 1.0]), "ascend"),
            (Bins::Quantile(0), "quantile_bins"),
            (
                Bins::PerGene([("A".into(), vec![1.0]), ("B".into(), vec![1.0, 2.0])].into()),
                "B",
            ),
        ] {
            let error = bins.num_edges().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_gene_without_edges_is_named() {
        let genes = GeneVocab::new(vec!["A".into(), "C".into()], None).unwrap();
        let bins = Bins::PerGene([("A".to_owned(), vec![1.0])].into());
        assert!(bins.resolve(&genes).unwrap_err().to_string().contains('C'));
    }

    #[test]
    fn quantiles_split_a_cell_evenly() {
        let edges = Edges::Quantile(4);
        let (mut sorted, mut of_cell) = (Vec::new(), Vec::new());
        let values: Vec<f32> = (1..=8).rev().map(|v| v as f32).collect();
        edges.cut(&values, &mut sorted, &mut of_cell);
        let bins: Vec<u32> = sorted.iter().map(|&v| bin(v, &of_cell)).collect();
        assert_eq!(bins, [1, 1, 2, 2, 3, 3, 4, 4]);
    }
}
