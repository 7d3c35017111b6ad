//! `gene-bert cls` and `bincls` through the real command: learning, resuming to the bit, starting
//! from a pretrained model, freezing, and bad use.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use gene_bert::cell::{CellSource, Labels};
use gene_bert::h5ad::write::{AnnData, ValueType, write_h5ad};
use gene_bert::h5ad::{H5ad, OpenOptions, VarColumn};
use gene_bert::parameters::read_tensors;
use serde_json::Value;

use crate::command::{done, gene_bert, refused, text};

/// A folder in which the command runs, with two simulated files `simulated_{1..2}.h5ad`.
struct Fixture {
    dir: tempfile::TempDir,
}

/// How cells become tokens, and how fast a small model learns from them.
const TOKENS: &str = "--bin_edges 0.01 1 2 3 --transform normalize_total:1e4+log1p \
                      --gene_order expression --max_length 64";
const SMALL: &str = "--train_data_paths simulated_{1..2}.h5ad --eval_fraction 0.2 --seed 3 \
                     --per_device_train_batch_size 8 --learning_rate 1e-3 --logging_steps 1";
const NEW: &str = "--model_arch quickstart --num_hidden_layers 1";

impl Fixture {
    fn new(num_cells: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        gene_bert::prepare::simulate::simulate(dir.path(), 7, num_cells).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn gene_bert(&self, line: &str) -> Output {
        gene_bert(self.dir.path(), line)
    }

    /// Runs a line that must succeed; what it printed.
    fn run(&self, line: &str) -> String {
        done(self.dir.path(), line)
    }

    /// Runs a line that must be refused with these words, leaving no run folder `out`.
    fn refused(&self, line: &str, words: &[&str]) {
        let words = [words, &["hint: "]].concat();
        refused(self.dir.path(), &format!("{line} --output_dir out"), &words);
    }

    /// Rewrites a simulated file with other obs columns.
    fn edit(&self, name: &str, edit: impl FnOnce(&mut BTreeMap<String, Labels>)) {
        let path = self.path(name);
        let file = H5ad::open(&path, &OpenOptions::default()).unwrap();
        let columns = file.obs_column_names().iter();
        let mut obs = columns
            .map(|name| (name.clone(), file.obs_labels(name).unwrap()))
            .collect();
        edit(&mut obs);
        let num_genes = file.gene_ids().len();
        let ranks = (0..num_genes).map(|gene| (num_genes - gene) as f64);
        let data = AnnData {
            x: file.read(&[0..file.num_cells()]).unwrap(),
            value_type: ValueType::Float32,
            layers: Vec::new(),
            cell_names: file.cell_names().unwrap(),
            obs: obs.into_iter().collect(),
            gene_ids: file.gene_ids().to_vec(),
            var: vec![(
                "highly_variable_rank".to_owned(),
                VarColumn::Numbers(ranks.collect()),
            )],
        };
        drop(file);
        write_h5ad(&path, &data).unwrap();
    }
}

/// The lines of `metrics.jsonl` with this `event`.
fn events(run: &Path, event: &str) -> Vec<Value> {
    let lines = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let values = lines.lines().map(|l| serde_json::from_str(l).unwrap());
    values.filter(|v: &Value| v["event"] == event).collect()
}

/// What does not depend on the clock of every training step.
fn losses(run: &Path) -> Vec<(u64, f64, f64)> {
    let number = |v: &Value, key: &str| v[key].as_f64().unwrap();
    let of = |v: &Value| {
        (
            v["step"].as_u64().unwrap(),
            number(v, "loss"),
            number(v, "grad_norm"),
        )
    };
    events(run, "step").iter().map(of).collect()
}

fn weights(checkpoint: &Path) -> BTreeMap<String, Vec<f32>> {
    let (tensors, _) = read_tensors(&checkpoint.join("model.safetensors")).unwrap();
    let values = tensors.into_iter().map(|(name, tensor)| {
        let values = tensor.flatten_all().unwrap().to_vec1().unwrap();
        (name, values)
    });
    values.collect()
}

#[test]
fn cell_types_are_learned_and_the_classes_are_saved() {
    let fixture = Fixture::new(1000);
    // Some cells of each file lose their label.
    for name in ["simulated_1.h5ad", "simulated_2.h5ad"] {
        fixture.edit(name, |obs| {
            let labels = obs.get_mut("cell_type").unwrap();
            labels.codes.iter_mut().step_by(50).for_each(|c| *c = -1);
        });
    }
    let said = fixture.run(&format!(
        "cls --phenotype_category cell_type {NEW} {TOKENS} {SMALL} --warmup_ratio 0.1 \
         --num_train_epochs 5 --metric_for_best_model macro_f1 --output_dir run"
    ));
    assert!(said.contains("training cells without a class"), "{said}");
    let run = fixture.path("run");
    let last = events(&run, "eval").pop().unwrap();
    let found = &last["classification"];
    let figure = |key: &str| found[key].as_f64().unwrap();
    let majority = found["majority"]["accuracy"].as_f64().unwrap();
    assert!(majority < 0.4 && figure("accuracy") > 0.85, "{said}");
    assert!(
        figure("macro_f1") > 0.85 && figure("auroc") > 0.95,
        "{said}"
    );
    assert_eq!(found["classes"].as_array().unwrap().len(), 6);
    let config = fs::read_to_string(run.join("checkpoint-best/config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["id2label"]["1"], "T cell");
    assert_eq!(config["label2id"]["T cell"], 1);
    assert_eq!(config["phenotype_category"], "cell_type");
    assert_eq!(config["num_labels"], 6);
}

#[test]
fn resuming_a_classifier_is_exact_to_the_bit() {
    let fixture = Fixture::new(160);
    let line = format!(
        "cls --phenotype_category cell_type --label_smoothing 0.1 {NEW} {TOKENS} {SMALL} \
         --max_steps 25"
    );
    fixture.run(&format!("{line} --output_dir whole"));
    fixture.run(&format!("{line} --output_dir parts --save_steps 7"));
    let (whole, parts) = (fixture.path("whole"), fixture.path("parts"));
    // As if it had been killed right after the second checkpoint.
    for late in ["checkpoint-21", "checkpoint-25", "checkpoint-best"] {
        fs::remove_dir_all(parts.join(late)).unwrap();
    }
    fixture.run("cls --resume parts --dataloader_num_workers 1");
    assert_eq!(losses(&whole).len(), 25);
    assert_eq!(losses(&whole), losses(&parts));
    let last = |run: &Path| weights(&run.join("checkpoint-25"));
    assert_eq!(last(&whole), last(&parts));
    let refused = fixture.gene_bert("cls --resume parts --binary_label [T_cell]");
    assert!(text(&refused).contains("another value of binary_label"));
}

#[test]
fn a_pretrained_model_brings_its_tokens_and_weights_along() {
    let fixture = Fixture::new(160);
    fixture.run(&format!(
        "mlm --included_phenotypes sex {NEW} {TOKENS} {SMALL} --max_steps 10 --output_dir mlm"
    ));
    let from = "--pretrained_model_path mlm/checkpoint-10 --phenotype_category cell_type";
    let said = fixture.run(&format!(
        "cls {from} {SMALL} --max_steps 5 --output_dir tuned"
    ));
    for words in [
        "As in mlm/checkpoint-10: bin_edges, transform, max_length, gene_order",
        "in there but not used: vocab_layer_norm.bias",
        "newly initialised, as not taken from there: pre_classifier.weight",
    ] {
        assert!(said.contains(words), "no `{words}` in\n{said}");
    }
    let frozen = format!("cls {from} {SMALL} --max_steps 5 --freeze_encoder --output_dir frozen");
    fixture.run(&frozen);
    let before = weights(&fixture.path("mlm/checkpoint-10"));
    let same = |run: &str| {
        let after = weights(&fixture.path(run).join("checkpoint-5"));
        let encoder = after.iter().filter(|(n, _)| n.starts_with("distilbert."));
        let same: Vec<bool> = encoder.map(|(n, values)| before[n] == *values).collect();
        same
    };
    assert!(same("frozen").iter().all(|same| *same));
    assert!(same("tuned").iter().all(|same| !same));
    // The same classes again: the last layer comes along too.
    let said = fixture.run(&format!(
        "cls --pretrained_model_path tuned/checkpoint-5 --phenotype_category cell_type {SMALL} \
         --max_steps 2 --output_dir again"
    ));
    assert!(!said.contains("newly initialised"), "{said}");
}

#[test]
fn the_originals_command_line_for_one_tissue_runs_as_it_stands() {
    let fixture = Fixture::new(80);
    for name in ["simulated_1.h5ad", "simulated_2.h5ad"] {
        fixture.edit(name, |_| ());
    }
    let vocabulary =
        r#"{"tissue": ["[liver]", "[lung]", "[skin]"], "sex": ["[male]", "[female]"]}"#;
    fs::write(fixture.path("VOCAB.json"), vocabulary).unwrap();
    let model = r#"{"dim": 24, "hidden_dim": 48, "n_layers": 6, "n_heads": 12}"#;
    fs::write(fixture.path("model.json"), model).unwrap();
    let said = fixture.run(
        "--bin_edges 0.1 --pretrained_model_path model.json --eval_data_paths simulated_2.h5ad \
         --max_length 130 --num_top_genes 128 --vocab_path VOCAB.json \
         --per_device_eval_batch_size 256 --output_dir output_cls_lung cls \
         --phenotype_category tissue --binary_label [lung] \
         --train_data_paths simulated_{1..1}.h5ad --num_hidden_layers 2 --num_attention_heads 12 \
         --per_device_train_batch_size 16 --learning_rate 1e-4 --weight_decay 0.1 \
         --warmup_ratio 0.1 --num_train_epochs 10 --eval_steps 1000 --save_steps 4000",
    );
    assert!(said.contains("not lung"), "{said}");
    let saved = fixture.path("output_cls_lung/checkpoint-40/config.json");
    let config: Value = serde_json::from_str(&fs::read_to_string(saved).unwrap()).unwrap();
    assert_eq!(
        config["id2label"],
        serde_json::json!({"0": "not lung", "1": "lung"})
    );
    assert_eq!(
        (&config["binary_label"], &config["num_hidden_layers"]),
        (&"[lung]".into(), &2.into())
    );
    let classes = &events(&fixture.path("output_cls_lung"), "eval")[0]["classification"];
    assert_eq!(classes["classes"].as_array().unwrap().len(), 2);
}

#[test]
fn balanced_data_and_frozen_blocks_and_bincls() {
    let fixture = Fixture::new(160);
    let said = fixture.run(&format!(
        "bincls --phenotype_category tissue --binary_label liver --balanced_dataset \
         --class_weights none --model_arch quickstart --freeze_encoder 1 {TOKENS} {SMALL} \
         --max_steps 3 --save_steps 1 --early_stopping_patience 2 --output_dir run"
    ));
    assert!(
        said.contains("of each class") && said.contains("liver"),
        "{said}"
    );
    let at = |step: u32| weights(&fixture.path(&format!("run/checkpoint-{step}")));
    let (first, last) = (at(1), at(3));
    for (name, values) in &last {
        let frozen = name.contains("embeddings") || name.contains("layer.0.");
        assert_eq!(first[name] == *values, frozen, "{name}");
    }
}

#[test]
fn a_run_that_no_longer_improves_stops_early() {
    let fixture = Fixture::new(100);
    // Of two classes, the right one always is among the three most probable.
    let said = fixture.run(&format!(
        "cls --phenotype_category sex {NEW} {TOKENS} {SMALL} --max_steps 50 --eval_steps 2 \
         --metric_for_best_model top3_accuracy --early_stopping_patience 3 --output_dir run"
    ));
    assert!(said.contains("Stopped at step 8"), "{said}");
    assert!(fixture.path("run/checkpoint-8").is_dir());
}

#[test]
fn bad_use_is_refused_before_anything_is_written() {
    let fixture = Fixture::new(60);
    let cls = format!("cls {NEW} {TOKENS} {SMALL}");
    let refused = |more: &str, words: &[&str]| fixture.refused(&format!("{cls} {more}"), words);
    refused("", &["phenotype_category", "is not set"]);
    refused(
        "--phenotype_category celltype",
        &["celltype", "cell_type, sex"],
    );
    let leaked = "--included_phenotypes sex cell_type --phenotype_category cell_type";
    refused(
        leaked,
        &["among the included phenotypes", "read the answer"],
    );
    let label = "--phenotype_category cell_type --binary_label";
    refused(
        &format!("{label} [Tcell]"),
        &["[Tcell]", "is '[T_cell]' meant?"],
    );
    let cell_type = "--phenotype_category cell_type";
    refused(
        &format!("{cell_type} --freeze_encoder 2"),
        &["has 1 block", "0 to 1"],
    );
    refused(
        &format!("{cell_type} --metric_for_best_model f1"),
        &["macro_f1"],
    );
    refused(
        &format!("{cell_type} --gene_mask_prob 0.1"),
        &["gene-bert mlm"],
    );
    let bincls = format!("bincls {NEW} {TOKENS} {SMALL} {cell_type}");
    fixture.refused(&bincls, &["binary_label", "is not set"]);
    let mlm = format!("mlm {NEW} {TOKENS} {SMALL} {cell_type}");
    fixture.refused(&mlm, &["phenotype_category", "gene-bert cls"]);
    // A value that the vocabulary does not have; all cells alike; no label at all.
    fs::write(
        fixture.path("V.json"),
        r#"{"cell_type": ["[T_cell]", "[B_cell]"]}"#,
    )
    .unwrap();
    let unknown = format!("{cell_type} --vocab_path V.json");
    refused(
        &unknown,
        &["simulated_1.h5ad: row", "none of the 2 classes", "skip"],
    );
    for name in ["simulated_1.h5ad", "simulated_2.h5ad"] {
        fixture.edit(name, |obs| {
            let codes = vec![0; obs["sex"].codes.len()];
            obs.get_mut("sex").unwrap().codes = codes;
            obs.get_mut("tissue").unwrap().codes.fill(-1);
            let donors = obs.get_mut("donor_id").unwrap();
            donors.codes = (0..donors.codes.len() as i32).collect();
            donors.categories = donors.codes.iter().map(|n| format!("{name} {n}")).collect();
        });
    }
    refused(
        "--phenotype_category sex",
        &["all", "female", "nothing to tell apart"],
    );
    refused(
        "--phenotype_category donor_id",
        &["60 values in 60 cells", "few values"],
    );
    refused(
        "--phenotype_category tissue",
        &["`tissue`", "all are missing"],
    );
}
