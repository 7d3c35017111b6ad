//! Every operation on the first GPU against the same on the CPU in f32, forward and backward, in
//! f32, bf16 and f16. Where there is no GPU each test says that it was skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use candle_core::{DType, Device, Tensor};

use crate::buffers::{Target, from_vec, to_host};
use crate::cell::{Label, PackedBatch};
use crate::kernels::activation::{self, Activation};
use crate::kernels::adamw::{self, Gradient, Moved};
use crate::kernels::attention::{self, Saved, Settings};
use crate::kernels::cross_entropy::{self, Spread};
use crate::kernels::dropout::{self, Dropout, DropoutKey};
use crate::kernels::embedding::{self, Orders, Tables};
use crate::kernels::factor::Factor;
use crate::kernels::layer_norm::{self, Norm};
use crate::kernels::linear::{self, InputGradient, Map, MapGradient, OutputGradient};
use crate::kernels::lists::{Lists, Numbers, Uploader};
use crate::kernels::products::Precision;
use crate::kernels::testing::{Random, target, wide};
use crate::kernels::{device, grad_norm, rows};

pub(super) const TYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];
const SHAPES: [(usize, usize); 4] = [(1, 8), (7, 33), (130, 64), (301, 768)];

/// The first GPU, or word that the test is skipped.
pub(super) fn gpu() -> Option<Device> {
    match device::cuda(0, false) {
        Ok((device, _)) => Some(device),
        Err(error) => {
            println!("skipped: no GPU ({error})");
            None
        }
    }
}

/// Whether GENE_BERT_TEST_SMALL asks for what is quick where there is no real GPU.
pub(super) fn is_small() -> bool {
    std::env::var_os("GENE_BERT_TEST_SMALL").is_some()
}

/// The error that a type may leave, relative to the largest number.
pub(super) fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1e-4,
        _ => 1e-2,
    }
}

/// Where the largest expected number is below `least`, that is what the error is relative to.
#[track_caller]
pub(super) fn near(what: &str, found: &Tensor, expected: &Tensor, (allowed, least): (f64, f64)) {
    let (found, expected) = (wide(&to_host(found).unwrap()), wide(expected));
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    let size = expected
        .iter()
        .fold(least, |size: f64, x| size.max(x.abs()));
    let errors = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    let worst = errors.fold(0.0, |worst: f64, error| match error.is_nan() {
        true => f64::INFINITY,
        false => worst.max(error),
    });
    println!("{what}: error {:.2e}", worst / size);
    assert!(worst <= allowed * size, "{what}: {worst} of {size}");
}

/// Normal values rounded to `dtype`: on the CPU in f32, and on the GPU.
pub(super) fn pair(
    random: &mut Random,
    shape: &[usize],
    dtype: DType,
    gpu: &Device,
) -> [Tensor; 2] {
    let rounded = random.tensor(shape).to_dtype(dtype).unwrap();
    let there = rounded.to_device(gpu).unwrap();
    [rounded.to_dtype(DType::F32).unwrap(), there]
}

/// Targets that hold a half, to be added to.
fn targets(shape: &[usize], gpu: &Device) -> [Target; 2] {
    let here = target(shape, 0.5);
    let tensor = here.tensor.to_device(gpu).unwrap();
    [here, Target { tensor, add: true }]
}

fn some_dropout(probability: f64) -> Option<Dropout> {
    Dropout::new(probability, Some(DropoutKey { seed: 1, step: 2 }), 3)
}

#[test]
fn uploads_arrive_whole_however_many_are_under_way() {
    let Some(device) = gpu() else { return };
    let gpu = super::Gpu::new(&device).unwrap();
    // Half as much again as the ring of pinned memory, then one that is larger than it.
    let numbers = |count: u32, salt: u32| -> Vec<u32> { (0..count).map(|i| i ^ salt).collect() };
    let uploads: Vec<Tensor> = (0..12)
        .map(|salt| gpu.upload(&numbers(1 << 20, salt)).unwrap())
        .collect();
    for (salt, there) in (0..).zip(&uploads) {
        assert!(there.to_vec1::<u32>().unwrap() == numbers(1 << 20, salt));
    }
    let large = numbers(9 << 20, 77);
    assert!(gpu.upload(&large).unwrap().to_vec1::<u32>().unwrap() == large);
    assert_eq!(gpu.upload(&[]).unwrap().elem_count(), 0);
}

/// A batch of cells of a few lengths, of which every third position is labelled.
fn some_batch(index: u64) -> PackedBatch {
    let mut random = Random::new(index);
    let count = 40 + 700 * (index % 7) as usize;
    let positions = (0..count as u32).step_by(3);
    let label = |position| Label { position, token: 1 };
    PackedBatch {
        input_ids: random.ids(count, 30),
        token_type_ids: random.ids(count, 500),
        cu_seqlens: vec![0, 7, 7, 40, count as u32],
        labels: positions.map(label).collect(),
        cells: vec![0; 4],
    }
}

/// What kernels read of `lists` of a matrix of rows, `dx`.
fn read_of(lists: &Lists, dx: &Tensor) -> [Tensor; 3] {
    let dx = dx.narrow(0, 0, lists.num_tokens()).unwrap();
    let orders = lists.orders(2);
    [
        rows::gather(&dx, &lists.positions).unwrap(),
        embedding::scatter(&dx, &orders.words).unwrap(),
        embedding::scatter(&dx, &orders.types).unwrap(),
    ]
}

/// Another thread sends batches while kernels that read earlier ones have not begun; each is dropped
/// as soon as its kernels are launched. With a wait or an event less, numbers are read before they
/// are there, or after they have gone.
#[test]
fn lists_that_are_sent_ahead_are_there_while_they_are_read() {
    let Some(gpu) = gpu() else { return };
    let dx = pair(&mut Random::new(1), &[5000, 9], DType::F32, &gpu);
    let count = 40;
    let (to_step, batches) = std::sync::mpsc::sync_channel(1);
    let device = gpu.clone();
    let thread = std::thread::spawn(move || {
        let mut uploader = Uploader::new(&device).unwrap();
        for index in 0..count {
            let lists = Lists::new(&some_batch(index)).sorted(2);
            to_step.send(uploader.send(lists).unwrap()).unwrap();
        }
    });
    let found: Vec<[Tensor; 3]> = batches
        .iter()
        .map(|batch| read_of(&batch.take().unwrap(), &dx[1]))
        .collect();
    thread.join().unwrap();
    assert_eq!(found.len(), count as usize);
    for (index, found) in (0..).zip(found) {
        let lists = Lists::new(&some_batch(index));
        compare("sent ahead", DType::F32, &[read_of(&lists, &dx[0]), found]);
        let lists = lists.sorted(2).on(&gpu).unwrap();
        let found = read_of(&lists, &dx[1]);
        compare("sent", DType::F32, &[read_of(&lists, &dx[0]), found]);
    }
}

#[test]
fn layer_norms_agree() {
    let Some(gpu) = gpu() else { return };
    for ((n, width), dtype) in SHAPES.iter().flat_map(|s| TYPES.map(|t| (*s, t))) {
        let mut random = Random::new(width as u64);
        let drop = some_dropout(0.2);
        let weight = pair(&mut random, &[width], DType::F32, &gpu);
        let bias = pair(&mut random, &[width], DType::F32, &gpu);
        let [x, residual, dy] = [(); 3].map(|()| pair(&mut random, &[n, width], dtype, &gpu));
        let dweight = targets(&[width], &gpu);
        let dbias = targets(&[width], &gpu);
        let results = [0, 1].map(|at| {
            let norm = Norm {
                weight: &weight[at],
                bias: &bias[at],
                eps: 1e-5,
            };
            let x = x[at].copy().unwrap();
            let (y, saved) =
                layer_norm::forward(norm, x, Some(&residual[at]), drop.as_ref()).unwrap();
            let dy = dy[at].copy().unwrap();
            let (dw, db) = (&dweight[at], &dbias[at]);
            let back = layer_norm::backward(&weight[at], &saved, dy, drop.as_ref(), dw, db);
            let back = back.unwrap();
            [
                y,
                back.residual,
                back.x,
                dw.tensor.clone(),
                db.tensor.clone(),
            ]
        });
        compare("LayerNorm", dtype, &results);
    }
}

/// Of the CPU's results and the GPU's.
fn compare<const N: usize>(what: &str, dtype: DType, results: &[[Tensor; N]; 2]) {
    compare_from(|_| 1e-3, what, dtype, results);
}

fn compare_from<const N: usize>(
    least: impl Fn(usize) -> f64,
    what: &str,
    dtype: DType,
    [here, there]: &[[Tensor; N]; 2],
) {
    for (i, (found, expected)) in there.iter().zip(here).enumerate() {
        let what = format!("{what} {i} {:?} {dtype:?}", expected.dims());
        near(&what, found, expected, (tolerance(dtype), least(i)));
    }
}

#[test]
fn embeddings_agree() {
    let Some(gpu) = gpu() else { return };
    for ((n, width), precision) in SHAPES
        .iter()
        .flat_map(|s| [Precision::F32, Precision::Bf16, Precision::F16].map(|p| (*s, p)))
    {
        let mut random = Random::new(width as u64);
        let word = pair(&mut random, &[5, width], DType::F32, &gpu);
        let types = pair(&mut random, &[900, width], DType::F32, &gpu);
        let weight = pair(&mut random, &[width], DType::F32, &gpu);
        let bias = pair(&mut random, &[width], DType::F32, &gpu);
        let ids = Numbers::from(random.ids(n, 5));
        let type_ids = Numbers::from(random.ids(n, 900));
        let drop = some_dropout(0.1);
        let dtype = precision.into();
        let dx = pair(&mut random, &[n, width], dtype, &gpu);
        let results = [0, 1].map(|at| {
            let tables = Tables {
                word: &word[at],
                types: &types[at],
                ids: &ids,
                type_ids: &type_ids,
            };
            let norm = Norm {
                weight: &weight[at],
                bias: &bias[at],
                eps: 1e-12,
            };
            let y = embedding::normalized(tables, norm, drop.as_ref(), precision).unwrap();
            let orders = Orders::new(&ids, &type_ids, 3);
            assert!(!orders.words.rows.contains(&3));
            let [words, types] = [&orders.words, &orders.types]
                .map(|order| embedding::scatter(&dx[at], order).unwrap());
            [y.0, words, types]
        });
        compare("embedding", dtype, &results);
    }
}

#[test]
fn linear_maps_agree() {
    let Some(gpu) = gpu() else { return };
    for ((n, width), dtype) in SHAPES.iter().flat_map(|s| TYPES.map(|t| (*s, t))) {
        let (mut random, outer) = (Random::new(width as u64), 2 * width);
        let weight = pair(&mut random, &[outer, width], dtype, &gpu);
        // Weights are f32 wherever they are.
        let weight = [weight[0].clone(), weight[1].to_dtype(DType::F32).unwrap()];
        let bias = pair(&mut random, &[outer], DType::F32, &gpu);
        let [x, pre, onto] = [(); 3].map(|()| pair(&mut random, &[n, width], dtype, &gpu));
        let dy = pair(&mut random, &[n, outer], dtype, &gpu);
        let (dweight, dbias) = (targets(&[outer, width], &gpu), targets(&[outer], &gpu));
        let results = [0, 1].map(|at| {
            let map = Map {
                weight: &weight[at],
                bias: &bias[at],
            };
            let precision = Precision::F32;
            let x_at = Factor::from(x[at].clone());
            let (inner, activated) =
                linear::forward_activated(precision, &x_at, map, Activation::Gelu).unwrap();
            let [plain] = linear::forward(precision, &x_at, [map]).unwrap();
            let dy = OutputGradient::from(dy[at].clone());
            let maps = [MapGradient {
                weight: &weight[at],
                dy: &dy,
                dweight: &dweight[at],
                dbias: &dbias[at],
            }];
            let back =
                |to: InputGradient<'_>| linear::backward(precision, &x_at, &maps, to).unwrap();
            let through = (Activation::Gelu, &pre[at]);
            let through = linear::backward_through(precision, &x_at, maps[0], through).unwrap();
            let through = through.to_tensor().unwrap();
            let onto_copy = onto[at].copy().unwrap();
            let added = back(InputGradient::Onto(&onto_copy));
            let new = back(InputGradient::New);
            let relu = activation::backward(Activation::Relu, &pre[at], onto[at].copy().unwrap());
            let (dw, db) = (dweight[at].tensor.clone(), dbias[at].tensor.clone());
            [
                inner,
                activated,
                plain,
                through,
                added,
                new,
                relu.unwrap(),
                dw,
                db,
            ]
        });
        compare("linear", dtype, &results);
    }
}

#[test]
fn attention_agrees() {
    let Some(gpu) = gpu() else { return };
    let batches: [&[u32]; 5] = [
        &[0, 1],
        &[0, 64, 64, 129],
        &[0, 0, 2, 3, 203, 267, 700],
        &[0, 1024],
        &[0, 5, 1500, 1501],
    ];
    let heads = [(1, 32), (2, 64), (2, 96), (1, 128), (3, 20), (1, 256)];
    let count = if is_small() { 3 } else { batches.len() };
    attention_of(&gpu, &batches[..count], &heads);
}

/// Every kernel of attention on little, for a tool that looks at each access to memory.
#[test]
fn small_attention_agrees() {
    let Some(gpu) = gpu() else { return };
    let heads = [(2, 32), (1, 64), (1, 96), (1, 128), (1, 20)];
    attention_of(&gpu, &[&[0, 1, 71, 200]], &heads);
}

fn attention_of(gpu: &Device, batches: &[&[u32]], heads: &[(usize, usize)]) {
    for (starts, (num_heads, head_width)) in
        (batches.iter()).flat_map(|b| heads.iter().map(|heads| (*b, *heads)))
    {
        let starts = &Numbers::from(starts);
        for (dtype, drop) in TYPES
            .iter()
            .flat_map(|t| [(*t, None), (*t, some_dropout(0.1))])
        {
            let (n, width) = (starts[starts.len() - 1] as usize, num_heads * head_width);
            let mut random = Random::new((n + width) as u64);
            let [q, k, v, dcontext] = [(); 4].map(|()| pair(&mut random, &[n, width], dtype, gpu));
            let settings = Settings {
                num_heads,
                cells: starts.into(),
                dropout: drop.as_ref(),
                precision: Precision::F32,
            };
            let results = [0, 1].map(|at| {
                let run = || {
                    let (q, k, v) = (&q[at], &k[at], &v[at]);
                    let (context, log_sums) = attention::forward(settings, q, k, v).unwrap();
                    let saved = Saved {
                        q,
                        k,
                        v,
                        context: &context,
                        log_sums: &log_sums,
                    };
                    let back = attention::backward(settings, saved, &dcontext[at]);
                    let [dq, dk, dv] = back.unwrap().map(|dx| dx.to_tensor().unwrap());
                    [context, log_sums, dq, dk, dv]
                };
                let (once, again) = (run(), run());
                for (once, again) in once.iter().zip(again) {
                    let (once, again) = (to_host(once).unwrap(), to_host(&again).unwrap());
                    assert!(wide(&once) == wide(&again), "two runs differ");
                }
                once
            });
            // With a single key queries and keys have no gradient: what is there is the rounding of
            // the context, times numbers up to 4 or so.
            let is_rounding = |i| n == 1 && matches!(i, 2 | 3);
            let least = |i| if is_rounding(i) { 4.0 } else { 1e-3 };
            compare_from(least, "attention", dtype, &results);
        }
    }
}

/// Milliseconds of attention forward and backward: 16 cells of 1024 tokens, 12 heads of 64, bf16, with
/// and without dropout, as `scripts/bench/attention_gpu.py` times PyTorch's.
#[test]
#[ignore = "takes a GPU's time"]
fn speed_of_attention() {
    let Some(gpu) = gpu() else { return };
    let length = if is_small() { 8 } else { 1024 };
    let starts: Numbers = (0..=16).map(|cell| length * cell).collect();
    let shape = [16 * length as usize, 12 * 64];
    let mut random = Random::new(1);
    let [q, k, v, dcontext] =
        [(); 4].map(|()| pair(&mut random, &shape, DType::BF16, &gpu)[1].clone());
    for (name, drop) in [("plain", None), ("dropout", some_dropout(0.1))] {
        let settings = Settings {
            num_heads: 12,
            cells: (&starts).into(),
            dropout: drop.as_ref(),
            precision: Precision::Bf16,
        };
        let run = || {
            let (context, log_sums) = attention::forward(settings, &q, &k, &v).unwrap();
            let saved = Saved {
                q: &q,
                k: &k,
                v: &v,
                context: &context,
                log_sums: &log_sums,
            };
            attention::backward(settings, saved, &dcontext).unwrap();
        };
        let mut times: Vec<f64> = (0..8)
            .map(|_| {
                gpu.synchronize().unwrap();
                let began = std::time::Instant::now();
                (0..10).for_each(|_| run());
                gpu.synchronize().unwrap();
                100.0 * began.elapsed().as_secs_f64()
            })
            .skip(2)
            .collect();
        times.sort_by(f64::total_cmp);
        println!("speed {name}: {:.3} ms", times[times.len() / 2]);
    }
}

#[test]
fn losses_rows_and_dropout_agree() {
    let Some(gpu) = gpu() else { return };
    for ((n, width), dtype) in SHAPES.iter().flat_map(|s| TYPES.map(|t| (*s, t))) {
        let mut random = Random::new(width as u64);
        let logits = pair(&mut random, &[n, width], dtype, &gpu);
        let labels = random.ids(n, width);
        let weights: Vec<f32> = (0..width).map(|i| 0.5 + i as f32 / 8.0).collect();
        for (smoothing, spread) in [(0.0, Spread::ByLabel), (0.3, Spread::ByClass)] {
            let settings = cross_entropy::Settings {
                smoothing,
                class_weights: (smoothing > 0.0).then_some(&weights),
                spread,
                gradient_scale: None,
            };
            let results = [0, 1].map(|at| {
                let only = cross_entropy::forward(&logits[at], &labels, settings).unwrap();
                let copy = logits[at].copy().unwrap();
                let (sum, weight, gradient) =
                    cross_entropy::forward_backward(copy, &labels, settings).unwrap();
                let sum = sum.wait().unwrap();
                assert!((only.sum - sum).abs() <= 1e-6 * sum.abs());
                assert_eq!(only.weight, weight);
                [from_vec(vec![sum as f32], 1).unwrap(), gradient]
            });
            compare("cross entropy", dtype, &results);
        }
        let positions: Vec<u32> = (0..n as u32).rev().step_by(2).collect();
        let results = [0, 1].map(|at| {
            let picked = rows::gather(&logits[at], &positions).unwrap();
            let back = rows::scatter(&picked, &positions, n).unwrap();
            let dropped = dropout::apply(picked.copy().unwrap(), some_dropout(0.4).as_ref());
            [picked, back, dropped.unwrap()]
        });
        compare("rows", dtype, &results);
        assert!(rows::scatter(&logits[1].narrow(0, 0, 1).unwrap(), &[9999], n).is_err());
    }
}

#[test]
fn optimizer_steps_and_norms_agree() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(11);
    let shapes: [&[usize]; 4] = [&[3], &[700, 24], &[129, 128], &[1]];
    let touched: Numbers = (0..700).step_by(7).collect();
    let seen = [true; 700];
    let of = |shape: &[usize], random: &mut Random| pair(random, shape, DType::F32, &gpu);
    let tensors: Vec<[[Tensor; 2]; 4]> = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| {
            let of_gradient: &[usize] = if i == 1 { &[100, 24] } else { shape };
            let second = random.tensor(shape).abs().unwrap();
            let second = [second.clone(), second.to_device(&gpu).unwrap()];
            let (weights, first) = (of(shape, &mut random), of(shape, &mut random));
            [weights, first, second, of(of_gradient, &mut random)]
        })
        .collect();
    let settings = adamw::Settings {
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.99,
        eps: 1e-6,
        weight_decay: 0.1,
        step: 3,
        scale: 0.25,
    };
    let norms = [0, 1].map(|at| {
        let parameters: Vec<Moved<'_>> = tensors
            .iter()
            .enumerate()
            .map(|(i, [weights, first, second, gradient])| Moved {
                weights: &weights[at],
                first: &first[at],
                second: &second[at],
                gradient: match i {
                    1 => Gradient::Rows {
                        rows: &touched,
                        values: &gradient[at],
                        seen: &seen,
                    },
                    _ => Gradient::Dense(&gradient[at]),
                },
                settings,
            })
            .collect();
        adamw::step(&parameters).unwrap();
        let gradients: Vec<&Tensor> = tensors.iter().map(|t| &t[3][at]).collect();
        grad_norm::sums_of_squares(&gradients)
            .unwrap()
            .iter()
            .sum::<f64>()
    });
    assert!((norms[0] - norms[1]).abs() <= 1e-6 * norms[0], "{norms:?}");
    for [weights, first, second, _] in &tensors {
        for [here, there] in [weights, first, second] {
            near("AdamW", there, here, (1e-5, 1e-3));
        }
    }
}
