//! Predictions with probabilities, and all figures of them.

use serde::{Deserialize, Serialize};

use super::confusion::{ClassFigures, Confusion, mean};
use super::ranking::auroc;
use super::scores::Scores;
use crate::file::FileError;

/// Classes among which the right one counts for `top3_accuracy`.
const TOP: usize = 3;

/// What classes were predicted, and with what probability. In memory are some twenty bytes of each;
/// the probabilities of all classes go to the disk where they are many.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Predictions {
    confusion: Confusion,
    truths: Vec<u32>,  // [N]
    answers: Vec<u32>, // [N]
    /// Probability of the true class, and of the answer.
    of_truth: Vec<f32>, // [N]
    of_answer: Vec<f32>, // [N]
    /// Whether the true class is among the most probable.
    in_top: Vec<bool>, // [N]
    scores: Scores,    // [N, C]
    log_loss_sum: f64,
    right_in_top: u64,
    /// Whether all of this is kept, for the ROC curve.
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
            scores: Scores::new(num_classes),
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
    ///
    /// # Errors
    /// The disk of the temporary folder is full.
    pub fn absorb(&mut self, other: Self) -> Result<(), FileError> {
        self.confusion.absorb(&other.confusion);
        self.truths.extend(other.truths);
        self.answers.extend(other.answers);
        self.of_truth.extend(other.of_truth);
        self.of_answer.extend(other.of_answer);
        self.in_top.extend(other.in_top);
        self.scores.absorb(&other.scores)?;
        self.log_loss_sum += other.log_loss_sum;
        self.right_in_top += other.right_in_top;
        Ok(())
    }

    /// Adds a prediction: `probabilities` \[C\] and the true class. The answer is the most probable
    /// class, the first of equals. What does not fit the number of classes is a caller's error and
    /// is not counted.
    ///
    /// # Errors
    /// The disk of the temporary folder is full.
    pub fn add(&mut self, truth: usize, probabilities: &[f64]) -> Result<(), FileError> {
        let num_classes = self.confusion.num_classes();
        if truth >= num_classes || probabilities.len() != num_classes {
            return Ok(());
        }
        let answer = argmax(probabilities);
        self.confusion.add(truth, answer);
        self.right_in_top += u64::from(is_in_top(probabilities, truth));
        self.log_loss_sum += log_loss(probabilities[truth]);
        if self.keeps_all {
            let row: Vec<f32> = probabilities.iter().map(|&p| p as f32).collect();
            self.truths.push(truth as u32);
            self.answers.push(answer as u32);
            self.of_truth.push(row[truth]);
            self.of_answer.push(row[answer]);
            self.in_top.push(is_in_top(&row, truth));
            self.scores.add(row.into_iter())?;
        }
        Ok(())
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
    ///
    /// # Errors
    /// What went to the disk cannot be read.
    pub fn auroc_per_class(&self) -> Result<Vec<Option<f64>>, FileError> {
        let num_classes = self.confusion.num_classes();
        let of = |class: usize| {
            let truths = self.truths.iter().map(|&truth| truth as usize == class);
            Ok(auroc(self.probabilities_of(class)?.into_iter().zip(truths)))
        };
        (0..num_classes).map(of).collect()
    }

    /// The probability of a class, of each prediction; none where they are not kept.
    pub(super) fn probabilities_of(&self, class: usize) -> Result<Vec<f32>, FileError> {
        self.scores.of_class(class)
    }

    /// The true class of each; none where they are not kept.
    pub fn truths(&self) -> &[u32] {
        &self.truths
    }

    /// The class answered for each; none where they are not kept.
    pub fn answers(&self) -> &[u32] {
        &self.answers
    }

    /// The probability of each answer; none where they are not kept.
    pub fn confidences(&self) -> &[f32] {
        &self.of_answer
    }

    /// Loss of each prediction in nats, and whether its class is among the most probable.
    pub(super) fn losses(&self) -> impl Iterator<Item = (f64, bool)> {
        let losses = self.of_truth.iter().map(|&p| log_loss(f64::from(p)));
        losses.zip(self.in_top.iter().copied())
    }

    /// What `make` makes of confusion and figures of each part of the predictions, as far as they
    /// are kept; a part is their numbers, from 0.
    ///
    /// # Errors
    /// What went to the disk cannot be read.
    pub fn of_parts<T>(
        &self,
        parts: &[Vec<usize>],
        make: impl Fn(&Confusion, Figures) -> T,
    ) -> Result<Vec<T>, FileError> {
        let num_classes = self.confusion.num_classes();
        let mut areas = vec![Vec::new(); parts.len()];
        for class in 0..num_classes {
            let scores = self.probabilities_of(class)?;
            let is_true = |n: usize| self.truths[n] as usize == class;
            for (part, areas) in parts.iter().zip(&mut areas) {
                areas.extend(auroc(part.iter().map(|&n| (scores[n], is_true(n)))));
            }
        }
        let made = |(part, areas): (&Vec<usize>, Vec<f64>)| {
            let mut confusion = Confusion::new(num_classes);
            let (mut top, mut loss) = (0, 0.0);
            for &n in part {
                confusion.add(self.truths[n] as usize, self.answers[n] as usize);
                top += u64::from(self.in_top[n]);
                loss += log_loss(f64::from(self.of_truth[n]));
            }
            let per_cell = 1.0 / (confusion.total() as f64).max(1.0);
            let (top, loss) = (top as f64 * per_cell, loss * per_cell);
            make(&confusion, Figures::new(&confusion, top, loss, &areas))
        };
        Ok(parts.iter().zip(areas).map(made).collect())
    }

    /// All figures.
    ///
    /// # Errors
    /// What went to the disk cannot be read.
    pub fn figures(&self) -> Result<Figures, FileError> {
        let areas: Vec<f64> = self.auroc_per_class()?.into_iter().flatten().collect();
        Ok(self.figures_with(&areas))
    }

    /// All figures, the areas under the curves of [`Predictions::auroc_per_class`] being these.
    pub fn figures_with(&self, areas: &[f64]) -> Figures {
        let m = &self.confusion;
        let per_cell = 1.0 / (m.total() as f64).max(1.0);
        Figures::new(
            m,
            self.right_in_top as f64 * per_cell,
            self.log_loss_sum * per_cell,
            areas,
        )
    }

    /// Mean loss in nats.
    pub fn log_loss(&self) -> f64 {
        self.log_loss_sum * (1.0 / (self.len() as f64).max(1.0))
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
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn figures_that_do_not_exist_are_none_and_misfits_are_not_counted() {
        let mut predictions = Predictions::new(2);
        assert_eq!(predictions.figures().unwrap().auroc, None);
        predictions.add(1, &[0.25, 0.75]).unwrap();
        predictions.add(2, &[0.5, 0.5]).unwrap();
        predictions.add(0, &[1.0]).unwrap();
        let figures = predictions.figures().unwrap();
        assert_eq!((predictions.len(), figures.accuracy), (1, 1.0));
        assert_eq!(figures.auroc, None);
        assert!((figures.log_loss + 0.75f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn without_curves_all_but_the_curve_is_the_same() {
        let (mut whole, mut lean) = (Predictions::new(2), Predictions::without_curves(2));
        for (truth, p) in [(0, 0.8), (1, 0.6), (1, 0.3), (0, 0.1)] {
            whole.add(truth, &[p, 1.0 - p]).unwrap();
            lean.add(truth, &[p, 1.0 - p]).unwrap();
        }
        assert!(lean.confidences().is_empty());
        let (auroc, figures) = (None, whole.figures().unwrap());
        assert_eq!(lean.figures().unwrap(), Figures { auroc, ..figures });
        assert!(figures.auroc.is_some());
    }

    #[test]
    fn a_part_has_the_figures_of_its_predictions() {
        let rows = [(0, 0.75), (1, 0.5), (1, 0.25), (0, 0.125), (1, 0.0)];
        let (mut all, mut part) = (Predictions::new(2), Predictions::new(2));
        for (number, (truth, p)) in rows.into_iter().enumerate() {
            all.add(truth, &[p, 1.0 - p]).unwrap();
            if number % 2 == 0 {
                part.add(truth, &[p, 1.0 - p]).unwrap();
            }
        }
        let both = |confusion: &Confusion, figures| (confusion.clone(), figures);
        let found = all.of_parts(&[vec![0, 2, 4], vec![]], both).unwrap();
        let expected = (part.confusion().clone(), part.figures().unwrap());
        assert_eq!((found.len(), &found[0]), (2, &expected));
        assert_eq!(found[1].0.total(), 0);
    }

    #[test]
    fn large_logits_have_probabilities() {
        assert_eq!(softmax(&[1e5, 0.0]), [1.0, 0.0]);
        assert_eq!(softmax(&[3.0; 4]), [0.25; 4]);
        assert_eq!(argmax(&[1.0, 2.0, 2.0]), 1);
    }
}
