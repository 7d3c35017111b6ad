//! Many files as one data set: few open at once, files without cells or with one, files that differ.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output};

use gene_bert::cell::{CsrBlock, Labels};
use gene_bert::h5ad::write::{AnnData, ValueType, write_h5ad};

use crate::command::text;

/// `cells` cells that express two of the genes each, in columns `type` and `donor`.
fn write(path: &Path, cells: usize, genes: &[String], columns: &[&str]) {
    let starts = (0..=cells).map(|cell| 2 * cell).collect();
    let places = (0..cells).flat_map(|cell| {
        let first = cell % (genes.len() - 1);
        [first as u32, first as u32 + 1]
    });
    let labels = Labels {
        categories: vec!["a".to_owned(), "b".to_owned()],
        codes: (0..cells).map(|cell| (cell % 2) as i32).collect(),
    };
    let obs = columns
        .iter()
        .map(|column| ((*column).to_owned(), labels.clone()));
    let data = AnnData {
        x: CsrBlock::new(
            (cells, genes.len()),
            starts,
            places.collect(),
            vec![3.0; 2 * cells],
        ),
        value_type: ValueType::Float32,
        layers: Vec::new(),
        cell_names: (0..cells)
            .map(|cell| format!("{}:{cell}", path.display()))
            .collect(),
        obs: obs.collect(),
        gene_ids: genes.to_vec(),
        var: Vec::new(),
    };
    write_h5ad(path, &data).unwrap();
}

fn genes(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|gene| format!("GENE{gene}")).collect()
}

/// Runs the command with at most `handles` open files.
fn run(folder: &Path, handles: usize, line: &str) -> Output {
    Command::new("sh")
        .args(["-c", "ulimit -n $0; exec \"$@\""])
        .arg(handles.to_string())
        .arg(env!("CARGO_BIN_EXE_gene-bert"))
        .args(line.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap()
}

const MLM: &str = "mlm --model_arch quickstart --num_hidden_layers 1 --bin_edges 0.5 --seed 1 \
                   --included_phenotypes type --max_length 16 --max_steps 6 \
                   --per_device_train_batch_size 16 --output_dir run --train_data_paths";

#[test]
fn more_files_than_may_be_open() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..150 {
        let path = dir.path().join(format!("cells_{number}.h5ad"));
        write(&path, 4, &genes(0..20), &["type", "donor"]);
    }
    let all = "cells_{0..149}.h5ad";
    for line in [
        format!("{MLM} {all} --shuffle full --block_cells 1"),
        format!("split {all} --by-file --output split.json"),
        format!("vocab build {all} --phenotypes type --output vocab.json"),
        format!("genes stats {all} --output stats.csv"),
        format!("{MLM} {all} --split_file split.json --overwrite_output_dir"),
        format!("eval {all} --checkpoint run --output eval"),
    ] {
        let output = run(dir.path(), 64, &line);
        assert!(output.status.success(), "{line}\n{}", text(&output));
    }
}

#[test]
fn files_without_cells_and_with_one_are_files_like_others() {
    let dir = tempfile::tempdir().unwrap();
    for (name, cells) in [
        ("empty", 0),
        ("one", 1),
        ("some", 37),
        ("none", 0),
        ("single", 1),
    ] {
        let path = dir.path().join(format!("{name}.h5ad"));
        write(&path, cells, &genes(0..20), &["type", "donor"]);
    }
    let files = "empty.h5ad one.h5ad some.h5ad none.h5ad single.h5ad";
    for order in ["block", "full", "sequential"] {
        let line =
            format!("{MLM} {files} --shuffle {order} --eval_fraction 0 --overwrite_output_dir");
        let output = run(dir.path(), 256, &line);
        assert!(output.status.success(), "{}", text(&output));
        assert!(
            text(&output).contains("39 to train on"),
            "{}",
            text(&output)
        );
    }
    for line in [
        format!("split {files} --folds 3 --output folds.json"),
        format!("split {files} --by-file --val 0 --test-values some.h5ad --output split.json"),
        format!("genes stats {files} --output stats.csv"),
        "predict one.h5ad --checkpoint run --output one.csv".to_owned(),
        "predict empty.h5ad --checkpoint run --output empty.csv".to_owned(),
        "embed empty.h5ad --checkpoint run --output empty_e.h5ad".to_owned(),
    ] {
        let output = run(dir.path(), 256, &line);
        let wanted = !line.contains("--val 0");
        assert_eq!(output.status.success(), wanted, "{line}\n{}", text(&output));
    }
    let output = run(
        dir.path(),
        256,
        &format!("{MLM} empty.h5ad none.h5ad --overwrite_output_dir"),
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("hint: "), "{}", text(&output));
}

#[test]
fn what_files_differ_in_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write(
        &dir.path().join("a.h5ad"),
        30,
        &genes(0..20),
        &["type", "donor"],
    );
    write(
        &dir.path().join("b.h5ad"),
        30,
        &genes(3..23),
        &["type", "donor"],
    );
    write(&dir.path().join("c.h5ad"), 30, &genes(0..20), &["donor"]);
    let output = run(dir.path(), 256, &format!("{MLM} a.h5ad b.h5ad"));
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for part in [
        "b.h5ad: 30 cells",
        "3 missing (GENE0, GENE1, GENE2)",
        "(GENE20, GENE21, GENE22)",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let output = run(
        dir.path(),
        256,
        &format!("{MLM} a.h5ad c.h5ad --overwrite_output_dir"),
    );
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("c.h5ad") && said.contains("type") && said.contains("donor"),
        "{said}"
    );
}
