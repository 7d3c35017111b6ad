//! A checkpoint is used as it was trained: the matrix that was read, the phenotypes that were seen,
//! the type of the products, the cells that were held out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use gene_bert::cell::{CsrBlock, Labels};
use gene_bert::h5ad::write::{AnnData, ValueType, write_h5ad};
use serde_json::Value;

use crate::command::{done, refused};

const CELLS: usize = 96;
const GENES: usize = 6;
const TINY: &str = r#"{"dim": 16, "n_heads": 2, "hidden_dim": 32, "n_layers": 1}"#;
const LEARN: &str = "--train_data_paths x.h5ad --bin_edges 0.5 2 --max_length 16 --max_steps 80 \
                     --pretrained_model_path tiny.json --per_device_train_batch_size 8 \
                     --eval_fraction 0.5 --learning_rate 0.01 --seed 1";

/// Cells of two kinds, which only `layers.counts` and the column `twin` tell apart; X is alike in
/// all.
fn write(path: &Path, columns: &[&str]) {
    let rows = |value: &dyn Fn(usize, usize) -> f32| {
        let values: Vec<f32> = (0..CELLS * GENES)
            .map(|at| value(at / GENES, at % GENES))
            .collect();
        let genes = (0..CELLS * GENES).map(|at| (at % GENES) as u32).collect();
        let starts = (0..=CELLS).map(|row| row * GENES).collect();
        CsrBlock::new((CELLS, GENES), starts, genes, values)
    };
    let kind = |cell: usize| (cell * 7 / 3) % 2;
    let labels = |prefix: &str| Labels {
        categories: (0..2).map(|kind| format!("{prefix}{kind}")).collect(),
        codes: (0..CELLS).map(|cell| kind(cell) as i32).collect(),
    };
    let data = AnnData {
        x: rows(&|_, _| 1.0),
        value_type: ValueType::Float32,
        layers: vec![(
            "counts".to_owned(),
            rows(&|cell, gene| if gene == kind(cell) { 5.0 } else { 1.0 }),
        )],
        cell_names: (0..CELLS).map(|cell| format!("c{cell}")).collect(),
        obs: columns
            .iter()
            .map(|name| ((*name).to_owned(), labels(name)))
            .collect(),
        gene_ids: (0..GENES).map(|gene| format!("G{gene}")).collect(),
        var: Vec::new(),
    };
    write_h5ad(path, &data).unwrap();
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("x.h5ad"), &["kind", "twin"]);
    write(&dir.path().join("bare.h5ad"), &["kind"]);
    fs::write(dir.path().join("tiny.json"), TINY).unwrap();
    dir
}

fn metrics(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("metrics.json")).unwrap()).unwrap()
}

/// The last evaluation that a run wrote itself.
fn last_evaluation(run: &Path) -> Value {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.rfind(|line: &Value| line["event"] == "eval").unwrap()
}

#[test]
fn the_matrix_and_the_type_of_products_are_those_of_the_run() {
    let dir = folder();
    let line = "cls --phenotype_category kind --matrix layers.counts --dtype bf16 --output_dir run";
    done(dir.path(), &format!("{line} {LEARN}"));
    let own = last_evaluation(&dir.path().join("run"));
    done(dir.path(), "eval --checkpoint run/checkpoint-80 --output e");
    let found = metrics(&dir.path().join("e"));
    assert_eq!(found["eval_loss"], own["eval_loss"]);
    let line = "eval --checkpoint run/checkpoint-80 --dtype f32 --output f";
    done(dir.path(), line);
    let in_f32 = metrics(&dir.path().join("f"));
    assert_ne!(in_f32["eval_loss"], own["eval_loss"]);

    let predict = "predict x.h5ad --checkpoint run --overwrite --output p.csv";
    assert!(done(dir.path(), predict).contains("in 100.0 % of 96 cells"));
    let said = done(dir.path(), &format!("{predict} --matrix X"));
    assert!(!said.contains("in 100.0 %"), "{said}");

    let line = "eval --checkpoint run --matrix layers.nonsense --output g";
    refused(dir.path(), line, &["layers.nonsense", "hint: "]);
    let line = "eval --checkpoint run --gene-mask-prob 0.5 --output g";
    refused(dir.path(), line, &["a classifier masks no genes", "hint: "]);

    let again = "--train_data_paths x.h5ad --max_steps 1 --phenotype_category kind \
                 --pretrained_model_path run/checkpoint-80 --output_dir";
    let said = done(dir.path(), &format!("cls {again} again"));
    assert!(said.contains("matrix = \"layers.counts\""), "{said}");
    let line = format!("cls {again} deeper --num_hidden_layers 12");
    refused(dir.path(), &line, &["num_hidden_layers", "12"]);
}

#[test]
fn a_seed_of_masks_leaves_the_held_out_cells_alone() {
    let dir = folder();
    let line = "cls --phenotype_category kind --output_dir run";
    done(dir.path(), &format!("{line} {LEARN}"));
    let of = |seed: u64| {
        let line = format!("eval --checkpoint run --seed {seed} --bootstrap 10 --output e{seed}");
        done(dir.path(), &line);
        let mut found = metrics(&dir.path().join(format!("e{seed}")));
        assert_eq!(found["seed"], seed);
        (found["num_cells"].take(), found["eval_loss"].take())
    };
    let own = of(1);
    assert_eq!(of(2), own);
    assert_eq!(of(3), own);
}

#[test]
fn a_classifier_sees_the_phenotypes_of_its_training() {
    let dir = folder();
    let line = "cls --phenotype_category kind --included_phenotypes twin --output_dir run";
    done(dir.path(), &format!("{line} {LEARN}"));
    let said = done(dir.path(), "predict x.h5ad --checkpoint run --output p.csv");
    assert!(said.contains("in 100.0 % of 96 cells"), "{said}");
    let said = done(
        dir.path(),
        "predict bare.h5ad --checkpoint run --output q.csv",
    );
    assert!(said.contains("bare.h5ad: has no obs column twin"), "{said}");
    let line = "embed x.h5ad --checkpoint run --output e.csv";
    assert!(!done(dir.path(), line).contains("warning"));
}
