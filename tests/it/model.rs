//! What must hold for the model as a whole: every weight learns, cells never mix, a batch without
//! labels is silent, threads do not matter, and weights and optimizer state survive the disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use candle_core::Tensor;
use gene_bert::cell::{Label, PackedBatch};
use gene_bert::kernels::lists::Lists;
use gene_bert::model::{
    DropoutKey, GeneBertConfig, GeneBertForMaskedLM, GeneBertForSequenceClassification, Gradients,
    LossConfig, LossSum, Parameters, Precision,
};
use gene_bert::optim::{AdamW, AdamWConfig, StepRule, global_norm};
use gene_bert::rng::{Stream, stream};
use rand::Rng;

const KEY: Option<DropoutKey> = Some(DropoutKey { seed: 5, step: 6 });

fn config() -> GeneBertConfig {
    GeneBertConfig {
        hidden_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 40,
        num_labels: 4,
        initializer_range: 0.3,
        ..GeneBertConfig::default()
    }
    .with_vocabulary(20, 50)
}

fn model(config: &GeneBertConfig) -> (Parameters, GeneBertForMaskedLM) {
    let parameters = GeneBertForMaskedLM::init_parameters(config, 7).unwrap();
    let model = GeneBertForMaskedLM::new(config, &parameters).unwrap();
    (parameters, model)
}

/// Cells of these lengths; every third token has a label.
fn batch(lengths: &[usize], seed: u64) -> PackedBatch {
    let mut random = stream(seed, Stream::Simulate, 0, 0);
    let mut batch = PackedBatch {
        cu_seqlens: vec![0],
        ..PackedBatch::default()
    };
    for (cell, length) in lengths.iter().enumerate() {
        for _ in 0..*length {
            let position = batch.input_ids.len() as u32;
            batch.input_ids.push(random.random_range(0..20));
            batch.token_type_ids.push(random.random_range(0..50));
            if position.is_multiple_of(3) {
                let token = random.random_range(0..20);
                batch.labels.push(Label { position, token });
            }
        }
        batch.cu_seqlens.push(batch.input_ids.len() as u32);
        batch.cells.push(cell as u64);
    }
    batch
}

/// The same cells, last to first.
fn reversed(batch: &PackedBatch) -> PackedBatch {
    let mut turned = PackedBatch {
        cu_seqlens: vec![0],
        ..PackedBatch::default()
    };
    for cell in (0..batch.num_cells()).rev() {
        let tokens = batch.cu_seqlens[cell]..batch.cu_seqlens[cell + 1];
        let (from, to) = (tokens.start, turned.input_ids.len() as u32);
        let labels = batch.labels.iter().filter(|l| tokens.contains(&l.position));
        turned.labels.extend(labels.map(|l| Label {
            position: l.position - from + to,
            token: l.token,
        }));
        let tokens = tokens.start as usize..tokens.end as usize;
        turned.input_ids.extend(&batch.input_ids[tokens.clone()]);
        turned.token_type_ids.extend(&batch.token_type_ids[tokens]);
        turned.cu_seqlens.push(turned.input_ids.len() as u32);
        turned.cells.push(batch.cells[cell]);
    }
    turned
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn dense(gradients: &Gradients) -> Vec<(String, Vec<f32>)> {
    let names = gradients.iter().map(|(name, _)| name.to_owned());
    let dense = |name: String| {
        let gradient = values(&gradients.to_dense(&name).unwrap());
        (name, gradient)
    };
    names.map(dense).collect()
}

fn gradients(
    parameters: &Parameters,
    model: &GeneBertForMaskedLM,
    batch: &PackedBatch,
    key: Option<DropoutKey>,
) -> (LossSum, Gradients) {
    let mut gradients = Gradients::new(parameters);
    let config = LossConfig {
        label_smoothing: 0.1,
        class_weights: None,
        ..LossConfig::default()
    };
    let loss = model
        .loss_and_gradients(&Lists::new(batch), &config, key, &mut gradients)
        .and_then(|loss| loss.wait())
        .unwrap();
    (loss, gradients)
}

/// A step without clipping.
fn take(optimizer: &mut AdamW, gradients: &Gradients, lr: f64, mean: f64) {
    let max_norm = 0.0;
    let rule = StepRule { lr, mean, max_norm };
    let taken = optimizer.guarded_step(gradients, &[], rule).unwrap();
    assert!(!taken.wait().unwrap().skipped);
}

#[test]
fn every_weight_receives_a_gradient() {
    for tied in [false, true] {
        for key in [None, KEY] {
            let config = GeneBertConfig {
                tie_word_embeddings: tied,
                ..config()
            };
            let (parameters, model) = model(&config);
            let (_, gradients) = gradients(&parameters, &model, &batch(&[40, 9], 1), key);
            for (name, gradient) in dense(&gradients) {
                assert!(gradient.iter().all(|x| x.is_finite()), "{name}");
                assert!(
                    gradient.iter().any(|x| *x != 0.0),
                    "{name} receives no gradient"
                );
            }
        }
    }
    let config = config();
    let parameters = GeneBertForSequenceClassification::init_parameters(&config, 1).unwrap();
    let model = GeneBertForSequenceClassification::new(&config, &parameters).unwrap();
    let mut gradients = Gradients::new(&parameters);
    let (batch, loss) = (batch(&[5, 8, 1], 2), LossConfig::default());
    model
        .loss_and_gradients(&Lists::new(&batch), &[0, 1, 3], &loss, KEY, &mut gradients)
        .unwrap();
    for (name, gradient) in dense(&gradients) {
        assert!(
            gradient.iter().any(|x| *x != 0.0),
            "{name} receives no gradient"
        );
    }
}

#[test]
fn gradients_agree_with_finite_differences_with_dropout_on() {
    let config = config();
    let (parameters, model) = model(&config);
    let batch = batch(&[13, 6], 3);
    let (_, gradients) = gradients(&parameters, &model, &batch, KEY);
    let settings = LossConfig {
        label_smoothing: 0.1,
        class_weights: None,
        ..LossConfig::default()
    };
    let mut random = stream(1, Stream::Simulate, 0, 1);
    for (name, gradient) in dense(&gradients) {
        let var = parameters.get(&name).unwrap();
        let start = values(var.as_tensor());
        let along: Vec<f32> = start
            .iter()
            .map(|_| random.random_range(-1.0..1.0))
            .collect();
        // Padding's word row is held at zero, so no direction touches it.
        let fixed = if name.ends_with("word_embeddings.weight") {
            3 * 24..4 * 24
        } else {
            0..0
        };
        let along: Vec<f32> = along
            .into_iter()
            .enumerate()
            .map(|(i, x)| if fixed.contains(&i) { 0.0 } else { x })
            .collect();
        let at = |step: f32| {
            let moved = start
                .iter()
                .zip(&along)
                .map(|(x, a)| x + step * a)
                .collect::<Vec<_>>();
            var.set(&Tensor::from_vec(moved, var.dims(), var.device()).unwrap())
                .unwrap();
            model.loss(&batch, &settings, KEY).unwrap().sum
        };
        let step = 1e-3;
        let slope = (at(step) - at(-step)) / f64::from(2.0 * step);
        at(0.0);
        let found: f64 = gradient
            .iter()
            .zip(&along)
            .map(|(g, a)| f64::from(g * a))
            .sum();
        assert!(
            (found - slope).abs() <= 1e-2 * slope.abs().max(1.0),
            "{name}: {found} {slope}"
        );
    }
}

#[test]
fn paddings_word_row_is_zero_and_gets_no_gradient() {
    let (parameters, model) = model(&config());
    let word = "distilbert.embeddings.word_embeddings.weight";
    let row = |tensor: &Tensor| values(tensor)[3 * 24..4 * 24].to_vec();
    assert_eq!(row(parameters.get(word).unwrap()), [0.0; 24]);
    let batch = batch(&[60], 1);
    assert!(batch.input_ids.contains(&3));
    let (_, gradients) = gradients(&parameters, &model, &batch, None);
    assert_eq!(row(&gradients.to_dense(word).unwrap()), [0.0; 24]);
}

#[test]
fn cells_never_mix_and_their_order_does_not_matter() {
    let (parameters, model) = model(&config());
    let together = batch(&[30, 1, 200, 7], 4);
    let turned = reversed(&together);
    let (loss, first) = gradients(&parameters, &model, &together, None);
    let (again, second) = gradients(&parameters, &model, &turned, None);
    assert!((loss.sum - again.sum).abs() < 1e-5 * loss.sum);
    for ((name, a), (_, b)) in dense(&first).into_iter().zip(dense(&second)) {
        let size = a.iter().fold(1.0f32, |size, x| size.max(x.abs()));
        let worst = a
            .iter()
            .zip(&b)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst <= 1e-5 * size, "{name}: {worst} of {size}");
    }
    let alone = PackedBatch {
        input_ids: together.input_ids[..30].to_vec(),
        token_type_ids: together.token_type_ids[..30].to_vec(),
        cu_seqlens: vec![0, 30],
        labels: together.labels[..10].to_vec(),
        cells: vec![0],
    };
    let (alone, all) = (model.forward(&alone, None), model.forward(&together, None));
    let (alone, all) = (values(&alone.unwrap()), values(&all.unwrap()));
    for (a, b) in alone.iter().zip(&all) {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0));
    }
}

#[test]
fn without_labels_or_cells_the_loss_is_zero_and_nothing_is_learnt() {
    let (parameters, model) = model(&config());
    let mut silent = batch(&[9, 4], 1);
    silent.labels.clear();
    for batch in [silent, PackedBatch::default(), batch(&[], 1)] {
        let (loss, gradients) = gradients(&parameters, &model, &batch, KEY);
        assert_eq!(loss, LossSum::default());
        assert_eq!((loss.mean(), global_norm(&gradients).unwrap()), (0.0, 0.0));
        assert!(gradients.is_empty());
        assert_eq!(model.forward(&batch, None).unwrap().dims()[0], 0);
        let mut optimizer = AdamW::new(&parameters, AdamWConfig::default()).unwrap();
        let before = values(parameters.get("vocab_projector.weight").unwrap());
        take(&mut optimizer, &gradients, 0.1, 1.0);
        assert_eq!(
            values(parameters.get("vocab_projector.weight").unwrap()),
            before
        );
    }
}

#[test]
fn training_is_the_same_bit_for_bit_on_any_number_of_threads_and_recomputed() {
    let run = |threads: usize, precision: Precision, recompute: bool| {
        let config = GeneBertConfig {
            precision,
            recompute,
            ..config()
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let (parameters, model) = model(&config);
            let mut optimizer = AdamW::new(&parameters, AdamWConfig::default()).unwrap();
            let mut losses = Vec::new();
            for step in 0..4 {
                let key = Some(DropoutKey { seed: 1, step });
                let batch = batch(&[300, 17, 150], step);
                let (loss, gradients) = gradients(&parameters, &model, &batch, key);
                losses.push((
                    loss.sum.to_bits(),
                    global_norm(&gradients).unwrap().to_bits(),
                ));
                take(&mut optimizer, &gradients, 1e-2, 1.0 / loss.weight);
            }
            let weights: Vec<Vec<f32>> = parameters.iter().map(|(_, v)| values(v)).collect();
            (losses, weights)
        })
    };
    for precision in [Precision::F32, Precision::Bf16] {
        let one = run(1, precision, false);
        assert!(one == run(3, precision, false), "{precision}, threads");
        assert!(one == run(3, precision, true), "{precision}, recomputed");
    }
}

/// Rounded factors move the loss by less than a part in a hundred, and a step's direction little.
#[test]
fn bf16_gives_nearly_the_loss_and_the_gradients_of_f32() {
    let run = |precision: Precision| {
        let config = GeneBertConfig {
            precision,
            ..config()
        };
        let (parameters, model) = model(&config);
        let (loss, gradients) = gradients(&parameters, &model, &batch(&[90, 7, 40], 3), KEY);
        let all: Vec<f32> = dense(&gradients).into_iter().flat_map(|(_, g)| g).collect();
        (loss.mean(), all)
    };
    let ((exact, dx), (rounded, dy)) = (run(Precision::F32), run(Precision::Bf16));
    assert!(exact != rounded && (exact - rounded).abs() < 0.01 * exact);
    let inner = |x: &[f32], y: &[f32]| -> f64 {
        x.iter()
            .zip(y)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum()
    };
    let cosine = inner(&dx, &dy) / (inner(&dx, &dx) * inner(&dy, &dy)).sqrt();
    assert!(cosine > 0.999, "{cosine}");
}

#[test]
fn accumulated_batches_give_the_sum_of_their_gradients() {
    let (parameters, model) = model(&config());
    let (left, right) = (batch(&[20], 1), batch(&[31, 2], 2));
    let mut sum = gradients(&parameters, &model, &left, None).1;
    let other = gradients(&parameters, &model, &right, None).1;
    let mut accumulated = Gradients::new(&parameters);
    let config = LossConfig {
        label_smoothing: 0.1,
        class_weights: None,
        ..LossConfig::default()
    };
    for batch in [&left, &right] {
        model
            .loss_and_gradients(&Lists::new(batch), &config, None, &mut accumulated)
            .unwrap();
    }
    sum.add(&other).unwrap();
    for ((name, a), (_, b)) in dense(&sum).into_iter().zip(dense(&accumulated)) {
        let worst = a
            .iter()
            .zip(&b)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        let size = a.iter().fold(1.0f32, |size, x| size.max(x.abs()));
        assert!(worst <= 1e-5 * size, "{name}: {worst}");
    }
}

#[test]
fn a_batch_of_another_vocabulary_is_refused_by_name() {
    let (_, model) = model(&config());
    let mut batch = batch(&[9], 1);
    batch.input_ids[4] = 20;
    let error = model.forward(&batch, None).unwrap_err().to_string();
    assert!(
        error.contains("token id 20 at position 4") && error.contains("hint:"),
        "{error}"
    );
}

#[test]
fn weights_and_optimizer_state_survive_the_disk_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, state) = (
        folder.path().join("model.safetensors"),
        folder.path().join("optim"),
    );
    let step = |parameters: &Parameters, optimizer: &mut AdamW, number: u64| {
        let model = GeneBertForMaskedLM::new(&config(), parameters).unwrap();
        let gradients = gradients(parameters, &model, &batch(&[25], number), None).1;
        take(optimizer, &gradients, 1e-2, 1.0);
    };
    let (parameters, _) = model(&config());
    let mut optimizer = AdamW::new(&parameters, AdamWConfig::default()).unwrap();
    step(&parameters, &mut optimizer, 1);
    parameters.save(&weights).unwrap();
    optimizer.save(&state).unwrap();
    step(&parameters, &mut optimizer, 2);

    let again = GeneBertForMaskedLM::init_parameters(&config(), 99).unwrap();
    let mut resumed = AdamW::new(&again, AdamWConfig::default()).unwrap();
    again.load(&weights).unwrap().require_complete().unwrap();
    resumed.load(&state).unwrap();
    assert_eq!(resumed.num_steps().unwrap(), 1);
    step(&again, &mut resumed, 2);
    for ((name, a), (_, b)) in parameters.iter().zip(again.iter()) {
        assert_eq!(values(a), values(b), "{name}");
    }
}

#[test]
fn a_file_of_another_model_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (parameters, _) = model(&config());
    parameters.save(&path).unwrap();

    let deeper = GeneBertConfig {
        num_hidden_layers: 3,
        ..config()
    };
    let (deeper, _) = model(&deeper);
    let report = deeper.load(&path).unwrap();
    assert_eq!((report.missing.len(), report.unexpected.len()), (16, 0));
    let error = report.require_complete().unwrap_err().to_string();
    assert!(
        error.contains("layer.2.attention.q_lin.weight") && error.contains("hint:"),
        "{error}"
    );

    let classifier = GeneBertForSequenceClassification::init_parameters(&config(), 1).unwrap();
    let report = classifier.load(&path).unwrap();
    assert_eq!(report.missing.len(), 4);
    assert!(
        report
            .unexpected
            .contains(&"vocab_projector.weight".to_owned())
    );

    let (wider, _) = model(&config().with_vocabulary(21, 50));
    let before = values(wider.get("vocab_projector.bias").unwrap());
    let error = wider.load(&path).unwrap_err().to_string();
    assert!(
        error.contains("vocab_projector.weight: found [20, 24], expected [21, 24]"),
        "{error}"
    );
    assert_eq!(values(wider.get("vocab_projector.bias").unwrap()), before);
    let mut optimizer = AdamW::new(&wider, AdamWConfig::default()).unwrap();
    let error = optimizer.load(&path).unwrap_err().to_string();
    assert!(error.contains("exp_avg"), "{error}");

    std::fs::write(&path, b"not safetensors").unwrap();
    let error = wider.load(&path).unwrap_err().to_string();
    assert!(
        error.contains("model.safetensors") && error.contains("safetensors file"),
        "{error}"
    );
    assert!(wider.load(&folder.path().join("none")).is_err());
}
