//! Vocabularies from the cells themselves: the values of obs columns, the genes of files.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{GeneVocab, PhenotypeVocab, VocabError, canonical_gene_id};
use crate::cell::CellSource;

/// Which genes of several sources make the vocabulary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenesFrom {
    /// Every gene of any source, in the order of first appearance.
    #[default]
    Union,
    /// The genes that every source has, in the order of the first one.
    Intersection,
}

/// `start` with every value that the sources have in the obs columns `columns`.
///
/// # Errors
/// A source without such a column, or a value that is a token of two columns.
pub fn build_phenotypes(
    start: PhenotypeVocab,
    sources: &[&dyn CellSource],
    columns: &[String],
) -> Result<PhenotypeVocab, VocabError> {
    let mut vocabulary = start;
    for column in columns {
        let labels: Result<Vec<_>, _> =
            sources.iter().map(|source| source.labels(column)).collect();
        let labels = labels.map_err(VocabError::Source)?;
        let columns = labels.iter().map(|labels| (column.as_str(), labels));
        vocabulary = vocabulary.with_values(columns)?;
    }
    Ok(vocabulary)
}

/// Genes of sources that are seen one after the other, by canonical id.
#[derive(Debug, Default)]
pub struct GeneTally {
    order: Vec<String>,
    num_sources_with: HashMap<String, usize>,
    num_sources: usize,
}

impl GeneTally {
    /// Adds the genes of a source, and tells the ids that stand in it again.
    pub fn add<'a>(&mut self, ids: &'a [String]) -> Vec<&'a str> {
        self.num_sources += 1;
        let (mut seen, mut repeated) = (HashSet::new(), Vec::new());
        for id in ids.iter().map(|id| canonical_gene_id(id)) {
            if !seen.insert(id) {
                repeated.push(id);
            } else if let Some(count) = self.num_sources_with.get_mut(id) {
                *count += 1;
            } else {
                self.num_sources_with.insert(id.to_owned(), 1);
                self.order.push(id.to_owned());
            }
        }
        repeated
    }

    /// Number of genes of any source.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no source has a gene.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The genes that count.
    ///
    /// # Errors
    /// None of its own: ids made unique cannot be refused as duplicates.
    pub fn finish(self, from: GenesFrom) -> Result<GeneVocab, VocabError> {
        let is_in = |id: &String| match from {
            GenesFrom::Union => true,
            GenesFrom::Intersection => self.num_sources_with.get(id) == Some(&self.num_sources),
        };
        GeneVocab::new(self.order.into_iter().filter(is_in).collect(), None)
    }
}

/// The genes of the sources, by canonical id; a gene that stands twice in a source counts once.
///
/// # Errors
/// None of its own: ids made unique cannot be refused as duplicates.
pub fn build_genes(sources: &[&dyn CellSource], from: GenesFrom) -> Result<GeneVocab, VocabError> {
    let mut tally = GeneTally::default();
    for source in sources {
        tally.add(source.gene_ids());
    }
    tally.finish(from)
}
