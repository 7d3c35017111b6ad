//! `--report-to`: what arrives at trackers, whatever happens on the way, and that a run does not
//! depend on it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::command::text;
use crate::stand_in::{Request, StandIn, Trouble};

const STEPS: &str = "12";

/// A folder with two small simulated files, and the environment of commands.
struct Fixture {
    dir: tempfile::TempDir,
    files: Vec<PathBuf>,
    env: Vec<(&'static str, String)>,
}

impl Fixture {
    fn new(env: &[(&'static str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = gene_bert::prepare::simulate::simulate(dir.path(), 7, 160).unwrap();
        let env = env.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let env = env.collect();
        Self { dir, files, env }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gene-bert"));
        for (name, _) in std::env::vars() {
            if name.starts_with("WANDB_") || name.starts_with("MLFLOW_") || name == "NETRC" {
                command.env_remove(name);
            }
        }
        command
            .env("HOME", self.dir.path())
            .env("NO_PROXY", "127.0.0.1");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// A small `mlm` into `output`; `more` comes last.
    fn mlm(&self, output: &str, max_steps: &str, more: &[&str]) -> Command {
        let mut command = self.command();
        let line = "mlm --bin_edges 0.5 2 --model_arch quickstart --num_hidden_layers 1 \
                    --included_phenotypes cell_type --max_length 32 \
                    --per_device_train_batch_size 4 --logging_steps 1 --eval_steps 6 \
                    --eval_max_cells 8 --save_steps 10 --learning_rate 1e-3";
        command.args(line.split_whitespace());
        command.args(["--max_steps", max_steps, "--output_dir"]);
        command.arg(self.path(output));
        command
            .arg("--train_data_paths")
            .args(&self.files)
            .args(more);
        command
    }

    fn done(&self, output: &str, more: &[&str]) -> String {
        succeeded(&self.mlm(output, STEPS, more).output().unwrap())
    }

    fn weights(&self, output: &str) -> Vec<u8> {
        let folder = self.path(output).join(format!("checkpoint-{STEPS}"));
        fs::read(folder.join("model.safetensors")).unwrap()
    }

    /// The losses of `metrics.jsonl` by step.
    fn losses(&self, output: &str) -> BTreeMap<u64, f64> {
        let text = fs::read_to_string(self.path(output).join("metrics.jsonl")).unwrap();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let steps = lines.filter(|line| line["event"] == "step");
        steps
            .map(|line| {
                (
                    line["step"].as_u64().unwrap(),
                    line["loss"].as_f64().unwrap(),
                )
            })
            .collect()
    }
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    text(output)
}

fn wait_for_steps(folder: &Path, number: usize) {
    let end = Instant::now() + Duration::from_secs(60);
    let steps = || fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
    while steps().matches("\"event\":\"step\"").count() < number {
        assert!(Instant::now() < end, "no step within a minute");
        sleep(Duration::from_millis(10));
    }
}

fn interrupt(mut child: Child) -> String {
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let end = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "it does not end");
        sleep(Duration::from_millis(10));
    }
    succeeded(&child.wait_with_output().unwrap())
}

/// Answers as W&B does.
fn wandb(request: &Request) -> (u16, String) {
    let query = request.json()["query"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let variables = request.json()["variables"].clone();
    let answer = if query.contains("upsertBucket") {
        let project = json!({ "name": variables["project"], "entity": { "name": "team a" } });
        let bucket = json!({
            "id": "x", "name": variables["name"], "project": project, "historyLineCount": null,
        });
        json!({ "data": { "upsertBucket": { "bucket": bucket, "inserted": true } } })
    } else if query.contains("createRunFiles") {
        let names = variables["files"].as_array().unwrap();
        let files = names.iter().map(|name| {
            let url = format!("/upload/{}", name.as_str().unwrap());
            json!({ "name": name, "uploadUrl": url })
        });
        let files: Vec<Value> = files.collect();
        json!({ "data": { "createRunFiles": { "uploadHeaders": [], "files": files } } })
    } else {
        json!({})
    };
    (200, answer.to_string())
}

/// The lines of the history as the server ends up with them: step and loss.
fn history(server: &StandIn) -> Vec<(u64, f64)> {
    let mut lines = BTreeMap::new();
    for request in server.at("/file_stream") {
        let part = &request.json()["files"]["wandb-history.jsonl"];
        let content = part["content"].as_array().into_iter().flatten();
        for (i, line) in content.enumerate() {
            let at = part["offset"].as_u64().unwrap() + i as u64;
            lines.insert(at, line.as_str().unwrap().to_owned());
        }
    }
    let numbers: Vec<u64> = lines.keys().copied().collect();
    assert_eq!(
        numbers,
        (0..lines.len() as u64).collect::<Vec<_>>(),
        "lines are missing"
    );
    let lines = lines
        .values()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .map(|line| {
            (
                line["_step"].as_u64().unwrap(),
                line["train/loss"].as_f64().unwrap(),
            )
        })
        .collect()
}

fn ends(server: &StandIn) -> Vec<Value> {
    let streamed = server
        .at("/file_stream")
        .into_iter()
        .map(|request| request.json());
    let ends = streamed.filter(|body| body["complete"] == true);
    ends.map(|body| body["exitcode"].clone()).collect()
}

#[test]
fn wandb_gets_every_step_once_whatever_happens_on_the_way() {
    let trouble = |number| match number {
        0 | 5 => Some(Trouble::Status(503)),
        1 | 3 | 7 => Some(Trouble::LostAnswer),
        _ => None,
    };
    let server = StandIn::new(wandb, trouble);
    let fixture = Fixture::new(&[
        ("WANDB_API_KEY", "secret"),
        ("WANDB_BASE_URL", &format!("{}/", server.url)),
        ("WANDB_PROJECT", "cells"),
        ("WANDB_RUN_GROUP", "group"),
        ("WANDB_RUN_ID", "run-1"),
        ("WANDB_NAME", "a name"),
    ]);
    let said = fixture.done("run", &["--report-to", "wandb"]);
    for part in [
        "warning: wandb: ",
        "note: wandb answers again",
        "team%20a/cells/runs/run-1",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(
        !said.contains("secret") && !said.contains("gene-bert track"),
        "{said}"
    );
    let losses: Vec<(u64, f64)> = fixture.losses("run").into_iter().collect();
    assert_eq!(history(&server), losses);
    let begun = server.at("/graphql");
    // base64 of `api:secret`
    assert_eq!(begun[0].login, "Basic YXBpOnNlY3JldA==");
    let variables = &begun[0].json()["variables"];
    assert_eq!(variables["groupName"], "group");
    assert_eq!(variables["displayName"], "a name");
    let config: Value = serde_json::from_str(variables["config"].as_str().unwrap()).unwrap();
    assert_eq!(config["learning_rate"]["value"], 1e-3);
    assert_eq!(config["model"]["value"]["num_hidden_layers"], 1);
    let summary = server
        .at("/file_stream")
        .into_iter()
        .rev()
        .find_map(|request| {
            let lines = &request.json()["files"]["wandb-summary.json"]["content"];
            lines[0].as_str().map(str::to_owned)
        });
    assert!(summary.unwrap().contains("\"eval/cell_type_accuracy\":"));
    assert_eq!(*ends(&server).last().unwrap(), 0);
    let kept = server.at("/upload/metrics.jsonl").pop().unwrap();
    assert_eq!(
        kept.body,
        fs::read(fixture.path("run/metrics.jsonl")).unwrap()
    );
}

#[test]
fn a_resumed_run_goes_on_where_wandb_stands() {
    let server = StandIn::new(wandb, |_| None);
    let fixture = Fixture::new(&[("WANDB_API_KEY", "secret"), ("WANDB_BASE_URL", &server.url)]);
    let mut run = fixture.mlm("run", "150", &["--report-to", "wandb"]);
    let child = run.spawn().unwrap();
    wait_for_steps(&fixture.path("run"), 15);
    let said = interrupt(child);
    let before = fixture.losses("run").len();
    assert!((15..150).contains(&before), "{said}");
    assert_eq!(ends(&server), [130]);
    let resume = fixture
        .command()
        .args(["mlm", "--resume"])
        .arg(fixture.path("run"))
        .output();
    succeeded(&resume.unwrap());
    assert_eq!(ends(&server), [130, 0]);
    let losses: Vec<(u64, f64)> = fixture.losses("run").into_iter().collect();
    assert_eq!((losses.len(), history(&server)), (150, losses));
    let names = server.at("/graphql").into_iter();
    let names = names.map(|request| request.json()["variables"]["name"].clone());
    let mut names: Vec<String> = names
        .filter_map(|n| n.as_str().map(str::to_owned))
        .collect();
    names.dedup();
    assert_eq!(names.len(), 1, "another run: {names:?}");
}

#[test]
fn trackers_that_cannot_be_reached_change_nothing_and_get_everything_later() {
    let nowhere = "http://127.0.0.1:9";
    let mut fixture = Fixture::new(&[
        ("WANDB_API_KEY", "secret"),
        ("WANDB_BASE_URL", nowhere),
        ("MLFLOW_TRACKING_URI", nowhere),
    ]);
    fixture.done("alone", &[]);
    let wait = ["--report-to", "wandb,mlflow", "--report_wait", "0.2"];
    let said = fixture.done("run", &wait);
    assert!(
        said.contains("warning: wandb has not everything of this run"),
        "{said}"
    );
    assert!(
        said.contains("warning: mlflow has not everything of this run"),
        "{said}"
    );
    assert!(said.contains("gene-bert track "), "{said}");
    assert_eq!(fixture.weights("run"), fixture.weights("alone"));
    let server = StandIn::new(wandb, |_| None);
    fixture.env.push(("WANDB_BASE_URL", server.url.clone()));
    let track = |fixture: &Fixture| {
        let mut command = fixture.command();
        command.arg("track").arg(fixture.path("run"));
        command.args(["--report-to", "wandb"]).output().unwrap()
    };
    let said = succeeded(&track(&fixture));
    assert!(said.contains("wandb: everything has arrived"), "{said}");
    let losses: Vec<(u64, f64)> = fixture.losses("run").into_iter().collect();
    assert_eq!(history(&server), losses);
    let number = server.arrived.lock().unwrap().len();
    succeeded(&track(&fixture));
    assert_eq!(
        server.arrived.lock().unwrap().len(),
        number,
        "it was sent twice"
    );
}

/// Answers as MLflow does; `is_made`: whether the run is there.
fn mlflow(request: &Request, is_made: &AtomicBool) -> (u16, String) {
    let (_, path) = request.line.split_once("/api/2.0/").unwrap();
    let info = json!({ "run_id": "r1", "artifact_uri": "mlflow-artifacts:/7/r1/artifacts" });
    let answer = match path {
        "mlflow/experiments/get-by-name?experiment_name=a%20b" => {
            return (
                404,
                json!({ "error_code": "RESOURCE_DOES_NOT_EXIST" }).to_string(),
            );
        }
        "mlflow/experiments/create" => json!({ "experiment_id": "7" }),
        "mlflow/runs/create" => {
            is_made.store(true, Ordering::SeqCst);
            json!({ "run": { "info": info } })
        }
        "mlflow/runs/search" if is_made.load(Ordering::SeqCst) => {
            json!({ "runs": [{ "info": info }] })
        }
        "mlflow/runs/search" | "mlflow/runs/log-batch" | "mlflow/runs/update" => json!({}),
        _ if request.line.starts_with("PUT ") => json!({}),
        other => return (404, format!("no {other}")),
    };
    (200, answer.to_string())
}

#[test]
fn mlflow_gets_figures_settings_and_files() {
    let trouble = |number| match number {
        0 => Some(Trouble::Status(500)),
        4 | 9 => Some(Trouble::LostAnswer),
        _ => None,
    };
    let is_made = AtomicBool::new(false);
    let server = StandIn::new(move |request| mlflow(request, &is_made), trouble);
    let fixture = Fixture::new(&[
        ("MLFLOW_TRACKING_URI", &server.url),
        ("MLFLOW_EXPERIMENT_NAME", "a b"),
        ("MLFLOW_TRACKING_TOKEN", "token"),
    ]);
    fixture.done("run", &["--report-to", "mlflow"]);
    let (mut losses, mut params, mut stamps) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for request in server.at("/runs/log-batch") {
        let body = request.json();
        let list = |name: &str| body[name].as_array().cloned().unwrap_or_default();
        assert!(list("metrics").len() <= 1000 && list("params").len() <= 100);
        assert_eq!(
            (&body["run_id"], request.login.as_str()),
            (&json!("r1"), "Bearer token")
        );
        for param in list("params") {
            params.insert(param["key"].to_string(), param["value"].clone());
        }
        for metric in list("metrics") {
            if metric["key"] == "train/loss" {
                losses.insert(
                    metric["step"].as_u64().unwrap(),
                    metric["value"].as_f64().unwrap(),
                );
                stamps.push((metric["step"].as_u64(), metric["timestamp"].as_u64()));
            }
        }
    }
    assert_eq!(losses, fixture.losses("run"));
    // What is sent again is the same figure to the server.
    stamps.sort_unstable();
    stamps.dedup();
    assert_eq!(stamps.len(), losses.len());
    assert_eq!(params["\"learning_rate\""], "0.001");
    assert_eq!(params["\"model.num_hidden_layers\""], "1");
    assert_eq!(server.at("/runs/create").len(), 1);
    let end = server.at("/runs/update").pop().unwrap().json();
    assert_eq!(end["status"], "FINISHED");
    assert_eq!(
        server
            .at("/mlflow-artifacts/artifacts/7/r1/artifacts/run.toml")
            .len(),
        1
    );
}

/// CRC-32C bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut rest = !0u32;
    for byte in bytes {
        rest ^= u32::from(*byte);
        for _ in 0..8 {
            rest = (rest >> 1) ^ (0x82F6_3B78 & (rest & 1).wrapping_neg());
        }
    }
    !rest
}

#[test]
fn tensorboards_records_are_whole_and_there_is_one_file_for_each_process() {
    let fixture = Fixture::new(&[]);
    fixture.done("run", &["--report-to", "tensorboard"]);
    let folder = fixture.path("run/tensorboard");
    let files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let bytes = fs::read(&files[0]).unwrap();
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let masked = |bytes: &[u8]| crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8);
    let (mut at, mut records) = (0, Vec::new());
    while at < bytes.len() {
        let length = number(at) as usize;
        assert_eq!(
            (number(at + 4), number(at + 8)),
            (0, masked(&bytes[at..at + 8]))
        );
        let record = &bytes[at + 12..at + 12 + length];
        assert_eq!(number(at + 12 + length), masked(record));
        records.push(String::from_utf8_lossy(record).into_owned());
        at += length + 16;
    }
    assert!(records[0].contains("brain.Event:2"));
    assert!(records[1].contains("config/text_summary") && records[1].contains("learning_rate"));
    let steps = records
        .iter()
        .filter(|record| record.contains("train/loss"))
        .count();
    assert_eq!(steps.to_string(), STEPS);
    assert_eq!(
        records
            .iter()
            .filter(|record| record.contains("eval/loss"))
            .count(),
        2
    );
}

#[test]
fn wandbs_offline_file_needs_no_server_and_no_key() {
    let fixture = Fixture::new(&[("WANDB_MODE", "offline"), ("WANDB_RUN_ID", "x1")]);
    let said = fixture.done("run", &["--report-to", "wandb"]);
    assert!(!said.contains("warning: wandb"), "{said}");
    let folders = fs::read_dir(fixture.path("run/wandb")).unwrap();
    let folders: Vec<_> = folders.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    let bytes = fs::read(folders[0].join("run-x1.wandb")).unwrap();
    assert_eq!(bytes[..7], *b":W&B\xE1\xBE\0");
    assert!(folders[0].join("files/metrics.jsonl").is_file());
    let mut again = fixture.mlm("run", STEPS, &["--overwrite-output-dir"]);
    succeeded(&again.output().unwrap());
    assert!(!fixture.path("run/wandb").exists() && !fixture.path("run/tracking").exists());
}

#[test]
fn what_cannot_work_is_said_before_anything_is_done() {
    let fixture = Fixture::new(&[]);
    let refused = |env: &[(&str, &str)], report_to: &str, parts: &[&str]| {
        let mut command = fixture.mlm("run", STEPS, &["--report-to", report_to]);
        let output = command.envs(env.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        for part in parts {
            assert!(
                text(&output).contains(part),
                "{part} is not in {}",
                text(&output)
            );
        }
        assert!(!fixture.path("run").exists());
    };
    refused(&[], "wandb", &["WANDB_API_KEY", "hint: "]);
    refused(
        &[("WANDB_MODE", "on")],
        "wandb",
        &["WANDB_MODE is `on`", "hint: "],
    );
    refused(&[], "mlflow", &["MLFLOW_TRACKING_URI is not set", "hint: "]);
    let uri = [("MLFLOW_TRACKING_URI", "sqlite:///x.db")];
    refused(&uri, "mlflow", &["`sqlite:///x.db`"]);
    refused(&[], "wandbb", &["wandbb", "tensorboard"]);
    let mut command = fixture.command();
    let output = command
        .arg("track")
        .arg(fixture.dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
}
