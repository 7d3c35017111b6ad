//! Bad use of `gene-bert mlm`, through the real command: bad data, another run's folder, another
//! vocabulary, a full disk. One paragraph with the remedy, exit code 1, nothing half-written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::process::{Command, Output};

use gene_bert::cell::CellSource;
use gene_bert::h5ad::{H5ad, OpenOptions};

use crate::command::{gene_bert, refused};
use crate::folder::{Folder, said, write_cells};

#[test]
fn phenotypes_and_values_that_are_not_there() {
    let folder = Folder::new();
    let parts = ["simulated_1.h5ad", "celltype", "cell_type", "donor_id"];
    folder.refused("--included_phenotypes celltype", &parts);

    let vocabulary = r#"{"cell_type": ["[B_cell]", "[T_cell]"]}"#;
    fs::write(folder.path("vocab.json"), vocabulary).unwrap();
    let parts = [
        "simulated_1.h5ad: row ",
        "cell_type",
        "hint: ",
        "--unknown-phenotype",
    ];
    folder.refused("--vocab_path vocab.json", &parts);
    let parts = ["sex", "vocabulary", "hint: "];
    folder.refused("--vocab_path vocab.json --included_phenotypes sex", &parts);
    folder.train("--vocab_path vocab.json --unknown-phenotype mask");
}

#[test]
fn steps_that_are_not_finite_are_left_out_and_three_in_a_row_end_the_run() {
    let folder = Folder::new();
    // The first step, which is finite, spoils the weights.
    let spoiled = "--learning_rate 1e38 --max_grad_norm 0 --max_steps 9 --logging_steps 1";
    let output = folder.mlm(spoiled);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [
        "step 2 left out: loss NaN",
        "step 3 left out",
        "error: step 4:",
        "3 in a row (rank 0, cells [",
        "hint: ",
    ] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    let lines = fs::read_to_string(folder.path("out/metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 3, "{lines}");
    let last = lines.lines().last().unwrap();
    assert!(last.contains("\"skipped_steps\":2"), "{last}");
    folder.refused(
        "--dtype f16 --device cpu",
        &["dtype", "f16", "hint: ", "bf16"],
    );
}

#[test]
fn vocabularies_with_a_token_twice() {
    let folder = Folder::new();
    let vocabulary = r#"{"cell_type": ["[B_cell]", "[other]"], "tissue": ["[other]"]}"#;
    fs::write(folder.path("vocab.json"), vocabulary).unwrap();
    folder.refused(
        "--vocab_path vocab.json",
        &["vocab.json", "[other]", "cell_type", "tissue"],
    );
    fs::write(folder.path("vocab.json"), "{").unwrap();
    folder.refused("--vocab_path vocab.json", &["vocab.json"]);
}

#[test]
fn values_that_are_no_counts() {
    let folder = Folder::new();
    for (name, value) in [
        ("negative", -1.5),
        ("nan", f32::NAN),
        ("infinite", f32::INFINITY),
    ] {
        let file = format!("{name}.h5ad");
        write_cells(&folder.path(&file), &["a", "b"], |data| data[20] = value);
        // Value 20 stands in row 3, gene 2.
        let line = format!("--train_data_paths {file} --output_dir {name}");
        let output = folder.mlm(&line);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        for part in [file.as_str(), "row 3", "GENE2", "hint: "] {
            assert!(text.contains(part), "`{part}` is not said:\n{text}");
        }
        let left: Vec<String> = folder
            .names()
            .into_iter()
            .filter(|name| name.contains("checkpoint"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A cell whose phenotype is unknown may be skipped, but not unsaid; a run of none is no run.
#[test]
fn cells_that_are_skipped() {
    let folder = Folder::new();
    let skipping = "--vocab_path vocab.json --unknown-phenotype skip --eval_fraction 0";
    fs::write(folder.path("vocab.json"), r#"{"cell_type": ["[none]"]}"#).unwrap();
    for steps in ["--max_steps 3", "--max_steps 12 --save_steps 10"] {
        let line = format!("{skipping} {steps} --overwrite-output-dir");
        let output = folder.mlm(&line);
        failed(
            &output,
            &["skipped", "unknown_phenotype", "hint: ", "--vocab_path"],
        );
        let names = folder.names();
        assert!(!names.iter().any(|n| n.contains("checkpoint")), "{names:?}");
    }

    let vocabulary = r#"{"cell_type": ["[B_cell]", "[T_cell]"]}"#;
    fs::write(folder.path("vocab.json"), vocabulary).unwrap();
    let path = folder.path("simulated_1.h5ad");
    let labels = H5ad::open(&path, &OpenOptions::default()).unwrap();
    let labels = labels.labels("cell_type").unwrap();
    let is_known = |row: &usize| matches!(labels.value(*row), Some("B cell" | "T cell"));
    let known = (0..36).filter(is_known).count();
    assert!((1..36).contains(&known), "{known}");
    // Nine batches of four an epoch; resumed in its middle, it is counted as a whole.
    let line = format!("{skipping} --overwrite-output-dir --max_steps 18 --save_steps 5");
    let said = folder.train(&line);
    for epoch in [1, 2] {
        let note = format!("epoch {epoch}: {} cells were skipped", 36 - known);
        assert!(said.contains(&note), "`{note}` is not in\n{said}");
    }
    assert!(
        said.contains(&format!("Trained on {} cells, ", 2 * known)),
        "{said}"
    );
    for late in ["checkpoint-10", "checkpoint-15", "checkpoint-18"] {
        fs::remove_dir_all(folder.path("out").join(late)).unwrap();
    }
    let resumed = folder.train("--resume --max_steps 18");
    let note = format!("epoch 1: {} cells were skipped", 36 - known);
    assert!(resumed.contains(&note), "`{note}` is not in\n{resumed}");
    assert!(
        resumed.contains(&format!("Trained on {} cells, ", 2 * known)),
        "{resumed}"
    );
}

/// What `check` says of settings is what a run with them would.
#[test]
fn check_says_what_the_run_would() {
    let folder = Folder::new();
    folder.train("");
    let dir = folder.0.path();
    let from = "check --train_data_paths simulated_1.h5ad --output_dir new --max_length 24 \
                --pretrained_model_path out/checkpoint-2 --included_phenotypes cell_type";
    let settings = |line: &str| {
        let output = gene_bert(dir, line);
        assert!(output.status.success(), "{line}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        toml::from_str::<toml::Table>(&text).unwrap()
    };
    let edges = settings(from)["bin_edges"].as_array().unwrap().len();
    assert_eq!(edges, 2);
    refused(
        dir,
        &format!("{from} --bin_edges 0.7"),
        &["checkpoint-2", "hint: "],
    );
    refused(
        dir,
        &format!("{from} --num_hidden_layers 3"),
        &["num_hidden_layers"],
    );
    let resumed = settings("check --resume out");
    assert_eq!(resumed["seed"].as_integer(), Some(1));
    for line in [
        "check --resume out",
        "check --config out/run.toml --resume out/checkpoint-2",
    ] {
        refused(dir, &format!("{line} --seed 7"), &["seed", "hint: "]);
    }
    refused(dir, "check --resume absent", &["absent", "hint: "]);
    refused(
        dir,
        &format!("{from} --class_weights none"),
        &["class_weights", "cls"],
    );
}

/// The figure that tells the best checkpoint: a wrong name is refused before the run, and held-out
/// cells that do not tell it end no run.
#[test]
fn figures_that_there_are_not() {
    let folder = Folder::new();
    for wrong in ["cell_type_acuracy", "sex_accuracy", "gene_auroc", "auroc"] {
        let parts = [
            "metric_for_best_model",
            wrong,
            "cell_type_, gene_",
            "macro_f1",
        ];
        folder.refused(&format!("--metric_for_best_model {wrong}"), &parts);
    }
    write_cells(&folder.path("two.h5ad"), &["a", "b"], |_| ());
    write_cells(&folder.path("one.h5ad"), &["a"], |_| ());
    let said = folder.train(
        "--train_data_paths two.h5ad --eval_data_paths one.h5ad --eval_steps 1 \
         --metric_for_best_model cell_type_auroc",
    );
    assert!(
        said.contains("do not tell cell_type_auroc at step 2"),
        "{said}"
    );
    assert!(!folder.path("out/checkpoint-best").exists());
    let said = folder.train(
        "--train_data_paths two.h5ad --eval_data_paths one.h5ad --eval_steps 1 --max_steps 9 \
         --metric_for_best_model cell_type_auroc --early_stopping_patience 3 --output_dir stopped",
    );
    assert!(said.contains("Stopped at step 3"), "{said}");
}

#[test]
fn files_without_the_genes_of_the_vocabulary() {
    let folder = Folder::new();
    folder.train("--output_dir first");
    write_cells(&folder.path("other.h5ad"), &["T cell", "B cell"], |_| ());
    let checkpoint = "--pretrained_model_path first/checkpoint-2 --output_dir second";
    let line = format!("{checkpoint} --train_data_paths other.h5ad");
    folder.refused(
        &line,
        &[
            "other.h5ad",
            "genes",
            "--gene-id-column",
            "--min-gene-overlap",
        ],
    );
}

#[test]
fn a_folder_that_holds_another_run() {
    let folder = Folder::new();
    folder.train("");
    let weights = fs::read(folder.path("out/checkpoint-2/model.safetensors")).unwrap();
    folder.refused(
        "",
        &["out", "another run", "--resume", "--overwrite-output-dir"],
    );
    assert_eq!(
        fs::read(folder.path("out/checkpoint-2/model.safetensors")).unwrap(),
        weights
    );
    folder.train("--overwrite-output-dir");
    fs::write(folder.path("file"), "").unwrap();
    folder.refused("--output_dir file", &["file", "is a file"]);
}

#[test]
fn checkpoints_that_do_not_fit() {
    let folder = Folder::new();
    folder.train("");
    folder.refused("--output_dir new --resume", &["new", "hint: "]);
    folder.refused("--resume absent", &["absent", "hint: "]);
    folder.refused("--resume --max_length 30", &["max_length", "hint: "]);
    let vocabulary = r#"{"cell_type": ["[B_cell]", "[T_cell]"]}"#;
    fs::write(folder.path("vocab.json"), vocabulary).unwrap();
    let line = "--pretrained_model_path out/checkpoint-2 --output_dir new --vocab_path vocab.json";
    folder.refused(line, &["vocab.json", "checkpoint-2", "hint: "]);
    let weights = folder.path("out/checkpoint-2/model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let line = "--pretrained_model_path out/checkpoint-2 --output_dir new";
    folder.refused(line, &["model.safetensors"]);
}

/// Its own checkpoint with another vocabulary in it, and its own run with another vocabulary named.
#[test]
fn a_checkpoint_of_another_vocabulary_is_not_resumed() {
    let folder = Folder::new();
    let vocabulary = r#"{"cell_type": ["[B_cell]", "[T_cell]"]}"#;
    fs::write(folder.path("vocab.json"), vocabulary).unwrap();
    folder.train("--max_steps 4 --save_steps 2 --eval_fraction 0");
    fs::remove_dir_all(folder.path("out/checkpoint-4")).unwrap();
    let parts = ["vocab.json", "checkpoint-2", "hint: "];
    folder.refused("--resume --vocab_path vocab.json --max_steps 4", &parts);

    let other = "--output_dir other --vocab_path vocab.json --unknown-phenotype mask";
    folder.train(other);
    for name in ["tokenizer.json", "gene_bert.json"] {
        let from = folder.path("other/checkpoint-2").join(name);
        fs::copy(from, folder.path("out/checkpoint-2").join(name)).unwrap();
    }
    let parts = ["checkpoint-2", "vocabulary", "hint: "];
    folder.refused("--resume --max_steps 4", &parts);
}

/// Runs `command` in a shell whose files may not grow beyond `blocks` KiB, which is what a full
/// disk looks like to a program: the write fails.
#[cfg(unix)]
fn on_a_full_disk(command: &Command, blocks: u32) -> Output {
    let limit = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let mut limited = Command::new("bash");
    limited.args(["-c", &limit]).arg(command.get_program());
    limited.args(command.get_args());
    limited.current_dir(command.get_current_dir().unwrap());
    limited.output().unwrap()
}

/// Exit code 1 and a message with all of `parts`.
fn failed(output: &Output, parts: &[&str]) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not said:\n{text}");
    }
}

/// The weights exceed the limit and the settings do not.
#[cfg(unix)]
#[test]
fn a_full_disk_while_saving() {
    let folder = Folder::new();
    let output = on_a_full_disk(&folder.command(""), 40);
    failed(&output, &["out/", "hint: "]);
    let left: Vec<String> = folder
        .names()
        .into_iter()
        .filter(|name| name.contains("checkpoint"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[cfg(unix)]
#[test]
fn a_full_disk_while_saving_keeps_the_last_whole_checkpoint() {
    let folder = Folder::new();
    let settings = "--max_steps 4 --save_steps 2 --eval_fraction 0";
    folder.train(settings);
    let weights = |step: u32| {
        let path = format!("out/checkpoint-{step}/model.safetensors");
        fs::read(folder.path(&path)).unwrap()
    };
    let (half, whole) = (weights(2), weights(4));
    fs::remove_dir_all(folder.path("out/checkpoint-4")).unwrap();
    let before = folder.names();
    let resume = format!("--resume {settings}");
    let output = on_a_full_disk(&folder.command(&resume), 40);
    failed(&output, &["checkpoint-4", "hint: "]);
    assert_eq!(folder.names(), before);
    assert_eq!(weights(2), half);
    folder.train(&resume);
    assert_eq!(weights(4), whole);
}

/// Lines of `metrics.jsonl` are written whole or not at all, and the run can go on.
#[cfg(unix)]
#[test]
fn a_full_disk_while_metrics_are_written() {
    let folder = Folder::new();
    let settings = "--max_steps 40 --save_steps 30 --logging_steps 1 --eval_fraction 0";
    let output = on_a_full_disk(&folder.command(settings), 4);
    failed(&output, &["out/metrics.jsonl", "hint: "]);
    let lines = fs::read_to_string(folder.path("out/metrics.jsonl")).unwrap();
    assert!(lines.len() > 2000 && lines.len() <= 4096, "{}", lines.len());
    for line in lines.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["event"], "step");
    }
    folder.train(&format!("--overwrite-output-dir {settings}"));
}

/// The simulated file is what the tests take it for.
#[test]
fn the_fixture_has_all_cell_types() {
    let folder = Folder::new();
    let path = folder.path("simulated_1.h5ad");
    let file = H5ad::open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(file.num_cells(), 36);
    assert_eq!(file.labels("cell_type").unwrap().categories.len(), 6);
}
