//! Multinomial logistic regression with a quadratic penalty, as scikit-learn defines it: the sum of
//! all losses plus ‖W‖² / 2, intercepts free. The minimum is unique, so how it is found (L-BFGS)
//! does not matter.

use rayon::prelude::*;

use super::eigen::{add, dot};

/// Rows whose losses are summed together; sums of parts are added in order.
const ROWS_TOGETHER: usize = 512;
const MAX_STEPS: usize = 1000;
/// Pairs of differences that L-BFGS remembers.
const REMEMBERED: usize = 12;
/// Largest entry of the mean gradient at which it ends.
const CONVERGED: f64 = 1e-6;
/// Share of the decrease foretold by the slope that a step must bring.
const ENOUGH: f64 = 1e-4;

/// A fitted model.
#[derive(Debug, Clone)]
pub struct Logistic {
    num_classes: usize,
    width: usize,
    /// Weights and, last, intercept of each class, [classes, width + 1].
    weights: Vec<f64>,
}

impl Logistic {
    /// Fits to `rows` \[N, width\] of `classes` \[N\], 0..`num_classes`. A class that no row has gets
    /// a probability of practically 0.
    pub fn fit(rows: &[f32], width: usize, classes: &[u32], num_classes: usize) -> Self {
        let mut present: Vec<u32> = classes.to_vec();
        present.sort_unstable();
        present.dedup();
        let place = |class: &u32| present.partition_point(|p| p < class) as u32;
        let problem = Problem {
            rows,
            width,
            classes: classes.iter().map(place).collect(),
            num_classes: present.len(),
        };
        let found = problem.minimise();
        // A class without rows keeps zero weights and an intercept far below all others.
        let mut weights = vec![0.0; num_classes * (width + 1)];
        let mut absent = vec![true; num_classes];
        for (class, own) in present.iter().zip(found.chunks_exact(width + 1)) {
            weights[*class as usize * (width + 1)..][..=width].copy_from_slice(own);
            absent[*class as usize] = false;
        }
        for class in (0..num_classes).filter(|&class| absent[class]) {
            weights[class * (width + 1) + width] = f64::NEG_INFINITY;
        }
        Self {
            num_classes,
            width,
            weights,
        }
    }

    /// The probability of each class for a row.
    pub fn probabilities(&self, row: &[f32]) -> Vec<f64> {
        let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        let mut scores = vec![0.0; self.num_classes];
        score(&self.weights, self.width, &row, &mut scores);
        normalise(&mut scores);
        scores
    }
}

struct Problem<'a> {
    rows: &'a [f32],
    width: usize,
    classes: Vec<u32>,
    num_classes: usize,
}

/// A step, the change of the gradient that it made, and 1 / their product.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    inverse: f64,
}

impl Problem<'_> {
    /// The weights at the minimum.
    fn minimise(&self) -> Vec<f64> {
        let mut weights = vec![0.0; self.num_classes * (self.width + 1)];
        let (mut value, mut gradient) = self.value(&weights);
        let mut pairs: Vec<Pair> = Vec::new();
        let num_rows = (self.classes.len() as f64).max(1.0);
        for _ in 0..MAX_STEPS {
            let largest = gradient.iter().fold(0.0, |most: f64, g| most.max(g.abs()));
            if largest / num_rows < CONVERGED {
                break;
            }
            let direction = descent(&gradient, &pairs);
            let slope = dot(&direction, &gradient);
            let mut length = if pairs.is_empty() { 1.0 / largest } else { 1.0 };
            let next = loop {
                let mut next = weights.clone();
                add(&mut next, length, &direction);
                let (next_value, next_gradient) = self.value(&next);
                if next_value <= value + ENOUGH * length * slope {
                    break Some((next, next_value, next_gradient));
                }
                length *= 0.5;
                if length < 1e-12 {
                    break None;
                }
            };
            // No step gets further down: the minimum, as far as numbers tell.
            let Some((next, next_value, next_gradient)) = next else {
                break;
            };
            remember(&mut pairs, (&weights, &next), (&gradient, &next_gradient));
            (weights, value, gradient) = (next, next_value, next_gradient);
        }
        weights
    }

    /// The sum to be minimised, and its gradient.
    fn value(&self, weights: &[f64]) -> (f64, Vec<f64>) {
        let stride = self.width + 1;
        let rows = self.rows.par_chunks(ROWS_TOGETHER * self.width.max(1));
        let parts: Vec<(f64, Vec<f64>)> = rows
            .zip(self.classes.par_chunks(ROWS_TOGETHER))
            .map(|(rows, classes)| self.part(weights, rows, classes))
            .collect();
        let mut gradient = vec![0.0; weights.len()];
        let mut value = 0.0;
        for (own, own_gradient) in parts {
            value += own;
            add(&mut gradient, 1.0, &own_gradient);
        }
        let classes = weights
            .chunks_exact(stride)
            .zip(gradient.chunks_exact_mut(stride));
        for (weights, gradient) in classes {
            let weights = &weights[..self.width];
            value += 0.5 * dot(weights, weights);
            add(&mut gradient[..self.width], 1.0, weights);
        }
        (value, gradient)
    }

    fn part(&self, weights: &[f64], rows: &[f32], classes: &[u32]) -> (f64, Vec<f64>) {
        let stride = self.width + 1;
        let (mut value, mut gradient) = (0.0, vec![0.0; weights.len()]);
        let mut scores = vec![0.0; self.num_classes];
        for (row, &class) in rows.chunks_exact(self.width.max(1)).zip(classes) {
            let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            score(weights, self.width, &row, &mut scores);
            let own = scores[class as usize];
            value += normalise(&mut scores) - own;
            scores[class as usize] -= 1.0;
            for (gradient, &off) in gradient.chunks_exact_mut(stride).zip(&scores) {
                add(&mut gradient[..self.width], off, &row);
                gradient[self.width] += off;
            }
        }
        (value, gradient)
    }
}

fn score(weights: &[f64], width: usize, row: &[f64], scores: &mut [f64]) {
    for (score, weights) in scores.iter_mut().zip(weights.chunks_exact(width + 1)) {
        *score = dot(&weights[..width], row) + weights[width];
    }
}

/// Scores become probabilities; the logarithm of what they were divided by.
fn normalise(scores: &mut [f64]) -> f64 {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scores
        .iter_mut()
        .for_each(|score| *score = (*score - largest).exp());
    let sum: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
    largest + sum.ln()
}

/// Downhill, as the remembered pairs bend the gradient.
fn descent(gradient: &[f64], pairs: &[Pair]) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut shares = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let share = pair.inverse * dot(&pair.step, &direction);
        add(&mut direction, -share, &pair.change);
        shares.push(share);
    }
    if let Some(last) = pairs.last() {
        let scale = 1.0 / (last.inverse * dot(&last.change, &last.change));
        direction.iter_mut().for_each(|x| *x *= scale);
    }
    for (pair, share) in pairs.iter().zip(shares.into_iter().rev()) {
        let back = pair.inverse * dot(&pair.change, &direction);
        add(&mut direction, share - back, &pair.step);
    }
    direction
}

fn remember(pairs: &mut Vec<Pair>, weights: (&[f64], &[f64]), gradients: (&[f64], &[f64])) {
    let difference = |(before, after): (&[f64], &[f64])| -> Vec<f64> {
        after.iter().zip(before).map(|(a, b)| a - b).collect()
    };
    let (step, change) = (difference(weights), difference(gradients));
    let product = dot(&step, &change);
    if product <= 1e-14 * dot(&change, &change) {
        return;
    }
    if pairs.len() == REMEMBERED {
        pairs.remove(0);
    }
    pairs.push(Pair {
        step,
        change,
        inverse: 1.0 / product,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_minimum_the_gradient_is_nothing_and_absent_classes_are_never_answered() {
        let rows: Vec<f32> = (0..80)
            .flat_map(|n| {
                let (class, wobble) = (n % 3, ((n * 7) % 11) as f32 / 5.0 - 1.0);
                [
                    class as f32 + wobble,
                    (class * class) as f32 - wobble,
                    wobble,
                ]
            })
            .collect();
        let classes: Vec<u32> = (0..80).map(|n| [0, 2, 3][n % 3]).collect();
        let model = Logistic::fit(&rows, 3, &classes, 5);
        let mut right = 0;
        for (row, &class) in rows.chunks_exact(3).zip(&classes) {
            let p = model.probabilities(row);
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert_eq!((p[1], p[4]), (0.0, 0.0));
            right += usize::from(p.iter().all(|&other| other <= p[class as usize]));
        }
        assert!(right > 60, "{right}");
        let problem = Problem {
            rows: &rows,
            width: 3,
            classes: (0..80).map(|n| n % 3).collect(),
            num_classes: 3,
        };
        let found = problem.minimise();
        let (value, gradient) = problem.value(&found);
        assert!(gradient.iter().all(|g| g.abs() < 1e-4));
        // The gradient is that of the value.
        let start = vec![0.1; found.len()];
        let (_, gradient) = problem.value(&start);
        for place in 0..start.len() {
            let moved = |by: f64| {
                let mut moved = start.clone();
                moved[place] += by;
                problem.value(&moved).0
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope - gradient[place]).abs() < 1e-5 * gradient[place].abs().max(1.0));
        }
        assert!(value < problem.value(&start).0);
    }
}
