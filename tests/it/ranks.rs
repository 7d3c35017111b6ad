//! Several ranks train as one process does that accumulates the batches of all: with ranks that are
//! threads of the test here, and as real processes where the build has an engine for them: over
//! NCCL where there is a GPU (`scripts/cuda-simulate --whole ranks` has one for show), else over MPI.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, Mutex};

use gene_bert::buffers::{read, write};
use gene_bert::config::{Device, Dtype, RunConfig, Settings};
use gene_bert::dist::{Collective, DistError, Group, Ranks, Wire, bf16, places};
use gene_bert::kernels::timed::Timed;
use gene_bert::optim::Schedule;
use gene_bert::train::pretrain::pretrain;
use gene_bert::train::run::Asked;
use serde_json::Value;

/// Where ranks that are threads leave their messages for one another.
struct Board {
    slots: Mutex<Vec<Vec<u8>>>,
    all: Barrier,
}

/// One such rank.
struct Thread {
    rank: usize,
    board: Arc<Board>,
}

impl Thread {
    fn exchange(&self, message: &[u8]) -> Vec<Vec<u8>> {
        self.board.slots.lock().unwrap()[self.rank] = message.to_vec();
        self.board.all.wait();
        let messages = self.board.slots.lock().unwrap().clone();
        self.board.all.wait();
        messages
    }

    fn bytes(&self, values: &Timed, places: Range<usize>) -> Vec<u8> {
        let values = read::<f32>(values.tensor()).unwrap();
        values[places]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect()
    }
}

impl Collective for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.board.slots.lock().unwrap().len()
    }

    fn sum(&mut self, values: Timed, wire: Wire) -> Result<Timed, DistError> {
        let round = |value: f32| match wire {
            Wire::F32 => value,
            Wire::Bf16 => bf16::to_f32(bf16::from_f32(value)),
        };
        let own = self.bytes(&values, 0..values.tensor().elem_count());
        let mut sums = vec![0.0; values.tensor().elem_count()];
        for message in self.exchange(&own) {
            let theirs = floats(&message);
            assert_eq!(theirs.len(), sums.len(), "all ranks sum the same buckets");
            sums.iter_mut()
                .zip(theirs)
                .for_each(|(s, v)| *s += round(v));
        }
        let sums = sums.into_iter().map(round).collect::<Vec<_>>();
        write(values.tensor(), |to| to.copy_from_slice(&sums))?;
        Ok(values)
    }

    fn join(&mut self, all: Timed, counts: &[usize]) -> Result<Timed, DistError> {
        let own = self.bytes(&all, places(counts, self.rank));
        let messages = self.exchange(&own);
        let lengths = messages.iter().map(|message| message.len() / 4);
        assert!(lengths.eq(counts.iter().copied()), "as many as announced");
        let values = floats(&messages.concat());
        write(all.tensor(), |to| to.copy_from_slice(&values))?;
        Ok(all)
    }

    fn broadcast(&mut self, message: Vec<u8>) -> Result<Vec<u8>, DistError> {
        Ok(self.exchange(&message).swap_remove(0))
    }

    fn gather(&mut self, message: &[u8]) -> Result<Vec<Vec<u8>>, DistError> {
        Ok(self.exchange(message))
    }

    fn barrier(&mut self) -> Result<(), DistError> {
        self.board.all.wait();
        Ok(())
    }

    fn close(self) -> Result<(), DistError> {
        Ok(())
    }
}

fn floats(message: &[u8]) -> Vec<f32> {
    let numbers = message.chunks_exact(4);
    numbers
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

/// Trains on ranks that are threads; the result of each.
fn train_on(
    world: usize,
    config: impl Fn(usize) -> RunConfig,
    resume: Option<&Path>,
) -> Vec<String> {
    let board = Arc::new(Board {
        slots: Mutex::new(vec![Vec::new(); world]),
        all: Barrier::new(world),
    });
    std::thread::scope(|scope| {
        let run = |rank: usize| {
            let (board, config) = (Arc::clone(&board), config(rank));
            scope.spawn(move || {
                let group = Group::new(move || Ok(Thread { rank, board })).unwrap();
                let ranks = Arc::new(Ranks::of(group));
                let overwrite = false;
                let asked = Asked {
                    ranks: &ranks,
                    resume,
                    overwrite,
                };
                pretrain(&config, asked).map_or_else(|error| error.to_string(), |_| String::new())
            })
        };
        let running: Vec<_> = (0..world).map(run).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn train_alone(config: &RunConfig, resume: Option<&Path>) {
    let ranks = Arc::new(Ranks::alone());
    let asked = Asked {
        resume,
        ..Asked::anew(&ranks)
    };
    pretrain(config, asked).unwrap();
}

/// Two simulated files whose cells fill no whole number of batches, dropout included.
fn settings(folder: &Path, output: &str, accumulation: usize, steps: u64) -> RunConfig {
    let files = folder.join("cells");
    if !files.exists() {
        std::fs::create_dir(&files).unwrap();
        gene_bert::prepare::simulate::simulate(&files, 7, 150).unwrap();
    }
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&files)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    Settings {
        train_data_paths: Some(
            paths
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
        ),
        included_phenotypes: Some(vec!["cell_type".to_owned(), "sex".to_owned()]),
        model_arch: Some("quickstart".to_owned()),
        num_hidden_layers: Some(2),
        bin_edges: Some(vec![0.5, 2.0]),
        max_length: Some(40),
        per_device_train_batch_size: Some(7),
        gradient_accumulation_steps: Some(accumulation),
        max_steps: Some(steps),
        eval_steps: Some(25),
        save_steps: Some(25),
        logging_steps: Some(1),
        learning_rate: Some(1e-3),
        dtype: Some(Dtype::F32),
        device: Some(Device::Cpu),
        // The same at every step, however many there will be.
        lr_scheduler_type: Some(Schedule::Constant),
        output_dir: Some(folder.join(output)),
        reduce_bucket_mib: Some(1),
        ..Settings::default()
    }
    .with_defaults()
}

fn lines(run: &Path, event: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|line: &Value| line["event"] == event)
        .collect()
}

/// Every number of both lists of lines is the same within `tolerance`, times that take apart.
fn assert_alike(left: &[Value], right: &[Value], tolerance: f64) {
    assert_eq!(left.len(), right.len());
    for (left, right) in left.iter().zip(right) {
        let (Value::Object(left), Value::Object(right)) = (left, right) else {
            panic!("{left} {right}");
        };
        for (key, value) in left {
            let timed =
                key.ends_with("per_second") || key == "seconds" || key == "num_padded_tokens";
            if let Some(here) = value.as_f64().filter(|_| !timed) {
                let there = right[key].as_f64().unwrap();
                let apart = (here - there).abs() / here.abs().max(1e-9);
                assert!(
                    apart <= tolerance,
                    "{key} of step {}: {here}, {there}",
                    left["step"]
                );
            }
        }
    }
}

#[test]
fn two_ranks_train_as_one_that_accumulates_two_batches() {
    let dir = tempfile::tempdir().unwrap();
    train_alone(&settings(dir.path(), "one", 2, 50), None);
    let config = |_: usize| settings(dir.path(), "two", 1, 50);
    assert_eq!(train_on(2, config, None), ["", ""]);
    let [one, two] = ["one", "two"].map(|run| dir.path().join(run));
    let steps = lines(&one, "step");
    assert_eq!(steps.len(), 50);
    assert_alike(&steps, &lines(&two, "step"), 1e-6);
    let evaluations = lines(&one, "eval");
    assert_eq!(evaluations.len(), 2);
    assert_alike(&evaluations, &lines(&two, "eval"), 1e-5);
    assert!(two.join("checkpoint-50/optimizer.safetensors").is_file());
}

#[test]
fn a_run_goes_on_on_another_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    train_alone(&settings(dir.path(), "one", 4, 50), None);
    let half = |_: usize| settings(dir.path(), "more", 2, 25);
    assert_eq!(train_on(2, half, None), ["", ""]);
    let checkpoint = dir.path().join("more/checkpoint-25");
    let rest = |_: usize| settings(dir.path(), "more", 2, 50);
    let refused = train_on(3, rest, Some(&checkpoint));
    assert!(refused[0].contains("4 batches"), "{refused:?}");
    assert_eq!(train_on(4, rest, Some(&checkpoint)), [""; 4]);
    let [one, more] = ["one", "more"].map(|run| lines(&dir.path().join(run), "step"));
    assert_alike(&one, &more, 1e-5);
}

/// Divided over three ranks, then over two that leave it undivided, then over one, and on.
#[test]
fn moments_may_be_divided_over_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let config = |output: &str, shard_optimizer: bool, accumulation: usize, steps: u64| RunConfig {
        shard_optimizer,
        weight_decay: 0.1,
        ..settings(dir.path(), output, accumulation, steps)
    };
    let whole = |_: usize| config("whole", false, 2, 25);
    let divided = |_: usize| config("divided", true, 2, 25);
    assert_eq!(train_on(3, whole, None), [""; 3]);
    assert_eq!(train_on(3, divided, None), [""; 3]);
    let file = |run: &str, name: &str| std::fs::read(dir.path().join(run).join(name)).unwrap();
    for name in ["model.safetensors", "optimizer.safetensors"] {
        let name = format!("checkpoint-25/{name}");
        assert!(file("whole", &name) == file("divided", &name), "{name}");
    }
    let steps = |run: &str| lines(&dir.path().join(run), "step");
    assert_alike(&steps("whole"), &steps("divided"), 0.0);

    let checkpoint = |run: &str, step: u64| dir.path().join(format!("{run}/checkpoint-{step}"));
    for (run, shards) in [("whole", false), ("divided", true)] {
        let next = |_: usize| config(run, !shards, 2, 50);
        assert_eq!(train_on(2, next, Some(&checkpoint(run, 25))), ["", ""]);
        train_alone(&config(run, shards, 2, 60), Some(&checkpoint(run, 50)));
    }
    assert_eq!(steps("whole").len(), 60);
    assert_alike(&steps("whole"), &steps("divided"), 0.0);
    let name = "checkpoint-60/optimizer.safetensors";
    assert!(file("whole", name) == file("divided", name));
}

#[test]
fn ranks_that_are_not_about_to_train_the_same_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let config = |rank: usize| RunConfig {
        seed: 3 + rank as u64,
        ..settings(dir.path(), "run", 1, 5)
    };
    for message in train_on(2, config, None) {
        assert!(
            message.contains("--seed is 4 on rank 1, 3 on rank 0"),
            "{message}"
        );
        assert!(message.contains("weights is "), "{message}");
    }
    assert!(!dir.path().join("run").exists());
}

#[test]
fn gradients_may_travel_as_bf16() {
    let dir = tempfile::tempdir().unwrap();
    train_alone(&settings(dir.path(), "one", 2, 10), None);
    let config = |_: usize| RunConfig {
        reduce_dtype: Wire::Bf16,
        ..settings(dir.path(), "two", 1, 10)
    };
    assert_eq!(train_on(2, config, None), ["", ""]);
    let [one, two] = ["one", "two"].map(|run| lines(&dir.path().join(run), "step"));
    let losses = |lines: &[Value]| {
        lines
            .iter()
            .map(|l| l["loss"].as_f64().unwrap())
            .collect::<Vec<_>>()
    };
    let (one, two) = (losses(&one), losses(&two));
    assert!(
        one.iter().zip(&two).all(|(a, b)| (a - b).abs() < 0.02 * a),
        "{one:?} {two:?}"
    );
    assert!(one[1..] != two[1..], "rounding shows");
}

#[cfg(not(feature = "mpi"))]
#[test]
fn a_build_without_an_engine_says_how_to_get_one() {
    use crate::command::refused;
    use std::process::Command;

    let dir = tempfile::tempdir().unwrap();
    let training = "mlm --train_data_paths x.h5ad --bin_edges 1 --model_arch quickstart";
    let launch = format!("launch --num-processes 2 -- {training} --output_dir run");
    refused(
        dir.path(),
        &launch,
        &["one process only", "--features mpi", "libopenmpi-dev"],
    );
    refused(
        dir.path(),
        "launch -n 2 -- info x.h5ad",
        &["training commands only"],
    );
    let output = Command::new(env!("CARGO_BIN_EXE_gene-bert"))
        .args(training.split(' '))
        .envs([("RANK", "1"), ("WORLD_SIZE", "2")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("RANK") && said.contains("--features mpi"),
        "{said}"
    );
}

/// Real processes: `cargo test --features mpi --test it ranks`, or `--features nccl` beside GPUs.
#[cfg(any(feature = "mpi", feature = "nccl"))]
mod processes {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// The settings above on the device there is.
    fn settings(folder: &Path, output: &str, accumulation: usize, steps: u64) -> RunConfig {
        RunConfig {
            device: Device::Auto,
            ..super::settings(folder, output, accumulation, steps)
        }
    }

    /// Whether nothing of this build sums over processes on the device there is.
    fn has_no_engine() -> bool {
        let has_none = !cfg!(feature = "mpi") && Device::Auto.gpu().is_none();
        if has_none {
            println!("skipped: no GPU");
        }
        has_none
    }

    /// `launch` on two ranks with these settings and `more`.
    fn launch(config: &RunConfig, flags: &str, more: &[&str]) -> Command {
        let folder = config.output_dir.clone().unwrap();
        let file = folder.with_extension("toml");
        std::fs::write(&file, config.to_toml().unwrap()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gene-bert"));
        command
            .arg("launch")
            .args(flags.split(' '))
            .args(["--", "mlm", "--config"]);
        command.arg(&file).args(["--threads", "1"]).args(more);
        command.envs([
            ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
            ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
        ]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn said(child: Child) -> (Option<i32>, String) {
        let output = child.wait_with_output().unwrap();
        let streams = [&output.stdout, &output.stderr].map(|s| String::from_utf8_lossy(s));
        (output.status.code(), streams.join("\n"))
    }

    /// The process of the rank that trains into `run`.
    fn process_of(run: &Path, rank: usize) -> Option<i32> {
        let run = run.with_extension("toml").display().to_string();
        let names = ["RANK", "OMPI_COMM_WORLD_RANK"].map(|name| format!("{name}={rank}"));
        std::fs::read_dir("/proc").unwrap().find_map(|entry| {
            let entry = entry.unwrap();
            let read = |name| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let words = String::from_utf8_lossy(&read("cmdline")).into_owned();
            let variables = String::from_utf8_lossy(&read("environ")).into_owned();
            let is_rank = variables
                .split('\0')
                .any(|v| names.iter().any(|name| v == name));
            let is_it = words.contains(&run) && !words.contains("launch") && is_rank;
            entry.file_name().to_str()?.parse().ok().filter(|_| is_it)
        })
    }

    fn wait_for(what: impl Fn() -> bool) {
        let began = Instant::now();
        while !what() {
            assert!(began.elapsed() < Duration::from_secs(120));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn two_processes_train_as_one_that_accumulates_two_batches() {
        if has_no_engine() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        train_alone(&settings(dir.path(), "one", 2, 50), None);
        let config = settings(dir.path(), "two", 1, 50);
        let (code, text) = said(launch(&config, "-n 2", &[]).spawn().unwrap());
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(
            text.matches("Model: 2 blocks").count(),
            1,
            "one rank prints\n{text}"
        );
        let [one, two] = ["one", "two"].map(|run| dir.path().join(run));
        assert_alike(&lines(&one, "step"), &lines(&two, "step"), 1e-6);
        assert_alike(&lines(&one, "eval"), &lines(&two, "eval"), 1e-5);
        for rank in 0..2 {
            let log = two.join(format!("logs/rank-{rank}.log"));
            assert!(
                std::fs::read_to_string(log)
                    .unwrap()
                    .contains("Model: 2 blocks")
            );
        }
    }

    /// Two at once, four with their moments divided, and two whose gradients travel as bf16.
    #[test]
    fn processes_may_divide_their_moments_and_round_what_they_send() {
        if has_no_engine() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let run = |name: &str, accumulation: usize, ranks: &str, more: &[&str]| {
            let config = settings(dir.path(), name, accumulation, 25);
            let (code, text) = said(launch(&config, ranks, more).spawn().unwrap());
            assert_eq!(code, Some(0), "{text}");
            lines(&dir.path().join(name), "step")
        };
        let whole = run("whole", 2, "-n 2", &[]);
        let divided = run("divided", 2, "-n 2", &["--shard_optimizer"]);
        assert_alike(&whole, &divided, 0.0);
        let file = |run: &str, name: &str| std::fs::read(dir.path().join(run).join(name)).unwrap();
        for name in ["model.safetensors", "optimizer.safetensors"] {
            let name = format!("checkpoint-25/{name}");
            assert!(file("whole", &name) == file("divided", &name), "{name}");
        }
        let four = run("four", 1, "-n 4", &["--shard_optimizer"]);
        assert_alike(&whole, &four, 1e-6);
        let rounded = run("rounded", 2, "-n 2", &["--reduce_dtype", "bf16"]);
        let losses = |lines: &[Value]| -> Vec<f64> {
            let losses = lines.iter().map(|line| line["loss"].as_f64().unwrap());
            losses.collect()
        };
        let (exact, rounded) = (losses(&whole), losses(&rounded));
        assert!(exact != rounded, "rounding shows");
        let (exact, rounded) = (exact[24], rounded[24]);
        assert!((exact - rounded).abs() < 0.02 * exact, "{exact} {rounded}");
    }

    /// A rank is killed once, and stopped once, after `step` has been reached; the run ends.
    #[test]
    fn a_rank_that_is_killed_or_stopped_ends_all_and_the_run_goes_on() {
        if has_no_engine() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let whole = settings(dir.path(), "whole", 1, 60);
        assert_eq!(
            said(launch(&whole, "-n 2", &[]).spawn().unwrap()).0,
            Some(0)
        );
        for (name, signal, rank) in [("killed", "-KILL", 0), ("stopped", "-STOP", 1)] {
            let config = settings(dir.path(), name, 1, 60);
            let run = dir.path().join(name);
            let child = launch(&config, "-n 2", &["--rank_timeout", "3"])
                .spawn()
                .unwrap();
            wait_for(|| run.join("checkpoint-25").is_dir());
            let process = process_of(&run, rank).unwrap().to_string();
            assert!(
                Command::new("kill")
                    .args([signal, &process])
                    .status()
                    .unwrap()
                    .success()
            );
            let began = Instant::now();
            let (code, text) = said(child);
            assert!(began.elapsed() < Duration::from_secs(30), "{text}");
            assert!(
                code.is_some_and(|code| code != 0),
                "{name}: {code:?}\n{text}"
            );
            assert!(text.contains(&format!("rank {rank}")), "{text}");
            assert!(text.contains("after step") || signal == "-KILL", "{text}");
            wait_for(|| (0..2).all(|rank| process_of(&run, rank).is_none()));
            let resumed = launch(&config, "-n 2", &["--resume"]).spawn().unwrap();
            assert_eq!(said(resumed).0, Some(0));
            let [expected, found] = [&dir.path().join("whole"), &run].map(|run| lines(run, "step"));
            assert_eq!(
                expected.last().unwrap()["loss"],
                found.last().unwrap()["loss"]
            );
        }
    }

    #[test]
    fn a_lost_rank_is_started_again_and_sigterm_on_any_saves_and_ends_all() {
        if has_no_engine() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let config = settings(dir.path(), "run", 1, 4000);
        let run = dir.path().join("run");
        let child = launch(&config, "-n 2 --max-restarts 1", &[])
            .spawn()
            .unwrap();
        wait_for(|| run.join("checkpoint-25").is_dir());
        let first = process_of(&run, 1).unwrap();
        Command::new("kill")
            .args(["-KILL", &first.to_string()])
            .status()
            .unwrap();
        wait_for(|| process_of(&run, 1).is_some_and(|now| now != first));
        let restarted = || lines(&run, "step").len();
        let before = restarted();
        wait_for(|| restarted() > before.max(30));
        let process = process_of(&run, 1).unwrap().to_string();
        Command::new("kill")
            .args(["-TERM", &process])
            .status()
            .unwrap();
        let (code, text) = said(child);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("starting all again from step"), "{text}");
        assert!(text.contains("interrupted"), "{text}");
        let last = lines(&run, "step").last().unwrap()["step"]
            .as_u64()
            .unwrap();
        assert!(
            run.join(format!("checkpoint-{last}")).is_dir(),
            "saved at step {last}"
        );
    }
}
