//! Phenotype categories (obs columns) and their values as tokens.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{SPECIAL, VocabError};
use crate::cell::Labels;
use crate::file::{read_json, write_atomic};

/// The token of a value: every space becomes `_`, then brackets around it (`T cell` → `[T_cell]`).
pub fn phenotype_token(value: &str) -> String {
    format!("[{}]", value.replace(' ', "_").trim())
}

/// Whether a token may belong to several categories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repeats {
    /// No: a vocabulary with such a token is refused.
    #[default]
    Refused,
    /// Yes, with an id in each of them, as the original has it.
    Allowed,
}

/// Category → its tokens; categories sorted by name, tokens in their own order, all of them unique
/// (over all categories, unless repeats are allowed).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PhenotypeVocab {
    categories: BTreeMap<String, Vec<String>>,
    repeats: Repeats,
}

impl PhenotypeVocab {
    /// The vocabulary of these tokens.
    ///
    /// # Errors
    /// A token that stands twice, or that is none.
    pub fn new(
        categories: BTreeMap<String, Vec<String>>,
        repeats: Repeats,
    ) -> Result<Self, VocabError> {
        let mut owner: HashMap<&str, &str> = HashMap::new();
        for (category, tokens) in &categories {
            for token in tokens {
                let inner = token.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
                let fine = inner.is_some_and(|t| !t.is_empty() && !t.contains(' '));
                if !fine || SPECIAL.contains(&token.as_str()) {
                    let (category, token) = (category.clone(), token.clone());
                    return Err(VocabError::BadToken { category, token });
                }
                if let Some(first) = owner.insert(token, category)
                    && (repeats == Repeats::Refused || first == category)
                {
                    let (first, second) = (first.to_owned(), category.clone());
                    return Err(VocabError::DuplicateToken {
                        token: token.clone(),
                        first,
                        second,
                    });
                }
            }
        }
        Ok(Self {
            categories,
            repeats,
        })
    }

    /// Reads `{"category": ["[token]", …], …}`.
    ///
    /// # Errors
    /// Unreadable, no such JSON, or as [`PhenotypeVocab::new`].
    pub fn load(path: &Path, repeats: Repeats) -> Result<Self, VocabError> {
        Self::new(read_json(path)?, repeats).map_err(|e| VocabError::InFile {
            path: path.to_owned(),
            source: Box::new(e),
        })
    }

    /// Writes what [`PhenotypeVocab::load`] reads.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), VocabError> {
        let json = serde_json::to_string_pretty(&self.categories).unwrap_or_default();
        Ok(write_atomic(path, json.as_bytes())?)
    }

    /// A vocabulary that also holds every value of `labels`; new values of a category are put in
    /// sorted order behind those it has.
    ///
    /// # Errors
    /// A value that already is a token of another category.
    pub fn with_values<'a>(
        mut self,
        columns: impl IntoIterator<Item = (&'a str, &'a Labels)>,
    ) -> Result<Self, VocabError> {
        let mut new: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (category, labels) in columns {
            let mut used = vec![false; labels.categories.len()];
            for &code in &labels.codes {
                if let Some(used) = usize::try_from(code).ok().and_then(|c| used.get_mut(c)) {
                    *used = true;
                }
            }
            let tokens = new.entry(category.to_owned()).or_default();
            let values = labels.categories.iter().zip(used).filter(|(_, used)| *used);
            tokens.extend(values.map(|(value, _)| phenotype_token(value)));
        }
        for (category, mut tokens) in new {
            tokens.sort_unstable();
            tokens.dedup();
            let known = self.categories.entry(category).or_default();
            tokens.retain(|token| !known.contains(token));
            known.extend(tokens);
        }
        Self::new(self.categories, self.repeats)
    }

    /// Categories in sorted order, each with its tokens.
    pub fn categories(&self) -> impl ExactSizeIterator<Item = (&str, &[String])> {
        self.categories
            .iter()
            .map(|(name, tokens)| (name.as_str(), tokens.as_slice()))
    }

    /// Whether a token may belong to several categories.
    pub fn repeats(&self) -> Repeats {
        self.repeats
    }

    /// The tokens of a category.
    pub fn tokens(&self, category: &str) -> Option<&[String]> {
        self.categories.get(category).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn vocab(entries: &[(&str, &[&str])]) -> Result<PhenotypeVocab, VocabError> {
        let tokens = |t: &[&str]| t.iter().map(|t| (*t).to_owned()).collect();
        PhenotypeVocab::new(
            entries
                .iter()
                .map(|(c, t)| ((*c).to_owned(), tokens(t)))
                .collect(),
            Repeats::Refused,
        )
    }

    #[test]
    fn a_duplicate_is_refused_with_both_categories() {
        let error = vocab(&[("sex", &["[unknown]"]), ("tissue", &["[unknown]"])]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("`sex`") && text.contains("`tissue`"),
            "{text}"
        );
    }

    #[test]
    fn odd_tokens_are_refused() {
        for bad in ["T_cell", "[T cell]", "[]", "[MASK]"] {
            assert!(vocab(&[("cell_type", &[bad])]).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_present_are_added_behind_in_sorted_order() {
        let names = ["T cell", "B cell", "none"].map(String::from).to_vec();
        let labels = Labels {
            categories: names,
            codes: vec![0, 1, -1, 0],
        };
        let known = vocab(&[("cell_type", &["[monocyte]"])]).unwrap();
        let all = known.with_values([("cell_type", &labels)]).unwrap();
        assert_eq!(
            all.tokens("cell_type").unwrap(),
            ["[monocyte]", "[B_cell]", "[T_cell]"]
        );
    }
}
