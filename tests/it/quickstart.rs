//! `gene-bert quickstart` through the real command: it learns hidden phenotypes, and says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::command::gene_bert;
use crate::shared::shared_dir;

fn quickstart(folder: &Path, more: &str) -> Output {
    gene_bert(folder, &format!("quickstart {more}"))
}

/// Accuracy and majority baseline of a phenotype with all phenotypes hidden, at the end.
fn figures(run: &Path, category: &str) -> (f64, f64) {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut events = text
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    let last = events.rfind(|e| e["event"] == "eval").unwrap();
    let found = last["phenotypes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["category"] == category && p["setting"] == "all_hidden")
        .unwrap()
        .clone();
    (
        found["accuracy"].as_f64().unwrap(),
        found["majority_accuracy"].as_f64().unwrap(),
    )
}

#[test]
fn simulated_cell_types_are_predicted_far_above_the_majority() {
    let dir = tempfile::tempdir().unwrap();
    let output = quickstart(dir.path(), "--num-train-epochs 7");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for part in [
        "these are not real cells",
        "cell_type: hidden, and predicted",
        "Next:",
    ] {
        assert!(text.contains(part), "`{part}` is not said:\n{text}");
    }
    let run = dir.path().join("quickstart-run");
    let (accuracy, majority) = figures(&run, "cell_type");
    assert!(accuracy >= 3.0 * majority, "{accuracy} against {majority}");
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "gene_bert.json",
    ] {
        assert!(run.join("checkpoint-best").join(name).exists(), "{name}");
    }
}

#[test]
fn real_cells() {
    let Some(file) = shared_dir("data/main/pbmc3k_2638x13714_counts.h5ad") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let line = format!(
        "--data {} --phenotypes louvain --num-train-epochs 3 --output-dir out",
        file.display()
    );
    let output = quickstart(dir.path(), &line);
    assert!(output.status.success(), "{output:?}");
    let (accuracy, majority) = figures(&dir.path().join("out"), "louvain");
    assert!(accuracy >= 1.6 * majority, "{accuracy} against {majority}");
}

#[test]
fn one_phenotype_or_none_that_fits() {
    let dir = tempfile::tempdir().unwrap();
    let line = "--phenotypes sex --num-train-epochs 0.05 --threads 1";
    let output = quickstart(dir.path(), line);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("sex: hidden") && !text.contains("tissue: hidden"),
        "{text}"
    );
    for (line, part) in [
        (
            "--data quickstart-run.data/simulated_1.h5ad",
            "--phenotypes cell_type",
        ),
        ("--data absent.h5ad --phenotypes sex", "absent.h5ad"),
        (
            "--data quickstart-run.data/simulated_1.h5ad --phenotypes age",
            "age",
        ),
    ] {
        let output = quickstart(dir.path(), line);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains(part) && text.contains("hint: "),
            "{line}\n{text}"
        );
        assert!(
            !dir.path().join("quickstart-run-2").exists(),
            "{line} left a folder"
        );
    }
}
