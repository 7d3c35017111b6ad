//! A vocabulary on disk: `tokenizer.json`, a Hugging Face tokenizers file (WordLevel) with the same
//! ids in every language's library, and `gene_bert.json`, which adds what such a file has no place
//! for: categories, genes, ranks, number of bins, and the settings that made the tokens.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{GeneVocab, PhenotypeVocab, Repeats, SPECIAL, VocabError, Vocabulary};
use crate::file::{read_json, read_string, write_atomic};

const FORMAT: u32 = 1;
const TOKENIZER: &str = "tokenizer.json";
const GENE_BERT: &str = "gene_bert.json";

/// `gene_bert.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GeneBertJson {
    format: u32,
    fingerprint: String,
    num_bin_edges: usize,
    phenotypes: BTreeMap<String, Vec<String>>,
    repeats: Repeats,
    genes: Vec<String>,
    gene_ranks: Option<Vec<u32>>,
    tokenize: Value,
}

impl Vocabulary {
    /// Writes both files into the folder `dir`; `tokenize` are the settings that make the tokens.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, dir: &Path, tokenize: &Value) -> Result<(), VocabError> {
        let saved = GeneBertJson {
            format: FORMAT,
            fingerprint: self.fingerprint(),
            num_bin_edges: self.num_bin_edges(),
            phenotypes: self
                .phenotypes()
                .categories()
                .map(|(name, tokens)| (name.to_owned(), tokens.to_vec()))
                .collect(),
            repeats: self.phenotypes().repeats(),
            genes: self.genes().ids().to_vec(),
            gene_ranks: self.genes().ranks().map(<[u32]>::to_vec),
            tokenize: tokenize.clone(),
        };
        let json = serde_json::to_vec_pretty(&saved).unwrap_or_default();
        write_atomic(&dir.join(GENE_BERT), &json)?;
        let path = dir.join(TOKENIZER);
        let wrong = |e: tokenizers::Error| saved_wrong(&path, e.to_string());
        let tokenizer = self.tokenizer_json().to_string();
        let tokenizer = tokenizers::Tokenizer::from_bytes(tokenizer).map_err(wrong)?;
        Ok(write_atomic(
            &path,
            tokenizer.to_string(true).map_err(wrong)?.as_bytes(),
        )?)
    }

    /// Reads what [`Vocabulary::save`] wrote: the vocabulary and the settings.
    ///
    /// # Errors
    /// A file is absent, damaged, of another format, or the two do not belong together.
    pub fn load(dir: &Path) -> Result<(Self, Value), VocabError> {
        let path = dir.join(GENE_BERT);
        let text = read_string(&path)?;
        let format = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|v| v["format"].as_u64());
        if let Some(format) = format.filter(|&f| f != u64::from(FORMAT)) {
            let what = format!("format {format} is not known to this version ({FORMAT})");
            return Err(saved_wrong(&path, what));
        }
        let saved: GeneBertJson = read_json(&path)?;
        let phenotypes = PhenotypeVocab::new(saved.phenotypes, saved.repeats)?;
        let genes = GeneVocab::new(saved.genes, saved.gene_ranks)?;
        let vocabulary = Self::new(phenotypes, genes, saved.num_bin_edges);
        if vocabulary.fingerprint() != saved.fingerprint {
            let what = "its fingerprint is not that of its tokens and genes";
            return Err(saved_wrong(&path, what.to_owned()));
        }
        vocabulary.check_tokenizer(&dir.join(TOKENIZER))?;
        Ok((vocabulary, saved.tokenize))
    }

    fn check_tokenizer(&self, path: &Path) -> Result<(), VocabError> {
        let tokenizer = tokenizers::Tokenizer::from_bytes(read_string(path)?)
            .map_err(|e| saved_wrong(path, format!("is no tokenizers file: {e}")))?;
        let found = tokenizer.get_vocab_size(true);
        if found != self.vocab_size() {
            let expected = self.vocab_size();
            return Err(saved_wrong(
                path,
                format!("has {found} tokens, expected {expected}"),
            ));
        }
        for (token, id) in self.tokens().iter().zip(0..) {
            let found = tokenizer.token_to_id(token);
            if found != Some(id) {
                let what = format!("token {token}: expected id {id}, found {found:?}");
                return Err(saved_wrong(path, what));
            }
        }
        Ok(())
    }

    fn tokenizer_json(&self) -> Value {
        let ids: Map<String, Value> = self
            .tokens()
            .iter()
            .zip(0u32..)
            .map(|(t, id)| (t.clone(), id.into()))
            .collect();
        let added = SPECIAL.iter().zip(0u32..).map(|(token, id)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        });
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added.collect::<Vec<_>>(),
            "normalizer": null,
            "pre_tokenizer": { "type": "WhitespaceSplit" },
            "post_processor": null,
            "decoder": null,
            "model": { "type": "WordLevel", "vocab": ids, "unk_token": "[MASK]" },
        })
    }
}

fn saved_wrong(path: &Path, what: String) -> VocabError {
    VocabError::Saved {
        path: path.to_owned(),
        what,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    fn vocabulary() -> Vocabulary {
        let tokens = vec![
            "[CD14+_Monocytes]".to_owned(),
            "[CD8-positive,_T]".to_owned(),
        ];
        let phenotypes =
            PhenotypeVocab::new([("cell_type".to_owned(), tokens)].into(), Repeats::Refused)
                .unwrap();
        let genes = ["A", "B"].map(str::to_owned).to_vec();
        Vocabulary::new(
            phenotypes,
            GeneVocab::new(genes, Some(vec![1, 0])).unwrap(),
            3,
        )
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let settings = json!({ "max_length": 7 });
        vocabulary().save(dir.path(), &settings).unwrap();
        assert_eq!(
            Vocabulary::load(dir.path()).unwrap(),
            (vocabulary(), settings)
        );
    }

    #[test]
    fn a_tokenizer_file_of_another_vocabulary_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        vocabulary().save(dir.path(), &Value::Null).unwrap();
        let path = dir.path().join(TOKENIZER);
        let other = fs::read_to_string(&path)
            .unwrap()
            .replace("CD14+_", "CD15+_");
        fs::write(&path, other).unwrap();
        let error = Vocabulary::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("[CD14+_Monocytes]"), "{error}");
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        vocabulary().save(dir.path(), &Value::Null).unwrap();
        let path = dir.path().join(GENE_BERT);
        let newer = fs::read_to_string(&path)
            .unwrap()
            .replace("\"format\": 1", "\"format\": 9");
        fs::write(&path, newer).unwrap();
        let error = Vocabulary::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("format 9"), "{error}");
    }
}
