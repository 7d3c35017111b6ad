//! The largest eigenvalues of a symmetric matrix and their vectors: subspace iteration with a
//! Rayleigh–Ritz step, whose small problem is solved by Jacobi's rotations.

use rayon::prelude::*;

use crate::rng::{self, Stream};
use rand::Rng;

/// Vectors iterated beyond those asked for: they make the last ones converge.
const SPARE: usize = 40;
/// Up to this size Jacobi's rotations do all of it.
const SMALL: usize = 160;
/// Relative change of the eigenvalues below which iteration ends.
const CONVERGED: f64 = 1e-10;
const MAX_ROUNDS: usize = 60;
/// Products between two orthonormalisations with a look at the eigenvalues.
const PRODUCTS_PER_ROUND: usize = 4;
const MAX_SWEEPS: usize = 60;

/// The `num` largest eigenvalues of the symmetric `matrix` \[n, n\], descending, and their unit
/// vectors, one after the other \[num, n\].
pub(super) fn largest(matrix: &[f64], n: usize, num: usize) -> (Vec<f64>, Vec<f64>) {
    let num = num.min(n);
    if n <= SMALL {
        let (values, vectors) = jacobi(matrix.to_vec(), n);
        return (values[..num].to_vec(), vectors[..num * n].to_vec());
    }
    let width = (num + SPARE).min(n);
    let mut rng = rng::stream(0, Stream::Layout, 0, 0);
    let mut basis: Vec<f64> = (0..width * n).map(|_| rng.random::<f64>() - 0.5).collect();
    orthonormalise(&mut basis, n);
    let mut values = vec![0.0; width];
    for _ in 0..MAX_ROUNDS {
        for _ in 0..PRODUCTS_PER_ROUND {
            basis = product(matrix, n, &basis);
            orthonormalise(&mut basis, n);
        }
        let before = values.clone();
        (values, basis) = ritz(matrix, n, &basis);
        let change = |(now, before): (&f64, &f64)| (now - before).abs() / values[0].max(1e-300);
        let changes = values.iter().zip(&before).take(num).map(change);
        if changes.fold(0.0, f64::max) < CONVERGED {
            break;
        }
    }
    (values[..num].to_vec(), basis[..num * n].to_vec())
}

/// `matrix` times every vector of `basis` \[vectors, n\].
fn product(matrix: &[f64], n: usize, basis: &[f64]) -> Vec<f64> {
    let times = |vector: &[f64]| -> Vec<f64> {
        matrix.chunks_exact(n).map(|row| dot(row, vector)).collect()
    };
    let products: Vec<Vec<f64>> = basis.par_chunks_exact(n).map(times).collect();
    products.concat()
}

/// The eigenvalues within the span of an orthonormal `basis`, and their vectors.
fn ritz(matrix: &[f64], n: usize, basis: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let width = basis.len() / n;
    let images = product(matrix, n, basis);
    let mut small = vec![0.0; width * width];
    for (i, row) in small.chunks_exact_mut(width).enumerate() {
        for (j, entry) in row.iter_mut().enumerate() {
            *entry = dot(&basis[i * n..][..n], &images[j * n..][..n]);
        }
    }
    let (values, rotation) = jacobi(small, width);
    let turned = |weights: &[f64]| {
        let mut vector = vec![0.0; n];
        for (weight, old) in weights.iter().zip(basis.chunks_exact(n)) {
            add(&mut vector, *weight, old);
        }
        vector
    };
    let vectors: Vec<Vec<f64>> = rotation.par_chunks_exact(width).map(turned).collect();
    (values, vectors.concat())
}

/// Gram–Schmidt, each vector twice. A vector that depends on those before becomes zero.
fn orthonormalise(basis: &mut [f64], n: usize) {
    for i in 0..basis.len() / n {
        let (before, rest) = basis.split_at_mut(i * n);
        let vector = &mut rest[..n];
        let size = dot(vector, vector).sqrt();
        for _ in 0..2 {
            for other in before.chunks_exact(n) {
                let along = dot(vector, other);
                add(vector, -along, other);
            }
        }
        let left = dot(vector, vector).sqrt();
        let scale = if left > 1e-12 * size { 1.0 / left } else { 0.0 };
        vector.iter_mut().for_each(|x| *x *= scale);
    }
}

/// All eigenvalues of a small symmetric matrix, descending, with their vectors as rows.
fn jacobi(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; n * n]; // rows
    (0..n).for_each(|i| vectors[i * n + i] = 1.0);
    for _ in 0..MAX_SWEEPS {
        let square = |i: usize, j: usize| a[i * n + j] * a[i * n + j];
        let off: f64 = (0..n)
            .map(|i| (0..i).map(|j| square(i, j)).sum::<f64>())
            .sum();
        let on: f64 = (0..n).map(|i| square(i, i)).sum();
        if off <= 1e-26 * on {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, n, (p, q));
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j * n + j].total_cmp(&a[i * n + i]));
    let values = order.iter().map(|&i| a[i * n + i]).collect();
    let rows: Vec<&[f64]> = order.iter().map(|&i| &vectors[i * n..][..n]).collect();
    (values, rows.concat())
}

/// Makes `a[p, q]` zero.
fn rotate(a: &mut [f64], vectors: &mut [f64], n: usize, (p, q): (usize, usize)) {
    let apq = a[p * n + q];
    if apq == 0.0 {
        return;
    }
    let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
    let sign = if theta >= 0.0 { 1.0 } else { -1.0 };
    let t = sign / (theta.abs() + (theta * theta + 1.0).sqrt());
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for k in 0..n {
        let (x, y) = (a[k * n + p], a[k * n + q]);
        (a[k * n + p], a[k * n + q]) = (c * x - s * y, s * x + c * y);
    }
    for matrix in [a, vectors] {
        for k in 0..n {
            let (x, y) = (matrix[p * n + k], matrix[q * n + k]);
            (matrix[p * n + k], matrix[q * n + k]) = (c * x - s * y, s * x + c * y);
        }
    }
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f64 = a
        .remainder()
        .iter()
        .zip(b.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in a.zip(b) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f64>() + rest
}

pub(super) fn add(to: &mut [f64], times: f64, what: &[f64]) {
    to.iter_mut().zip(what).for_each(|(t, w)| *t += times * w);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Second differences: eigenvalues 2 − 2 cos(kπ/(n+1)).
    fn differences(n: usize) -> Vec<f64> {
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            matrix[i * n + i] = 2.0;
            if i > 0 {
                matrix[i * n + i - 1] = -1.0;
                matrix[(i - 1) * n + i] = -1.0;
            }
        }
        matrix
    }

    #[test]
    fn eigenvalues_of_small_and_large_matrices_are_those_known() {
        for n in [1, 2, 30, 200] {
            // Powers pull the eigenvalues apart, as those of real covariances are.
            let mut matrix = differences(n);
            for _ in 0..3 {
                matrix = product(&matrix, n, &matrix);
            }
            let (values, vectors) = largest(&matrix, n, 3);
            for (k, value) in values.iter().enumerate() {
                let angle = (n - k) as f64 * std::f64::consts::PI / (n + 1) as f64;
                let expected = (2.0 - 2.0 * angle.cos()).powi(8);
                assert!(
                    (value / expected - 1.0).abs() < 1e-6,
                    "{n} {k} {value} {expected}"
                );
                let vector = &vectors[k * n..][..n];
                for (x, y) in product(&matrix, n, vector).iter().zip(vector) {
                    assert!((x - value * y).abs() < 1e-3 * expected);
                }
            }
        }
    }
}
