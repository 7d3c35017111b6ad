//! What the machine can do: the rate of matrix products when every thread computes its own, out of
//! its own cache, with nothing in between. The bound that a training step is compared with.

use std::time::Instant;

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::matrix::{Matrix, MatrixMut};
use super::products::{Precision, multiply};

/// Rows, columns and inner side of the product that is timed.
const SIDE: usize = 768;
/// On a GPU the first of these sides of which a product takes so many seconds, or the last.
const DEVICE_SIDES: [usize; 5] = [512, 1024, 2048, 4096, 8192];
const LONG_ENOUGH: f64 = 1e-2;
/// Rounds, of which the fastest counts; in each, every thread computes so many products.
const ROUNDS: usize = 5;
const PRODUCTS: usize = 10;

/// How much faster bf16 must be for [`faster_precision`] to choose it: it also costs some accuracy.
const WORTH_IT: f64 = 1.5;

/// bf16 where its products are clearly faster on this machine, else f32.
pub fn faster_precision() -> Precision {
    let [f32, bf16] = [Precision::F32, Precision::Bf16].map(products_per_second);
    match bf16 > WORTH_IT * f32 {
        true => Precision::Bf16,
        false => Precision::F32,
    }
}

/// Floating-point operations per second of large matrix products on `device`: on a GPU those of
/// candle, on the CPU [`products_per_second`].
///
/// # Errors
/// The device has not enough memory.
pub fn products_per_second_on(device: &Device, precision: Precision) -> Result<f64> {
    if device.is_cpu() {
        return Ok(products_per_second(precision));
    }
    let mut best = 0.0f64;
    for side in DEVICE_SIDES {
        let factor = || Tensor::rand(-1f32, 1f32, (side, side), device)?.to_dtype(precision.into());
        let (a, b) = (factor()?, factor()?);
        let seconds = |products: usize| -> Result<f64> {
            device.synchronize()?;
            let began = Instant::now();
            for _ in 0..products {
                a.matmul(&b)?;
            }
            device.synchronize()?;
            Ok(began.elapsed().as_secs_f64())
        };
        // The first product of a kind also loads what computes it.
        seconds(1)?;
        if seconds(1)? < LONG_ENOUGH && side != DEVICE_SIDES[DEVICE_SIDES.len() - 1] {
            continue;
        }
        for _ in 0..ROUNDS {
            let flops = (2 * side * side * side * PRODUCTS) as f64;
            best = best.max(flops / seconds(PRODUCTS)?);
        }
        break;
    }
    Ok(best)
}

/// Floating-point operations per second of matrix products, all threads of the pool together;
/// rounding and packing to bf16 count as part of them.
pub fn products_per_second(precision: Precision) -> f64 {
    let threads = rayon::current_num_threads();
    let flops = (2 * SIDE * SIDE * SIDE * PRODUCTS * threads) as f64;
    let mut work: Vec<[Vec<f32>; 3]> = (0..threads)
        .map(|_| [0.5, 0.25, 0.0].map(|value| vec![value; SIDE * SIDE]))
        .collect();
    let mut round = || {
        let began = Instant::now();
        work.par_iter_mut().with_max_len(1).for_each(|[a, b, c]| {
            for _ in 0..PRODUCTS {
                let a = Matrix::new(a, SIDE, SIDE, SIDE);
                let b = Matrix::new(b, SIDE, SIDE, SIDE);
                let (a, b) = (precision.left(a), precision.right(b.transposed()));
                let mut c = MatrixMut::new(c, SIDE, SIDE, SIDE);
                multiply(&a, &b, false, &mut c);
            }
        });
        flops / began.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(|_| round()).fold(0.0, f64::max)
}
