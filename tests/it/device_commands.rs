//! The real commands on the device that GENE_BERT_TEST_DEVICE names (the CPU, where it names none),
//! beside the CPU: runs learn the same, resume to the bit, leave out steps that are not finite, and
//! every command that computes has the same to say. `scripts/gpu-check` runs it on a GPU, where
//! GENE_BERT_PROGRAM says which program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use gene_bert::prepare::simulate::simulate;
use serde_json::Value;

use crate::command::{done, gene_bert, program, text};

/// Heads of 32, for which there are tensor cores.
const MODEL: &str = r#"{"dim": 64, "n_heads": 2, "hidden_dim": 96, "n_layers": 2}"#;
const COMMON: &str = "--seed 1 --threads 1 --bin_edges 0.5 2 --max_length 40 --learning_rate 3e-3 \
                      --per_device_train_batch_size 6 --logging_steps 1 --eval_fraction 0.25 \
                      --warmup_ratio 0.1";
const CELLS: &str = "--pretrained_model_path model.json --train_data_paths simulated_1.h5ad";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        simulate(folder.path(), 5, 60).unwrap();
        fs::write(folder.path().join("model.json"), MODEL).unwrap();
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn done(&self, line: &str) -> String {
        done(self.path(), line)
    }

    /// Pretrains; returns the loss of each step.
    fn mlm(&self, output: &str, more: &str) -> Vec<f64> {
        let asked = "mlm --included_phenotypes cell_type sex --output_dir";
        self.done(&format!("{asked} {output} {COMMON} {CELLS} {more}"));
        self.losses(output)
    }

    fn losses(&self, run: &str) -> Vec<f64> {
        let lines = fs::read_to_string(self.path().join(run).join("metrics.jsonl")).unwrap();
        let events = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let steps = events.filter(|event: &Value| event["event"] == "step");
        steps.map(|step| step["loss"].as_f64().unwrap()).collect()
    }

    /// Weights and the optimizer's state of a checkpoint.
    fn state(&self, checkpoint: &str) -> [Vec<u8>; 2] {
        ["model.safetensors", "optimizer.safetensors"]
            .map(|name| fs::read(self.path().join(checkpoint).join(name)).unwrap())
    }
}

fn device() -> String {
    std::env::var("GENE_BERT_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())
}

/// Types that runs can have there, and how far their losses may be from those in f32.
fn types() -> Vec<(&'static str, f64)> {
    let mut types = vec![("f32", 1e-3), ("bf16", 2e-2)];
    if device() != "cpu" {
        types.push(("f16", 2e-2));
    }
    types
}

fn worst(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let errors = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / b);
    errors.fold(0.0, f64::max)
}

#[test]
fn a_run_learns_as_on_the_cpu_and_resumes_to_the_bit() {
    let (folder, device) = (Folder::new(), device());
    let steps = "--max_steps 8 --save_steps 4";
    let expected = folder.mlm("cpu", &format!("{steps} --device cpu --dtype f32"));
    assert!(
        expected.len() == 8 && expected[7] < expected[0],
        "{expected:?}"
    );
    for (dtype, allowed) in types() {
        let run = format!("run-{dtype}");
        let found = folder.mlm(&run, &format!("{steps} --device {device} --dtype {dtype}"));
        // In f16 the first steps go by until the loss scale fits.
        let error = match dtype {
            "f16" => worst(&found[..1], &expected[..1]),
            _ => worst(&found, &expected),
        };
        println!("losses {dtype}: error {error:.1e}, {found:?} beside {expected:?}");
        assert!(
            error <= allowed,
            "{dtype}: {found:?}, expected {expected:?}"
        );
        let whole = folder.state(&format!("{run}/checkpoint-8"));
        fs::remove_dir_all(folder.path().join(&run).join("checkpoint-8")).unwrap();
        folder.done(&format!("mlm --resume {run}"));
        let resumed = folder.state(&format!("{run}/checkpoint-8"));
        assert!(whole == resumed, "{dtype}: resumed, it is another");
        assert_eq!(folder.losses(&run), found, "{dtype}");
    }
}

#[test]
fn accumulated_recomputed_and_cut_batches_learn_there_too() {
    let (folder, device) = (Folder::new(), device());
    let steps = "--max_steps 4 --gradient_accumulation_steps 2 --dtype f32";
    let expected = folder.mlm("cpu", &format!("{steps} --device cpu"));
    for (name, more) in [
        ("plain", ""),
        ("recompute", "--recompute"),
        ("parts", "--tokens_per_batch 100"),
        ("clipped", "--max_grad_norm 0"),
    ] {
        let found = folder.mlm(name, &format!("{steps} --device {device} {more}"));
        let of_cpu = match more.contains("--") && !more.contains("recompute") {
            true => folder.mlm(
                "again",
                &format!("{steps} --device cpu --overwrite-output-dir {more}"),
            ),
            false => expected.clone(),
        };
        let error = worst(&found, &of_cpu);
        assert!(error <= 1e-3, "{name}: {found:?}, expected {of_cpu:?}");
    }
}

#[test]
fn steps_that_are_not_finite_are_left_out_there_too() {
    let (folder, device) = (Folder::new(), device());
    let spoiled =
        "--learning_rate 1e38 --warmup_ratio 0 --max_grad_norm 0 --max_steps 9 --dtype f32";
    let line = format!("mlm --included_phenotypes cell_type --output_dir out {COMMON} {CELLS}");
    let line = line
        .replace("--learning_rate 3e-3", "")
        .replace("--warmup_ratio 0.1", "");
    let output = gene_bert(
        folder.path(),
        &format!("{line} {spoiled} --device {device}"),
    );
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "step 2 left out",
        "step 3 left out",
        "error: step 4:",
        "3 in a row",
        "hint: ",
    ] {
        assert!(said.contains(part), "`{part}` is not in:\n{said}");
    }
}

/// The numbers of a file of NumPy's, all f32.
fn numbers(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let words = bytes[start..].chunks_exact(4);
    words
        .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

#[test]
fn every_command_that_computes_says_there_what_it_says_on_the_cpu() {
    let (folder, device) = (Folder::new(), device());
    folder.mlm("mlm", "--max_steps 3 --dtype f32 --device cpu");
    let learned = ["cpu", &device].map(|place| {
        let asked = format!("cls --phenotype_category cell_type {COMMON} {CELLS} --max_steps 4");
        let asked = format!("{asked} --output_dir cls --overwrite-output-dir --dtype f32");
        folder.done(&format!("{asked} --device {place}"));
        folder.losses("cls")
    });
    let error = worst(&learned[1], &learned[0]);
    assert!(error <= 1e-3, "classifying: {learned:?}");
    let both = |line: &str, output: &str| {
        ["cpu", &device].map(|place| {
            let output = format!("{place}-{output}").replace(':', "-");
            folder.done(&format!(
                "{line} --output {output} --overwrite --threads 1 --dtype f32 --device {place}"
            ));
            folder.path().join(output)
        })
    };
    let [here, there] = both("embed simulated_2.h5ad --checkpoint mlm", "e.npy");
    let (here, there) = (numbers(&here), numbers(&there));
    assert!(!here.is_empty() && here.len() == there.len());
    let largest = here.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    for (a, b) in here.iter().zip(&there) {
        assert!((a - b).abs() <= 1e-4 * largest, "{a} {b}");
    }
    let [here, there] = both("predict simulated_2.h5ad --checkpoint cls", "p.csv");
    let rows = |path: &Path| -> Vec<Vec<String>> {
        let mut reader = csv::Reader::from_path(path).unwrap();
        let rows = reader.records().map(|row| row.unwrap());
        rows.map(|row| row.iter().map(str::to_owned).collect())
            .collect()
    };
    let (here, there) = (rows(&here), rows(&there));
    assert!(!here.is_empty() && here.len() == there.len());
    let same = here
        .iter()
        .zip(&there)
        .filter(|(a, b)| a[1] == b[1])
        .count();
    assert!(10 * same >= 9 * here.len(), "{same} of {}", here.len());
    let [here, there] = both(
        "eval simulated_2.h5ad --checkpoint mlm --map-cells 0",
        "figures",
    );
    let loss = |path: &Path| -> f64 {
        let text = fs::read_to_string(path.join("metrics.json")).unwrap();
        let metrics: Value = serde_json::from_str(&text).unwrap();
        metrics["eval_loss"].as_f64().unwrap()
    };
    let (here, there) = (loss(&here), loss(&there));
    assert!((here - there).abs() <= 1e-3 * here, "{here} {there}");
    let bench = "bench train --shape 1,64,2,96 --batch 3 --length 30 --steps 3 --threads 1 --json";
    for (dtype, _) in types() {
        let said = folder.done(&format!("{bench} --device {device} --dtype {dtype}"));
        let found: Value =
            serde_json::from_str(&said[said.find('{').unwrap()..=said.rfind('}').unwrap()])
                .unwrap();
        assert!(
            found["tokens_per_second"].as_f64().unwrap() > 0.0,
            "{found}"
        );
    }
}

/// Tried where the device is the stand-in, whose memory can be chosen (`scripts/cuda-simulate`).
#[test]
fn memory_that_is_scarce_is_planned_with_or_said_to_be_used_up() {
    let (folder, device) = (Folder::new(), device());
    if std::env::var_os("STANDIN_FATBINS").is_none() {
        return;
    }
    let common = COMMON
        .replace("--per_device_train_batch_size 6", "")
        .replace("--max_length 40", "--max_length 400");
    let run = |cells: usize, megabytes: u64, more: &str| {
        let line = format!(
            "mlm --output_dir out {common} {CELLS} --device {device} --dtype bf16 --max_steps 1 \
             --overwrite-output-dir --per_device_train_batch_size {cells} {more}"
        );
        let mut command = program(folder.path());
        command.env("STANDIN_MEGABYTES", megabytes.to_string());
        command.args(line.split_whitespace()).output().unwrap()
    };
    let needed = |cells: usize| {
        let said = text(&run(cells, 4096, ""));
        let megabytes = said.split_once("needs about ").unwrap().1;
        megabytes
            .split_once(" MB")
            .unwrap()
            .0
            .parse::<u64>()
            .unwrap()
    };
    let (least, most) = (needed(1), needed(40));
    assert!(least + 5 < most, "{least} and {most} MB");
    // Nine tenths of this lie between.
    let some = (least + most) * 1_000_000 * 10 / 9 / 2 / (1 << 20);
    let halved = run(40, some, "--auto_find_batch_size");
    let said = text(&halved);
    assert!(halved.status.success(), "{said}");
    assert!(said.contains("is halved from 40 to"), "{said}");
    let full = run(40, 1, "");
    let said = text(&full);
    assert_eq!(full.status.code(), Some(1), "{said}");
    assert!(said.contains("hint: the GPU's memory is used up"), "{said}");
}
