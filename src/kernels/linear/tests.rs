//! Linear maps and their gradients against sums in f64, finite differences and one another.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::buffers::Target;
use crate::kernels::testing::{
    Random, assert_close, inner, same_for_any_threads, slopes, target, wide,
};

/// x [n, i], w [o, i], b [o] → [n, o]
fn reference(x: &[f64], w: &[f64], b: &[f64], i: usize) -> Vec<f64> {
    let rows = x.chunks(i);
    let row =
        |x: &[f64]| -> Vec<f64> { w.chunks(i).zip(b).map(|(w, b)| inner(x, w) + b).collect() };
    rows.flat_map(row).collect()
}

fn through(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let [y] = forward(
        Precision::F32,
        &Factor::from(x.clone()),
        [Map { weight, bias }],
    )?;
    Ok(y)
}

fn back(
    [dy, x, weight]: [&Tensor; 3],
    dweight: &Target,
    dbias: &Target,
    to: InputGradient<'_>,
) -> Tensor {
    let map = MapGradient {
        weight,
        dy: &OutputGradient::from(dy.clone()),
        dweight,
        dbias,
    };
    backward(Precision::F32, &Factor::from(x.clone()), &[map], to).unwrap()
}

#[test]
fn agrees_with_the_reference_and_with_finite_differences() {
    for (n, i, o) in [(1, 1, 1), (3, 5, 2), (2, 4, 7), (9, 3, 33)] {
        let mut random = Random::new((n * 100 + i * 10 + o) as u64);
        let (x, w, b) = (
            random.tensor(&[n, i]),
            random.tensor(&[o, i]),
            random.tensor(&[o]),
        );
        let dy = random.tensor(&[n, o]);
        let y = through(&x, &w, &b).unwrap();
        let (x64, w64, b64, dy64) = (wide(&x), wide(&w), wide(&b), wide(&dy));
        assert_close("y", &wide(&y), &reference(&x64, &w64, &b64, i));
        let (dw, db) = (target(&[o, i], 0.0), target(&[o], 1.0));
        let dx = back([&dy, &x, &w], &dw, &db, InputGradient::New);
        let loss = |x: &[f64], w: &[f64], b: &[f64]| inner(&reference(x, w, b, i), &dy64);
        assert_close("dx", &wide(&dx), &slopes(&x64, |x| loss(x, &w64, &b64)));
        assert_close(
            "dw",
            &wide(&dw.tensor),
            &slopes(&w64, |w| loss(&x64, w, &b64)),
        );
        let expected: Vec<f64> = slopes(&b64, |b| loss(&x64, &w64, b))
            .iter()
            .map(|x| x + 1.0)
            .collect();
        assert_close("db onto ones", &wide(&db.tensor), &expected);
    }
}

/// Of shapes that take several tiles: both gradients are products themselves.
#[test]
fn shapes_of_many_tiles_agree() {
    for seed in 0..6 {
        let mut random = Random::new(50 + seed);
        let [n, i, o] = [(); 3].map(|()| 1 + random.below(230));
        let [x, w, b] = [vec![n, i], vec![o, i], vec![o]].map(|shape| random.tensor(&shape));
        let dy = random.tensor(&[n, o]);
        let [x64, w64, b64, dy64] = [&x, &w, &b, &dy].map(wide);
        let y = through(&x, &w, &b).unwrap();
        assert_close("y", &wide(&y), &reference(&x64, &w64, &b64, i));
        let (dw, db) = (target(&[o, i], 0.0), target(&[o], 0.0));
        let dx = back([&dy, &x, &w], &dw, &db, InputGradient::New);
        let turned = |m: &[f64], columns: usize| -> Vec<f64> {
            (0..columns)
                .flat_map(|c| m.iter().copied().skip(c).step_by(columns))
                .collect()
        };
        let none = |count| vec![0.0; count];
        let expected = reference(&dy64, &turned(&w64, i), &none(i), o);
        assert_close("dx", &wide(&dx), &expected);
        let expected = reference(&turned(&dy64, o), &turned(&x64, i), &none(i), n);
        assert_close("dw", &wide(&dw.tensor), &expected);
        let ones = vec![1.0; n];
        let expected = reference(&ones, &turned(&dy64, o), &none(o), n);
        assert_close("db", &wide(&db.tensor), &expected);
    }
}

#[test]
fn no_rows_give_no_rows_and_zero_gradients() {
    let mut random = Random::new(1);
    let (x, w, b) = (
        random.tensor(&[0, 4]),
        random.tensor(&[3, 4]),
        random.tensor(&[3]),
    );
    let y = through(&x, &w, &b).unwrap();
    assert_eq!(y.dims(), [0, 3]);
    let (dw, db) = (target(&[3, 4], 0.0), target(&[3], 0.0));
    let dx = back([&y, &x, &w], &dw, &db, InputGradient::New);
    assert_eq!(dx.dims(), [0, 4]);
    assert_eq!(
        (wide(&dw.tensor), wide(&db.tensor)),
        (vec![0.0; 12], vec![0.0; 3])
    );
    assert!(through(&x, &random.tensor(&[3, 5]), &b).is_err());
    assert!(through(&x, &w, &random.tensor(&[4])).is_err());
}

/// Three maps of one input at once, on to a gradient and through an activation, against one
/// map after the other.
#[test]
fn together_is_as_one_by_one() {
    let mut random = Random::new(4);
    let x = random.tensor(&[37, 20]);
    let weights = [(); 3].map(|()| random.tensor(&[18, 20]));
    let biases = [(); 3].map(|()| random.tensor(&[18]));
    let dys = [(); 3].map(|()| random.tensor(&[37, 18]));
    let maps = [0, 1, 2].map(|i| Map {
        weight: &weights[i],
        bias: &biases[i],
    });
    let x_factor = &Factor::from(x.clone());
    let ys = forward(Precision::F32, x_factor, maps).unwrap();
    let targets = [(); 3].map(|()| (target(&[18, 20], 2.0), target(&[18], 0.0)));
    let outputs = dys.clone().map(OutputGradient::from);
    let gradients = [0, 1, 2].map(|i| MapGradient {
        weight: &weights[i],
        dy: &outputs[i],
        dweight: &targets[i].0,
        dbias: &targets[i].1,
    });
    let onto = random.tensor(&[37, 20]);
    let mut expected = wide(&onto);
    let found = backward(
        Precision::F32,
        x_factor,
        &gradients,
        InputGradient::Onto(&onto),
    )
    .unwrap();
    for i in 0..3 {
        let y = through(&x, &weights[i], &biases[i]).unwrap();
        assert_eq!(wide(&ys[i]), wide(&y));
        let (dw, db) = (target(&[18, 20], 0.0), target(&[18], 0.0));
        let sides = [&dys[i], &x, &weights[i]];
        let dx = back(sides, &dw, &db, InputGradient::New);
        expected
            .iter_mut()
            .zip(wide(&dx))
            .for_each(|(sum, dx)| *sum += dx);
        let onto_twos: Vec<f64> = wide(&dw.tensor).iter().map(|dw| dw + 2.0).collect();
        assert_close("dw", &wide(&targets[i].0.tensor), &onto_twos);
        assert_eq!(wide(&targets[i].1.tensor), wide(&db.tensor));
    }
    assert_close("dx", &wide(&found), &expected);
    let gelu = Activation::Gelu;
    let (pre, after) = forward_activated(Precision::F32, x_factor, maps[0], gelu).unwrap();
    assert_eq!(wide(&pre), wide(&ys[0]));
    let mut separate = vec![0.0; pre.elem_count()];
    gelu.apply(&read::<f32>(&pre).unwrap(), &mut separate);
    assert_eq!(&*read::<f32>(&after).unwrap(), &separate[..]);
    let (dw, db) = (target(&[18, 20], 0.0), target(&[18], 0.0));
    let sides = [&dys[0], &x, &weights[0]];
    let dx = back(sides, &dw, &db, InputGradient::New);
    let before = random.tensor(&[37, 20]);
    let through = (gelu, &before);
    let found = backward_through(Precision::F32, x_factor, gradients[0], through).unwrap();
    let separate = crate::kernels::activation::backward(gelu, &before, dx).unwrap();
    assert_eq!(wide(found.rows.tensor().unwrap()), wide(&separate));
}

/// bf16 has 8 bits: each factor is off by one part in 256 at most.
#[test]
fn bf16_is_near_f32() {
    let mut random = Random::new(5);
    let (x, weight, bias) = (
        random.tensor(&[70, 40]),
        random.tensor(&[50, 40]),
        random.tensor(&[50]),
    );
    let x = Factor::from(x);
    let dy = OutputGradient::from(random.tensor(&[70, 50]));
    let run = |precision| {
        let map = Map {
            weight: &weight,
            bias: &bias,
        };
        let [y] = forward(precision, &x, [map]).unwrap();
        let (dweight, dbias) = (&target(&[50, 40], 0.0), &target(&[50], 0.0));
        let map = MapGradient {
            weight: &weight,
            dy: &dy,
            dweight,
            dbias,
        };
        let dx = backward(precision, &x, &[map], InputGradient::New).unwrap();
        [y, dx, dweight.tensor.clone(), dbias.tensor.clone()].map(|t| wide(&t))
    };
    for (exact, rounded) in run(Precision::F32).iter().zip(run(Precision::Bf16)) {
        let size = (inner(exact, exact) / exact.len() as f64).sqrt();
        let errors: Vec<f64> = exact.iter().zip(rounded).map(|(a, b)| a - b).collect();
        assert!((inner(&errors, &errors) / errors.len() as f64).sqrt() < 0.005 * size);
    }
}

#[test]
fn threads_do_not_matter() {
    let mut random = Random::new(2);
    let (x, weight, bias) = (
        random.tensor(&[701, 65]),
        random.tensor(&[130, 65]),
        random.tensor(&[130]),
    );
    let x = Factor::from(x);
    let dy = OutputGradient::from(random.tensor(&[701, 130]));
    for precision in [Precision::F32, Precision::Bf16] {
        same_for_any_threads(|| {
            let (dweight, dbias) = (&target(&[130, 65], 0.0), &target(&[130], 0.0));
            let map = Map {
                weight: &weight,
                bias: &bias,
            };
            let [y] = forward(precision, &x, [map]).unwrap();
            let map = MapGradient {
                weight: &weight,
                dy: &dy,
                dweight,
                dbias,
            };
            let dx = backward(precision, &x, &[map], InputGradient::New).unwrap();
            vec![y, dx, dweight.tensor.clone(), dbias.tensor.clone()]
        });
    }
}

/// A feed-forward part and its way back in bf16: rows that were rounded where they were made, against
/// rows that every product rounds for itself. The same numbers go into the products.
#[test]
fn rounded_early_is_as_rounded_late() {
    for [n, d, f] in [
        [70, 40, 130],
        [33, 64, 32],
        [1, 3, 5],
        [17, 16, 48],
        [129, 100, 257],
    ] {
        let mut random = Random::new((n + d + f) as u64);
        let [x, dy, pre] = [[n, d], [n, d], [n, f]].map(|shape| random.tensor(&shape));
        let [first, second] = [[f, d], [d, f]].map(|shape| random.tensor(&shape));
        let biases = [f, d].map(|width| random.tensor(&[width]));
        let gelu = Activation::Gelu;
        let precision = Precision::Bf16;
        let run = |early: bool| {
            let maps = [&first, &second].into_iter().zip(&biases);
            let maps: Vec<Map<'_>> = maps.map(|(weight, bias)| Map { weight, bias }).collect();
            let rows = match early {
                true => Factor::new(precision, &x).unwrap(),
                false => Factor::from(x.clone()),
            };
            let (inner, activated) = match early {
                true => forward_activated_factor(precision, &rows, maps[0], gelu).unwrap(),
                false => {
                    let (inner, after) =
                        forward_activated(precision, &rows, maps[0], gelu).unwrap();
                    (inner, Factor::from(after))
                }
            };
            let [y] = forward(precision, &activated, [maps[1]]).unwrap();
            let targets = [[f, d], [d, f]].map(|shape| target(&shape, 1.0));
            let sums = [f, d].map(|width| target(&[width], 1.0));
            let gradient = |i: usize, dy| MapGradient {
                weight: maps[i].weight,
                dy,
                dweight: &targets[i],
                dbias: &sums[i],
            };
            let (dy, through) = (OutputGradient::from(dy.clone()), (gelu, &pre));
            let second = gradient(1, &dy);
            let dinner = match early {
                true => backward_through(precision, &activated, second, through).unwrap(),
                false => {
                    let dx = backward(precision, &activated, &[second], InputGradient::New);
                    let dx = crate::kernels::activation::backward(gelu, &pre, dx.unwrap());
                    OutputGradient::from(dx.unwrap())
                }
            };
            let first = gradient(0, &dinner);
            let dx = backward(precision, &rows, &[first], InputGradient::New).unwrap();
            let [first, second] = targets.map(|target| target.tensor);
            let sums = sums.map(|target| wide(&target.tensor));
            ([y, inner, dx, first, second].map(|t| wide(&t)), sums)
        };
        let (early, late) = (run(true), run(false));
        assert_eq!(early.0, late.0, "{n} {d} {f}");
        for (early, late) in early.1.iter().zip(&late.1) {
            assert_close("sums", early, late);
        }
        same_for_any_threads(|| {
            let map = Map {
                weight: &first,
                bias: &biases[0],
            };
            let rows = Factor::new(precision, &x).unwrap();
            let (inner, after) = forward_activated_factor(precision, &rows, map, gelu).unwrap();
            let (dw, db) = (target(&[d, f], 0.0), target(&[d], 0.0));
            let dy = OutputGradient::from(dy.clone());
            let map = MapGradient {
                weight: &second,
                dy: &dy,
                dweight: &dw,
                dbias: &db,
            };
            let dinner = backward_through(precision, &after, map, (gelu, &pre)).unwrap();
            let sums = from_vec(dinner.sums.unwrap(), f).unwrap();
            vec![inner, dw.tensor, db.tensor, sums]
        });
    }
}
