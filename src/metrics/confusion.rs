//! A confusion matrix and what is read off it.

use serde::{Deserialize, Serialize};

/// Counts of (true class, predicted class).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    num_classes: usize,
    counts: Vec<u64>, // [true, predicted]
}

/// How well one class is told from the others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClassFigures {
    /// Cells of this class.
    pub support: u64,
    /// Cells for which it was answered.
    pub predicted: u64,
    /// Share of those answers that are right; 0 where it was never answered.
    pub precision: f64,
    /// Share of its cells that were found; 0 where there are none.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
}

impl ClassFigures {
    /// Whether the class occurs in truth or prediction.
    pub fn is_present(&self) -> bool {
        self.support + self.predicted > 0
    }
}

impl Confusion {
    /// An empty matrix of `num_classes` × `num_classes`.
    pub fn new(num_classes: usize) -> Self {
        Self {
            num_classes,
            counts: vec![0; num_classes * num_classes],
        }
    }

    /// Counts one prediction; classes beyond the matrix are a caller's error and are not counted.
    pub fn add(&mut self, truth: usize, predicted: usize) {
        self.add_times(truth, predicted, 1);
    }

    /// Counts the same prediction `times` times.
    pub fn add_times(&mut self, truth: usize, predicted: usize, times: u64) {
        if truth < self.num_classes && predicted < self.num_classes {
            self.counts[truth * self.num_classes + predicted] += times;
        }
    }

    /// Adds the counts of another matrix of as many classes.
    pub fn absorb(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// The matrix of the same cells if `class` had been answered for every one of them.
    #[must_use]
    pub fn always(&self, class: usize) -> Self {
        let mut constant = Self::new(self.num_classes);
        if class < self.num_classes {
            for truth in 0..self.num_classes {
                constant.counts[truth * self.num_classes + class] = self.row_sum(truth);
            }
        }
        constant
    }

    /// Number of classes C.
    pub fn num_classes(&self) -> usize {
        self.num_classes
    }

    /// Number of predictions counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Rows by true class, each with the counts of the C predicted classes.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[u64]> {
        self.counts.chunks_exact(self.num_classes.max(1))
    }

    fn row_sum(&self, class: usize) -> u64 {
        self.counts[class * self.num_classes..][..self.num_classes]
            .iter()
            .sum()
    }

    fn column_sum(&self, class: usize) -> u64 {
        self.counts
            .iter()
            .skip(class)
            .step_by(self.num_classes)
            .sum()
    }

    fn diagonal(&self, class: usize) -> u64 {
        self.counts[class * self.num_classes + class]
    }

    fn num_right(&self) -> u64 {
        (0..self.num_classes).map(|c| self.diagonal(c)).sum()
    }

    /// The table by class, in the order of the classes.
    pub fn per_class(&self) -> Vec<ClassFigures> {
        let figures = |class| {
            let (support, predicted) = (self.row_sum(class), self.column_sum(class));
            let right = self.diagonal(class);
            ClassFigures {
                support,
                predicted,
                precision: ratio(right, predicted),
                recall: ratio(right, support),
                f1: ratio(2 * right, support + predicted),
            }
        };
        (0..self.num_classes).map(figures).collect()
    }

    /// The mean of `figure` over the classes present in truth or prediction.
    fn macro_mean(&self, figure: impl Fn(&ClassFigures) -> f64) -> f64 {
        let classes = self.per_class();
        mean(classes.iter().filter(|c| c.is_present()).map(figure))
    }

    /// Share of predictions that are right; 0 when there are none.
    pub fn accuracy(&self) -> f64 {
        ratio(self.num_right(), self.total())
    }

    /// Mean recall over the classes present in the truth.
    pub fn balanced_accuracy(&self) -> f64 {
        let classes = self.per_class();
        mean(classes.iter().filter(|c| c.support > 0).map(|c| c.recall))
    }

    /// Mean precision over the classes present in truth or prediction.
    pub fn macro_precision(&self) -> f64 {
        self.macro_mean(|class| class.precision)
    }

    /// Mean recall over the classes present in truth or prediction.
    pub fn macro_recall(&self) -> f64 {
        self.macro_mean(|class| class.recall)
    }

    /// Mean of the per-class F1 over the classes present in truth or prediction.
    pub fn macro_f1(&self) -> f64 {
        self.macro_mean(|class| class.f1)
    }

    /// Mean of the per-class F1, each weighted by the number of its cells.
    pub fn weighted_f1(&self) -> f64 {
        let weighted = |c: &ClassFigures| c.f1 * c.support as f64;
        let sum: f64 = self.per_class().iter().map(weighted).sum();
        sum / (self.total() as f64).max(1.0)
    }

    /// Harmonic mean of macro precision and macro recall.
    pub fn f1_harmonic(&self) -> f64 {
        let (precision, recall) = (self.macro_precision(), self.macro_recall());
        fraction(2.0 * precision * recall, precision + recall)
    }

    /// Matthews' correlation of truth and prediction, for any number of classes; 0 where either
    /// is constant.
    pub fn mcc(&self) -> f64 {
        let (total, agreed) = (self.total() as f64, self.num_right() as f64);
        let (mut both, mut truths, mut answers) = (0.0, 0.0, 0.0);
        for class in self.per_class() {
            let (truth, answer) = (class.support as f64, class.predicted as f64);
            both += truth * answer;
            truths += truth * truth;
            answers += answer * answer;
        }
        let square = total * total;
        let spread = ((square - truths) * (square - answers)).sqrt();
        fraction(agreed * total - both, spread)
    }

    /// Cohen's kappa: agreement beyond that of chance; 0 where chance agrees always.
    pub fn kappa(&self) -> f64 {
        let total = self.total() as f64;
        let by_chance: f64 = self
            .per_class()
            .iter()
            .map(|class| class.support as f64 * class.predicted as f64)
            .sum();
        let expected = by_chance / (total * total).max(1.0);
        fraction(self.accuracy() - expected, 1.0 - expected)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    fraction(part as f64, whole as f64)
}

/// `part / whole`; 0 where there is no whole.
fn fraction(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(s, n), v| (s + v, n + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn figures_of_a_small_matrix() {
        let mut m = Confusion::new(4);
        for (t, p) in [(0, 0), (0, 0), (0, 1), (1, 1), (2, 0)] {
            m.add(t, p);
        }
        assert_eq!(m.total(), 5);
        assert!((m.accuracy() - 0.6).abs() < 1e-12);
        assert!((m.balanced_accuracy() - (2.0 / 3.0 + 1.0) / 3.0).abs() < 1e-12);
        // F1: class 0 = 2·2/(3+3), class 1 = 2·1/(1+2), class 2 = 0; class 3 is absent.
        assert!((m.macro_f1() - (2.0 / 3.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
        let majority = m.always(0);
        assert_eq!((majority.total(), majority.accuracy()), (5, 0.6));
        assert!((majority.macro_f1() - (6.0 / 8.0) / 3.0).abs() < 1e-12);
        assert_eq!((majority.mcc(), majority.kappa()), (0.0, 0.0));
    }

    #[test]
    fn an_empty_matrix_is_zero_not_nan() {
        for m in [Confusion::new(0), Confusion::new(3)] {
            let figures = [
                m.accuracy(),
                m.balanced_accuracy(),
                m.macro_f1(),
                m.weighted_f1(),
                m.f1_harmonic(),
                m.mcc(),
                m.kappa(),
            ];
            assert_eq!(figures, [0.0; 7]);
            assert_eq!(m.always(0), m);
        }
    }
}
