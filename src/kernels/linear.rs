//! Linear: y = x Wᵀ + b with W stored [out, in], as Hugging Face does; no transpose is copied.
//!
//! Maps of one input (query, key and value) are computed together, and so are all gradients of a
//! map: one pass of the threads each ([`super::products`]). Bias and activation are added to a tile
//! of the result while it is in cache.

use candle_core::{Result, Tensor, bail};

use super::activation::Activation;
use super::matrix::{Fresh, Matrix, Shared};
use super::parallel::column_sums;
use super::products::{Precision, Products};
use super::profile::span;
use super::simd::vectorized;
use crate::buffers::{Slice, Target, from_vec, read, write_all};

/// Weight `[O, I]` and bias `[O]` of a map.
#[derive(Debug, Clone, Copy)]
pub struct Map<'a> {
    /// The weight.
    pub weight: &'a Tensor,
    /// The bias.
    pub bias: &'a Tensor,
}

/// x `[N, I]` through each of `maps` → `[N, O]` each; all have the same O.
///
/// # Errors
/// Shapes that do not fit, or tensors that are not contiguous f32 on the CPU.
pub fn forward<const MAPS: usize>(
    precision: Precision,
    x: &Tensor,
    maps: [Map<'_>; MAPS],
) -> Result<[Tensor; MAPS]> {
    let outputs = run_forward(precision, x, &maps, None)?.0;
    match <[Tensor; MAPS]>::try_from(outputs) {
        Ok(outputs) => Ok(outputs),
        Err(_) => bail!("linear: as many outputs as maps"),
    }
}

/// x `[N, I]` through a map and an activation → before and after the activation, `[N, O]` both.
///
/// # Errors
/// As [`forward`].
pub fn forward_activated(
    precision: Precision,
    x: &Tensor,
    map: Map<'_>,
    activation: Activation,
) -> Result<(Tensor, Tensor)> {
    let (mut outputs, activated) = run_forward(precision, x, &[map], Some(activation))?;
    match (outputs.pop(), activated) {
        (Some(inner), Some(activated)) => Ok((inner, activated)),
        _ => bail!("linear: nothing was computed"),
    }
}

fn run_forward(
    precision: Precision,
    x: &Tensor,
    maps: &[Map<'_>],
    activation: Option<Activation>,
) -> Result<(Vec<Tensor>, Option<Tensor>)> {
    let (n, inner) = x.dims2()?;
    let outer = maps.first().map_or(Ok(0), |map| map.weight.dim(0))?;
    for map in maps {
        if map.weight.dims() != [outer, inner] || map.bias.dims() != [outer] {
            bail!(
                "linear: weight {:?} and bias {:?} for input {:?}",
                map.weight.shape(),
                map.bias.shape(),
                x.shape()
            );
        }
    }
    let _span = span("linear forward", 2 * n * inner * outer * maps.len());
    let x = read::<f32>(x)?;
    let weights = maps.iter().map(|map| read::<f32>(map.weight));
    let weights: Vec<Slice<'_, f32>> = weights.collect::<Result<_>>()?;
    let biases = maps.iter().map(|map| read::<f32>(map.bias));
    let biases: Vec<Slice<'_, f32>> = biases.collect::<Result<_>>()?;
    let mut outputs: Vec<Fresh> = maps.iter().map(|_| Fresh::new(n * outer)).collect();
    let mut activated = activation.map(|_| Fresh::new(n * outer));
    {
        let to: Vec<Shared<'_>> = outputs.iter_mut().map(Fresh::shared).collect();
        let after = activated.as_mut().map(Fresh::shared);
        let mut products = Products::new(precision);
        let x = products.left(Matrix::new(&x, n, inner, inner));
        for (weight, to) in weights.iter().zip(&to) {
            let weight = Matrix::new(weight, outer, inner, inner);
            let weight = products.right(weight.transposed());
            // SAFETY: each job has its own output.
            unsafe { products.job(to, false, vec![(x, weight)]) };
        }
        products.run(|tile| {
            let bias = &biases[tile.job][tile.columns.clone()];
            // SAFETY: `finish` has the tile alone.
            for (row, values) in unsafe { tile.each_row(&to[tile.job], outer) } {
                add(values, bias);
                if let Some((activation, after)) = activation.zip(after.as_ref()) {
                    let at = row * outer;
                    let columns = at + tile.columns.start..at + tile.columns.end;
                    // SAFETY: these are the tile's places.
                    activation.apply(values, unsafe { after.slice(columns) });
                }
            }
        });
    }
    // SAFETY: the tiles of the jobs have covered them.
    let finished = |fresh: Fresh| from_vec(unsafe { fresh.written() }, (n, outer));
    let outputs = outputs.into_iter().map(finished).collect::<Result<_>>()?;
    Ok((outputs, activated.map(finished).transpose()?))
}

/// One map on the way back.
#[derive(Debug, Clone, Copy)]
pub struct MapGradient<'a> {
    /// The weight [O, I].
    pub weight: &'a Tensor,
    /// The gradient of the output [N, O].
    pub dy: &'a Tensor,
    /// Where the weight's gradient goes: dyᵀ x.
    pub dweight: &'a Target,
    /// Where the bias's gradient goes: the column sums of dy.
    pub dbias: &'a Target,
}

/// What the gradient of the input becomes.
#[derive(Debug, Clone, Copy)]
pub enum InputGradient<'a> {
    /// A new tensor.
    New,
    /// Added to this one [N, I].
    Onto(&'a Tensor),
    /// A new tensor, taken back through the activation whose input [N, I] this is.
    Through(Activation, &'a Tensor),
}

/// The gradient of x [N, I], which went through every one of `maps`: Σ dy W. Those of weights and
/// biases are left in their targets.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    precision: Precision,
    x: &Tensor,
    maps: &[MapGradient<'_>],
    to: InputGradient<'_>,
) -> Result<Tensor> {
    let (n, inner) = x.dims2()?;
    for map in maps {
        let outer = map.dy.dims2()?.1;
        let weight = [outer, inner];
        if map.dy.dims() != [n, outer]
            || map.weight.dims() != weight
            || map.dweight.tensor.dims() != weight
        {
            bail!(
                "linear: gradient {:?} for weight {:?} and input {:?}",
                map.dy.shape(),
                map.weight.shape(),
                x.shape()
            );
        }
    }
    for map in maps {
        bias_gradient(map.dy, map.dbias)?;
    }
    let targets: Vec<&Tensor> = maps.iter().map(|map| &map.dweight.tensor).collect();
    let wrong = |t: &Tensor| t.dims() != [n, inner];
    match to {
        InputGradient::Onto(dx) if wrong(dx) => bail!("linear: gradient onto {:?}", dx.shape()),
        InputGradient::Through(_, pre) if wrong(pre) => bail!("linear: through {:?}", pre.shape()),
        InputGradient::Onto(dx) => {
            let tensors: Vec<&Tensor> = targets.into_iter().chain([dx]).collect();
            write_all(&tensors, |slices| {
                let mut slices: Vec<Shared<'_>> = slices.into_iter().map(Shared::new).collect();
                let Some(dx) = slices.pop() else {
                    return Ok(());
                };
                run_backward(precision, x, maps, &slices, (&dx, true), None)
            })??;
            Ok(dx.clone())
        }
        InputGradient::New | InputGradient::Through(..) => {
            let through = match to {
                InputGradient::Through(activation, pre) => Some((activation, read::<f32>(pre)?)),
                _ => None,
            };
            let mut fresh = Fresh::new(n * inner);
            write_all(&targets, |slices| {
                let slices: Vec<Shared<'_>> = slices.into_iter().map(Shared::new).collect();
                let through = through
                    .as_ref()
                    .map(|(activation, pre)| (*activation, &**pre));
                run_backward(
                    precision,
                    x,
                    maps,
                    &slices,
                    (&fresh.shared(), false),
                    through,
                )
            })??;
            // SAFETY: the tiles of the last job have covered it.
            from_vec(unsafe { fresh.written() }, (n, inner))
        }
    }
}

/// Computes all products of a backward pass; the last job is that of dx.
fn run_backward(
    precision: Precision,
    x: &Tensor,
    maps: &[MapGradient<'_>],
    dweights: &[Shared<'_>],
    (dx, add): (&Shared<'_>, bool),
    through: Option<(Activation, &[f32])>,
) -> Result<()> {
    let (n, inner) = x.dims2()?;
    let outer: usize = maps.iter().map(|map| map.dy.dims()[1]).sum();
    let _span = span("linear backward", 4 * n * inner * outer);
    let x = read::<f32>(x)?;
    let dys = maps.iter().map(|map| read::<f32>(map.dy));
    let dys: Vec<Slice<'_, f32>> = dys.collect::<Result<_>>()?;
    let weights = maps.iter().map(|map| read::<f32>(map.weight));
    let weights: Vec<Slice<'_, f32>> = weights.collect::<Result<_>>()?;
    let mut products = Products::new(precision);
    let x = products.right(Matrix::new(&x, n, inner, inner));
    let mut terms = Vec::with_capacity(maps.len());
    for (((map, dy), weight), dweight) in maps.iter().zip(&dys).zip(&weights).zip(dweights) {
        let outer = map.dy.dims()[1];
        let dy = Matrix::new(dy, n, outer, outer);
        let weight = products.right(Matrix::new(weight, outer, inner, inner));
        terms.push((products.left(dy), weight));
        let turned = products.left(dy.transposed());
        // SAFETY: each weight has its own gradient.
        unsafe { products.job(dweight, map.dweight.add, vec![(turned, x)]) };
    }
    if terms.is_empty() {
        bail!("linear: a backward pass of no map");
    }
    // SAFETY: dx is no weight's gradient.
    unsafe { products.job(dx, add, terms) };
    let last = maps.len();
    products.run(|tile| {
        let Some((activation, pre)) = through.filter(|_| tile.job == last) else {
            return;
        };
        // SAFETY: `finish` has the tile alone.
        for (row, values) in unsafe { tile.each_row(dx, inner) } {
            let columns = row * inner + tile.columns.start..row * inner + tile.columns.end;
            activation.apply_backward(&pre[columns], values);
        }
    });
    Ok(())
}

fn bias_gradient(dy: &Tensor, db: &Target) -> Result<()> {
    let _span = span("linear bias gradient", 0);
    let sums = column_sums(&read::<f32>(dy)?, dy.dims2()?.1);
    db.put(&sums)
}

vectorized! {
    fn add(values: &mut [f32], bias: &[f32]) {
        for (value, bias) in values.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
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
        let [y] = forward(Precision::F32, x, [Map { weight, bias }])?;
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
            dy,
            dweight,
            dbias,
        };
        backward(Precision::F32, x, &[map], to).unwrap()
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
        let ys = forward(Precision::F32, &x, maps).unwrap();
        let targets = [(); 3].map(|()| (target(&[18, 20], 2.0), target(&[18], 0.0)));
        let gradients = [0, 1, 2].map(|i| MapGradient {
            weight: &weights[i],
            dy: &dys[i],
            dweight: &targets[i].0,
            dbias: &targets[i].1,
        });
        let onto = random.tensor(&[37, 20]);
        let mut expected = wide(&onto);
        let found = backward(Precision::F32, &x, &gradients, InputGradient::Onto(&onto)).unwrap();
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
        let (pre, after) = forward_activated(Precision::F32, &x, maps[0], gelu).unwrap();
        assert_eq!(wide(&pre), wide(&ys[0]));
        let mut separate = vec![0.0; pre.elem_count()];
        gelu.apply(&read::<f32>(&pre).unwrap(), &mut separate);
        assert_eq!(&*read::<f32>(&after).unwrap(), &separate[..]);
        let (dw, db) = (target(&[18, 20], 0.0), target(&[18], 0.0));
        let sides = [&dys[0], &x, &weights[0]];
        let dx = back(sides, &dw, &db, InputGradient::New);
        let before = random.tensor(&[37, 20]);
        let through = InputGradient::Through(gelu, &before);
        let found = back(sides, &dw, &db, through);
        let separate = crate::kernels::activation::backward(gelu, &before, dx).unwrap();
        assert_eq!(wide(&found), wide(&separate));
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
        let dy = random.tensor(&[70, 50]);
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
        let dy = random.tensor(&[701, 130]);
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
}
