//! A ranking of genes on disk: a table with a line for each gene, the best first.
//!
//! `gene-bert genes rank` writes scanpy's columns; a run reads the order of the lines and the
//! column `gene` alone (or the first column, where the first line names no column), so that a list
//! made by hand or by another program will do.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::order::Ranking;
use crate::file::{FileError, TableWriter, read_table};
use crate::prepare::{GenesError, PrepareError};
use crate::vocab::{GeneVocab, canonical_gene_id};

/// What the column of gene ids may be called.
const GENE_COLUMNS: [&str; 4] = ["gene", "gene_id", "gene_name", "index"];

const COLUMNS: [&str; 7] = [
    GENE_COLUMNS[0],
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

/// Gene ids in their order, read from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneRanking {
    path: PathBuf,
    genes: Vec<String>,
}

impl GeneRanking {
    /// Reads a table of genes, the best first.
    ///
    /// # Errors
    /// Absent, unreadable, no gene in it, or a gene twice.
    pub fn load(path: &Path) -> Result<Self, PrepareError> {
        let wrong = |what: String| GenesError::Ranking {
            path: path.to_owned(),
            what,
        };
        let rows = read_table(path)?;
        let column = rows.first().and_then(|header| {
            let named = |name: &&str| header.iter().position(|field| field == *name);
            GENE_COLUMNS.iter().find_map(named)
        });
        // pandas leaves the name of the index empty.
        let unnamed = rows
            .first()
            .is_some_and(|header| header.first().is_some_and(String::is_empty) && header.len() > 1);
        let num_header = usize::from(column.is_some() || unnamed);
        let mut seen = HashSet::new();
        let mut genes = Vec::new();
        for (line, row) in rows.iter().enumerate().skip(num_header) {
            let id = row.get(column.unwrap_or(0)).map_or("", String::as_str);
            if id.is_empty() {
                return Err(wrong(format!("row {} names no gene", line + 1)).into());
            }
            if !seen.insert(canonical_gene_id(id)) {
                return Err(wrong(format!("gene {id} stands in it twice")).into());
            }
            genes.push(canonical_gene_id(id).to_owned());
        }
        if genes.is_empty() {
            return Err(wrong("there is no gene in it".to_owned()).into());
        }
        let path = path.to_owned();
        Ok(Self { path, genes })
    }

    /// `genes` with these ranks; those that the file does not name come last.
    ///
    /// # Errors
    /// None of the genes stands in the file.
    pub fn applied_to(&self, genes: &GeneVocab) -> Result<GeneVocab, PrepareError> {
        let mut ranks = vec![u32::MAX; genes.len()];
        let mut matched = 0;
        for (rank, id) in (0..).zip(&self.genes) {
            if let Some(place) = genes.get(id).and_then(|g| ranks.get_mut(g.0 as usize)) {
                *place = rank;
                matched += 1;
            }
        }
        if matched == 0 {
            let some = |ids: &[String]| ids.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
            return Err(GenesError::Ranking {
                path: self.path.clone(),
                what: format!(
                    "none of its {} genes ({}, …) is one of the {} genes of the cells ({}, …)",
                    self.genes.len(),
                    some(&self.genes),
                    genes.len(),
                    some(genes.ids())
                ),
            }
            .into());
        }
        Ok(GeneVocab::new(genes.ids().to_vec(), Some(ranks))?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn load(name: &str, text: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let loaded = GeneRanking::load(&path);
        loaded.map(|r| r.genes).map_err(|e| e.to_string())
    }

    #[test]
    fn tables_and_plain_lists_are_read() {
        let expected = Ok(vec!["ENSG00000000003".to_owned(), "B".to_owned()]);
        for (name, text) in [
            ("a.csv", "gene,means\nENSG00000000003.7,1\nB,2\n"),
            ("a.csv", "means,gene\n1,ENSG00000000003\n2,B\n"),
            ("a.csv", ",means\nENSG00000000003,1\nB,2\n"),
            ("a.csv", "ENSG00000000003,1\nB,2\n"),
            ("a.tsv", "gene_id\tx\nENSG00000000003\t1\nB\t2\n"),
            ("a.txt", "\u{feff}ENSG00000000003\r\n\r\nB\r\n"),
        ] {
            assert_eq!(load(name, text), expected, "{text}");
        }
    }

    #[test]
    fn lists_that_rank_nothing_are_refused() {
        for (text, part) in [
            ("", "no gene"),
            ("gene\n", "no gene"),
            ("A\nB\nA\n", "A stands in it twice"),
            ("gene,x\nA,1\n,2\n", "row 3 names no gene"),
        ] {
            let error = load("r.csv", text).unwrap_err();
            assert!(error.contains(part) && error.contains("r.csv"), "{error}");
            assert!(error.contains("hint: "), "{error}");
        }
    }

    #[test]
    fn genes_that_are_not_ranked_come_last() {
        let genes = GeneVocab::new(["A", "B", "C"].map(String::from).to_vec(), None).unwrap();
        let ranking = |ids: &[&str]| GeneRanking {
            path: "r.csv".into(),
            genes: ids.iter().map(|id| (*id).to_owned()).collect(),
        };
        let ranked = ranking(&["X", "C", "A"]).applied_to(&genes).unwrap();
        assert_eq!(ranked.ranks(), Some([2, u32::MAX, 1].as_slice()));
        let error = ranking(&["X"]).applied_to(&genes).unwrap_err().to_string();
        assert!(error.contains("none of its 1 genes (X"), "{error}");
    }
}
