//! Vocabularies from the cells themselves: the values of obs columns, the genes of files.

use std::collections::{HashMap, HashSet};

use super::{GeneVocab, PhenotypeVocab, VocabError, canonical_gene_id};
use crate::cell::CellSource;

/// Which genes of several sources make the vocabulary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

/// The genes of the sources, by canonical id; a gene that stands twice in a source counts once.
///
/// # Errors
/// None of its own: ids made unique cannot be refused as duplicates.
pub fn build_genes(sources: &[&dyn CellSource], from: GenesFrom) -> Result<GeneVocab, VocabError> {
    let mut order = Vec::new();
    let mut number_of_sources: HashMap<&str, usize> = HashMap::new();
    for source in sources {
        let mut seen = HashSet::new();
        for id in source.gene_ids() {
            let id = canonical_gene_id(id);
            if seen.insert(id) {
                let count = number_of_sources.entry(id).or_default();
                *count += 1;
                if *count == 1 {
                    order.push(id);
                }
            }
        }
    }
    let is_in = |id: &&str| match from {
        GenesFrom::Union => true,
        GenesFrom::Intersection => number_of_sources[id] == sources.len(),
    };
    GeneVocab::new(
        order.into_iter().filter(is_in).map(str::to_owned).collect(),
        None,
    )
}
