//! Tokens of the original program, case by case, and its phenotype vocabulary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use gene_bert::cell::CellSource;
use gene_bert::h5ad::{H5ad, OpenOptions};
use gene_bert::tokenize::{
    Bins, Compat, Draw, GeneOrder, TokenizeConfig, Tokenizer, UnknownPhenotype,
};
use gene_bert::vocab::{GeneVocab, PhenotypeVocab, Repeats, Vocabulary};
use serde::Deserialize;

use crate::shared::shared_dir;

#[derive(Deserialize)]
struct Golden {
    file: String,
    matrix: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    bin_edges: Vec<f64>,
    included_phenotypes: Vec<String>,
    max_length: usize,
    num_top_genes: usize,
    vocab_size: usize,
    type_vocab_size: usize,
    cells: Vec<Cell>,
}

#[derive(Deserialize)]
struct Cell {
    row: u64,
    obs_name: String,
    input_ids: Vec<u32>,
    token_type_ids: Vec<u32>,
}

/// The file of this name anywhere below `dir`.
fn find(dir: &Path, name: &str) -> Option<std::path::PathBuf> {
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
    let Some(golden) = shared_dir("golden/tokenize") else {
        return;
    };
    let Some(data) = shared_dir("data") else {
        return;
    };
    let mut num_cases = 0;
    for folder in fs::read_dir(golden).unwrap().map(|e| e.unwrap().path()) {
        let text = fs::read_to_string(folder.join("tokens.json")).unwrap();
        let golden: Golden = serde_json::from_str(&text).unwrap();
        let path = find(&data, &golden.file).unwrap_or_else(|| panic!("no {}", golden.file));
        let matrix = golden.matrix.parse().unwrap();
        let source = H5ad::open(
            &path,
            &OpenOptions {
                matrix,
                ..OpenOptions::default()
            },
        )
        .unwrap();
        let phenotypes =
            PhenotypeVocab::load(&folder.join("vocab.json"), Repeats::Allowed).unwrap();
        for (i, case) in golden.cases.iter().enumerate() {
            check_case(
                &source,
                &phenotypes,
                case,
                &format!("{}, case {i}", folder.display()),
            );
            num_cases += 1;
        }
    }
    assert!(num_cases > 0, "no case found");
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
