//! The list of genes of a run, fixed at its start.

use std::collections::HashMap;

use super::VocabError;
use crate::cell::{GeneId, canonical_gene_id};

/// Stands for "no gene of the vocabulary" among the genes of columns.
pub const NO_GENE: u32 = u32::MAX;

/// Gene ids in the order of their [`GeneId`]s, with a rank for each if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneVocab {
    ids: Vec<String>,
    ranks: Option<Vec<u32>>,
    by_id: HashMap<String, u32>,
}

impl GeneVocab {
    /// Genes by id (in canonical form from then on); `ranks[g]` is gene g's rank, 0 the best.
    ///
    /// # Errors
    /// Two ids with the same canonical form, or not one rank for each gene.
    pub fn new(ids: Vec<String>, ranks: Option<Vec<u32>>) -> Result<Self, VocabError> {
        let ids: Vec<String> = ids
            .iter()
            .map(|id| canonical_gene_id(id).to_owned())
            .collect();
        let mut by_id = HashMap::with_capacity(ids.len());
        for (second, id) in ids.iter().enumerate() {
            if let Some(first) = by_id.insert(id.clone(), second as u32) {
                let (gene, first) = (id.clone(), first as usize);
                return Err(VocabError::DuplicateGene {
                    gene,
                    first,
                    second,
                });
            }
        }
        if let Some(found) = ranks.as_ref().map(Vec::len).filter(|&n| n != ids.len()) {
            return Err(VocabError::Ranks {
                expected: ids.len(),
                found,
            });
        }
        Ok(Self { ids, ranks, by_id })
    }

    /// Number of genes.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no gene.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The ids, in canonical form.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Each gene's rank, 0 the best.
    pub fn ranks(&self) -> Option<&[u32]> {
        self.ranks.as_deref()
    }

    /// The gene of this id, with or without a version suffix.
    pub fn get(&self, id: &str) -> Option<GeneId> {
        self.by_id.get(canonical_gene_id(id)).copied().map(GeneId)
    }

    /// The gene of each column of a source; [`NO_GENE`] where it is none of these, or where an
    /// earlier column has the same.
    pub fn of_columns(&self, columns: &[String]) -> Vec<u32> {
        let mut taken = vec![false; self.len()];
        let mut gene = |id: &String| {
            let gene = self.get(id)?.0;
            let taken = taken.get_mut(gene as usize)?;
            (!std::mem::replace(taken, true)).then_some(gene)
        };
        let genes = columns.iter().map(|id| gene(id).unwrap_or(NO_GENE));
        genes.collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_column_of_a_gene_counts() {
        let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let genes = GeneVocab::new(owned(&["ENSG00000000001", "B"]), None).unwrap();
        let columns = owned(&["B", "x", "ENSG00000000001.7", "B"]);
        assert_eq!(genes.of_columns(&columns), [1, NO_GENE, 0, NO_GENE]);
    }

    #[test]
    fn duplicates_are_refused_in_canonical_form() {
        let ids = ["ENSG00000141510.1", "TP53", "ENSG00000141510.2"]
            .map(String::from)
            .to_vec();
        let error = GeneVocab::new(ids, None).unwrap_err();
        assert!(error.to_string().contains("ENSG00000141510"), "{error}");
    }
}
