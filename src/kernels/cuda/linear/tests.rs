//! Linear maps whose products end in epilogues beside those that make passes: results, what is
//! added, what is empty or odd, which plans are kept, and how long both take.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::time::Instant;

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::buffers::to_host;
use crate::kernels::cuda::epilogue::{MOST_PLANS, plans};
use crate::kernels::cuda::tests::{TYPES, gpu, is_small, near, pair, tolerance};
use crate::kernels::device;
use crate::kernels::linear::OutputGradient;
use crate::kernels::testing::{Random, wide};

/// Tokens, width of the input and of the output: rows in step with 16 bytes, and odd ones.
const SHAPES: [[usize; 3]; 5] = [
    [130, 64, 40],
    [1, 8, 768],
    [301, 200, 8],
    [7, 33, 66],
    [9, 16, 5],
];

/// What goes through a map.
struct Case {
    x: [Tensor; 2],
    dy: [Tensor; 2],
    weight: [Tensor; 2],
    bias: [Tensor; 2],
}

impl Case {
    fn new([n, inner, outer]: [usize; 3], dtype: DType, device: &Device) -> Self {
        let mut random = Random::new((n + outer) as u64);
        let weight = pair(&mut random, &[outer, inner], dtype, device);
        Self {
            x: pair(&mut random, &[n, inner], dtype, device),
            dy: pair(&mut random, &[n, outer], dtype, device),
            weight: [weight[0].clone(), weight[1].to_dtype(DType::F32).unwrap()],
            bias: pair(&mut random, &[outer], DType::F32, device),
        }
    }

    fn forward(&self, by: By, activation: Option<Activation>) -> Vec<Tensor> {
        let map = Map {
            weight: &self.weight[1],
            bias: &self.bias[1],
        };
        let (y, activated) = forward_by(by, &self.x[1], map, activation).unwrap();
        [y].into_iter().chain(activated).collect()
    }

    /// Places for the gradients of weight and bias that hold `start`, written over or added to.
    fn targets(&self, start: f64, add: [bool; 2]) -> [Target; 2] {
        let place = |like: &Tensor, add| Target {
            tensor: like.ones_like().unwrap().affine(start, 0.0).unwrap(),
            add,
        };
        [place(&self.weight[1], add[0]), place(&self.bias[1], add[1])]
    }

    /// The gradient of x; those of weight and bias are left in `targets`.
    fn backward(&self, by: By, [dweight, dbias]: &[Target; 2]) -> Tensor {
        let dy = OutputGradient::from(self.dy[1].clone());
        let map = MapGradient {
            weight: &self.weight[1],
            dy: &dy,
            dweight,
            dbias,
        };
        backward_by(by, &self.x[1], &[map], InputGradient::New).unwrap()
    }

    /// What `forward` without an activation and `backward` should give, in f32.
    fn expected(&self, start: f64, add: [bool; 2]) -> [Tensor; 4] {
        let turned = |tensor: &Tensor| tensor.t().unwrap().contiguous().unwrap();
        let ([x, _], [dy, _], [weight, _]) = (&self.x, &self.dy, &self.weight);
        let start = |add| if add { start } else { 0.0 };
        let y = x.matmul(&turned(weight)).unwrap();
        let dweight = turned(dy).matmul(x).unwrap();
        [
            y.broadcast_add(&self.bias[0]).unwrap(),
            dy.matmul(weight).unwrap(),
            dweight.affine(1.0, start(add[0])).unwrap(),
            dy.sum(0).unwrap().affine(1.0, start(add[1])).unwrap(),
        ]
    }
}

#[test]
fn epilogues_do_what_passes_do() {
    let Some(device) = gpu() else { return };
    for (shape, dtype) in SHAPES.iter().flat_map(|s| TYPES.map(|t| (*s, t))) {
        let case = Case::new(shape, dtype, &device);
        for add in [[false; 2], [true; 2], [true, false], [false, true]] {
            let expected = case.expected(0.25, add);
            for by in [By::Products, By::Passes] {
                let [y] = <[Tensor; 1]>::try_from(case.forward(by, None)).unwrap();
                let targets = case.targets(0.25, add);
                let dx = case.backward(by, &targets);
                let found = [&y, &dx, &targets[0].tensor, &targets[1].tensor];
                for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let what = format!("{by:?} {i} {shape:?} add {add:?} {dtype:?}");
                    near(&what, found, expected, (tolerance(dtype), 1e-3));
                }
            }
        }
        for activation in [Activation::Gelu, Activation::Relu] {
            let passes = case.forward(By::Passes, Some(activation));
            let products = case.forward(By::Products, Some(activation));
            for (i, (found, expected)) in products.iter().zip(&passes).enumerate() {
                let what = format!("{activation:?} {i} {shape:?} {dtype:?}");
                let expected = to_host(expected).unwrap();
                near(&what, found, &expected, (tolerance(dtype), 1e-3));
            }
        }
    }
}

#[test]
fn no_tokens_have_no_gradients() {
    let Some(device) = gpu() else { return };
    let (gpu, mut case) = (
        Gpu::new(&device).unwrap(),
        Case::new([1, 16, 8], DType::BF16, &device),
    );
    case.x[1] = gpu.fresh((0, 16), DType::BF16).unwrap();
    case.dy[1] = gpu.fresh((0, 8), DType::BF16).unwrap();
    for (by, add) in [By::Products, By::Passes]
        .map(|by| [(by, false), (by, true)])
        .concat()
    {
        let both = case.forward(by, Some(Activation::Gelu));
        assert!(both.iter().all(|tensor| tensor.dims() == [0, 8]));
        let targets = case.targets(0.25, [add; 2]);
        assert_eq!(case.backward(by, &targets).dims(), [0, 16]);
        let left = if add { 0.25 } else { 0.0 };
        for target in targets {
            let found = wide(&to_host(&target.tensor).unwrap());
            assert!(found.iter().all(|x| *x == left), "{by:?} {add}: {found:?}");
        }
    }
    assert_eq!(plans(&gpu).unwrap(), [0, 0]);
}

#[test]
fn epilogues_give_the_same_bits_again() {
    let Some(device) = gpu() else { return };
    for dtype in TYPES {
        let case = Case::new([1500, 64, 72], dtype, &device);
        let run = || {
            let targets = case.targets(0.5, [true; 2]);
            let dx = case.backward(By::Products, &targets);
            let back = [dx].into_iter().chain(targets.map(|target| target.tensor));
            let all = case.forward(By::Products, None).into_iter().chain(back);
            let flat = all.map(|tensor| to_host(&tensor).unwrap().flatten_all().unwrap());
            Tensor::cat(&flat.collect::<Vec<_>>(), 0).unwrap()
        };
        let (once, again) = (run().to_vec1::<f32>(), run().to_vec1::<f32>());
        assert!(once.unwrap() == again.unwrap(), "{dtype:?}");
    }
}

#[test]
fn tf32_is_as_the_device_was_opened() {
    let Ok((device, _)) = device::cuda(0, true) else {
        return;
    };
    let case = Case::new([24, 64, 40], DType::F32, &device);
    let [found] = <[Tensor; 1]>::try_from(case.forward(By::Products, None)).unwrap();
    let [passes] = <[Tensor; 1]>::try_from(case.forward(By::Passes, None)).unwrap();
    let [expected, ..] = case.expected(0.0, [false; 2]);
    near("tf32", &found, &expected, (2e-3, 1e-3));
    near("tf32, passes", &passes, &expected, (2e-3, 1e-3));
    if is_small() {
        // A real GPU may have no such algorithm for so little.
        near(
            "beside passes",
            &found,
            &to_host(&passes).unwrap(),
            (1e-6, 1e-3),
        );
        let errors = wide(&to_host(&found).unwrap())
            .into_iter()
            .zip(wide(&expected));
        let worst = errors.fold(0.0, |worst: f64, (a, b)| worst.max((a - b).abs()));
        assert!(worst > 1e-4, "factors are not rounded: {worst}");
    }
}

#[test]
fn plans_are_asked_for_once() {
    let Some(device) = gpu() else { return };
    let gpu = Gpu::new(&device).unwrap();
    let count = || plans(&gpu).unwrap();
    let case = Case::new([24, 32, 40], DType::BF16, &device);
    assert_eq!(count(), [0, 0]);
    case.forward(By::Passes, None);
    assert_eq!(count(), [0, 0]);
    case.forward(By::Products, None);
    let [found, missing] = count();
    assert_eq!(found + missing, 1);
    case.forward(By::Products, Some(Activation::Gelu));
    assert_eq!(count(), [found, missing]);
    case.backward(By::Products, &case.targets(0.0, [false; 2]));
    case.backward(By::Products, &case.targets(0.0, [true; 2]));
    assert_eq!(count().iter().sum::<usize>(), 2);
    // Rows out of step with 16 bytes: nothing is asked.
    for shape in [[24, 33, 40], [24, 32, 41]] {
        let other = Case::new(shape, DType::BF16, &device);
        other.forward(By::Products, None);
        other.backward(By::Products, &other.targets(0.0, [false; 2]));
    }
    assert_eq!(count().iter().sum::<usize>(), 2);
    Case::new([25, 32, 40], DType::BF16, &device).forward(By::Products, None);
    Case::new([24, 32, 40], DType::F16, &device).forward(By::Products, None);
    assert_eq!(count().iter().sum::<usize>(), 4);
    if is_small() {
        // The device that is not there has an algorithm for all of them, unless it is told not to.
        let none = std::env::var("STANDIN_EPILOGUES").is_ok_and(|which| which == "none");
        assert_eq!(count(), if none { [0, 4] } else { [4, 0] });
    }
    for n in 0..MOST_PLANS {
        Case::new([100 + n, 8, 8], DType::BF16, &device).forward(By::Products, None);
        assert!(count().iter().sum::<usize>() <= MOST_PLANS);
    }
}

#[test]
fn vectors_that_are_out_of_step_get_their_pass() {
    let Some(device) = gpu() else { return };
    let case = Case::new([24, 32, 40], DType::F32, &device);
    let gpu = Gpu::new(&device).unwrap();
    let long = Tensor::zeros(41, DType::F32, &device).unwrap();
    let dweight = Tensor::zeros((40, 32), DType::F32, &device).unwrap();
    let [dweight, dbias] =
        [dweight, long.narrow(0, 1, 40).unwrap()].map(|tensor| Target { tensor, add: false });
    let sides = (&case.x[1], &case.dy[1]);
    parameter_gradients(&gpu, By::Products, sides, [&dweight, &dbias]).unwrap();
    assert_eq!(plans(&gpu).unwrap(), [0, 0]);
    let expected = case.expected(0.0, [false; 2]);
    near("dweight", &dweight.tensor, &expected[2], (1e-4, 1e-3));
    near("dbias", &dbias.tensor, &expected[3], (1e-4, 1e-3));
    assert_eq!(long.to_vec1::<f32>().unwrap()[0], 0.0);
}

#[test]
fn a_vector_of_another_type_or_length_is_refused() {
    let Some(device) = gpu() else { return };
    let case = Case::new([24, 32, 40], DType::BF16, &device);
    let gpu = Gpu::new(&device).unwrap();
    let y = gpu.fresh((24, 40), DType::BF16).unwrap();
    let weight = case.weight[1].to_dtype(DType::BF16).unwrap();
    let product = Product {
        left: Side::as_it_lies(&case.x[1]),
        right: Side::turned(&weight),
        to: &y,
        add: false,
    };
    let short = Tensor::zeros(24, DType::BF16, &device).unwrap();
    for vector in [&case.bias[1], &short] {
        let epilogue = Epilogue::Bias;
        let ended = Ended {
            product,
            epilogue,
            vector,
        };
        let error = ended.run(&gpu).unwrap_err().to_string();
        assert!(error.contains("Bias takes a vector of 40 BF16"), "{error}");
    }
}

/// Milliseconds of the first map of the base model's feed-forward part, forward with GELU and
/// backward, by epilogues and by passes in turn: 16,384 tokens, 768 → 3072, bf16.
#[test]
#[ignore = "takes a GPU's time"]
fn speed_of_linear_maps() {
    let Some(device) = gpu() else { return };
    let shape = if is_small() {
        [32, 16, 64]
    } else {
        [16_384, 768, 3072]
    };
    let case = Case::new(shape, DType::BF16, &device);
    let forward = |by| drop(case.forward(by, Some(Activation::Gelu)));
    let targets = case.targets(0.0, [false; 2]);
    let backward = |by| drop(case.backward(by, &targets));
    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..9 {
        let ways = [
            (By::Products, &forward as &dyn Fn(By)),
            (By::Passes, &forward),
            (By::Products, &backward),
            (By::Passes, &backward),
        ];
        for (times, (by, act)) in times.iter_mut().zip(ways) {
            device.synchronize().unwrap();
            let began = Instant::now();
            (0..10).for_each(|_| act(by));
            device.synchronize().unwrap();
            times.push(100.0 * began.elapsed().as_secs_f64());
        }
    }
    for (name, mut times) in ["forward", "forward-passes", "backward", "backward-passes"]
        .into_iter()
        .zip(times)
    {
        // The first round makes plans.
        let times = &mut times[1..];
        times.sort_by(f64::total_cmp);
        println!("speed {name}: {:.3} ms", times[times.len() / 2]);
    }
    let [found, missing] = plans(&Gpu::new(&device).unwrap()).unwrap();
    println!("epilogues: {found} of {}", found + missing);
}
