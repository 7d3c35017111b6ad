//! Softmax cross entropy of labelled rows, summed, with label smoothing and class weights.
//!
//! With smoothing ε over V classes and weights w, a row of label y costs
//! `(1 − ε) w[y] (−log p[y]) + ε/V Σ s[c] (−log p[c])`, where the share that is spread over the
//! classes weighs either as the label does, `s[c] = w[y]`, or as each class, `s[c] = w[c]`
//! ([`Spread`]). The caller divides the sum by the number of rows, or by the sum of `w[y]` where
//! there are weights ([`Loss::weight`] is either).

use candle_core::{Device, Result, Tensor, bail};
use rayon::prelude::*;

use super::lists::Numbers;
use super::profile::span;
use super::simd::{dot, exp, max, sum, vectorized};
use crate::buffers::{Number, read, write};

/// How rows are weighed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings<'a> {
    /// Share of the label that is spread over all classes.
    pub smoothing: f64,
    /// A weight per class, `[V]`.
    pub class_weights: Option<&'a [f32]>,
    /// How the share that smoothing spreads weighs.
    pub spread: Spread,
    /// On a GPU, f64 of which the first multiplies the gradient; `None`: 1.
    pub gradient_scale: Option<&'a Tensor>,
}

/// How the share of a label that is spread over all classes weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spread {
    /// As the label does.
    #[default]
    ByLabel,
    /// As each class does: the meaning of PyTorch's `CrossEntropyLoss`, with which, by weights of
    /// 1/frequency, every row asks for the rarest class.
    ByClass,
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
pub fn forward(
    logits: &Tensor,
    labels: impl Into<Numbers>,
    settings: Settings<'_>,
) -> Result<Loss> {
    let _span = span("cross entropy", 0);
    let labels = &labels.into();
    let width = check(logits, labels, settings)?;
    let row = Row::new(settings, width);
    on_gpu!(logits, {
        let sum = row.on_gpu(logits, labels, None)?.wait()?;
        Ok(row.total(vec![sum], labels))
    });
    let logits = read::<f32>(logits)?;
    let losses = logits.par_chunks(width).zip(&**labels);
    let losses = losses.map(|(logits, &label)| row_loss(&row, logits, label as usize));
    Ok(row.total(losses.collect(), labels))
}

/// The summed loss, its weight (as [`Loss`] has them), and its gradient (of the sum) written over
/// the logits. On a GPU nothing is waited for.
///
/// # Errors
/// As [`forward`].
pub fn forward_backward(
    logits: Tensor,
    labels: impl Into<Numbers>,
    settings: Settings<'_>,
) -> Result<(Number, f64, Tensor)> {
    let _span = span("cross entropy", 0);
    let labels = &labels.into();
    let width = check(&logits, labels, settings)?;
    let row = Row::new(settings, width);
    on_gpu!(logits, {
        let scale = Some(settings.gradient_scale);
        let sum = row.on_gpu(&logits, labels, scale)?;
        Ok((sum, row.total(Vec::new(), labels).weight, logits))
    });
    if settings.gradient_scale.is_some() {
        bail!("cross entropy: gradients are not scaled on the CPU");
    }
    let losses = write(&logits, |logits| {
        let losses = logits.par_chunks_mut(width).zip(&**labels);
        losses
            .map(|(logits, &label)| row_gradient(&row, logits, label as usize))
            .collect::<Vec<f64>>()
    })?;
    let loss = row.total(losses, labels);
    Ok((Number::Here(loss.sum), loss.weight, logits))
}

/// The losses of several batches together, on the device that computes them; no GPU is waited for.
///
/// # Errors
/// The device fails.
pub fn sum_of_losses(losses: &[Number], device: &Device) -> Result<Number> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return super::cuda::sum_of_losses(losses, device).map(Number::There);
    }
    let _ = device;
    let losses = losses.iter().map(Number::wait);
    Ok(Number::Here(losses.sum::<Result<f64>>()?))
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
    /// With [`Spread::ByClass`]: the weights, and ε/V of their sum.
    by_class: Option<(&'a [f32], f32)>,
}

impl<'a> Row<'a> {
    fn new(settings: Settings<'a>, width: usize) -> Self {
        let class_share = settings.smoothing / width.max(1) as f64;
        let by_class = settings.class_weights.map(|weights| {
            let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            (weights, (class_share * total) as f32)
        });
        Self {
            label_share: (1.0 - settings.smoothing) as f32,
            class_share: class_share as f32,
            smoothing: settings.smoothing as f32,
            weights: settings.class_weights,
            by_class: by_class.filter(|_| settings.spread == Spread::ByClass),
        }
    }

    /// The summed loss; with a `scale`, itself given or not, the logits become the gradient.
    #[cfg(feature = "cuda")]
    fn on_gpu(
        &self,
        logits: &Tensor,
        labels: &Numbers,
        scale: Option<Option<&Tensor>>,
    ) -> Result<Number> {
        let by_class = self.by_class.map_or(-1.0, |(_, total)| total);
        let shares = [self.label_share, self.class_share, self.smoothing, by_class];
        super::cuda::cross_entropy(logits, labels, self.weights, shares, scale)
    }

    /// What is spread over all classes.
    #[inline(always)]
    fn spread(&self, label: usize) -> f32 {
        match self.by_class {
            Some((_, total)) => total,
            None => self.smoothing * self.weight(label),
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
        let weight = self.weight(label);
        let mut loss = f64::from(self.label_share * weight) * f64::from(log_sum - logits[label]);
        if self.class_share > 0.0 {
            let weighted = match self.by_class {
                Some((weights, _)) => dot(weights, logits),
                None => weight * sum(logits),
            };
            loss += f64::from(self.spread(label)) * f64::from(log_sum)
                - f64::from(self.class_share) * f64::from(weighted);
        }
        (loss, log_sum)
    }

    #[inline(always)]
    fn gradient(&self, logits: &mut [f32], label: usize, log_sum: f32) {
        let at_label = self.label_share * self.weight(label);
        let factor = at_label + self.spread(label);
        let share = self.class_share * self.weight(label);
        for logit in logits.iter_mut() {
            *logit = exp(*logit - log_sum) * factor;
        }
        match self.by_class {
            _ if self.class_share <= 0.0 => {}
            Some((weights, _)) => {
                for (logit, weight) in logits.iter_mut().zip(weights) {
                    *logit -= self.class_share * weight;
                }
            }
            None => logits.iter_mut().for_each(|logit| *logit -= share),
        }
        logits[label] -= at_label;
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

    fn reference(
        logits: &[f64],
        labels: &[u32],
        (smoothing, spread): (f64, Spread),
        weights: &[f64],
    ) -> f64 {
        let width = weights.len();
        let mut sum = 0.0;
        for (logits, &label) in logits.chunks(width).zip(labels) {
            let total: f64 = logits.iter().map(|x| x.exp()).sum();
            let cost = |class: usize| total.ln() - logits[class];
            let label = label as usize;
            let spread = (0..width).map(|class| match spread {
                Spread::ByLabel => weights[label] * cost(class),
                Spread::ByClass => weights[class] * cost(class),
            });
            sum += (1.0 - smoothing) * weights[label] * cost(label);
            sum += smoothing / width as f64 * spread.sum::<f64>();
        }
        sum
    }

    #[test]
    fn agrees_with_the_reference_and_with_finite_differences() {
        for (n, width) in [(0, 3), (1, 1), (1, 2), (4, 31), (5, 65)] {
            for (smoothing, weighted) in [(0.0, false), (0.5, false), (0.0, true), (0.3, true)] {
                for spread in [Spread::ByLabel, Spread::ByClass] {
                    agrees((n, width), (smoothing, spread), weighted);
                }
            }
        }
    }

    fn agrees((n, width): (usize, usize), (smoothing, spread): (f64, Spread), weighted: bool) {
        let mut random = Random::new((n * 100 + width) as u64);
        let logits = random.tensor(&[n, width]);
        let labels = random.ids(n, width);
        let weights: Vec<f32> = (0..width).map(|i| 0.5 + i as f32 / 8.0).collect();
        let settings = Settings {
            smoothing,
            class_weights: weighted.then_some(&weights),
            spread,
            gradient_scale: None,
        };
        let weight = |class: usize| match weighted {
            true => f64::from(weights[class]),
            false => 1.0,
        };
        let all: Vec<f64> = (0..width).map(weight).collect();
        let expected = |logits: &[f64]| reference(logits, &labels, (smoothing, spread), &all);
        let wide_logits = wide(&logits);
        let loss = forward(&logits, &labels, settings).unwrap();
        assert_close("loss", &[loss.sum], &[expected(&wide_logits)]);
        let weight: f64 = labels.iter().map(|l| all[*l as usize]).sum();
        assert_close("weight", &[loss.weight], &[weight]);
        let (sum, weight, gradient) = forward_backward(logits, &labels, settings).unwrap();
        assert_eq!((sum.wait().unwrap(), weight), (loss.sum, loss.weight));
        assert_close("dlogits", &wide(&gradient), &slopes(&wide_logits, expected));
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
            let (sum, _, gradient) =
                forward_backward(logits, &labels, Settings::default()).unwrap();
            let sum = sum.wait().unwrap() as f32;
            let loss = crate::buffers::from_vec(vec![sum], 1).unwrap();
            vec![gradient, loss]
        });
    }
}
