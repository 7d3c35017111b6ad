//! The original model's logits, hidden states, losses, gradients and a training run, from
//! `golden/model/*`, against ours. Its padded batches are packed through their attention mask.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use gene_bert::cell::{Label, PackedBatch};
use gene_bert::kernels::lists::Lists;
use gene_bert::model::{
    GeneBertConfig, GeneBertForMaskedLM, GeneBertForSequenceClassification, Gradients, LossConfig,
    LossSum, Parameters, Spread,
};
use gene_bert::optim::{AdamW, AdamWConfig, Schedule, ScheduleConfig, StepRule};

use crate::on_a_device::device;
use crate::shared::shared_dir;

/// The loss without gradients is the one with: to the bit on the CPU.
fn same_loss(without: LossSum, with: LossSum) {
    if device().is_cpu() {
        assert_eq!(without, with);
    } else {
        close(
            "loss without gradients",
            &[without.sum],
            &[with.sum],
            1e-5,
            0.0,
        );
    }
}

type Tensors = HashMap<String, Tensor>;

/// Every folder of `golden/model`; empty where the shared data is absent.
fn cases() -> Vec<PathBuf> {
    let Some(folder) = shared_dir("golden/model") else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(folder).unwrap();
    let mut cases: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    cases.retain(|path| path.is_dir());
    cases.sort();
    assert!(!cases.is_empty(), "golden/model holds no case");
    cases
}

fn tensors(path: &Path) -> Tensors {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn ints(tensors: &Tensors, name: &str) -> Vec<Vec<i64>> {
    tensors[name]
        .to_dtype(DType::I64)
        .unwrap()
        .to_vec2()
        .unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    let there = tensor.to_device(&Device::Cpu).unwrap();
    let flat = there.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
    flat.to_vec1().unwrap()
}

/// A padded batch as a packed one, and the padded place (cell, column) of every token.
fn pack(tensors: &Tensors, prefix: &str) -> (PackedBatch, Vec<(usize, usize)>) {
    let name = |part: &str| format!("{prefix}{part}");
    let ids = ints(tensors, &name("input_ids"));
    let types = ints(tensors, &name("token_type_ids"));
    let mask = ints(tensors, &name("attention_mask"));
    let labels = ints(tensors, &name("labels"));
    let mut batch = PackedBatch {
        cu_seqlens: vec![0],
        ..PackedBatch::default()
    };
    let mut places = Vec::new();
    for cell in 0..ids.len() {
        for column in 0..ids[cell].len() {
            if mask[cell][column] == 0 {
                continue;
            }
            let label = labels[cell].get(column).copied().unwrap_or(-100);
            if labels[cell].len() == ids[cell].len() && label >= 0 {
                batch.labels.push(Label {
                    position: batch.input_ids.len() as u32,
                    token: label as u32,
                });
            }
            batch.input_ids.push(ids[cell][column] as u32);
            batch.token_type_ids.push(types[cell][column] as u32);
            places.push((cell, column));
        }
        batch.cu_seqlens.push(batch.input_ids.len() as u32);
        batch.cells.push(cell as u64);
    }
    (batch, places)
}

/// The rows of a padded [B, S, D] tensor at `places`.
fn attended(tensor: &Tensor, places: &[(usize, usize)]) -> Vec<f64> {
    let values: Vec<Vec<Vec<f64>>> = tensor.to_dtype(DType::F64).unwrap().to_vec3().unwrap();
    let rows = places.iter().map(|&(cell, column)| &values[cell][column]);
    rows.flatten().copied().collect()
}

/// Fails unless the largest difference is at most `tolerance` of the largest expected value, or of
/// `floor` where that is larger (what is zero but for rounding).
fn close(what: &str, found: &[f64], expected: &[f64], tolerance: f64, floor: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    let size = expected.iter().fold(floor, |size, x| size.max(x.abs()));
    let pairs = found.iter().zip(expected);
    let worst = pairs
        .map(|(f, e)| (f - e).abs())
        .fold(0.0, |a: f64, b| if b > a || b.is_nan() { b } else { a });
    assert!(
        worst <= tolerance * size,
        "{what}: off by {worst:e} of {size:e}"
    );
}

fn close_gradients(what: &str, gradients: &Gradients, golden: &Tensors, scale: f64) {
    let of_all = golden.iter().filter(|(name, _)| name.starts_with("grad."));
    let size = of_all
        .flat_map(|(_, t)| floats(t))
        .fold(0.0, |s: f64, x| s.max(x.abs()));
    let mut seen = 0;
    for (name, _) in gradients.iter() {
        let expected = floats(&golden[&format!("grad.{name}")]);
        let found = floats(&gradients.to_dense(name).unwrap());
        let found: Vec<f64> = found.iter().map(|x| x * scale).collect();
        // The gradient of a key's bias is zero but for rounding.
        close(
            &format!("{what}: gradient of {name}"),
            &found,
            &expected,
            1e-4,
            1e-3 * size,
        );
        seen += 1;
    }
    let expected = golden
        .keys()
        .filter(|name| name.starts_with("grad."))
        .count();
    assert_eq!(seen, expected, "{what}: number of gradients");
}

fn masked_lm(case: &Path) -> (GeneBertConfig, Parameters, GeneBertForMaskedLM) {
    let config = GeneBertConfig::from_file(&case.join("config.json")).unwrap();
    config.validate().unwrap();
    let parameters = GeneBertForMaskedLM::init_parameters(&config, 1).unwrap();
    let report = parameters.load(&case.join("model.safetensors")).unwrap();
    assert_eq!(
        (report.missing.len(), report.unexpected.len()),
        (0, 0),
        "{report:?}"
    );
    let parameters = parameters.to_device(&device()).unwrap();
    let model = GeneBertForMaskedLM::new(&config, &parameters).unwrap();
    (config, parameters, model)
}

#[test]
fn golden_logits_hidden_states_losses_and_gradients() {
    for case in cases() {
        let what = case.display().to_string();
        let (config, parameters, model) = masked_lm(&case);
        let golden = tensors(&case.join("mlm.safetensors"));
        let (batch, places) = pack(&golden, "");
        let mut everywhere = batch.clone();
        everywhere.labels = (0..batch.num_tokens() as u32)
            .map(|position| Label { position, token: 0 })
            .collect();
        let logits = floats(&model.forward(&everywhere, None).unwrap());
        let expected = attended(&golden["logits"], &places);
        close(&format!("{what}: logits"), &logits, &expected, 1e-4, 0.0);
        let states = model.hidden_states(&batch).unwrap();
        assert_eq!(states.len(), config.num_hidden_layers + 1);
        for (i, state) in states.iter().enumerate() {
            let expected = attended(&golden[&format!("hidden_{i}")], &places);
            close(
                &format!("{what}: hidden {i}"),
                &floats(state),
                &expected,
                1e-4,
                0.0,
            );
        }
        for smoothing in [0.0, 0.5] {
            let expected = floats(&golden[&format!("loss_ls{smoothing:.1}")]);
            let settings = LossConfig {
                label_smoothing: smoothing,
                class_weights: None,
                ..LossConfig::default()
            };
            let mut gradients = Gradients::new(&parameters);
            let loss = model
                .loss_and_gradients(&Lists::new(&batch), &settings, None, &mut gradients)
                .and_then(|loss| loss.wait())
                .unwrap();
            close(
                &format!("{what}: loss {smoothing}"),
                &[loss.mean()],
                &expected,
                1e-5,
                0.0,
            );
            same_loss(model.loss(&batch, &settings, None).unwrap(), loss);
            if smoothing == 0.0 {
                close_gradients(&what, &gradients, &golden, 1.0 / loss.weight);
            }
        }
    }
}

#[test]
fn golden_classifier() {
    for case in cases() {
        let what = format!("{}: classifier", case.display());
        let golden = tensors(&case.join("cls.safetensors"));
        let class_weights: Vec<f32> = golden["class_weight"].to_vec1().unwrap();
        let mut config = GeneBertConfig::from_file(&case.join("config.json")).unwrap();
        config.num_labels = class_weights.len();
        let parameters = GeneBertForSequenceClassification::init_parameters(&config, 1).unwrap();
        let report = parameters
            .load(&case.join("classifier.safetensors"))
            .unwrap();
        assert!(report.missing.is_empty(), "{report:?}");
        let parameters = parameters.to_device(&device()).unwrap();
        let model = GeneBertForSequenceClassification::new(&config, &parameters).unwrap();
        let (batch, _) = pack(&golden, "");
        let labels: Vec<u32> = ints(&golden, "labels")
            .iter()
            .map(|l| l[0] as u32)
            .collect();
        let logits = floats(&model.forward(&batch, None).unwrap());
        close(
            &format!("{what}: logits"),
            &logits,
            &floats(&golden["logits"]),
            1e-4,
            0.0,
        );
        let settings = LossConfig {
            // The original classifier smooths its labels by a tenth.
            label_smoothing: 0.1,
            class_weights: Some(class_weights),
            spread: Spread::ByClass,
        };
        let mut gradients = Gradients::new(&parameters);
        let loss = model.loss_and_gradients(
            &Lists::new(&batch),
            &labels,
            &settings,
            None,
            &mut gradients,
        );
        let loss = loss.and_then(|loss| loss.wait()).unwrap();
        same_loss(model.loss(&batch, &labels, &settings, None).unwrap(), loss);
        close(
            &format!("{what}: loss"),
            &[loss.mean()],
            &floats(&golden["loss"]),
            1e-5,
            0.0,
        );
        close_gradients(&what, &gradients, &golden, 1.0 / loss.weight);
    }
}

#[test]
fn golden_training_run() {
    for case in cases() {
        let what = case.display().to_string();
        let (_, parameters, model) = masked_lm(&case);
        let text = std::fs::read_to_string(case.join("train.json")).unwrap();
        let run: serde_json::Value = serde_json::from_str(&text).unwrap();
        let number = |key: &str| run[key].as_f64().unwrap();
        let total = run["steps"].as_u64().unwrap();
        let schedule = ScheduleConfig {
            learning_rate: number("learning_rate"),
            warmup_steps: run["warmup_steps"].as_u64().unwrap(),
            schedule: Schedule::Linear,
        };
        let config = AdamWConfig {
            beta1: run["betas"][0].as_f64().unwrap(),
            beta2: run["betas"][1].as_f64().unwrap(),
            eps: number("eps"),
            weight_decay: number("weight_decay"),
        };
        let settings = LossConfig {
            label_smoothing: number("label_smoothing"),
            class_weights: None,
            ..LossConfig::default()
        };
        let mut optimizer = AdamW::new(&parameters, config).unwrap();
        let all = tensors(&case.join("train_batches.safetensors"));
        let count = all
            .keys()
            .filter(|name| name.ends_with("input_ids"))
            .count() as u64;
        for step in 0..total {
            let at = |key: &str| run[key][step as usize].as_f64().unwrap();
            let (batch, _) = pack(&all, &format!("batch{}.", step % count));
            let mut gradients = Gradients::new(&parameters);
            let loss = model
                .loss_and_gradients(&Lists::new(&batch), &settings, None, &mut gradients)
                .unwrap();
            let lr = schedule.lr_at(step, total);
            let rule = StepRule {
                lr,
                mean: 1.0 / loss.weight,
                max_norm: number("max_grad_norm"),
            };
            let taken = optimizer.guarded_step(&gradients, &[loss.sum], rule);
            let taken = taken.and_then(|taken| taken.wait()).unwrap();
            assert!(!taken.skipped);
            close(
                &format!("{what}: loss of step {step}"),
                &[taken.loss],
                &[at("loss")],
                1e-3,
                0.0,
            );
            close(
                &format!("{what}: norm of step {step}"),
                &[taken.norm],
                &[at("grad_norm")],
                1e-3,
                0.0,
            );
            close(
                &format!("{what}: lr of step {step}"),
                &[lr],
                &[at("lr")],
                1e-9,
                1e-9,
            );
        }
        let after = tensors(&case.join("model_after_30_steps.safetensors"));
        for (name, var) in parameters.iter() {
            let name_of = format!("{what}: {name} after the run");
            // A key's bias has no gradient but rounding, which AdamW turns into small steps.
            let floor = if name.ends_with("k_lin.bias") {
                1.0
            } else {
                0.1
            };
            close(
                &name_of,
                &floats(var.as_tensor()),
                &floats(&after[name]),
                1e-3,
                floor,
            );
        }
    }
}
