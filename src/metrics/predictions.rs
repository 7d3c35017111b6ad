//! Predictions with probabilities, and all figures of them.

use serde::{Deserialize, Serialize};

use super::confusion::{ClassFigures, Confusion, mean};
use super::ranking::auroc;

/// Classes among which the right one counts for `top3_accuracy`.
const TOP: usize = 3;

/// What classes were predicted, and with what probability.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Predictions {
    confusion: Confusion,
    truths: Vec<u32>,        // [N]
    answers: Vec<u32>,       // [N]
    probabilities: Vec<f32>, // [N, C]
    log_loss_sum: f64,
    right_in_top: u64,
    /// Whether truths and probabilities are kept, for the ROC curve.
    keeps_all: bool,
}

/// How good predictions are, over all classes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// Share that is right.
    pub accuracy: f64,
    /// Mean recall over the classes present in the truth.
    pub balanced_accuracy: f64,
    /// Mean precision over the classes present in truth or prediction.
    pub macro_precision: f64,
    /// Mean recall over the same classes.
    pub macro_recall: f64,
    /// Mean F1 over the same classes.
    pub macro_f1: f64,
    /// Mean F1 weighted by the number of cells.
    pub weighted_f1: f64,
    /// Harmonic mean of macro precision and macro recall.
    pub f1_harmonic: f64,
    /// Share whose class is among the three most probable.
    pub top3_accuracy: f64,
    /// Matthews' correlation, -1..=1.
    pub mcc: f64,
    /// Cohen's kappa, at most 1.
    pub kappa: f64,
    /// Mean over classes of the area under the ROC curve, one class against the rest; `None` where
    /// no class has both cells and other cells, or probabilities were not kept.
    pub auroc: Option<f64>,
    /// Mean negative logarithm of the true class' probability, in nats.
    pub log_loss: f64,
}

impl Figures {
    /// Names of the figures by which predictions can be compared, the more the better.
    pub const NAMES: [&str; 11] = [
        "accuracy",
        "balanced_accuracy",
        "macro_precision",
        "macro_recall",
        "macro_f1",
        "weighted_f1",
        "f1_harmonic",
        "top3_accuracy",
        "mcc",
        "kappa",
        "auroc",
    ];

    /// What follows from a confusion matrix, and the figures that do not.
    pub(super) fn new(m: &Confusion, top3_accuracy: f64, log_loss: f64, areas: &[f64]) -> Self {
        Self {
            accuracy: m.accuracy(),
            balanced_accuracy: m.balanced_accuracy(),
            macro_precision: m.macro_precision(),
            macro_recall: m.macro_recall(),
            macro_f1: m.macro_f1(),
            weighted_f1: m.weighted_f1(),
            f1_harmonic: m.f1_harmonic(),
            top3_accuracy,
            mcc: m.mcc(),
            kappa: m.kappa(),
            auroc: (!areas.is_empty()).then(|| mean(areas.iter().copied())),
            log_loss,
        }
    }

    /// Those of [`Figures::NAMES`] that exist.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let values = [
            Some(self.accuracy),
            Some(self.balanced_accuracy),
            Some(self.macro_precision),
            Some(self.macro_recall),
            Some(self.macro_f1),
            Some(self.weighted_f1),
            Some(self.f1_harmonic),
            Some(self.top3_accuracy),
            Some(self.mcc),
            Some(self.kappa),
            self.auroc,
        ];
        let named = Self::NAMES.into_iter().zip(values);
        named.filter_map(|(name, value)| Some((name, value?)))
    }
}

impl Predictions {
    /// None yet, of `num_classes` classes.
    pub fn new(num_classes: usize) -> Self {
        Self {
            confusion: Confusion::new(num_classes),
            keeps_all: true,
            ..Self::default()
        }
    }

    /// As [`Predictions::new`], in memory that does not grow: there will be no ROC curve.
    pub fn without_curves(num_classes: usize) -> Self {
        Self {
            keeps_all: false,
            ..Self::new(num_classes)
        }
    }

    /// Adds the predictions of others, of the same classes and kept as these are.
    pub fn absorb(&mut self, other: Self) {
        self.confusion.absorb(&other.confusion);
        self.truths.extend(other.truths);
        self.answers.extend(other.answers);
        self.probabilities.extend(other.probabilities);
        self.log_loss_sum += other.log_loss_sum;
        self.right_in_top += other.right_in_top;
    }

    /// Adds a prediction: `probabilities` \[C\] and the true class. The answer is the most probable
    /// class, the first of equals. What does not fit the number of classes is a caller's error and
    /// is not counted.
    pub fn add(&mut self, truth: usize, probabilities: &[f64]) {
        let num_classes = self.confusion.num_classes();
        if truth >= num_classes || probabilities.len() != num_classes {
            return;
        }
        let answer = argmax(probabilities);
        self.confusion.add(truth, answer);
        self.right_in_top += u64::from(is_in_top(probabilities, truth));
        self.log_loss_sum += log_loss(probabilities[truth]);
        if self.keeps_all {
            self.truths.push(truth as u32);
            self.answers.push(answer as u32);
            self.probabilities
                .extend(probabilities.iter().map(|&p| p as f32));
        }
    }

    /// Number of predictions.
    pub fn len(&self) -> u64 {
        self.confusion.total()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which class was answered for which.
    pub fn confusion(&self) -> &Confusion {
        &self.confusion
    }

    /// The table by class.
    pub fn per_class(&self) -> Vec<ClassFigures> {
        self.confusion.per_class()
    }

    /// The area under the ROC curve of each class against the rest, where there is one.
    pub fn auroc_per_class(&self) -> Vec<Option<f64>> {
        let num_classes = self.confusion.num_classes();
        let of = |class: usize| {
            let rows = self.probabilities.chunks_exact(num_classes);
            let truths = self.truths.iter().map(|&truth| truth as usize == class);
            auroc(rows.map(|row| row[class]).zip(truths))
        };
        (0..num_classes).map(of).collect()
    }

    /// The true class of each; none where they are not kept.
    pub fn truths(&self) -> &[u32] {
        &self.truths
    }

    /// The class answered for each; none where they are not kept.
    pub fn answers(&self) -> &[u32] {
        &self.answers
    }

    /// The probabilities of each, \[C\]; none where they are not kept.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        let num_classes = self.confusion.num_classes();
        self.probabilities.chunks_exact(num_classes.max(1))
    }

    /// Those predictions alone whose numbers, from 0, are `chosen`, as far as they are kept.
    #[must_use]
    pub fn of(&self, chosen: impl IntoIterator<Item = usize>) -> Self {
        let num_classes = self.confusion.num_classes();
        let mut part = Self::new(num_classes);
        for number in chosen.into_iter().filter(|&n| n < self.truths.len()) {
            let row = &self.probabilities[number * num_classes..][..num_classes];
            let row: Vec<f64> = row.iter().map(|&p| f64::from(p)).collect();
            part.add(self.truths[number] as usize, &row);
        }
        part
    }

    /// All figures.
    pub fn figures(&self) -> Figures {
        let m = &self.confusion;
        let per_cell = 1.0 / (m.total() as f64).max(1.0);
        let areas: Vec<f64> = self.auroc_per_class().into_iter().flatten().collect();
        Figures::new(
            m,
            self.right_in_top as f64 * per_cell,
            self.log_loss_sum * per_cell,
            &areas,
        )
    }
}

/// Whether `class` is among the [`TOP`] most probable, the first of equals first.
pub(super) fn is_in_top<T: PartialOrd + Copy>(probabilities: &[T], class: usize) -> bool {
    let own = probabilities[class];
    let is_before = |(other, &p): (usize, &T)| p > own || (p == own && other < class);
    let before = probabilities.iter().enumerate().filter(|&c| is_before(c));
    before.count() < TOP
}

/// The loss of giving the true class this probability, in nats.
pub(super) fn log_loss(probability: f64) -> f64 {
    -probability.max(f64::EPSILON).ln()
}

/// The place of the greatest value, the first of equals; 0 where there is none.
pub fn argmax<T: PartialOrd>(values: &[T]) -> usize {
    let better = |best: usize, i: usize| if values[i] > values[best] { i } else { best };
    (0..values.len()).reduce(better).unwrap_or(0)
}

/// The probabilities of logits.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut values: Vec<f64> = logits.iter().map(|&x| f64::from(x - max).exp()).collect();
    let sum: f64 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_that_do_not_exist_are_none_and_misfits_are_not_counted() {
        let mut predictions = Predictions::new(2);
        assert_eq!(predictions.figures().auroc, None);
        predictions.add(1, &[0.25, 0.75]);
        predictions.add(2, &[0.5, 0.5]);
        predictions.add(0, &[1.0]);
        let figures = predictions.figures();
        assert_eq!((predictions.len(), figures.accuracy), (1, 1.0));
        assert_eq!(figures.auroc, None);
        assert!((figures.log_loss + 0.75f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn without_curves_all_but_the_curve_is_the_same() {
        let (mut whole, mut lean) = (Predictions::new(2), Predictions::without_curves(2));
        for (truth, p) in [(0, 0.8), (1, 0.6), (1, 0.3), (0, 0.1)] {
            whole.add(truth, &[p, 1.0 - p]);
            lean.add(truth, &[p, 1.0 - p]);
        }
        assert_eq!(lean.probabilities.len(), 0);
        let auroc = None;
        assert_eq!(
            lean.figures(),
            Figures {
                auroc,
                ..whole.figures()
            }
        );
        assert!(whole.figures().auroc.is_some());
    }

    #[test]
    fn large_logits_have_probabilities() {
        assert_eq!(softmax(&[1e5, 0.0]), [1.0, 0.0]);
        assert_eq!(softmax(&[3.0; 4]), [0.25; 4]);
        assert_eq!(argmax(&[1.0, 2.0, 2.0]), 1);
    }
}
