//! `gene-bert sweep` through the real command: trials run, fail, stop early, survive kills.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::{done, gene_bert, refused, text};
use crate::folder::Folder;

const SETTINGS: &str = "  bin_edges: {value: [0.5, 2]}\n  max_length: {value: 24}\n  \
    included_phenotypes: {value: [cell_type]}\n  pretrained_model_path: {value: model.json}\n  \
    train_data_paths: {value: [simulated_1.h5ad]}\n  per_device_train_batch_size: {value: 4}\n  \
    dataloader_num_workers: {value: 1}\n  eval_steps: {value: 2}\n";

fn study(folder: &Folder, head: &str, parameters: &str) {
    let text = format!("program: mlm\n{head}parameters:\n{parameters}{SETTINGS}");
    fs::write(folder.path("study.yaml"), text).unwrap();
}

/// `study.csv` without times: what must not depend on how a sweep went.
fn table(folder: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(folder.join("study.csv")).unwrap();
    let mut rows = csv::Reader::from_reader(text.as_bytes());
    let seconds = rows
        .headers()
        .unwrap()
        .iter()
        .position(|h| h == "seconds")
        .unwrap();
    let mut all = Vec::new();
    for row in rows.records() {
        let mut row: Vec<String> = row.unwrap().iter().map(str::to_owned).collect();
        row.remove(seconds);
        all.push(row);
    }
    all
}

fn spawn(folder: &Path, line: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_gene-bert"))
        .args(line.split_whitespace())
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until so many trials have ended and another has only just begun, so that it cannot end
/// before it learns that the sweep is gone.
fn wait_for(folder: &Path, trials: usize) {
    let began = Instant::now();
    loop {
        let text = fs::read_to_string(folder.join("study.json")).unwrap_or_default();
        let study: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let all = study["trials"].as_array().cloned().unwrap_or_default();
        let of = |state: &'static str| all.iter().filter(move |trial| trial["state"] == state);
        let has_logged = |trial: &serde_json::Value| {
            let name = format!(
                "trial-{:03}/metrics.jsonl",
                trial["number"].as_u64().unwrap()
            );
            folder.join(name).exists()
        };
        if of("finished").count() >= trials && of("running").any(|trial| !has_logged(trial)) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(300), "{text}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_grid_runs_in_order_and_is_shown() {
    let folder = Folder::new();
    let parameters = "  seed: {values: [1, 2]}\n  learning_rate: {values: [1e-3, 1e-2]}\n  \
                      max_steps: {value: 4}\n";
    study(&folder, "name: a <b>\nmethod: grid\n", parameters);
    let dry = done(folder.0.path(), "sweep study.yaml --dry-run");
    for part in [
        "seed=2  learning_rate=1e-3",
        "At most 4 trials",
        "one of 1e-3, 1e-2",
        "--threads=",
    ] {
        assert!(dry.contains(part), "no `{part}` in\n{dry}");
    }
    assert!(!folder.path("study").exists(), "a dry run writes nothing");
    let said = done(folder.0.path(), "sweep study.yaml --parallel 2");
    assert!(said.contains("4 trials: 4 finished"), "{said}");
    let rows = table(&folder.path("study"));
    let searched: Vec<[&str; 3]> = rows.iter().map(|r| [r[0].as_str(), &r[2], &r[3]]).collect();
    let expected = [
        ["1", "1", "1e-3"],
        ["2", "1", "1e-2"],
        ["3", "2", "1e-3"],
        ["4", "2", "1e-2"],
    ];
    assert_eq!(searched, expected);
    // What the table says is what the run logged.
    let metrics = fs::read_to_string(folder.path("study/trial-003/metrics.jsonl")).unwrap();
    let logged = metrics
        .lines()
        .filter(|line| line.contains("eval_loss"))
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["eval_loss"].as_f64().unwrap()
        });
    let best = logged.fold(f64::INFINITY, f64::min);
    assert!(
        rows[2].contains(&best.to_string()),
        "{best} is not in {:?}",
        rows[2]
    );
    let page = fs::read_to_string(folder.path("study/study.html")).unwrap();
    for part in [
        "a &lt;b&gt;",
        "Parallel coordinates",
        "learning_rate",
        "data-trial=4",
    ] {
        assert!(page.contains(part), "no `{part}` in the page");
    }
    for part in ["http://", "https://", "src=", "@import"] {
        assert!(!page.contains(part), "the page reaches out: {part}");
    }
    let again = done(folder.0.path(), "sweep study --parallel 2");
    assert!(again.contains("4 trials: 4 finished"), "{again}");
    assert_eq!(table(&folder.path("study")), rows, "nothing is left to run");
}

#[test]
fn a_failed_trial_is_kept_with_its_reason_and_can_run_again() {
    let folder = Folder::new();
    let parameters = "  train_batch: {value: 1}\n";
    study(&folder, "method: grid\n", parameters);
    let hint = "did you mean `per_device_train_batch_size`?";
    let text = refused(
        folder.0.path(),
        "sweep study.yaml",
        &["study.yaml:4", "train_batch"],
    );
    assert!(text.contains("hint: "), "{text} {hint}");
    // The second value names a column that is not there.
    let parameters = "  max_steps: {value: 2}\n  balance_by: {values: [cell_type, absent]}\n";
    study(&folder, "method: grid\n", parameters);
    let said = done(folder.0.path(), "sweep study.yaml");
    assert!(
        said.contains("1 finished, 1 failed") && said.contains("absent"),
        "{said}"
    );
    let rows = table(&folder.path("study"));
    assert_eq!(
        (rows[0][1].as_str(), rows[1][1].as_str()),
        ("finished", "failed")
    );
    let reason = &rows[1][rows[1].len() - 2];
    assert!(
        reason.contains("error: ") && reason.contains("absent"),
        "{reason}"
    );
    let page = fs::read_to_string(folder.path("study/study.html")).unwrap();
    assert!(page.contains("Failed trials"));
    let said = done(folder.0.path(), "sweep study --retry-failed");
    assert!(said.contains("1 finished, 1 failed"), "{said}");
    let record = fs::read_to_string(folder.path("study/study.json")).unwrap();
    assert!(record.contains("\"tries\": 2"), "{record}");
}

#[test]
fn a_study_of_one_trial_that_fails_is_an_error() {
    let folder = Folder::new();
    let parameters = "  max_steps: {value: 2}\n  balance_by: {value: absent}\n";
    study(&folder, "method: grid\n", parameters);
    for line in [
        "sweep study.yaml",
        "sweep study",
        "sweep study --retry-failed",
    ] {
        let output = gene_bert(folder.0.path(), line);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{line}\n{said}");
        assert!(
            said.contains("the only trial failed, with") && said.contains("absent"),
            "{said}"
        );
    }
}

#[test]
fn a_study_whose_first_trials_all_fail_ends() {
    let folder = Folder::new();
    let parameters = "  seed: {min: 1, max: 100}\n  max_steps: {value: 2}\n";
    let head = "method: random\nrun_cap: 50\nmetric: {name: tissue_accurracy, goal: maximize}\n";
    study(&folder, head, parameters);
    let output = gene_bert(folder.0.path(), "sweep study.yaml");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "the first 3 trials all failed",
        "cell_type_accuracy",
        "--retry-failed",
    ] {
        assert!(said.contains(part), "no `{part}` in\n{said}");
    }
    assert_eq!(table(&folder.path("study")).len(), 3);
}

/// A metric that a run never has is told at its first evaluation, not after its last step.
#[test]
fn a_metric_that_never_comes_ends_trials_at_once() {
    let folder = Folder::new();
    let parameters = "  seed: {min: 1, max: 100}\n  max_steps: {value: 100000}\n";
    let head = "method: random\nrun_cap: 50\nmetric: {name: cell_typ_accuracy, goal: maximize}\n";
    study(&folder, head, parameters);
    let output = gene_bert(folder.0.path(), "sweep study.yaml");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "no figure `cell_typ_accuracy`",
        "cell_type_accuracy",
        "all failed",
    ] {
        assert!(said.contains(part), "no `{part}` in\n{said}");
    }
    assert!(
        table(&folder.path("study"))
            .iter()
            .all(|row| row[1] == "failed")
    );
}

#[test]
fn a_killed_sweep_goes_on_to_the_same_table() {
    let folder = Folder::new();
    let head = "method: bayes\nrun_cap: 14\nmetric: {name: eval_loss}\n\
                early_terminate: {type: hyperband, min_iter: 2, eta: 3, strict: true}\n";
    let parameters = "  learning_rate: {distribution: log_uniform_values, min: 1e-5, max: 1e-1}\n  \
                      warmup_ratio: {min: 0.0, max: 0.5}\n  max_steps: {value: 8}\n  \
                      save_steps: {value: 2}\n";
    study(&folder, head, parameters);
    let line = "sweep study.yaml --parallel 2 --seed 7 --output";
    done(folder.0.path(), &format!("{line} whole"));
    let whole = table(&folder.path("whole"));
    assert_eq!(whole.len(), 14);
    assert!(
        whole.iter().any(|row| row[1] == "stopped early"),
        "{whole:?}"
    );
    for trials in [1, 3, 6] {
        let mut sweep = spawn(folder.0.path(), &format!("{line} killed"));
        wait_for(&folder.path("killed"), trials);
        sweep.kill().unwrap();
        sweep.wait().unwrap();
    }
    // The children of the killed sweep save and end by themselves, and are waited for.
    let said = done(folder.0.path(), "sweep killed --parallel 2");
    assert!(said.contains("14 trials"), "{said}");
    assert_eq!(table(&folder.path("killed")), whole);
    let record = fs::read_to_string(folder.path("killed/study.json")).unwrap();
    assert!(
        record.contains("\"tries\": 2"),
        "no trial was interrupted:\n{record}"
    );
}

#[cfg(unix)]
#[test]
fn an_interrupted_sweep_stops_its_trials_and_says_how_to_go_on() {
    let folder = Folder::new();
    let parameters = "  seed: {values: [1, 2, 3]}\n  max_steps: {value: 3000}\n";
    study(&folder, "method: grid\n", parameters);
    let line = "sweep study.yaml --parallel 2";
    let sweep = Command::new(env!("CARGO_BIN_EXE_gene-bert"))
        .args(line.split_whitespace())
        .current_dir(folder.0.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !folder.path("study/trial-002/metrics.jsonl").exists() {
        assert!(began.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(20));
    }
    let locked = gene_bert(folder.0.path(), line);
    assert!(
        text(&locked).contains("another sweep works"),
        "{}",
        text(&locked)
    );
    let pid = sweep.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let output = sweep.wait_with_output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for part in [
        "2 trials: 2 unfinished",
        "go on with: gene-bert sweep study",
    ] {
        assert!(said.contains(part), "no `{part}` in\n{said}");
    }
    for trial in ["trial-001", "trial-002"] {
        let text =
            fs::read_to_string(folder.path("study").join(trial).join("metrics.jsonl")).unwrap();
        assert!(
            text.contains("\"interrupted\""),
            "{trial} was not asked to end"
        );
    }
}

#[test]
fn a_command_of_ones_own() {
    let folder = Folder::new();
    let script = "#!/bin/sh\nmkdir -p $1\necho \"{\\\"event\\\":\\\"eval\\\",\\\"step\\\":1,\
                  \\\"eval_loss\\\":$2}\" > $1/metrics.jsonl\necho $3 $STUDY_WORD\n\
                  echo $WANDB_NAME/$WANDB_RUN_ID/$WANDB_RUN_GROUP/$MLFLOW_RUN_NAME/$MLFLOW_RUN_ID\n";
    fs::write(folder.path("run.sh"), script).unwrap();
    let text = "method: grid\ncommand:\n  - sh\n  - run.sh\n  - ${output_dir}\n  - ${envvar:LOSS}\n  \
                - ${args_no_hyphens}\nparameters:\n  anything: {values: [x, y]}\n";
    fs::write(folder.path("own.yaml"), text).unwrap();
    refused(folder.0.path(), "sweep own.yaml", &["LOSS is not set"]);
    let output = Command::new(env!("CARGO_BIN_EXE_gene-bert"))
        .args(["sweep", "own.yaml"])
        .env("LOSS", "0.25")
        .env("WANDB_NAME", "mine")
        .env("WANDB_RUN_ID", "one")
        .env("MLFLOW_RUN_ID", "one")
        .env("WANDB_RUN_GROUP", "group")
        .current_dir(folder.0.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", crate::command::text(&output));
    let rows = table(&folder.path("own"));
    assert_eq!((rows[1][2].as_str(), rows[1][3].as_str()), ("y", "0.25"));
    let out = fs::read_to_string(folder.path("own/trial-002/stdout.log")).unwrap();
    // Each trial is a run of its own to trackers, whatever the environment names.
    let told = "mine-trial-002//group/own-trial-002/";
    assert_eq!(out.trim(), format!("anything=y\n{told}"));
}

#[test]
fn trials_are_dealt_to_devices() {
    let folder = Folder::new();
    let parameters = "  seed: {values: [1, 2, 3, 4]}\n  max_steps: {value: 2}\n";
    study(&folder, "method: grid\n", parameters);
    let here = folder.0.path();
    for (devices, parts) in [
        ("gpu", ["expected cpu", "cuda:N"]),
        ("cpu:60000", ["core 60000", "it may use"]),
        ("cuda:99", ["cuda:99", "hint: "]),
    ] {
        refused(
            here,
            &format!("sweep study.yaml --devices {devices}"),
            &parts,
        );
    }
    let line = "sweep study.yaml --devices cpu,cpu --parallel 1";
    refused(here, line, &["1 of 2 devices"]);
    let own = "sweep study.yaml --devices cpu -- --device=cpu";
    refused(here, own, &["sets `device` itself"]);
    let dry = done(here, "sweep study.yaml --devices cpu,cpu --dry-run");
    assert!(dry.contains("--device=cpu"), "{dry}");
    let said = done(here, "sweep study.yaml --devices cpu,cpu --threads 1");
    assert!(said.contains("4 trials: 4 finished"), "{said}");
    for trial in 1..=4 {
        let run = folder.path(&format!("study/trial-00{trial}/run.toml"));
        let settings = fs::read_to_string(run).unwrap();
        assert!(settings.contains("device = \"cpu\""), "{settings}");
        assert!(settings.contains("threads = 1"), "{settings}");
    }
    let rows = table(&folder.path("study"));
    assert!(
        rows.iter().all(|row| row[row.len() - 2] == "cpu"),
        "{rows:?}"
    );
}

/// Two trials at a time, each bound to one core, and what the second reads of its own.
#[cfg(target_os = "linux")]
#[test]
fn trials_are_bound_to_cores() {
    let folder = Folder::new();
    let script = "grep Cpus_allowed_list /proc/self/status > $1/cores; echo $2 >> $1/cores\n\
                  echo '{\"event\":\"eval\",\"step\":1,\"eval_loss\":1}' > $1/metrics.jsonl\n";
    fs::write(folder.path("run.sh"), script).unwrap();
    let text = "method: grid\ncommand: [sh, run.sh, '${output_dir}', '${device}/${threads}']\n\
                parameters:\n  x: {values: [1, 2, 3]}\n";
    fs::write(folder.path("own.yaml"), text).unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let list = status
        .lines()
        .find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
    let core: String = list
        .unwrap()
        .trim()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let line = format!("sweep own.yaml --devices cpu:{core},cpu:{core}");
    let said = done(folder.0.path(), &line);
    assert!(said.contains("3 trials: 3 finished"), "{said}");
    for trial in 1..=3 {
        let cores = fs::read_to_string(folder.path(&format!("own/trial-00{trial}/cores"))).unwrap();
        let words: Vec<&str> = cores.split_whitespace().collect();
        assert_eq!(words[1..], [core.as_str(), "cpu/1"], "{cores}");
    }
}

#[test]
fn bad_studies_and_folders_are_refused() {
    let folder = Folder::new();
    let parameters = "  seed: {values: [1, 2]}\n  max_steps: {value: 2}\n";
    study(&folder, "method: grid\n", parameters);
    let sound = fs::read_to_string(folder.path("study.yaml")).unwrap();
    let with = |from: &str, to: &str| {
        assert!(sound.contains(from), "{from}");
        fs::write(folder.path("bad.yaml"), sound.replace(from, to)).unwrap();
    };
    let here = folder.0.path();
    for (from, to, parts) in [
        (
            "method: grid",
            "method: random",
            ["run_cap", "--run-cap 24"],
        ),
        (
            "method: grid",
            "methode: grid",
            ["bad.yaml:2: methode", "`method`"],
        ),
        (
            "program: mlm",
            "program: mml",
            ["bad.yaml:1: program", "`mlm`"],
        ),
        ("seed:", "sead:", ["bad.yaml:4: parameters.sead", "`seed`"]),
        ("[1, 2]", "[1, two]", ["bad.yaml:4: parameters.seed", "two"]),
        ("[1, 2]", "[1, 2", ["bad.yaml:", "no YAML"]),
        (
            "values: [1, 2]",
            "min: 3",
            ["bad.yaml:4: parameters.seed", "found none"],
        ),
        (
            "{value: 24}",
            "{value: 24, max: 3}",
            ["parameters.max_length", "`max`"],
        ),
    ] {
        with(from, to);
        refused(here, "sweep bad.yaml", &[parts[0], parts[1], "hint: "]);
    }
    refused(here, "sweep absent.yaml", &["absent.yaml"]);
    refused(here, "sweep . ", &["no study in this folder"]);
    fs::create_dir(folder.path("full")).unwrap();
    fs::write(folder.path("full/notes.txt"), "mine").unwrap();
    refused(
        here,
        "sweep study.yaml --output full",
        &["holds something", "--output"],
    );
    refused(here, "sweep study.yaml --parallel 0", &["parallel"]);
    done(here, "sweep study.yaml");
    with("[1, 2]", "[1, 3]");
    refused(
        here,
        "sweep bad.yaml --output study",
        &["other values of parameters", "--overwrite"],
    );
    refused(here, "sweep study.yaml --seed 5", &["has the seed 1"]);
    refused(
        here,
        "sweep study.yaml -- --max_length 16",
        &["words behind --"],
    );
    done(here, "sweep bad.yaml --output study --overwrite");
    let seeds: Vec<String> = table(&folder.path("study"))
        .iter()
        .map(|r| r[2].clone())
        .collect();
    assert_eq!(seeds, ["1", "3"]);
}

#[test]
fn the_studies_in_scripts_can_run() {
    let folder = Folder::new();
    let studies = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/studies");
    let mut number = 0;
    for entry in fs::read_dir(studies).unwrap() {
        let path = entry.unwrap().path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gene-bert"));
        for name in ["TRAIN", "EVAL", "VOCAB", "CELLS"] {
            command.env(name, "cells.h5ad");
        }
        command.args(["sweep", "--dry-run"]).arg(&path);
        if path.ends_with("learning_rate.yaml") {
            command.args(["--", "--train_data_paths", "cells.h5ad"]);
        }
        let output = command.current_dir(folder.0.path()).output().unwrap();
        let said = text(&output);
        assert!(
            output.status.success() && !said.contains("would fail"),
            "{said}"
        );
        number += 1;
    }
    assert!(number >= 4);
}
