//! `gene-bert mlm` through the real command: training, resuming to the bit, signals, kills.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A folder with two small simulated files.
struct Fixture {
    dir: tempfile::TempDir,
    files: Vec<PathBuf>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = gene_bert::prepare::simulate::simulate(dir.path(), 7, 160).unwrap();
        Self { dir, files }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `mlm` with small settings into `output`; `more` comes last.
    fn mlm(&self, output: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gene-bert"));
        command.args([
            "--bin_edges",
            "0.5",
            "2",
            "mlm",
            "--model_arch",
            "quickstart",
        ]);
        command.args([
            "--num_hidden_layers",
            "1",
            "--included_phenotypes",
            "cell_type",
            "sex",
        ]);
        command.args(["--max_length", "48"]);
        if !more.contains(&"--per_device_train_batch_size") {
            command.args(["--per_device_train_batch_size", "8"]);
        }
        command.args([
            "--learning_rate",
            "1e-3",
            "--eval_fraction",
            "0.1",
            "--seed",
            "3",
        ]);
        command.args(["--logging_steps", "1", "--gene_mask_prob", "0.2"]);
        command
            .args(["--phenotype_mask_prob", "0.5", "--output_dir"])
            .arg(self.path(output));
        command
            .arg("--train_data_paths")
            .args(&self.files)
            .args(more);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, output: &str, more: &[&str]) -> Output {
        self.mlm(output, more).output().unwrap()
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn succeed(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}",
        output.status,
        text(output)
    );
}

/// (step, loss, gradient norm) of every line `step` of `metrics.jsonl`.
fn losses(run: &Path) -> Vec<(u64, f64, f64)> {
    let lines = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let values = lines
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    let number = |v: &Value, key: &str| v[key].as_f64().unwrap();
    values
        .filter(|v| v["event"] == "step")
        .map(|v| {
            (
                v["step"].as_u64().unwrap(),
                number(&v, "loss"),
                number(&v, "grad_norm"),
            )
        })
        .collect()
}

fn weights(checkpoint: &Path) -> Vec<u8> {
    fs::read(checkpoint.join("model.safetensors")).unwrap()
}

fn checkpoints(run: &Path) -> Vec<String> {
    let names = fs::read_dir(run)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|n| n.starts_with("checkpoint")).collect();
    names.sort();
    names
}

#[test]
fn resuming_mid_epoch_with_other_reader_threads_is_exact_to_the_bit() {
    let fixture = Fixture::new();
    let steps = [
        "--max_steps",
        "25",
        "--dataloader_num_workers",
        "2",
        "--tokens_per_batch",
        "150",
    ];
    succeed(&fixture.run("whole", &steps));
    let saves = [
        "--max_steps",
        "25",
        "--save_steps",
        "7",
        "--dataloader_num_workers",
        "1",
        "--tokens_per_batch",
        "150",
    ];
    succeed(&fixture.run("parts", &saves));
    // As if it had been killed right after the second checkpoint.
    let parts = fixture.path("parts");
    for late in ["checkpoint-21", "checkpoint-25", "checkpoint-best"] {
        fs::remove_dir_all(parts.join(late)).unwrap();
    }
    let resume = [
        "--max_steps",
        "25",
        "--resume",
        "--dataloader_num_workers",
        "3",
    ];
    succeed(&fixture.run("parts", &resume));
    let whole = fixture.path("whole");
    assert_eq!(losses(&whole).len(), 25);
    assert_eq!(losses(&whole), losses(&parts));
    assert_eq!(
        weights(&whole.join("checkpoint-25")),
        weights(&parts.join("checkpoint-25"))
    );
}

#[test]
fn training_lowers_the_loss_and_writes_whole_checkpoints() {
    let fixture = Fixture::new();
    let more = [
        "--max_steps",
        "40",
        "--save_steps",
        "10",
        "--save_total_limit",
        "2",
    ];
    let output = fixture.run("run", &more);
    succeed(&output);
    let run = fixture.path("run");
    let losses = losses(&run);
    let mean = |part: &[(u64, f64, f64)]| part.iter().map(|l| l.1).sum::<f64>() / part.len() as f64;
    assert!(
        mean(&losses[30..]) < 0.9 * mean(&losses[..10]),
        "{losses:?}"
    );
    assert_eq!(
        checkpoints(&run),
        ["checkpoint-30", "checkpoint-40", "checkpoint-best"]
    );
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "gene_bert.json",
    ] {
        assert!(run.join("checkpoint-best").join(file).is_file(), "{file}");
    }
    assert!(text(&output).contains("majority"), "{}", text(&output));
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_there() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "waited in vain for {what}"
        );
        sleep(Duration::from_millis(5));
    }
}

#[test]
#[cfg(unix)]
fn sigterm_saves_exits_zero_and_prints_the_resume_command() {
    let fixture = Fixture::new();
    let run = fixture.path("run");
    let child = fixture
        .mlm("run", &["--max_steps", "100000"])
        .spawn()
        .unwrap();
    wait_for("the first steps", || {
        fs::read_to_string(run.join("metrics.jsonl")).is_ok_and(|t| t.lines().count() > 3)
    });
    // Twice at once, as `timeout` does to a process and its group: still one request.
    let id = child.id().to_string();
    Command::new("kill")
        .args(["-TERM", &id, &id])
        .status()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    succeed(&output);
    assert!(text(&output).contains("--resume"), "{}", text(&output));
    let saved = checkpoints(&run);
    assert_eq!(saved.len(), 1, "{saved:?}");
    let step: u64 = saved[0].trim_start_matches("checkpoint-").parse().unwrap();
    assert_eq!(losses(&run).last().unwrap().0, step);
}

#[test]
#[cfg(unix)]
fn kill_nine_at_any_moment_leaves_a_checkpoint_to_resume_from() {
    let fixture = Fixture::new();
    let run = fixture.path("run");
    for round in 0..4u64 {
        let more: &[&str] = if round == 0 { &[] } else { &["--resume"] };
        let more = [&["--max_steps", "100000", "--save_steps", "1"], more].concat();
        let before = if run.is_dir() {
            checkpoints(&run)
        } else {
            Vec::new()
        };
        let mut child = fixture.mlm("run", &more).spawn().unwrap();
        wait_for("a newer checkpoint", || {
            run.is_dir() && checkpoints(&run) != before
        });
        sleep(Duration::from_millis(7 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let numbered = checkpoints(&run).into_iter();
        for name in numbered.filter(|name| name != "checkpoint-best") {
            for file in ["trainer_state.json", "model.safetensors", "run.toml"] {
                assert!(run.join(&name).join(file).is_file(), "no {file} in {name}");
            }
        }
        // What kills leave between two renames, and while a folder is deleted, is put right.
        assert!(round == 0 || run.join("replaced").is_dir());
        assert!(!run.join(".deleted.partial").exists());
        let _ = fs::remove_dir(run.join("replaced"));
        fs::create_dir_all(run.join(".deleted.partial/half")).unwrap();
        fs::create_dir_all(run.join(".replaced.replaced")).unwrap();
    }
    // The last whole checkpoint can be used: a new run starts from its weights.
    let last = gene_bert::train::checkpoint::list(&run)
        .unwrap()
        .pop()
        .unwrap();
    let mut from = fixture.mlm("next", &["--max_steps", "2"]);
    let from = from
        .args(["--pretrained_model_path"])
        .arg(&last.path)
        .output()
        .unwrap();
    assert!(
        !from.status.success() && text(&from).contains("model_arch"),
        "{}",
        text(&from)
    );
    let steps: Vec<u64> = losses(&run).iter().map(|l| l.0).collect();
    assert!(steps.windows(2).all(|w| w[1] == w[0] + 1), "{steps:?}");
}

#[test]
fn halves_and_parts_of_a_batch_give_the_whole_batchs_gradients() {
    let fixture = Fixture::new();
    let no_dropout = [
        "--max_steps",
        "5",
        "--hidden-dropout-prob",
        "0",
        "--attention-probs-dropout-prob",
        "0",
    ];
    succeed(&fixture.run("one", &no_dropout));
    let halves = [
        "--gradient_accumulation_steps",
        "2",
        "--per_device_train_batch_size",
        "4",
    ];
    let parts = ["--tokens_per_batch", "100"];
    for (run, flags) in [("two", &halves[..]), ("parts", &parts[..])] {
        succeed(&fixture.run(run, &[&no_dropout[..], flags].concat()));
        let (whole, cut) = (losses(&fixture.path("one")), losses(&fixture.path(run)));
        assert_eq!(whole.len(), cut.len());
        for (a, b) in whole.iter().zip(cut) {
            assert!((a.1 - b.1).abs() < 2e-4 * a.1.abs(), "{run}: {a:?} {b:?}");
            assert!((a.2 - b.2).abs() < 2e-3 * a.2.abs(), "{run}: {a:?} {b:?}");
        }
    }
}

#[test]
fn parts_as_large_as_the_batch_change_nothing() {
    let fixture = Fixture::new();
    succeed(&fixture.run("whole", &["--max_steps", "3"]));
    let wide = ["--max_steps", "3", "--tokens_per_batch", "100000"];
    succeed(&fixture.run("wide", &wide));
    let last = |run: &str| weights(&fixture.path(run).join("checkpoint-3"));
    assert_eq!(last("whole"), last("wide"));
}
