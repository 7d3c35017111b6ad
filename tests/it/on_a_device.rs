//! Whole models on the device that GENE_BERT_TEST_DEVICE names (the CPU, where it names none):
//! losses and gradients beside those of the CPU in f32, with dropout, in every precision that there
//! is; that nothing changes from run to run, by recomputing or by how a batch comes to the device; and that steps which are not finite
//! leave the weights alone. `scripts/gpu-check` runs it on a GPU.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use candle_core::{DType, Device, Tensor};
use gene_bert::buffers::Number;
use gene_bert::cell::PackedBatch;
use gene_bert::kernels::lists::{Lists, Uploader};
use gene_bert::model::{
    DropoutKey, GeneBertConfig, GeneBertForMaskedLM, GeneBertForSequenceClassification, Gradients,
    LossConfig, Parameters, Precision,
};
use gene_bert::optim::{AdamW, AdamWConfig, StepRule};
use gene_bert::train::throughput::MadeUp;

const RULE: StepRule = StepRule {
    lr: 1e-2,
    mean: 0.01,
    max_norm: 1.0,
};

/// The device of the tests.
pub fn device() -> Device {
    let name = std::env::var("GENE_BERT_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    let device: gene_bert::config::Device = name.try_into().unwrap();
    device.open(false).unwrap().0
}

/// Precisions and the errors they may leave.
fn precisions(device: &Device) -> Vec<(Precision, f64)> {
    let mut all = vec![(Precision::F32, 1e-4), (Precision::Bf16, 3e-2)];
    if !device.is_cpu() {
        all.push((Precision::F16, 1e-2));
    }
    all
}

fn config(precision: Precision, recompute: bool) -> GeneBertConfig {
    GeneBertConfig {
        hidden_size: 128,
        num_hidden_layers: 3,
        num_attention_heads: 2,
        intermediate_size: 200,
        num_labels: 7,
        precision,
        recompute,
        ..GeneBertConfig::default()
    }
    .with_vocabulary(40, 3000)
}

/// Cells of several tiles of attention each; GENE_BERT_TEST_SMALL asks for shorter ones, where there
/// is no real GPU.
fn batch(index: u64) -> PackedBatch {
    let is_small = std::env::var_os("GENE_BERT_TEST_SMALL").is_some();
    let cells = MadeUp {
        cells: 5,
        length: if is_small { 90 } else { 200 },
        ragged: true,
        seed: 3,
    };
    cells.batch(&config(Precision::F32, false), index)
}

/// How the numbers of a batch come to the device.
#[derive(Clone, Copy)]
enum Sending {
    /// Each list by the kernels that read it.
    ByKernels,
    /// All before the step.
    Before,
    /// All by another thread.
    Ahead,
}

impl Sending {
    fn lists(self, batch: &PackedBatch, device: &Device) -> Lists {
        let lists = Lists::new(batch);
        let pad = config(Precision::F32, false).pad_token_id as u32;
        match self {
            Self::ByKernels => lists,
            Self::Before => lists.sorted(pad).on(device).unwrap(),
            Self::Ahead => {
                let device = device.clone();
                let send = || Uploader::new(&device).unwrap().send(lists.sorted(pad));
                let sent = std::thread::scope(|threads| threads.spawn(send).join());
                sent.unwrap().unwrap().take().unwrap()
            }
        }
    }
}

/// Loss and gradients of two batches, the second one added.
fn learn(
    config: &GeneBertConfig,
    device: &Device,
    key: Option<DropoutKey>,
    sending: Sending,
) -> Learned {
    let parameters = GeneBertForMaskedLM::init_parameters(config, 7).unwrap();
    let parameters = parameters.to_device(device).unwrap();
    let model = GeneBertForMaskedLM::new(config, &parameters).unwrap();
    let mut gradients = Gradients::new(&parameters);
    let mut loss = 0.0;
    for index in 0..2 {
        let settings = LossConfig::default();
        let lists = sending.lists(&batch(index), device);
        let found = model.loss_and_gradients(&lists, &settings, key, &mut gradients);
        loss += found.and_then(|loss| loss.wait()).unwrap().sum;
    }
    gather(loss, &parameters, &gradients)
}

struct Learned {
    loss: f64,
    gradients: Vec<(String, Vec<f64>)>,
}

fn gather(loss: f64, parameters: &Parameters, gradients: &Gradients) -> Learned {
    let names = parameters.names().iter();
    let gradients = names.map(|name| (name.clone(), floats(&gradients.to_dense(name).unwrap())));
    Learned {
        loss,
        gradients: gradients.collect(),
    }
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    let here = tensor.to_device(&Device::Cpu).unwrap();
    let wide = here.to_dtype(DType::F64).unwrap();
    wide.flatten_all().unwrap().to_vec1().unwrap()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

/// By ‖found − expected‖ / ‖expected‖ of each parameter, and of the smallest ones by the largest.
fn compare(what: &str, found: &Learned, expected: &Learned, allowed: f64) {
    let off = (found.loss - expected.loss).abs() / expected.loss;
    assert!(off < allowed, "{what}: losses differ by {off}");
    let largest = expected.gradients.iter();
    let largest = largest.map(|(_, values)| norm(values.iter().copied()));
    let floor = 1e-3 * largest.fold(0.0, f64::max);
    for ((name, a), (_, b)) in found.gradients.iter().zip(&expected.gradients) {
        let difference = norm(a.iter().zip(b).map(|(a, b)| a - b));
        let error = difference / norm(b.iter().copied()).max(floor);
        println!("{what}: {name}: error {error:.2e}");
        assert!(error <= allowed, "{what}: {name}: {error}");
    }
}

#[test]
fn losses_and_gradients_are_those_of_the_cpu() {
    let device = device();
    for key in [None, Some(DropoutKey { seed: 5, step: 6 })] {
        let expected = config(Precision::F32, false);
        let expected = learn(&expected, &Device::Cpu, key, Sending::ByKernels);
        for (precision, allowed) in precisions(&device) {
            let once = learn(&config(precision, false), &device, key, Sending::ByKernels);
            compare(&precision.to_string(), &once, &expected, allowed);
            for (recompute, sending) in [(false, Sending::Before), (true, Sending::Ahead)] {
                let again = learn(&config(precision, recompute), &device, key, sending);
                assert_eq!(once.loss.to_bits(), again.loss.to_bits(), "{precision}");
                assert!(once.gradients == again.gradients, "{precision}");
            }
        }
    }
}

#[test]
fn classifiers_agree_with_the_cpu_too() {
    let device = device();
    let labels = [0, 3, 6, 1, 1];
    let run = |precision, device: &Device| {
        let config = config(precision, false);
        let parameters = GeneBertForSequenceClassification::init_parameters(&config, 7).unwrap();
        let parameters = parameters.to_device(device).unwrap();
        let model = GeneBertForSequenceClassification::new(&config, &parameters).unwrap();
        let mut gradients = Gradients::new(&parameters);
        let (batch, settings) = (batch(0), LossConfig::default());
        let loss = model.loss_and_gradients(
            &Lists::new(&batch),
            &labels,
            &settings,
            None,
            &mut gradients,
        );
        let loss = loss.and_then(|loss| loss.wait()).unwrap().sum;
        gather(loss, &parameters, &gradients)
    };
    let expected = run(Precision::F32, &Device::Cpu);
    for (precision, allowed) in precisions(&device) {
        compare(
            &format!("classifier {precision}"),
            &run(precision, &device),
            &expected,
            2.0 * allowed,
        );
    }
}

#[test]
fn a_step_that_is_not_finite_moves_nothing_and_three_in_a_row_end_all() {
    let (device, config) = (device(), config(Precision::F32, false));
    let parameters = GeneBertForMaskedLM::init_parameters(&config, 7).unwrap();
    let parameters = parameters.to_device(&device).unwrap();
    let model = GeneBertForMaskedLM::new(&config, &parameters).unwrap();
    let mut optimizer = AdamW::new(&parameters, AdamWConfig::default()).unwrap();
    let mut gradients = Gradients::new(&parameters);
    let loss = model.loss_and_gradients(
        &Lists::new(&batch(0)),
        &LossConfig::default(),
        None,
        &mut gradients,
    );
    let loss = loss.unwrap().sum;
    let weights = || -> Vec<Vec<f64>> { parameters.iter().map(|(_, var)| floats(var)).collect() };
    let mut last = weights();
    let steps = [
        (0.0, 0),
        (f64::NAN, 1),
        (f64::INFINITY, 2),
        (0.0, 0),
        (f64::NAN, 1),
        (f64::NAN, 2),
        (f64::NAN, 3),
        (0.0, 3),
    ];
    for (added, lost) in steps {
        let losses = [loss.clone(), Number::Here(added)];
        let taken = optimizer.guarded_step(&gradients, &losses, RULE).unwrap();
        let taken = taken.wait().unwrap();
        assert_eq!((taken.lost_in_a_row, taken.skipped), (lost, lost > 0));
        let now = weights();
        assert_eq!(now == last, lost > 0, "{added}");
        last = now;
    }
    assert_eq!(optimizer.num_steps().unwrap(), 2);
}

/// The losses of the first `count` steps that are taken, and how many were left out.
fn losses_of_steps(precision: Precision, device: &Device, count: usize) -> (Vec<f64>, usize) {
    let config = config(precision, false);
    let parameters = GeneBertForMaskedLM::init_parameters(&config, 7).unwrap();
    let parameters = parameters.to_device(device).unwrap();
    let mut optimizer = AdamW::new(&parameters, AdamWConfig::default()).unwrap();
    if precision == Precision::F16 {
        optimizer = optimizer.scaling_loss().unwrap();
    }
    let model = GeneBertForMaskedLM::new(&config, &parameters).unwrap();
    let (mut losses, mut skipped) = (Vec::new(), 0);
    while losses.len() < count {
        let mut gradients = Gradients::new(&parameters);
        gradients.scale_loss_by(optimizer.loss_scale());
        let found = model.loss_and_gradients(
            &Lists::new(&batch(0)),
            &LossConfig::default(),
            None,
            &mut gradients,
        );
        let found = found.unwrap();
        let rule = StepRule {
            lr: 1e-3,
            mean: 1.0 / found.weight,
            ..RULE
        };
        let taken = optimizer.guarded_step(&gradients, &[found.sum], rule);
        let taken = taken.and_then(|taken| taken.wait()).unwrap();
        assert_eq!(taken.lost_in_a_row, 0, "{precision}");
        match taken.skipped {
            true => skipped += 1,
            false => losses.push(taken.loss),
        }
    }
    (losses, skipped)
}

#[test]
fn f16_learns_as_f32_once_its_loss_scale_has_found_its_size() {
    let device = device();
    if device.is_cpu() {
        let config = config(Precision::F16, false);
        let parameters = GeneBertForMaskedLM::init_parameters(&config, 7).unwrap();
        let optimizer = AdamW::new(&parameters, AdamWConfig::default()).unwrap();
        let refused = optimizer.scaling_loss().unwrap_err().to_string();
        assert!(refused.contains("on a GPU only"), "{refused}");
        return;
    }
    let (expected, none) = losses_of_steps(Precision::F32, &device, 15);
    let (found, skipped) = losses_of_steps(Precision::F16, &device, 15);
    assert!(none == 0 && skipped < 10, "{skipped} steps were left out");
    assert!(expected[14] < 0.8 * expected[0], "{expected:?}");
    for (found, expected) in found.iter().zip(&expected) {
        let error = (found - expected).abs() / expected;
        println!("f16 beside f32: loss {found}: error {error:.1e}");
        assert!(error < 2e-2, "{found}, expected {expected}");
    }
}
