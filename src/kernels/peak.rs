//! What the machine can do: the rate of matrix products when every thread computes its own, out of
//! its own cache, with nothing in between. The bound that a training step is compared with.

use std::time::Instant;

use rayon::prelude::*;

use super::matmul::{Matrix, MatrixMut, multiply};

/// Rows, columns and inner side of the product that is timed.
const SIDE: usize = 768;
/// Rounds, of which the fastest counts; in each, every thread computes so many products.
const ROUNDS: usize = 5;
const PRODUCTS: usize = 20;

/// Floating-point operations per second of f32 matrix products, all threads of the pool together.
pub fn products_per_second() -> f64 {
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
                let mut c = MatrixMut::new(c, SIDE, SIDE, SIDE);
                multiply(1.0, a, b.transposed(), false, &mut c);
            }
        });
        flops / began.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(|_| round()).fold(0.0, f64::max)
}
