//! Bad use, through the real command: every mistake ends with one paragraph that names the place
//! and the remedy, exit code 1, and nothing half-written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Stdio};

use crate::command::{gene_bert, refused};

#[test]
fn flags_and_subcommands_that_do_not_exist() {
    let dir = tempfile::tempdir().unwrap();
    refused(
        dir.path(),
        "check --bin_edgse 0.1",
        &["--bin-edgse", "--bin-edges"],
    );
    refused(dir.path(), "chekc --bin_edges 0.1", &["chekc", "check"]);
    refused(
        dir.path(),
        "--bin_edges 0.1 chekc",
        &["is `chekc` meant to be `check`?"],
    );
    refused(dir.path(), "--bin_edges 0.1", &["no subcommand", "hint: "]);
    refused(
        dir.path(),
        "check --max_length many",
        &["--max-length", "many"],
    );
    refused(
        dir.path(),
        "check --gene_order size",
        &["size", "expression"],
    );
    refused(dir.path(), "check --seed 1 --seed 2", &["--seed"]);
}

#[test]
fn files_that_are_absent_or_no_h5ad() {
    let dir = tempfile::tempdir().unwrap();
    refused(dir.path(), "info no/such.h5ad", &["no/such.h5ad", "hint: "]);
    refused(
        dir.path(),
        "info x_{0..3}.h5ad",
        &["x_{0..3}.h5ad", "x_0.h5ad"],
    );
    std::fs::write(dir.path().join("text.h5ad"), "not hdf5").unwrap();
    refused(dir.path(), "info text.h5ad", &["text.h5ad"]);
    std::fs::write(dir.path().join("empty.h5ad"), "").unwrap();
    refused(dir.path(), "info empty.h5ad", &["empty.h5ad"]);
    refused(dir.path(), "info .", &["."]);
}

#[test]
fn settings_that_cannot_work() {
    let dir = tempfile::tempdir().unwrap();
    let sound = "check --train_data_paths a.h5ad --output_dir out --model_arch quickstart";
    refused(
        dir.path(),
        "check",
        &["train_data_paths", "output_dir", "bin_edges"],
    );
    refused(
        dir.path(),
        sound,
        &["bin_edges", "none is set", "hint: set exactly one"],
    );
    let line = format!("{sound} --bin_edges 1 0.5");
    refused(dir.path(), &line, &["bin_edges", "do not ascend", "hint: "]);
    let line = format!("{sound} --bin_edges 0.1 --device cuda:0");
    refused(dir.path(), &line, &["device", "cuda:0", "hint: set cpu"]);
    let line = "check --train_data_paths a --output_dir out --bin_edges 1 --model_arch quickstrat";
    refused(
        dir.path(),
        line,
        &["model_arch", "did you mean quickstart?"],
    );
    let line = format!("{sound} --bin_edges 0.1");
    refused(dir.path(), &line, &["a.h5ad: no such file", "hint: "]);
    std::fs::write(dir.path().join("a.h5ad"), "").unwrap();
    let line = format!("{sound} --bin_edges_path edges.json");
    refused(dir.path(), &line, &["edges.json: no such file"]);
    std::fs::write(dir.path().join("edges.json"), r#"{"A": [1], "B": [2, 3]}"#).unwrap();
    refused(dir.path(), &line, &["edges.json", "B", "2 edges", "hint: "]);
    let line = "check --train_data_paths a.h5ad --output_dir out --bin_edges 1 \
                --pretrained_model_path model.json";
    refused(dir.path(), line, &["model.json: no such file"]);
    std::fs::write(dir.path().join("model.json"), r#"{"dimm": 5}"#).unwrap();
    refused(dir.path(), line, &["model.json", "dimm"]);
    std::fs::write(
        dir.path().join("model.json"),
        r#"{"dim": 10, "n_heads": 3}"#,
    )
    .unwrap();
    refused(dir.path(), line, &["num_attention_heads", "hidden_size"]);
}

#[test]
fn settings_files_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    refused(
        dir.path(),
        "check --config run.toml",
        &["run.toml: no such file", "hint: "],
    );
    std::fs::write(dir.path().join("run.toml"), "max_lenght = 5\n").unwrap();
    let parts = [
        "run.toml",
        "unknown key `max_lenght`",
        "hint: did you mean `max_length`?",
    ];
    refused(dir.path(), "check --config run.toml", &parts);
    std::fs::write(dir.path().join("run.toml"), "seed = 1\nmax_length = 'x'\n").unwrap();
    refused(
        dir.path(),
        "check --config run.toml",
        &["run.toml", "line 2"],
    );
    std::fs::write(dir.path().join("run.toml"), b"\xff\xfe").unwrap();
    refused(
        dir.path(),
        "check --config run.toml",
        &["run.toml", "not UTF-8"],
    );
}

#[test]
fn what_check_prints_reads_back_as_a_settings_file() {
    let dir = tempfile::tempdir().unwrap();
    for shard in 0..4 {
        std::fs::write(dir.path().join(format!("x_{shard}.h5ad")), "").unwrap();
    }
    let line = "--bin_edges 0.1 0.5 --included_phenotypes cell_type sex check \
                --train_data_paths x_{0..3}.h5ad --output_dir out --model_arch quickstart --seed 7";
    let first = gene_bert(dir.path(), line);
    assert!(first.status.success(), "{first:?}");
    let said = String::from_utf8_lossy(&first.stderr);
    assert!(
        said.contains("4 training files, 0 evaluation files"),
        "{said}"
    );
    std::fs::write(dir.path().join("run.toml"), &first.stdout).unwrap();
    let second = gene_bert(dir.path(), "check --config run.toml");
    assert!(second.status.success(), "{second:?}");
    assert_eq!(first.stdout, second.stdout);
}

#[test]
fn help_and_version_are_no_errors_and_a_closed_pipe_is_none_either() {
    let dir = tempfile::tempdir().unwrap();
    for line in ["--help", "--version", "check --help", "help check"] {
        let output = gene_bert(dir.path(), line);
        assert!(
            output.status.success() && !output.stdout.is_empty(),
            "{line}: {output:?}"
        );
    }
    std::fs::write(dir.path().join("a"), "").unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_gene-bert"))
        .current_dir(dir.path())
        .args(
            "check --bin_edges 0.1 --train_data_paths a --output_dir o --model_arch quickstart"
                .split(' '),
        )
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("error"), "{said}");
}
