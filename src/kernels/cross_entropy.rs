//! Softmax cross entropy of labelled rows, summed, with label smoothing and class weights.
//!
//! With smoothing ε over V classes and weights w, a row of label y costs
//! `w[y] ((1 − ε) (−log p[y]) + ε/V Σ (−log p[c]))`. The caller divides the sum by the number
//! of rows, or by the sum of `w[y]` where there are weights ([`Loss::weight`] is either).
//!
//! Either alone means what it does in PyTorch's `CrossEntropyLoss`. Together they do not: there
//! the spread share is weighed by class, `ε/V Σ w[c] (−log p[c])`, so that with weights of
//! 1/frequency every row asks for the rarest class.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::profile::span;
use super::simd::{exp, max, sum, vectorized};
use crate::buffers::{read, write};

/// How rows are weighed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings<'a> {
    /// Share of the label that is spread over all classes.
    pub smoothing: f64,
    /// A weight per class, `[V]`.
    pub class_weights: Option<&'a [f32]>,
}

/// A sum over labelled rows.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Loss {
    /// The summed loss.
    pub sum: f64,
    /// What to divide by for the mean: rows, or the sum of their labels' weights.
    pub weight: f64,
}

/// The loss of logits [N, V] against one label per row.
///
/// # Errors
/// A label beyond V, or lengths that do not fit.
pub fn forward(logits: &Tensor, labels: &[u32], settings: Settings<'_>) -> Result<Loss> {
    let _span = span("cross entropy", 0);
    let width = check(logits, labels, settings)?;
    let logits = read::<f32>(logits)?;
    let row = Row::new(settings, width);
    let losses = logits.par_chunks(width).zip(labels);
    let losses = losses.map(|(logits, &label)| row_loss(&row, logits, label as usize));
    Ok(row.total(losses.collect(), labels))
}

/// The loss, and its gradient (of the sum) written over the logits.
///
/// # Errors
/// As [`forward`].
pub fn forward_backward(
    logits: Tensor,
    labels: &[u32],
    settings: Settings<'_>,
) -> Result<(Loss, Tensor)> {
    let _span = span("cross entropy", 0);
    let width = check(&logits, labels, settings)?;
    let row = Row::new(settings, width);
    let losses = write(&logits, |logits| {
        let losses = logits.par_chunks_mut(width).zip(labels);
        losses
            .map(|(logits, &label)| row_gradient(&row, logits, label as usize))
            .collect::<Vec<f64>>()
    })?;
    Ok((row.total(losses, labels), logits))
}

vectorized! {
    fn row_loss(row: &Row<'_>, logits: &[f32], label: usize) -> f64 {
        row.loss(logits, label).0
    }
}

vectorized! {
    /// The loss; logits become their gradient.
    fn row_gradient(row: &Row<'_>, logits: &mut [f32], label: usize) -> f64 {
        let (loss, log_sum) = row.loss(logits, label);
        row.gradient(logits, label, log_sum);
        loss
    }
}

struct Row<'a> {
    label_share: f32,
    class_share: f32,
    smoothing: f32,
    weights: Option<&'a [f32]>,
}

impl<'a> Row<'a> {
    fn new(settings: Settings<'a>, width: usize) -> Self {
        Self {
            label_share: (1.0 - settings.smoothing) as f32,
            class_share: (settings.smoothing / width.max(1) as f64) as f32,
            smoothing: settings.smoothing as f32,
            weights: settings.class_weights,
        }
    }

    #[inline(always)]
    fn weight(&self, label: usize) -> f32 {
        self.weights.map_or(1.0, |weights| weights[label])
    }

    /// The loss of a row, and the log of the sum of its exponentials.
    #[inline(always)]
    fn loss(&self, logits: &[f32], label: usize) -> (f64, f32) {
        let largest = max(logits);
        let mut exponentials = [0.0f32; 32];
        let mut total = 0.0f32;
        for chunk in logits.chunks(32) {
            for (e, logit) in exponentials.iter_mut().zip(chunk) {
                *e = exp(logit - largest);
            }
            total += sum(&exponentials[..chunk.len()]);
        }
        let log_sum = largest + total.ln();
        let mut loss = f64::from(self.label_share) * f64::from(log_sum - logits[label]);
        if self.class_share > 0.0 {
            loss += f64::from(self.smoothing) * f64::from(log_sum)
                - f64::from(self.class_share) * f64::from(sum(logits));
        }
        (f64::from(self.weight(label)) * loss, log_sum)
    }

    #[inline(always)]
    fn gradient(&self, logits: &mut [f32], label: usize, log_sum: f32) {
        let weight = self.weight(label);
        let spread = weight * self.class_share;
        for logit in logits.iter_mut() {
            *logit = exp(*logit - log_sum) * weight - spread;
        }
        logits[label] -= weight * self.label_share;
    }

    fn total(&self, losses: Vec<f64>, labels: &[u32]) -> Loss {
        let weights = labels
            .iter()
            .map(|&label| f64::from(self.weight(label as usize)));
        Loss {
            sum: losses.iter().sum(),
            weight: weights.sum(),
        }
    }
}

fn check(logits: &Tensor, labels: &[u32], settings: Settings<'_>) -> Result<usize> {
    let (count, width) = logits.dims2()?;
    if count != labels.len() || width == 0 {
        bail!(
            "cross entropy: logits {:?} for {} labels",
            logits.shape(),
            labels.len()
        );
    }
    if settings.class_weights.is_some_and(|w| w.len() != width) {
        bail!("cross entropy: not one weight for each of the {width} classes");
    }
    if let Some(label) = labels.iter().find(|label| **label as usize >= width) {
        bail!("label {label}, but the model has {width} classes");
    }
    Ok(width)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kernels::testing::{Random, assert_close, same_for_any_threads, slopes, wide};

    fn reference(logits: &[f64], labels: &[u32], smoothing: f64, weights: &[f64]) -> f64 {
        let width = weights.len();
        let mut sum = 0.0;
        for (logits, &label) in logits.chunks(width).zip(labels) {
            let total: f64 = logits.iter().map(|x| x.exp()).sum();
            let cost = |class: usize| total.ln() - logits[class];
            let all: f64 = (0..width).map(cost).sum();
            let row = (1.0 - smoothing) * cost(label as usize) + smoothing / width as f64 * all;
            sum += weights[label as usize] * row;
        }
        sum
    }

    #[test]
    fn agrees_with_the_reference_and_with_finite_differences() {
        for (n, width) in [(0, 3), (1, 1), (1, 2), (4, 31), (5, 65)] {
            for (smoothing, weighted) in [(0.0, false), (0.5, false), (0.0, true), (0.3, true)] {
                let mut random = Random::new((n * 100 + width) as u64);
                let logits = random.tensor(&[n, width]);
                let labels = random.ids(n, width);
                let weights: Vec<f32> = (0..width).map(|i| 0.5 + i as f32 / 8.0).collect();
                let settings = Settings {
                    smoothing,
                    class_weights: weighted.then_some(&weights),
                };
                let weights = |class: usize| {
                    if weighted {
                        f64::from(weights[class])
                    } else {
                        1.0
                    }
                };
                let all: Vec<f64> = (0..width).map(weights).collect();
                let wide_logits = wide(&logits);
                let expected = reference(&wide_logits, &labels, smoothing, &all);
                let loss = forward(&logits, &labels, settings).unwrap();
                assert_close("loss", &[loss.sum], &[expected]);
                let weight: f64 = labels.iter().map(|l| all[*l as usize]).sum();
                assert_close("weight", &[loss.weight], &[weight]);
                let (again, gradient) = forward_backward(logits, &labels, settings).unwrap();
                assert_eq!(again, loss);
                let expected = slopes(&wide_logits, |x| reference(x, &labels, smoothing, &all));
                assert_close("dlogits", &wide(&gradient), &expected);
            }
        }
    }

    #[test]
    fn large_logits_stay_finite_and_bad_labels_are_named() {
        let logits = crate::buffers::from_vec(vec![1e4, -1e4, 0.0], (1, 3)).unwrap();
        let loss = forward(&logits, &[1], Settings::default()).unwrap();
        assert_eq!(loss.sum, 2e4);
        let error = forward(&logits, &[3], Settings::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("label 3") && error.contains("3 classes"),
            "{error}"
        );
    }

    #[test]
    fn threads_do_not_matter() {
        let mut random = Random::new(4);
        let (logits, labels) = (random.tensor(&[500, 70]), random.ids(500, 70));
        same_for_any_threads(|| {
            let logits = logits.copy().unwrap();
            let (loss, gradient) = forward_backward(logits, &labels, Settings::default()).unwrap();
            let loss = crate::buffers::from_vec(vec![loss.sum as f32], 1).unwrap();
            vec![gradient, loss]
        });
    }
}
