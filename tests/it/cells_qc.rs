//! `gene-bert cells qc` through the real command.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use gene_bert::cell::CsrBlock;
use gene_bert::h5ad::VarColumn;
use gene_bert::h5ad::write::{AnnData, ValueType, write_h5ad};

use crate::command::{done, refused};

/// Three cells of five genes, the last cell empty; symbols in a column of var, lengths in another.
fn write(path: &Path, ids: [&str; 5], symbols: [&str; 5]) {
    let texts = symbols.map(|symbol| Some(symbol.to_owned())).to_vec();
    let columns = vec![0, 1, 3, 4, 1, 2];
    let counts = vec![1.0, 2.0, 3.0, 4.0, 5.0, 15.0];
    let data = AnnData {
        x: CsrBlock::new((3, 5), vec![0, 4, 6, 6], columns, counts),
        value_type: ValueType::Float32,
        layers: Vec::new(),
        cell_names: ["a", "b", "c"].map(str::to_owned).to_vec(),
        obs: Vec::new(),
        gene_ids: ids.map(str::to_owned).to_vec(),
        var: vec![
            ("symbol".to_owned(), VarColumn::Texts(texts)),
            ("size".to_owned(), VarColumn::Numbers(vec![1.0; 5])),
        ],
    };
    write_h5ad(path, &data).unwrap();
}

#[test]
fn cells_are_counted_as_scanpy_counts_them() {
    let dir = tempfile::tempdir().unwrap();
    let ids = ["G1", "G2", "G3", "G4", "G5"];
    let symbols = ["MT-ND1", "RPL3", "HBB", "X", "MT-CO1"];
    write(&dir.path().join("one.h5ad"), ids, symbols);
    write(&dir.path().join("two.h5ad"), symbols, symbols);
    let line = "cells qc one.h5ad two.h5ad --percent-top 1 2 --output qc.csv";
    let said = done(dir.path(), line);
    assert!(!said.contains("mitochondrial"), "{said}");
    let text = fs::read_to_string(dir.path().join("qc.csv")).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let expected = [
        ("cell", ["a", "b", "c"]),
        ("n_genes_by_counts", ["4", "2", "0"]),
        ("total_counts", ["10", "20", "0"]),
        ("pct_counts_in_top_1_genes", ["40", "75", ""]),
        ("pct_counts_in_top_2_genes", ["70", "100", ""]),
        ("total_counts_mt", ["5", "0", "0"]),
        ("pct_counts_mt", ["50", "0", ""]),
        ("pct_counts_ribo", ["20", "25", ""]),
        ("pct_counts_hb", ["0", "75", ""]),
    ];
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 6);
    for (name, figures) in expected {
        let at = header.iter().position(|column| *column == name);
        let at = at.unwrap_or_else(|| panic!("{name} is not in {header:?}"));
        for file in lines.chunks(3) {
            let found: Vec<&str> = file.iter().map(|line| line[at]).collect();
            assert_eq!(found, figures, "{name}");
        }
    }
}

#[test]
fn symbols_must_be_texts_and_genes_known() {
    let dir = tempfile::tempdir().unwrap();
    write(
        &dir.path().join("x.h5ad"),
        ["A", "B", "C", "D", "E"],
        ["A", "B", "C", "D", "E"],
    );
    let line = "cells qc x.h5ad --output qc.csv --symbol-column";
    refused(
        dir.path(),
        &format!("{line} size"),
        &["x.h5ad", "`size` holds numbers", "symbol, size", "hint: "],
    );
    refused(dir.path(), &format!("{line} absent"), &["x.h5ad", "absent"]);
    refused(
        dir.path(),
        "cells qc x.h5ad --output qc.csv --percent-top 0",
        &["percent-top"],
    );
    let said = done(dir.path(), &format!("{line} symbol"));
    assert!(said.contains("no gene is known as mitochondrial"), "{said}");
}
