//! The classes of a classifier: their names and order, which cell has which, and how they are saved.
//!
//! The classes are the values of one obs column: those that the vocabulary has for it, in its
//! order, or, where it has none, those of the training files, sorted. With a positive value there
//! are two: all others (0) and this one (1). A cell whose value is missing has no class; a value
//! that is no class is treated as `--unknown-phenotype` says.
//!
//! In a checkpoint they stand in `config.json`: `id2label` and `label2id` as Hugging Face has them,
//! `phenotype_category` and `binary_label`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::start::Start;
use crate::cell::CellSource;
use crate::config::RunConfig;
use crate::file::read_json;
use crate::loader::CellFile;
use crate::loader::{DataSet, NO_CLASS};
use crate::tokenize::{TokenizeError, UnknownPhenotype};
use crate::vocab::{PhenotypeVocab, build_phenotypes, phenotype_token};

/// What a classifier tells apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// The obs column.
    pub category: String,
    /// The token of the value that is told from all others, if it is one.
    pub positive: Option<String>,
    /// Names by number, as obs spells them.
    pub names: Vec<String>,
}

/// The keys of `config.json` that tell the classes.
#[derive(Debug, Deserialize)]
struct Saved {
    id2label: BTreeMap<usize, String>,
    phenotype_category: String,
    binary_label: Option<String>,
}

impl Classes {
    /// The classes of a new run that trains on `files`.
    ///
    /// # Errors
    /// An obs column that a file lacks, a binary label that no cell can have, no value at all.
    pub fn settle(config: &RunConfig, start: &Start, files: &[Arc<CellFile>]) -> Result<Self> {
        let category = config.phenotype_category.clone().unwrap_or_default();
        let sources: Vec<&dyn CellSource> = files
            .iter()
            .map(|file| file.as_ref() as &dyn CellSource)
            .collect();
        let known = start.vocabulary.phenotypes().tokens(&category);
        let tokens = match known {
            Some(tokens) => tokens.to_vec(),
            None => {
                let columns = [category.clone()];
                let found = build_phenotypes(PhenotypeVocab::default(), &sources, &columns)?;
                found.tokens(&category).unwrap_or_default().to_vec()
            }
        };
        if tokens.is_empty() {
            bail!(
                "obs column `{category}`: there is no value to learn: all are missing\nhint: name \
                 another column; `gene-bert info` lists them"
            );
        }
        let num_cells: u64 = sources.iter().map(|source| source.num_cells()).sum();
        if known.is_none() && config.binary_label.is_none() && tokens.len() as u64 > num_cells / 2 {
            bail!(
                "obs column `{category}`: {} values in {num_cells} cells are no classes of cells\n\
                 hint: name a column with few values; `gene-bert info` lists them",
                tokens.len()
            );
        }
        let spelling = spellings(&category, &sources)?;
        let name = |token: &String| match spelling.get(token) {
            Some(name) => name.clone(),
            None => bare(token).to_owned(),
        };
        let positive = match &config.binary_label {
            Some(label) => Some(find_label(label, &category, &tokens, known.is_some())?),
            None => None,
        };
        let names = match &positive {
            Some(token) => vec![format!("not {}", name(token)), name(token)],
            None => tokens.iter().map(name).collect(),
        };
        Ok(Self {
            category,
            positive,
            names,
        })
    }

    /// The classes of a checkpoint; `None` where it holds no classifier.
    ///
    /// # Errors
    /// A `config.json` that cannot be read, or that numbers its classes with gaps.
    pub fn load(checkpoint: &Path) -> Result<Option<Self>> {
        let path = checkpoint.join("config.json");
        let config: Value = read_json(&path)?;
        if config.get("id2label").is_none() || config.get("phenotype_category").is_none() {
            return Ok(None);
        }
        let saved: Saved = read_json(&path)?;
        if !saved.id2label.keys().copied().eq(0..saved.id2label.len()) {
            bail!(
                "{}: id2label: expected the numbers from 0 on, each once",
                path.display()
            );
        }
        Ok(Some(Self {
            category: saved.phenotype_category,
            positive: saved.binary_label,
            names: saved.id2label.into_values().collect(),
        }))
    }

    /// `config` (the model's) with the classes in it.
    #[must_use]
    pub fn write_into(&self, mut config: Value) -> Value {
        let numbers: BTreeMap<&String, usize> = self.names.iter().zip(0..).collect();
        let names: BTreeMap<usize, &String> = (0..).zip(&self.names).collect();
        config["id2label"] = json!(names);
        config["label2id"] = json!(numbers);
        config["phenotype_category"] = json!(self.category);
        if let Some(token) = &self.positive {
            config["binary_label"] = json!(token);
        }
        config
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The class of a value as obs spells it; `None` where it is none of them.
    pub fn class_of(&self, value: &str) -> Option<u32> {
        let token = phenotype_token(value);
        match &self.positive {
            Some(positive) => Some(u32::from(token == *positive)),
            None => {
                let is_same = |name: &String| phenotype_token(name) == token;
                Some(self.names.iter().position(is_same)? as u32)
            }
        }
    }

    /// The class of each cell of `data`; [`NO_CLASS`] where its value is missing, or is no class and
    /// may be unknown.
    ///
    /// # Errors
    /// A file without the column, or, where unknown values are errors, the first of them.
    pub fn of_cells(&self, data: &DataSet, unknown: UnknownPhenotype) -> Result<Arc<[u32]>> {
        let mut of = Vec::with_capacity(data.len() as usize);
        for source in (0..data.num_sources()).filter_map(|index| data.source(index)) {
            let labels = source
                .labels(&self.category)
                .map_err(TokenizeError::Source)?;
            let classes: Vec<Option<u32>> =
                labels.categories.iter().map(|v| self.class_of(v)).collect();
            for (row, &code) in (0..).zip(&labels.codes) {
                let code = usize::try_from(code).ok();
                let class = code.and_then(|code| *classes.get(code)?);
                if class.is_none() && code.is_some() && unknown == UnknownPhenotype::Error {
                    return Err(self.no_class(source.as_ref(), row, labels.value(row as usize)));
                }
                of.push(class.unwrap_or(NO_CLASS));
            }
        }
        Ok(of.into())
    }

    fn no_class(&self, source: &dyn CellSource, row: u64, value: Option<&str>) -> anyhow::Error {
        anyhow::anyhow!(
            "{}: row {row}, obs column `{}`: {:?} is none of the {} classes\nhint: leave such \
             cells out with --unknown-phenotype skip, or add the value to the vocabulary with \
             `gene-bert vocab build`",
            source.path().display(),
            self.category,
            value.unwrap_or_default(),
            self.len(),
        )
    }
}

fn bare(token: &str) -> &str {
    let inner = token.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    inner.unwrap_or(token)
}

/// How the files spell the value of each token.
fn spellings(category: &str, sources: &[&dyn CellSource]) -> Result<BTreeMap<String, String>> {
    let mut spelling = BTreeMap::new();
    for source in sources {
        let labels = source.labels(category).map_err(TokenizeError::Source)?;
        for value in labels.categories {
            spelling.entry(phenotype_token(&value)).or_insert(value);
        }
    }
    Ok(spelling)
}

/// The token that a binary label means, with or without its brackets.
fn find_label(label: &str, category: &str, tokens: &[String], in_vocab: bool) -> Result<String> {
    let token = if label.starts_with('[') && label.ends_with(']') {
        label.to_owned()
    } else {
        phenotype_token(label)
    };
    if tokens.contains(&token) {
        return Ok(token);
    }
    let place = if in_vocab {
        "the vocabulary"
    } else {
        "the training files"
    };
    let near = crate::config::nearest(&token, tokens.iter().map(String::as_str));
    let hint = match near {
        Some(near) => format!("is '{near}' meant?"),
        None => {
            let some: Vec<&str> = tokens.iter().take(10).map(String::as_str).collect();
            let more = if tokens.len() > 10 { ", …" } else { "" };
            format!("there are {}{more}", some.join(", "))
        }
    };
    bail!("--binary_label {label}: no value of `{category}` in {place} is {token}\nhint: {hint}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn classes(positive: Option<&str>, names: &[&str]) -> Classes {
        Classes {
            category: "tissue".to_owned(),
            positive: positive.map(str::to_owned),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
        }
    }

    #[test]
    fn classes_survive_the_models_config() {
        let dir = tempfile::tempdir().unwrap();
        let many: Vec<String> = (0..12).map(|n| format!("type {n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for classes in [
            classes(Some("[lung]"), &["not lung", "lung"]),
            classes(None, &many),
        ] {
            let config = classes.write_into(json!({ "hidden_size": 8 }));
            std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
            assert_eq!(Classes::load(dir.path()).unwrap(), Some(classes));
        }
        std::fs::write(dir.path().join("config.json"), "{}").unwrap();
        assert_eq!(Classes::load(dir.path()).unwrap(), None);
        let gap = r#"{"id2label": {"0": "a", "2": "b"}, "phenotype_category": "c"}"#;
        std::fs::write(dir.path().join("config.json"), gap).unwrap();
        assert!(Classes::load(dir.path()).is_err());
    }

    #[test]
    fn values_become_classes_by_their_tokens() {
        let all = classes(None, &["fetal lung", "liver"]);
        assert_eq!(
            (all.class_of("fetal_lung"), all.class_of("skin")),
            (Some(0), None)
        );
        let one = classes(Some("[fetal_lung]"), &["not fetal lung", "fetal lung"]);
        assert_eq!(
            (one.class_of("fetal lung"), one.class_of("skin")),
            (Some(1), Some(0))
        );
    }

    #[test]
    fn a_binary_label_must_be_a_value() {
        let tokens = ["[lung]", "[liver]"].map(str::to_owned);
        let find = |label| find_label(label, "tissue", &tokens, true);
        assert_eq!(find("[lung]").unwrap(), "[lung]");
        assert_eq!(find("liver").unwrap(), "[liver]");
        let error = find("[lnug]").unwrap_err().to_string();
        assert!(error.contains("is '[lung]' meant?"), "{error}");
    }
}
