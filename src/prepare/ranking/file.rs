//! A ranking of genes on disk: a table with a line for each gene, the best first.
//!
//! `gene-bert genes rank` writes scanpy's columns; a run reads the order of the lines alone (see
//! [`GeneTable`]), so that a list made by hand or by another program will do.

use std::path::Path;

use super::order::Ranking;
use crate::file::{FileError, TableWriter};
use crate::prepare::PrepareError;
use crate::vocab::{GeneTable, GeneVocab};

const COLUMNS: [&str; 7] = [
    "gene",
    "highly_variable",
    "highly_variable_rank",
    "highly_variable_nbatches",
    "means",
    "variances",
    "variances_norm",
];

impl Ranking {
    /// Writes the table, whole or not at all.
    ///
    /// # Errors
    /// A folder that cannot be written to, a full disk.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        let mut table = TableWriter::new(path, &COLUMNS)?;
        for gene in &self.genes {
            table.row([
                gene.gene.clone(),
                gene.highly_variable.to_string(),
                gene.rank.map(|rank| rank.to_string()).unwrap_or_default(),
                gene.num_batches.to_string(),
                gene.mean.to_string(),
                gene.variance.to_string(),
                gene.normalised_variance.to_string(),
            ])?;
        }
        table.finish()
    }
}

/// `genes` ranked by their place in a table; those that it does not name come last.
///
/// # Errors
/// None of the genes stands in the table.
pub fn ranked_by(table: &GeneTable, genes: &GeneVocab) -> Result<GeneVocab, PrepareError> {
    let mut ranks = vec![u32::MAX; genes.len()];
    let mut matched = 0;
    for (rank, id) in (0..).zip(table.genes()) {
        if let Some(place) = genes.get(id).and_then(|g| ranks.get_mut(g.0 as usize)) {
            *place = rank;
            matched += 1;
        }
    }
    if matched == 0 {
        return Err(table.no_match(genes.ids()).into());
    }
    Ok(GeneVocab::new(genes.ids().to_vec(), Some(ranks))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn genes_that_are_not_ranked_come_last() {
        let genes = GeneVocab::new(["A", "B", "C"].map(String::from).to_vec(), None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.csv");
        let ranked = |text: &str| {
            std::fs::write(&path, text).unwrap();
            ranked_by(&GeneTable::load(&path).unwrap(), &genes)
        };
        let found = ranked("X\nC\nA\n").unwrap();
        assert_eq!(found.ranks(), Some([2, u32::MAX, 1].as_slice()));
        let error = ranked("X\n").unwrap_err().to_string();
        assert!(error.contains("none of its 1 genes (X"), "{error}");
    }
}
