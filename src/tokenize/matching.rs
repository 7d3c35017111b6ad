//! A source's columns matched with the gene vocabulary, by id.

use std::fmt;

use super::TokenizeError;
use crate::vocab::{GeneVocab, canonical_gene_id};

/// How many names a report shows.
const SHOWN: usize = 10;

/// How a source's genes meet the vocabulary's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GeneMatch {
    /// Genes in both.
    pub matched: usize,
    /// Genes of the vocabulary that the source lacks.
    pub missing: usize,
    /// The first ten of them.
    pub missing_names: Vec<String>,
    /// Columns of the source that are not in the vocabulary.
    pub extra: usize,
    /// The first ten of them.
    pub extra_names: Vec<String>,
    /// Columns whose id stood in an earlier column already; they are not read.
    pub duplicates: usize,
    /// The first ten of them.
    pub duplicate_names: Vec<String>,
}

impl GeneMatch {
    /// How the genes of `columns` meet those of a vocabulary.
    pub fn of(columns: &[String], genes: &GeneVocab) -> Self {
        match_genes(columns, genes).1
    }
}

impl fmt::Display for GeneMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} genes matched", self.matched)?;
        let parts = [
            (self.missing, "missing", &self.missing_names),
            (self.extra, "extra", &self.extra_names),
            (
                self.duplicates,
                "duplicate (first column taken)",
                &self.duplicate_names,
            ),
        ];
        for (count, what, names) in parts.into_iter().filter(|(count, _, _)| *count > 0) {
            let more = if count > names.len() { ", …" } else { "" };
            write!(f, ", {count} {what} ({}{more})", names.join(", "))?;
        }
        Ok(())
    }
}

/// Column → gene of the vocabulary (or [`crate::vocab::NO_GENE`]), and the report.
pub(super) fn match_genes(columns: &[String], genes: &GeneVocab) -> (Vec<u32>, GeneMatch) {
    let map = genes.of_columns(columns);
    let mut report = GeneMatch::default();
    let mut taken = vec![false; genes.len()];
    for (column, gene) in columns.iter().zip(&map) {
        if let Some(taken) = taken.get_mut(*gene as usize) {
            *taken = true;
            report.matched += 1;
            continue;
        }
        let (count, names) = match genes.get(column) {
            None => (&mut report.extra, &mut report.extra_names),
            Some(_) => (&mut report.duplicates, &mut report.duplicate_names),
        };
        *count += 1;
        if names.len() < SHOWN {
            names.push(column.clone());
        }
    }
    report.missing = genes.len() - report.matched;
    let missing = genes.ids().iter().zip(&taken).filter(|(_, taken)| !**taken);
    report.missing_names = missing.take(SHOWN).map(|(id, _)| id.clone()).collect();
    (map, report)
}

/// Refuses a source with less than `least` (0..=1) of the vocabulary's genes.
pub(super) fn check_overlap(
    report: &GeneMatch,
    (source_path, columns): (String, &[String]),
    genes: &GeneVocab,
    least: f64,
) -> Result<(), TokenizeError> {
    let share = report.matched as f64 / (genes.len() as f64).max(1.0);
    if share >= least && report.matched > 0 || genes.is_empty() {
        return Ok(());
    }
    let some = |ids: &[String]| {
        let ids: Vec<&str> = ids.iter().take(3).map(|id| canonical_gene_id(id)).collect();
        if ids.is_empty() {
            "nothing (it has none)".to_owned()
        } else {
            ids.join(", ")
        }
    };
    Err(TokenizeError::GeneOverlap {
        source_path,
        matched: report.matched,
        expected: genes.len(),
        share: 100.0 * share,
        least: 100.0 * least,
        found: some(columns),
        wanted: some(genes.ids()),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::vocab::NO_GENE;

    #[test]
    fn columns_are_matched_by_id_and_all_else_is_counted() {
        let owned = |ids: &[&str]| ids.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let genes = GeneVocab::new(owned(&["ENSG00000000001", "B", "C"]), None).unwrap();
        let columns = owned(&["C", "x", "ENSG00000000001.7", "C"]);
        let (map, report) = match_genes(&columns, &genes);
        assert_eq!(map, [2, NO_GENE, 0, NO_GENE]);
        let counts = (
            report.matched,
            report.missing,
            report.extra,
            report.duplicates,
        );
        assert_eq!(counts, (2, 1, 1, 1));
        assert_eq!(report.missing_names, ["B"]);
        let at = |least| check_overlap(&report, ("f".into(), &columns), &genes, least);
        assert!(at(0.6).is_ok());
        assert!(
            at(0.7)
                .unwrap_err()
                .to_string()
                .contains("2 of the vocabulary's 3")
        );
    }
}
