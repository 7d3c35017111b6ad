//! A small vocabulary for the tests: three phenotypes of two values, genes `G0`, `G1` …
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use crate::tokenize::{TokenizeConfig, Tokenizer};
use crate::vocab::{GeneVocab, PhenotypeVocab, Repeats, Vocabulary};

pub(super) fn vocabulary(num_genes: u32, num_bin_edges: usize) -> Vocabulary {
    let values = |category: &str| (0..2).map(|n| format!("[{category}_{n}]")).collect();
    let categories = ["cell_type", "sex", "tissue"].map(|name| (name.to_owned(), values(name)));
    let phenotypes = PhenotypeVocab::new(categories.into(), Repeats::Refused).unwrap();
    let genes = (0..num_genes).map(|gene| format!("G{gene}")).collect();
    Vocabulary::new(
        phenotypes,
        GeneVocab::new(genes, None).unwrap(),
        num_bin_edges,
    )
}

/// One bin edge at 0.1, no phenotypes.
pub(super) fn tokenizer(num_genes: u32) -> Tokenizer {
    Tokenizer::new(
        Arc::new(vocabulary(num_genes, 1)),
        TokenizeConfig::default(),
    )
    .unwrap()
}
