//! Tokens of the original program, case by case, and its phenotype vocabulary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gene_bert::cell::CellSource;
use gene_bert::h5ad::{H5ad, OpenOptions};
use gene_bert::tokenize::{
    Bins, Compat, Draw, GeneOrder, TokenizeConfig, Tokenizer, UnknownPhenotype,
};
use gene_bert::vocab::{GeneVocab, PhenotypeVocab, Repeats, Vocabulary};
use serde::Deserialize;

use crate::shared::shared_dir;

/// What the original made of some cells of a file.
#[derive(Deserialize)]
pub struct Golden {
    file: String,
    pub matrix: String,
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
pub struct Case {
    pub bin_edges: Vec<f64>,
    pub included_phenotypes: Vec<String>,
    pub max_length: usize,
    pub num_top_genes: usize,
    vocab_size: usize,
    type_vocab_size: usize,
    pub cells: Vec<Cell>,
}

/// A cell and its tokens; also a line of `gene-bert tokenize --json`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    pub row: u64,
    pub obs_name: String,
    pub input_ids: Vec<u32>,
    pub token_type_ids: Vec<u32>,
}

/// Every golden: its vocabulary, its h5ad file, what the original made of it.
pub fn goldens() -> Vec<(PathBuf, PathBuf, Golden)> {
    let (Some(golden), Some(data)) = (shared_dir("golden/tokenize"), shared_dir("data")) else {
        return Vec::new();
    };
    let folders = fs::read_dir(golden).unwrap().map(|e| e.unwrap().path());
    let goldens: Vec<_> = folders
        .map(|folder| {
            let text = fs::read_to_string(folder.join("tokens.json")).unwrap();
            let golden: Golden = serde_json::from_str(&text).unwrap();
            let file = find(&data, &golden.file).unwrap_or_else(|| panic!("no {}", golden.file));
            (folder.join("vocab.json"), file, golden)
        })
        .collect();
    assert!(!goldens.is_empty(), "no golden found");
    goldens
}

/// The file of this name anywhere below `dir`.
pub fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?.map(|e| e.unwrap().path());
    let (dirs, files): (Vec<_>, Vec<_>) = entries.partition(|p| p.is_dir());
    let here = files
        .into_iter()
        .find(|p| p.file_name().is_some_and(|n| n == name));
    here.or_else(|| dirs.iter().find_map(|d| find(d, name)))
}

fn check_case(source: &H5ad, phenotypes: &PhenotypeVocab, case: &Case, place: &str) {
    let genes = GeneVocab::new(source.gene_ids().to_vec(), None).unwrap();
    let vocabulary = Vocabulary::new(phenotypes.clone(), genes, case.bin_edges.len());
    assert_eq!(vocabulary.vocab_size(), case.vocab_size, "{place}");
    assert_eq!(
        vocabulary.type_vocab_size(),
        case.type_vocab_size,
        "{place}"
    );
    let config = TokenizeConfig {
        bins: Bins::Shared(case.bin_edges.clone()),
        included_phenotypes: case.included_phenotypes.clone(),
        max_length: case.max_length,
        num_top_genes: Some(case.num_top_genes),
        gene_order: Some(GeneOrder::File),
        unknown_phenotype: UnknownPhenotype::Mask,
        compat: Some(Compat::Perturbgene),
        ..TokenizeConfig::default()
    };
    let bound = Tokenizer::new(Arc::new(vocabulary), config)
        .unwrap()
        .bind(source)
        .unwrap();
    let names = source.cell_names().unwrap();
    for cell in &case.cells {
        let place = format!("{place}, row {}", cell.row);
        assert_eq!(names[cell.row as usize], cell.obs_name, "{place}");
        let block = source.read_ranges(&[cell.row..cell.row + 1]).unwrap();
        let row = block.outer_view(0).unwrap();
        let draw = Draw {
            seed: 0,
            epoch: 0,
            cell: cell.row,
            augments: false,
        };
        let tokens = bound
            .tokenize(cell.row, row.indices(), row.data(), draw)
            .unwrap()
            .unwrap();
        assert_eq!(tokens.input_ids, cell.input_ids, "{place}");
        assert_eq!(tokens.token_type_ids, cell.token_type_ids, "{place}");
    }
}

#[test]
fn golden_tokens_of_the_original() {
    let mut num_cases = 0;
    for (vocab, file, golden) in goldens() {
        let options = OpenOptions {
            matrix: golden.matrix.parse().unwrap(),
            ..OpenOptions::default()
        };
        let source = H5ad::open(&file, &options).unwrap();
        let phenotypes = PhenotypeVocab::load(&vocab, Repeats::Allowed).unwrap();
        for (i, case) in golden.cases.iter().enumerate() {
            let place = format!("{}, case {i}", vocab.display());
            check_case(&source, &phenotypes, case, &place);
            num_cases += 1;
        }
    }
    println!("{num_cases} cases of golden tokens are equal");
}

#[test]
fn golden_vocabulary_of_the_original() {
    let Some(golden) = shared_dir("golden/vocab") else {
        return;
    };
    let phenotypes =
        PhenotypeVocab::load(&golden.join("phenotypic_tokens_map.json"), Repeats::Refused).unwrap();
    let num_tokens: usize = phenotypes
        .categories()
        .map(|(_, tokens)| tokens.len())
        .sum();
    assert_eq!(num_tokens, 253);
    let vocabulary = Vocabulary::new(phenotypes, GeneVocab::new(vec![], None).unwrap(), 1);
    assert_eq!(vocabulary.vocab_size(), 4 + 253 + 2);
}
