//! What constant answers reach: the most common value of each phenotype, the most common bin of
//! each gene. Both are counted on training cells (the first of the first epoch, at most
//! [`MAX_CELLS`] of them), masked as in training, so that they know nothing of the held-out cells.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;

use crate::cell::{GeneId, TokenId};
use crate::loader::{
    Collator, DataSet, EvalMasking, EvalSet, Loader, LoaderConfig, MlmCollator, MlmConfig, Sampler,
};
use crate::vocab::Vocabulary;

/// Cells counted at most.
pub const MAX_CELLS: u64 = 20_000;
/// Cells of a set that are counted at once.
const COUNTED_TOGETHER: usize = 256;

/// The constant answers.
#[derive(Debug, Clone, Default)]
pub struct Baselines {
    majority: BTreeMap<String, u32>,
    gene_mode: BTreeMap<u32, u32>,
    common_bin: Option<u32>,
}

/// Counts of (group, token).
type Counts = BTreeMap<(u32, u32), u64>;

impl Baselines {
    /// Counts the answers on the cells of `sampler`.
    ///
    /// # Errors
    /// Unreadable cells.
    pub fn count(
        data: &Arc<DataSet>,
        sampler: &Sampler,
        vocabulary: &Vocabulary,
        (masking, gene_weights, seed): (&MlmConfig, Option<&[f64]>, u64),
        loader: &LoaderConfig,
    ) -> Result<Self> {
        let collator = |eval: &EvalMasking| {
            MlmCollator::evaluation(vocabulary, masking, seed, gene_weights, eval)
        };
        let mut counted = Self::default();
        if masking.gene_mask_prob > 0.0 {
            let genes = Arc::new(collator(&EvalMasking::Random)?);
            let counts = count_labels(data, sampler, genes, loader)?;
            let is_gene = |token_type| vocabulary.type_gene(token_type).is_some();
            let of_genes: Counts = counts
                .into_iter()
                .filter(|((t, _), _)| is_gene(*t))
                .collect();
            let mut bins = Counts::new();
            for ((_, bin), n) in &of_genes {
                *bins.entry((0, *bin)).or_default() += n;
            }
            counted.common_bin = modes(&bins).get(&0).copied();
            counted.gene_mode = modes(&of_genes);
        }
        let phenotypes = Arc::new(collator(&EvalMasking::AllPhenotypes)?);
        for (token_type, token) in modes(&count_labels(data, sampler, phenotypes, loader)?) {
            if let Some(category) = vocabulary.type_category(token_type) {
                counted.majority.insert(category.to_owned(), token);
            }
        }
        for (token_type, bin) in std::mem::take(&mut counted.gene_mode) {
            if let Some(GeneId(gene)) = vocabulary.type_gene(token_type) {
                counted.gene_mode.insert(gene, bin);
            }
        }
        Ok(counted)
    }

    /// Counts the answers on the labels of pre-masked sets themselves.
    ///
    /// # Errors
    /// Unreadable sets.
    pub fn of_sets(sets: &[EvalSet], vocabulary: &Vocabulary) -> Result<Self> {
        let (mut all, mut bins) = (Counts::new(), Counts::new());
        for set in sets {
            for batch in set.batches(COUNTED_TOGETHER, 0) {
                let batch = batch?;
                for label in &batch.labels {
                    let token_type = batch.token_type_ids[label.position as usize];
                    *all.entry((token_type, label.token)).or_default() += 1;
                    if vocabulary.type_gene(token_type).is_some() {
                        *bins.entry((0, label.token)).or_default() += 1;
                    }
                }
            }
        }
        let mut counted = Self {
            common_bin: modes(&bins).get(&0).copied(),
            ..Self::default()
        };
        for (token_type, token) in modes(&all) {
            if let Some(GeneId(gene)) = vocabulary.type_gene(token_type) {
                counted.gene_mode.insert(gene, token);
            } else if let Some(category) = vocabulary.type_category(token_type) {
                counted.majority.insert(category.to_owned(), token);
            }
        }
        Ok(counted)
    }

    /// The most common value of a phenotype, as a token.
    pub fn majority(&self, category: &str) -> Option<u32> {
        self.majority.get(category).copied()
    }

    /// The same as text, without brackets.
    pub fn majority_text(&self, vocabulary: &Vocabulary, category: &str) -> Option<String> {
        let text = vocabulary.token_text(TokenId(self.majority(category)?))?;
        Some(
            text.trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
        )
    }

    /// The most common bin of a gene, as a token; of all genes where it was never counted.
    pub fn gene_mode(&self, gene: GeneId) -> Option<u32> {
        self.gene_mode.get(&gene.0).copied().or(self.common_bin)
    }
}

fn count_labels(
    data: &Arc<DataSet>,
    sampler: &Sampler,
    collator: Arc<dyn Collator>,
    loader: &LoaderConfig,
) -> Result<Counts> {
    let mut loader = Loader::new(Arc::clone(data), sampler.clone(), collator, loader.clone())?;
    let mut counts = Counts::new();
    let mut num_cells = 0;
    while num_cells < MAX_CELLS {
        let Some(batch) = loader.next_batch()? else {
            break;
        };
        num_cells += batch.num_cells() as u64;
        for label in &batch.labels {
            let token_type = batch.token_type_ids[label.position as usize];
            *counts.entry((token_type, label.token)).or_default() += 1;
        }
    }
    Ok(counts)
}

/// The most counted token of every group; the smallest of equals.
fn modes(counts: &Counts) -> BTreeMap<u32, u32> {
    let mut best: BTreeMap<u32, (u32, u64)> = BTreeMap::new();
    for (&(group, token), &n) in counts {
        let entry = best.entry(group).or_insert((token, n));
        if n > entry.1 {
            *entry = (token, n);
        }
    }
    best.into_iter()
        .map(|(group, (token, _))| (group, token))
        .collect()
}
