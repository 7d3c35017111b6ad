//! A confusion matrix and what is read off it: accuracy, balanced accuracy, macro F1, and the
//! majority-class baseline next to them. Definitions are scikit-learn's with `zero_division=0`;
//! the classes counted are those present in truth or prediction.

/// Counts of (true class, predicted class).
#[derive(Debug, Clone, Default)]
pub struct Confusion {
    num_classes: usize,
    counts: Vec<u64>, // [true, predicted]
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
        if truth < self.num_classes && predicted < self.num_classes {
            self.counts[truth * self.num_classes + predicted] += 1;
        }
    }

    /// Number of predictions counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
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

    /// Share of predictions that are right; 0 when there are none.
    pub fn accuracy(&self) -> f64 {
        let right = (0..self.num_classes).map(|c| self.diagonal(c)).sum();
        ratio(right, self.total())
    }

    /// Mean recall over the classes present in the truth.
    pub fn balanced_accuracy(&self) -> f64 {
        mean(
            (0..self.num_classes)
                .filter(|&c| self.row_sum(c) > 0)
                .map(|c| self.recall(c)),
        )
    }

    /// Mean of the per-class F1 over the classes present in truth or prediction.
    pub fn macro_f1(&self) -> f64 {
        let present = |&c: &usize| self.row_sum(c) + self.column_sum(c) > 0;
        mean(
            (0..self.num_classes)
                .filter(present)
                .map(|c| ratio(2 * self.diagonal(c), self.row_sum(c) + self.column_sum(c))),
        )
    }

    fn recall(&self, class: usize) -> f64 {
        ratio(self.diagonal(class), self.row_sum(class))
    }

    /// The accuracy of always answering `class`.
    pub fn accuracy_of_always(&self, class: usize) -> f64 {
        if class < self.num_classes {
            ratio(self.row_sum(class), self.total())
        } else {
            0.0
        }
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
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
        assert!((m.accuracy_of_always(0) - 0.6).abs() < 1e-12);
    }

    #[test]
    fn an_empty_matrix_is_zero_not_nan() {
        let m = Confusion::new(0);
        assert_eq!(
            (m.accuracy(), m.balanced_accuracy(), m.macro_f1()),
            (0.0, 0.0, 0.0)
        );
    }
}
