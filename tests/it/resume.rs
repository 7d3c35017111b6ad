//! Runs that are taken up again: without the files their settings came from, from within the
//! checkpoint's folder, from an earlier checkpoint, in the precision they began in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gene_bert::cell::CellSource;
use gene_bert::h5ad::{H5ad, OpenOptions};

use crate::command::{done, refused};
use crate::folder::Folder;

/// Settings that suffice for a few steps; bins, model and phenotypes are left to each test.
const SMALL: &str = "--seed 1 --threads 1 --dataloader_num_workers 1 --max_length 24 \
                     --per_device_train_batch_size 4 --train_data_paths simulated_1.h5ad";
const NEW: &str = "--pretrained_model_path model.json --included_phenotypes cell_type";

fn gene_ids(folder: &Folder) -> Vec<String> {
    let path = folder.path("simulated_1.h5ad");
    let file = H5ad::open(&path, &OpenOptions::default()).unwrap();
    file.gene_ids().to_vec()
}

fn write_edges(folder: &Folder) {
    let edges = gene_ids(folder).into_iter().map(|gene| (gene, [0.5, 2.0]));
    let edges: BTreeMap<_, _> = edges.collect();
    let edges = serde_json::to_string(&edges).unwrap();
    fs::write(folder.path("edges.json"), edges).unwrap();
}

fn weights(checkpoint: &Path) -> Vec<u8> {
    fs::read(checkpoint.join("model.safetensors")).unwrap()
}

/// Bins and vocabulary stand in the checkpoint; the files that they came from need not be there.
#[test]
fn a_run_goes_on_and_is_evaluated_without_the_files_of_its_tokens() {
    let folder = Folder::new();
    let dir = folder.0.path();
    write_edges(&folder);
    let types = r#"["[B_cell]", "[T_cell]", "[monocyte]"]"#;
    fs::write(
        folder.path("vv.json"),
        format!("{{\"cell_type\": {types}}}"),
    )
    .unwrap();
    let files = "--vocab_path vv.json --bin_edges_path edges.json --unknown_phenotype mask";
    let line = format!("mlm {SMALL} {NEW} {files} --save_steps 2 --max_steps 4 --output_dir run");
    done(dir, &line);
    let last = weights(&folder.path("run/checkpoint-4"));
    fs::remove_dir_all(folder.path("run/checkpoint-4")).unwrap();
    for name in ["vv.json", "edges.json"] {
        fs::rename(folder.path(name), folder.path(&format!("moved_{name}"))).unwrap();
    }
    done(dir, "mlm --resume run");
    assert_eq!(weights(&folder.path("run/checkpoint-4")), last);
    let eval = "eval --checkpoint run --threads 1 --bootstrap 5 --map-cells 0 --output figures";
    done(dir, eval);
    // Named now, they are looked at.
    let line = "mlm --resume run/checkpoint-2 --vocab_path moved_vv.json --max_steps 4";
    done(dir, line);
    fs::write(folder.path("other.json"), r#"{"cell_type": ["[B_cell]"]}"#).unwrap();
    let line = "mlm --resume run --vocab_path other.json";
    refused(dir, line, &["other.json", "checkpoint-4", "hint: "]);
    let line = "mlm --resume run --vocab_path vv.json";
    refused(dir, line, &["vv.json", "no such file"]);
}

/// Edges for each gene do not fit into `run.toml`: a run that got them from a checkpoint has none
/// there.
#[test]
fn a_run_goes_on_without_the_checkpoint_it_started_from() {
    let folder = Folder::new();
    let dir = folder.0.path();
    write_edges(&folder);
    let edges = "--bin_edges_path edges.json --max_steps 2 --output_dir first";
    done(dir, &format!("mlm {SMALL} {NEW} {edges}"));
    let from = "--pretrained_model_path first/checkpoint-2 --included_phenotypes cell_type";
    let steps = "--save_steps 2 --max_steps 4 --output_dir second";
    done(dir, &format!("mlm {SMALL} {from} {steps}"));
    let last = weights(&folder.path("second/checkpoint-4"));
    fs::remove_dir_all(folder.path("second/checkpoint-4")).unwrap();
    fs::remove_dir_all(folder.path("first")).unwrap();
    done(dir, "mlm --resume second");
    assert_eq!(weights(&folder.path("second/checkpoint-4")), last);
}

#[test]
fn a_gene_map_may_have_moved() {
    let folder = Folder::new();
    let dir = folder.0.path();
    let rows = gene_ids(&folder).into_iter();
    let rows: String = rows.map(|gene| format!("{gene},{gene}\n")).collect();
    fs::write(folder.path("map.csv"), format!("gene,mapped_to\n{rows}")).unwrap();
    let more = "--bin_edges 0.5 2 --gene_map map.csv --max_steps 2 --output_dir run";
    done(dir, &format!("mlm {SMALL} {NEW} {more}"));
    fs::rename(folder.path("map.csv"), folder.path("moved.csv")).unwrap();
    done(dir, "mlm --resume run --gene_map moved.csv");
}

#[test]
fn a_checkpoint_is_resumed_from_within_its_folder() {
    let folder = Folder::new();
    let dir = folder.0.path();
    let steps = "--save_steps 2 --max_steps 4 --eval_fraction 0 --output_dir run";
    let line = format!("mlm {SMALL} {NEW} --bin_edges 0.5 2 {steps}");
    done(dir, &line);
    let last = weights(&folder.path("run/checkpoint-4"));
    fs::remove_dir_all(folder.path("run/checkpoint-4")).unwrap();
    let within = folder.path("run/checkpoint-2");
    let before = crate::command::listing(&within);
    done(
        &within,
        "mlm --resume . --train_data_paths ../../simulated_1.h5ad",
    );
    assert_eq!(crate::command::listing(&within), before);
    assert_eq!(weights(&folder.path("run/checkpoint-4")), last);
}

/// What the run had reached before it was taken back goes when it first saves; what it saves now
/// stays.
#[test]
fn a_run_that_is_taken_back_keeps_what_it_saves() {
    let folder = Folder::new();
    let dir = folder.0.path();
    let names = || {
        let names = fs::read_dir(folder.path("run")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|n| n.starts_with("checkpoint-")).collect();
        names.sort();
        names
    };
    let steps = "--save_steps 2 --max_steps 8 --eval_fraction 0 --output_dir run";
    done(dir, &format!("mlm {SMALL} {NEW} --bin_edges 0.5 2 {steps}"));
    // Steps 4, 6 and 8 of another course, as if the data had been another then.
    for step in [4, 6, 8] {
        let name = format!("run/checkpoint-{step}/model.safetensors");
        fs::write(folder.path(&name), "of another course").unwrap();
    }
    let said = done(dir, "mlm --resume run/checkpoint-2 --save_total_limit 2");
    assert!(
        said.contains("deleted run/checkpoint-8") || said.contains("checkpoint-8, which"),
        "{said}"
    );
    assert_eq!(names(), ["checkpoint-6", "checkpoint-8"]);
    for name in names() {
        let file = folder.path("run").join(name).join("model.safetensors");
        assert_ne!(fs::read(file).unwrap(), b"of another course");
    }
    // Each save is there when it is said to be.
    let said = done(
        dir,
        "mlm --resume run/checkpoint-6 --save_steps 1 --save_total_limit 1",
    );
    assert!(said.contains("checkpoint-7"), "{said}");
    assert_eq!(names(), ["checkpoint-8"]);
}

#[test]
fn a_checkpoint_is_not_resumed_into_the_folder_of_another_run() {
    let folder = Folder::new();
    let dir = folder.0.path();
    let line = format!("mlm {SMALL} {NEW} --bin_edges 0.5 2 --max_steps 2");
    done(dir, &format!("{line} --output_dir one"));
    done(dir, &format!("{line} --output_dir other"));
    let line = "mlm --resume one/checkpoint-2 --output_dir other";
    refused(dir, line, &["other", "another run", "hint: "]);
}

/// What `auto` was measured to be is part of the run.
#[test]
fn the_precision_that_was_measured_is_saved_and_kept() {
    let folder = Folder::new();
    let dir = folder.0.path();
    let more = "--bin_edges 0.5 2 --dtype auto --max_steps 2 --output_dir run";
    done(dir, &format!("mlm {SMALL} {NEW} {more}"));
    let saved = fs::read_to_string(folder.path("run/checkpoint-2/run.toml")).unwrap();
    let is = |dtype: &str| saved.contains(&format!("\ndtype = \"{dtype}\""));
    assert!(is("f32") || is("bf16"), "{saved}");
    let other = if is("f32") { "bf16" } else { "f32" };
    done(dir, "mlm --resume run --dtype auto");
    let line = format!("mlm --resume run --dtype {other}");
    refused(dir, &line, &["dtype", "hint: "]);
}
