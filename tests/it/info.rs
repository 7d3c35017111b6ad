//! `gene-bert info` through the command: text, JSON, and a file that is none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Output;

use gene_bert::cell::{CsrBlock, Labels};
use gene_bert::h5ad::VarColumn;
use gene_bert::h5ad::write::{AnnData, ValueType, write_h5ad};

use crate::command::with_words;

fn info(arguments: &[&str]) -> Output {
    with_words(Path::new("."), [&["info"], arguments].concat())
}

fn small() -> AnnData {
    let x = CsrBlock::new((3, 2), vec![0, 2, 2, 3], vec![0, 1, 1], vec![1.0, 2.5, 7.0]);
    let counts = CsrBlock::new((3, 2), vec![0, 2, 2, 3], vec![0, 1, 1], vec![1.0, 3.0, 7.0]);
    let categories = vec!["B cell".to_owned(), "T cell".to_owned()];
    AnnData {
        x,
        value_type: ValueType::Float32,
        layers: vec![("counts".into(), counts)],
        cell_names: ["c0", "c1", "c1"].map(String::from).to_vec(),
        obs: vec![(
            "cell_type".into(),
            Labels {
                categories,
                codes: vec![1, -1, 1],
            },
        )],
        gene_ids: ["BRCA2", "TP53"].map(String::from).to_vec(),
        var: vec![(
            "ensembl".into(),
            VarColumn::Texts(vec![
                Some("ENSG00000139618".into()),
                Some("ENSG00000141510".into()),
            ]),
        )],
    }
}

#[test]
fn info_tells_what_is_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.h5ad");
    write_h5ad(&path, &small()).unwrap();
    let path = path.to_str().unwrap();
    let text = String::from_utf8(info(&[path]).stdout).unwrap();
    for expected in [
        "3 cells x 2 genes",
        "log-transformed (small, with fractions), 1 to 7",
        "integer counts: layers.counts",
        "genes: symbols",
        "Ensembl ids in var: ensembl",
        "cell_type: 2 categories, 1 missing: T cell (2), ...",
        "1 cell names occur again, \"c1\" first",
        "X: 1 cells have no non-zero value",
    ] {
        assert!(text.contains(expected), "no {expected:?} in {text}");
    }
    let json = info(&["--json", path]).stdout;
    let lines: Vec<serde_json::Value> = String::from_utf8(json)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["counts_in"], serde_json::json!(["layers.counts"]));
    assert_eq!(lines[0]["matrices"][0]["nonzero_per_cell"]["max"], 2);
}

#[test]
fn info_refuses_what_is_no_h5ad_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.h5ad");
    std::fs::write(&path, "just text").unwrap();
    let output = info(&[path.to_str().unwrap()]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("notes.h5ad: not an HDF5 file") && error.contains("\nhint: "),
        "{error}"
    );
}
