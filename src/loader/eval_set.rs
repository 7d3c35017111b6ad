//! Sets of cells that were masked beforehand, as JSON: `{"metadata": …, "data": [{"input_ids",
//! "token_type_ids", "attention_mask", "labels"}, …]}`, a label of −100 where nothing is asked. The
//! format of the Python program PerturbGene; `gene-bert eval-set` writes it.
//!
//! A file is read from start to end by a thread, a few batches ahead of the model, and never held
//! whole. What is not attended to is left out: without positions it makes no difference.

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::error::LoaderError;
use crate::cell::{Label, PackedBatch};
use crate::file::FileError;
use crate::vocab::Vocabulary;

/// The label of a position where nothing is asked.
pub const NO_LABEL: i64 = -100;
/// Batches that are read before they are asked for.
const READ_AHEAD: usize = 4;

/// One cell, masked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Token ids, `[L]`.
    pub input_ids: Vec<u32>,
    /// Token type ids, `[L]`.
    pub token_type_ids: Vec<u32>,
    /// Whether the model sees each position, `[L]`.
    pub attention_mask: Vec<Attends>,
    /// The token to predict, or [`NO_LABEL`], `[L]`.
    pub labels: Vec<i64>,
}

/// Whether the model sees a position: `true`/`false`, or 1/0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Attends(pub bool);

/// What `gene-bert eval-set` says of its vocabulary, within `metadata`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Metadata {
    gene_bert: Option<Origin>,
}

/// By what a set was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The program's version.
    pub version: String,
    /// Fingerprint of the vocabulary.
    pub vocabulary: String,
    /// Seed of the masks.
    pub seed: u64,
}

/// A pre-masked set that was found good.
#[derive(Debug, Clone)]
pub struct EvalSet {
    path: PathBuf,
    num_cells: u64,
    num_labels: u64,
}

impl EvalSet {
    /// Whether a path names such a file.
    pub fn is_one(path: &Path) -> bool {
        path.extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("json"))
    }

    /// Reads the file once and checks it against a vocabulary.
    ///
    /// # Errors
    /// No such file, no such JSON, lists of different lengths, ids that the vocabulary does not
    /// have, a label that is no answer at its position, a set that was made with another
    /// vocabulary, no cell at all.
    pub fn open(path: &Path, vocabulary: &Vocabulary) -> Result<Self, LoaderError> {
        let mut set = Self {
            path: path.to_owned(),
            num_cells: 0,
            num_labels: 0,
        };
        let (mut num_cells, mut num_labels) = (0, 0);
        let metadata = set.read(&mut |example| {
            check(&example, vocabulary).map_err(|what| format!("data[{num_cells}]: {what}"))?;
            num_cells += 1;
            num_labels += example.labels.iter().filter(|l| **l != NO_LABEL).count() as u64;
            Ok(())
        })?;
        (set.num_cells, set.num_labels) = (num_cells, num_labels);
        let wrong = |what| LoaderError::EvalSet {
            path: path.to_owned(),
            what,
        };
        let expected = vocabulary.fingerprint();
        match metadata.gene_bert {
            Some(origin) if origin.vocabulary != expected => Err(wrong(format!(
                "made with another vocabulary: expected {expected:.12}, found {:.12}",
                origin.vocabulary
            ))),
            _ if num_labels == 0 => Err(wrong(format!("{num_cells} cells, but no label"))),
            _ => Ok(set),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Cells of the set.
    pub fn num_cells(&self) -> u64 {
        self.num_cells
    }

    /// Positions with a label.
    pub fn num_labels(&self) -> u64 {
        self.num_labels
    }

    /// The cells in batches, in order; numbered from `first`.
    pub fn batches(&self, batch_cells: usize, first: u64) -> Batches {
        let (sender, receiver) = sync_channel(READ_AHEAD);
        let set = self.clone();
        // Ends when the receiver does: then the next batch cannot be sent.
        std::thread::spawn(move || set.send(batch_cells.max(1), first, &sender));
        Batches(receiver)
    }

    fn send(
        &self,
        batch_cells: usize,
        first: u64,
        sender: &SyncSender<Result<PackedBatch, LoaderError>>,
    ) {
        const GONE: &str = "nobody listens";
        let (mut batch, mut cell) = (empty(), first);
        let read = self.read(&mut |example| {
            append(&mut batch, &example, cell);
            cell += 1;
            if batch.cells.len() == batch_cells {
                let full = std::mem::replace(&mut batch, empty());
                sender.send(Ok(full)).map_err(|_| GONE.to_owned())?;
            }
            Ok(())
        });
        // A receiver that is gone wants neither the rest nor an error.
        let _ = match read {
            Err(error) => sender.send(Err(error)),
            Ok(_) if batch.cells.is_empty() => Ok(()),
            Ok(_) => sender.send(Ok(batch)),
        };
    }

    /// Hands every cell to `each`.
    fn read(&self, each: Each<'_>) -> Result<Metadata, LoaderError> {
        let unreadable = |action, error| LoaderError::File {
            cause: Box::new(FileError::io(action, &self.path, error)),
        };
        let wrong = |error: serde_json::Error| match error.io_error_kind() {
            Some(kind) => unreadable("read it", kind.into()),
            None => LoaderError::EvalSet {
                path: self.path.clone(),
                what: error.to_string(),
            },
        };
        let file = File::open(&self.path).map_err(|error| unreadable("open it", error))?;
        let mut json = serde_json::Deserializer::from_reader(BufReader::new(file));
        let metadata = Whole(each).deserialize(&mut json).map_err(wrong)?;
        json.end().map_err(wrong)?;
        Ok(metadata)
    }
}

/// The batches of a set.
pub struct Batches(Receiver<Result<PackedBatch, LoaderError>>);

impl Iterator for Batches {
    type Item = Result<PackedBatch, LoaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.recv().ok()
    }
}

fn check(example: &Example, vocabulary: &Vocabulary) -> Result<(), String> {
    let (vocab, types) = (vocabulary.vocab_size(), vocabulary.type_vocab_size());
    let length = example.input_ids.len();
    let lengths = [
        ("token_type_ids", example.token_type_ids.len()),
        ("attention_mask", example.attention_mask.len()),
        ("labels", example.labels.len()),
    ];
    if let Some((name, found)) = lengths.into_iter().find(|(_, found)| *found != length) {
        return Err(format!(
            "{name}: expected {length} entries as in input_ids, found {found}"
        ));
    }
    let beyond = |ids: &[u32], size: usize| ids.iter().copied().find(|&id| id as usize >= size);
    if let Some(id) = beyond(&example.input_ids, vocab) {
        return Err(format!("input_ids: expected ids below {vocab}, found {id}"));
    }
    if let Some(id) = beyond(&example.token_type_ids, types) {
        return Err(format!(
            "token_type_ids: expected ids below {types}, found {id}"
        ));
    }
    let labels = example.labels.iter().zip(&example.token_type_ids);
    for (&label, &token_type) in labels.filter(|(label, _)| **label != NO_LABEL) {
        let (of, ids) = answers(vocabulary, token_type);
        if !u32::try_from(label).is_ok_and(|label| ids.contains(&label)) {
            return Err(format!(
                "labels: expected {NO_LABEL} or, of {of} (token type {token_type}), ids from {} to \
                 below {}, found {label}",
                ids.start, ids.end
            ));
        }
    }
    Ok(())
}

/// What a token type stands for, and the tokens that may be asked for there: none of special
/// tokens.
fn answers(vocabulary: &Vocabulary, token_type: u32) -> (&str, Range<u32>) {
    if vocabulary.type_gene(token_type).is_some() {
        return ("a gene", vocabulary.bin_ids());
    }
    let category = vocabulary.type_category(token_type);
    let ids = category.and_then(|category| vocabulary.category_ids(category));
    (
        category.unwrap_or("a special token"),
        ids.unwrap_or_default(),
    )
}

fn empty() -> PackedBatch {
    PackedBatch {
        cu_seqlens: vec![0],
        ..PackedBatch::default()
    }
}

fn append(batch: &mut PackedBatch, example: &Example, cell: u64) {
    for (place, _) in example
        .attention_mask
        .iter()
        .enumerate()
        .filter(|(_, seen)| seen.0)
    {
        let label = example.labels[place];
        if label != NO_LABEL {
            batch.labels.push(Label {
                position: batch.input_ids.len() as u32,
                token: label as u32,
            });
        }
        batch.input_ids.push(example.input_ids[place]);
        batch.token_type_ids.push(example.token_type_ids[place]);
    }
    batch.cu_seqlens.push(batch.input_ids.len() as u32);
    batch.cells.push(cell);
}

impl<'de> Deserialize<'de> for Attends {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Attends;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("true, false, 1 or 0")
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Attends, E> {
                Ok(Attends(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Attends, E> {
                match value {
                    0 | 1 => Ok(Attends(value == 1)),
                    other => Err(E::custom(format!(
                        "expected true, false, 1 or 0, found {other}"
                    ))),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

type Each<'a> = &'a mut dyn FnMut(Example) -> Result<(), String>;

/// The whole file.
struct Whole<'a>(Each<'a>);

/// The list of cells.
struct Cells<'a>(Each<'a>);

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = Metadata;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Metadata, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = Metadata;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with metadata and data")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
        let (mut metadata, mut found) = (Metadata::default(), false);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metadata" => metadata = map.next_value()?,
                "data" => {
                    map.next_value_seed(Cells(&mut *self.0))?;
                    found = true;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if found {
            Ok(metadata)
        } else {
            Err(A::Error::missing_field("data"))
        }
    }
}

impl<'de> DeserializeSeed<'de> for Cells<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Cells<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of cells")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(example) = seq.next_element::<Example>()? {
            (self.0)(example).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::vocab::{GeneVocab, PhenotypeVocab, Repeats};

    fn vocabulary() -> Vocabulary {
        let genes = GeneVocab::new(vec!["A".into(), "B".into()], None).unwrap();
        let sexes = ["[female]", "[male]"].map(str::to_owned).to_vec();
        let phenotypes = [("sex".to_owned(), sexes)].into();
        let phenotypes = PhenotypeVocab::new(phenotypes, Repeats::Refused).unwrap();
        Vocabulary::new(phenotypes, genes, 1)
    }

    /// The set, in a folder that is there as long as it is used.
    fn open(text: &str) -> (tempfile::TempDir, Result<EvalSet, LoaderError>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.json");
        std::fs::write(&path, text).unwrap();
        let set = EvalSet::open(&path, &vocabulary());
        (dir, set)
    }

    /// Ids 0–3 are special, 4 and 5 the sexes, 6 and 7 the bins; type 1 is the sex, 2 and 3 the
    /// genes.
    const GOOD: &str = r#"{"metadata": {"bin_edges": [0.1]}, "data": [
        {"input_ids": [0, 2, 7, 1, 3], "token_type_ids": [0, 1, 2, 0, 0],
         "attention_mask": [true, true, true, true, false], "labels": [-100, 5, -100, -100, -100]},
        {"input_ids": [0, 2, 1], "token_type_ids": [0, 3, 0], "attention_mask": [1, 1, 1],
         "labels": [-100, 6, -100]}]}"#;

    #[test]
    fn batches_hold_what_is_attended_to() {
        let (_dir, set) = open(GOOD);
        let set = set.unwrap();
        assert_eq!((set.num_cells(), set.num_labels()), (2, 2));
        let batches: Vec<PackedBatch> = set.batches(8, 10).map(Result::unwrap).collect();
        let expected = PackedBatch {
            input_ids: vec![0, 2, 7, 1, 0, 2, 1],
            token_type_ids: vec![0, 1, 2, 0, 0, 3, 0],
            cu_seqlens: vec![0, 4, 7],
            labels: vec![
                Label {
                    position: 1,
                    token: 5,
                },
                Label {
                    position: 5,
                    token: 6,
                },
            ],
            cells: vec![10, 11],
        };
        assert_eq!(batches, [expected]);
        assert_eq!(set.batches(1, 0).count(), 2);
        assert!(set.batches(1, 0).next().unwrap().is_ok());
    }

    #[test]
    fn what_is_no_set_is_refused_by_name() {
        for (from, to, parts) in [
            ("\"data\"", "\"date\"", &["data"][..]),
            (
                "[0, 2, 1]",
                "[0, 2]",
                &["data[1]", "token_type_ids", "expected 2", "found 3"],
            ),
            (
                "[0, 3, 0], ",
                "[0, 4, 0], ",
                &["data[1]", "below 4", "found 4"],
            ),
            (
                "[0, 2, 7, 1, 3]",
                "[0, 8, 7, 1, 3]",
                &["data[0]", "below 8", "found 8"],
            ),
            ("-100, 6, -100", "-100, -4, -100", &["labels", "found -4"]),
            (
                "-100, 6, -100",
                "-100, 5, -100",
                &[
                    "data[1]",
                    "a gene (token type 3)",
                    "from 6 to below 8",
                    "found 5",
                ],
            ),
            (
                "-100, 5, -100, -100",
                "-100, 0, -100, -100",
                &[
                    "data[0]",
                    "sex (token type 1)",
                    "from 4 to below 6",
                    "found 0",
                ],
            ),
            (
                "-100, 6, -100",
                "5, 6, -100",
                &["data[1]", "a special token", "found 5"],
            ),
            ("[1, 1, 1]", "[1, 2, 1]", &["found 2"]),
            ("6, -100]}]}", "6, -10", &["line 5"]),
            (
                "{\"bin_edges\": [0.1]}",
                r#"{"gene_bert": {"version": "", "vocabulary": "x", "seed": 0}}"#,
                &["another vocabulary"],
            ),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = open(&GOOD.replacen(from, to, 1)).1.unwrap_err().to_string();
            for part in parts.iter().chain(&["set.json", "hint: "]) {
                assert!(error.contains(part), "{error} does not say {part}");
            }
        }
    }
}
