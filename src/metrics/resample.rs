//! The figures of the same predictions with another weight for each: what a bootstrap asks for, a
//! thousand times. Whatever does not depend on the weights (the order of scores, which classes
//! occur) is found once.

use super::confusion::Confusion;
use super::predictions::{Figures, Predictions, is_in_top, log_loss};

/// Predictions, made ready.
pub struct Resampler {
    /// Number of classes that occur; truths and answers are numbered among them.
    num_classes: usize,
    truths: Vec<u32>,
    answers: Vec<u32>,
    in_top: Vec<bool>,
    losses: Vec<f64>,
    curves: Vec<Curve>,
}

/// One class: its predictions by ascending score, and where a group of equal scores ends.
struct Curve {
    class: u32,
    order: Vec<u32>,
    ends: Vec<bool>,
}

impl Resampler {
    /// Makes predictions ready, which must have been kept.
    pub fn new(predictions: &Predictions) -> Self {
        let (truths, answers) = (predictions.truths(), predictions.answers());
        let mut present: Vec<u32> = truths.iter().chain(answers).copied().collect();
        present.sort_unstable();
        present.dedup();
        let number = |class: &u32| present.partition_point(|other| other < class) as u32;
        let rows: Vec<&[f32]> = predictions.rows().collect();
        let own = || rows.iter().zip(truths).map(|(row, &t)| (*row, t as usize));
        let renumbered: Vec<u32> = truths.iter().map(number).collect();
        let curves = (0..).zip(&present).filter(|(n, _)| renumbered.contains(n));
        Self {
            num_classes: present.len(),
            answers: answers.iter().map(number).collect(),
            in_top: own().map(|(row, t)| is_in_top(row, t)).collect(),
            losses: own().map(|(row, t)| log_loss(f64::from(row[t]))).collect(),
            curves: curves
                .map(|(n, &class)| Curve::new(n, &rows, class as usize))
                .collect(),
            truths: renumbered,
        }
    }

    /// The figures, prediction i counting `weights[i]` times.
    pub fn figures(&self, weights: &[u32]) -> Figures {
        let mut confusion = Confusion::new(self.num_classes);
        let (mut top, mut loss) = (0.0, 0.0);
        for (i, &weight) in weights.iter().enumerate().take(self.truths.len()) {
            let (truth, answer) = (self.truths[i] as usize, self.answers[i] as usize);
            confusion.add_times(truth, answer, u64::from(weight));
            top += f64::from(weight) * f64::from(u8::from(self.in_top[i]));
            loss += f64::from(weight) * self.losses[i];
        }
        let areas = self.curves.iter();
        let areas: Vec<f64> = areas
            .filter_map(|curve| curve.area(&self.truths, weights))
            .collect();
        let total = (confusion.total() as f64).max(1.0);
        Figures::new(&confusion, top / total, loss / total, &areas)
    }
}

impl Curve {
    fn new(number: u32, rows: &[&[f32]], class: usize) -> Self {
        let score = |i: u32| rows[i as usize][class];
        let mut order: Vec<u32> = (0..rows.len() as u32).collect();
        order.sort_unstable_by(|&a, &b| score(a).total_cmp(&score(b)));
        let is_end = |pair: &[u32]| score(pair[0]) != score(pair[1]);
        let mut ends: Vec<bool> = order.windows(2).map(is_end).collect();
        ends.push(true);
        Self {
            class: number,
            order,
            ends,
        }
    }

    /// The area under the curve, as in [`super::ranking`].
    fn area(&self, truths: &[u32], weights: &[u32]) -> Option<f64> {
        let (mut below, mut won, mut positives) = (0.0, 0.0, 0.0);
        let (mut inside, mut others) = (0.0, 0.0);
        for (&i, &ends) in self.order.iter().zip(&self.ends) {
            let weight = f64::from(weights[i as usize]);
            if truths[i as usize] == self.class {
                inside += weight;
            } else {
                others += weight;
            }
            if ends {
                won += inside * (below + others / 2.0);
                below += others;
                positives += inside;
                (inside, others) = (0.0, 0.0);
            }
        }
        (positives > 0.0 && below > 0.0).then(|| won / (positives * below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_repetitions() {
        let rows = [
            (0, [0.5, 0.3, 0.1, 0.05, 0.05]),
            (2, [0.25, 0.25, 0.25, 0.25, 0.0]),
            (3, [0.1, 0.1, 0.1, 0.1, 0.6]),
            (3, [0.0, 0.25, 0.125, 0.5, 0.125]),
            (0, [0.25, 0.5, 0.25, 0.0, 0.0]),
        ];
        let weights = [2, 0, 1, 3, 1];
        let (mut once, mut repeated) = (Predictions::new(5), Predictions::new(5));
        for ((truth, row), times) in rows.iter().zip(weights) {
            once.add(*truth, row);
            (0..times).for_each(|_| repeated.add(*truth, row));
        }
        let ready = Resampler::new(&once);
        for (found, expected) in [
            (ready.figures(&weights), repeated.figures()),
            (ready.figures(&[1; 5]), once.figures()),
        ] {
            let pairs = found.named().zip(expected.named());
            for ((name, found), (_, expected)) in pairs {
                assert!(
                    (found - expected).abs() < 1e-12,
                    "{name} {found} {expected}"
                );
            }
            assert!((found.log_loss - expected.log_loss).abs() < 1e-6);
        }
    }
}
