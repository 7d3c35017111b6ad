//! `gene-bert runs` through the real command: runs in every state, folders that hold none, two
//! compared.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::{done, refused};
use crate::folder::Folder;

const RUN: &str = "mlm --train_data_paths simulated_1.h5ad --included_phenotypes cell_type \
                   --bin_edges 0.5 2 --max_length 24 --pretrained_model_path model.json \
                   --per_device_train_batch_size 4 --eval_steps 2 --save_steps 2 --logging_steps 1";

/// The row of a run, as words.
fn row<'a>(table: &'a str, run: &str) -> Vec<&'a str> {
    let rows = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = rows.filter(|words: &Vec<&str>| words.last() == Some(&run));
    found
        .next()
        .unwrap_or_else(|| panic!("no {run} in\n{table}"))
}

#[test]
fn runs_of_every_state_are_listed_and_compared() {
    let folder = Folder::new();
    let here = folder.0.path();
    done(here, &format!("{RUN} --max_steps 4 --output_dir runs/a"));
    let other = "--max_steps 6 --learning_rate 1e-2 --output_dir runs/deep/b";
    done(here, &format!("{RUN} {other}"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_gene-bert"))
        .args(format!("{RUN} --max_steps 100000 --output_dir runs/c").split_whitespace())
        .current_dir(here)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let steps = || fs::read_to_string(folder.path("runs/c/metrics.jsonl")).unwrap_or_default();
    while steps().matches("\"eval\"").count() < 2 {
        assert!(began.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::create_dir_all(folder.path("runs/none")).unwrap();
    fs::create_dir_all(folder.path("runs/odd")).unwrap();
    fs::write(folder.path("runs/odd/run.toml"), "learning_rat = 1\n").unwrap();
    let table = done(here, "runs runs");
    assert_eq!(row(&table, "runs/c")[0], "running");
    assert!(
        table.contains("warning: ") && table.contains("learning_rate"),
        "{table}"
    );
    // Nobody else may train there meanwhile.
    let line = format!("{RUN} --max_steps 4 --output_dir runs/c --overwrite-output-dir");
    let output = crate::command::gene_bert(here, &line);
    let said = crate::command::text(&output);
    assert!(
        said.contains("another process trains in this folder"),
        "{said}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let table = done(here, "runs runs");
    assert_eq!(row(&table, "runs/c")[..2], ["broken", "off"], "{table}");
    let a = row(&table, "runs/a");
    assert_eq!(a[..3], ["finished", "mlm", "4/4"], "{table}");
    assert_eq!(row(&table, "runs/deep/b")[2], "6/6");
    assert!(
        !table.contains("checkpoint"),
        "checkpoints are no runs:\n{table}"
    );
    assert!(!done(here, "runs runs --depth 1").contains("deep"));
    // What is told is what was logged.
    let metrics = fs::read_to_string(folder.path("runs/a/metrics.jsonl")).unwrap();
    let losses = metrics.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["eval_loss"].as_f64()
    });
    let best = losses.fold(f64::INFINITY, f64::min);
    assert!(
        a.contains(&format!("{best:.4}").as_str()),
        "{best} is not in {a:?}"
    );
    let json = done(here, "runs runs/a --json");
    let json: serde_json::Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!(
        (json["best"].as_f64(), json["step"].as_u64()),
        (Some(best), Some(4))
    );
    let said = done(here, "runs diff runs/a runs/deep/b");
    for part in [
        "learning_rate",
        "0.01",
        "max_steps",
        "eval_loss",
        "second - first",
    ] {
        assert!(said.contains(part), "no `{part}` in\n{said}");
    }
    assert!(
        !said.contains("output_dir"),
        "the folder is no setting:\n{said}"
    );
    let said = done(here, "runs diff runs/a runs/a");
    assert!(
        said.contains("settings are equal") && said.contains("+0.0000"),
        "{said}"
    );
}

#[test]
fn what_is_no_run_is_refused() {
    let folder = Folder::new();
    let here = folder.0.path();
    done(here, &format!("{RUN} --max_steps 2 --output_dir a"));
    fs::create_dir(folder.path("empty")).unwrap();
    refused(here, "runs empty", &["no run here", "hint: "]);
    refused(here, "runs absent", &["absent", "cannot read this folder"]);
    refused(here, "runs simulated_1.h5ad", &["is a file", "hint: "]);
    refused(
        here,
        "runs diff a empty",
        &["empty: is no run folder", "hint: "],
    );
    let checkpoint = "runs diff a/checkpoint-2 a";
    refused(here, checkpoint, &["this is a checkpoint; its run is a"]);
    refused(here, "runs --metric eval_los", &["did you mean eval_loss?"]);
    refused(here, "runs --metric absent", &["no run has", "there are "]);
    done(here, "runs --sort best");
    let rerun = "--metric_for_best_model gene_accuracy --output_dir b";
    done(here, &format!("{RUN} --max_steps 2 {rerun}"));
    refused(here, "runs --sort best", &["different figures", "--metric"]);
    let table = done(here, "runs");
    assert!(
        table.contains("eval_loss ") && table.contains("gene_accuracy "),
        "{table}"
    );
    done(here, "runs --sort best --metric gene_accuracy");
}
