//! The whole vocabulary: tokens and token types of phenotypes, bins and genes.

use std::collections::HashSet;
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::{GeneVocab, PhenotypeVocab, SPECIAL, phenotype_token};
use crate::cell::{GeneId, TokenId};

/// Ids of tokens and token types; frozen once made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    phenotypes: PhenotypeVocab,
    genes: GeneVocab,
    num_bin_edges: usize,
    tokens: Vec<String>,
    categories: Vec<(String, Range<u32>)>,
}

impl Vocabulary {
    /// The vocabulary of these phenotypes, genes and `num_bin_edges` + 1 bins.
    pub fn new(phenotypes: PhenotypeVocab, genes: GeneVocab, num_bin_edges: usize) -> Self {
        let mut tokens: Vec<String> = SPECIAL.map(str::to_owned).to_vec();
        let mut categories = Vec::new();
        let mut seen = HashSet::new();
        for (category, values) in phenotypes.categories() {
            let first = tokens.len() as u32;
            for value in values {
                // Only where repeats are allowed: names in a tokenizers file must differ.
                let is_new = seen.insert(value);
                tokens.push(if is_new {
                    value.clone()
                } else {
                    format!("{value}@{category}")
                });
            }
            categories.push((category.to_owned(), first..tokens.len() as u32));
        }
        tokens.extend((0..=num_bin_edges).map(|bin| format!("bin_{bin}")));
        Self {
            phenotypes,
            genes,
            num_bin_edges,
            tokens,
            categories,
        }
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// Number of token types: 1 + categories + genes.
    pub fn type_vocab_size(&self) -> usize {
        1 + self.categories.len() + self.genes.len()
    }

    /// Categories and values.
    pub fn phenotypes(&self) -> &PhenotypeVocab {
        &self.phenotypes
    }

    /// Genes.
    pub fn genes(&self) -> &GeneVocab {
        &self.genes
    }

    /// Number n of bin edges; there are n + 1 bins.
    pub fn num_bin_edges(&self) -> usize {
        self.num_bin_edges
    }

    /// Every token by id.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// The token of a value (as obs spells it) of a category.
    pub fn phenotype_id(&self, category: &str, value: &str) -> Option<TokenId> {
        let token = phenotype_token(value);
        let rank = self
            .phenotypes
            .tokens(category)?
            .iter()
            .position(|t| *t == token)?;
        Some(TokenId(self.category_ids(category)?.start + rank as u32))
    }

    /// The text of a token.
    pub fn token_text(&self, id: TokenId) -> Option<&str> {
        self.tokens.get(id.0 as usize).map(String::as_str)
    }

    /// The tokens of a category.
    pub fn category_ids(&self, category: &str) -> Option<Range<u32>> {
        self.categories
            .iter()
            .find(|(name, _)| name == category)
            .map(|(_, ids)| ids.clone())
    }

    /// The token of a bin, 0..=n. Larger bins are taken for n.
    pub fn bin_id(&self, bin: usize) -> TokenId {
        TokenId(self.bin_ids().start + bin.min(self.num_bin_edges) as u32)
    }

    /// The tokens of all bins.
    pub fn bin_ids(&self) -> Range<u32> {
        let end = self.tokens.len() as u32;
        end - self.num_bin_edges as u32 - 1..end
    }

    /// The token type of a category, from 1.
    pub fn category_type(&self, category: &str) -> Option<u32> {
        let rank = self
            .categories
            .iter()
            .position(|(name, _)| name == category)?;
        Some(rank as u32 + 1)
    }

    /// The token type of a gene.
    pub fn gene_type(&self, gene: GeneId) -> u32 {
        1 + self.categories.len() as u32 + gene.0
    }

    /// The gene of a token type.
    pub fn type_gene(&self, token_type: u32) -> Option<GeneId> {
        let gene = token_type.checked_sub(self.gene_type(GeneId(0)))?;
        ((gene as usize) < self.genes.len()).then_some(GeneId(gene))
    }

    /// The category of a token type.
    pub fn type_category(&self, token_type: u32) -> Option<&str> {
        let rank = (token_type as usize).checked_sub(1)?;
        self.categories.get(rank).map(|(name, _)| name.as_str())
    }

    /// SHA-256 over tokens, categories, genes and their order, in hexadecimal: two vocabularies
    /// with the same fingerprint give the same ids. Ranks of genes do not count.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let categories = self
            .categories
            .iter()
            .map(|(name, ids)| format!("{name}={ids:?}"));
        let genes = self.genes.ids().iter().cloned();
        let parts = [
            self.tokens.clone(),
            categories.collect(),
            genes.collect::<Vec<_>>(),
        ];
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            for text in part {
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text.as_bytes());
            }
        }
        hash.finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::vocab::Repeats;

    fn vocabulary() -> Vocabulary {
        let owned = |t: &[&str]| t.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let categories = [
            ("tissue".to_owned(), owned(&["[lung]"])),
            ("cell_type".to_owned(), owned(&["[T_cell]", "[B_cell]"])),
        ];
        let phenotypes = PhenotypeVocab::new(categories.into(), Repeats::Refused).unwrap();
        let genes = GeneVocab::new(owned(&["TP53", "CD3E", "MS4A1"]), None).unwrap();
        Vocabulary::new(phenotypes, genes, 2)
    }

    #[test]
    fn ids_and_types_follow_the_specification() {
        let v = vocabulary();
        let tokens = [
            "[CLS]", "[EOS]", "[MASK]", "[PAD]", "[T_cell]", "[B_cell]", "[lung]",
        ];
        assert_eq!(v.tokens()[..7], tokens);
        assert_eq!(v.tokens()[7..], ["bin_0", "bin_1", "bin_2"]);
        assert_eq!((v.vocab_size(), v.type_vocab_size()), (10, 6));
        assert_eq!(v.phenotype_id("cell_type", "B cell"), Some(TokenId(5)));
        assert_eq!(v.phenotype_id("tissue", "B cell"), None);
        assert_eq!(
            (v.category_type("cell_type"), v.category_type("tissue")),
            (Some(1), Some(2))
        );
        assert_eq!(v.gene_type(GeneId(2)), 5);
        let genes: Vec<_> = (0..7).map(|t| v.type_gene(t).map(|g| g.0)).collect();
        assert_eq!(genes, [None, None, None, Some(0), Some(1), Some(2), None]);
        assert_eq!(
            (v.type_category(0), v.type_category(2)),
            (None, Some("tissue"))
        );
        assert_eq!((v.bin_id(0).0, v.bin_id(9).0, v.bin_ids()), (7, 9, 7..10));
    }

    #[test]
    fn the_fingerprint_tells_vocabularies_apart() {
        let v = vocabulary();
        assert_eq!(v.fingerprint(), vocabulary().fingerprint());
        let other = Vocabulary::new(v.phenotypes().clone(), v.genes().clone(), 3);
        assert_ne!(v.fingerprint(), other.fingerprint());
    }
}
