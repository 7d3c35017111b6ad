//! The figures of the same predictions with another weight for each: what a bootstrap asks for, a
//! thousand times. Whatever does not depend on the weights (the order of scores, which classes
//! occur) is found once, for as many classes at a time as there is room for.

use rayon::prelude::*;

use super::confusion::{Confusion, mean};
use super::predictions::{Figures, Predictions};
use crate::file::FileError;

/// Numbers of the orders of scores that are held at a time: 5 bytes each.
const HELD: usize = 8 << 20;

/// Predictions, made ready.
pub struct Resampler<'a> {
    predictions: &'a Predictions,
    /// The classes that occur; truths and answers are numbered among them.
    present: Vec<u32>,
    truths: Vec<u32>,
    answers: Vec<u32>,
    losses: Vec<(f64, bool)>,
}

/// One class: its predictions by ascending score, and where a group of equal scores ends.
struct Curve {
    class: u32,
    order: Vec<u32>,
    ends: Vec<bool>,
}

impl<'a> Resampler<'a> {
    /// Makes predictions ready, which must have been kept.
    pub fn new(predictions: &'a Predictions) -> Self {
        let (truths, answers) = (predictions.truths(), predictions.answers());
        let mut present: Vec<u32> = truths.iter().chain(answers).copied().collect();
        present.sort_unstable();
        present.dedup();
        let number = |class: &u32| present.partition_point(|other| other < class) as u32;
        Self {
            predictions,
            truths: truths.iter().map(number).collect(),
            answers: answers.iter().map(number).collect(),
            losses: predictions.losses().collect(),
            present,
        }
    }

    /// The figures of resamples 0, 1, …, in which prediction i counts `weights(resample)[i]` times.
    ///
    /// # Errors
    /// Probabilities that went to the disk cannot be read.
    pub fn each(
        &self,
        num_resamples: u64,
        weights: impl Fn(u64) -> Vec<u32> + Sync,
    ) -> Result<Vec<Figures>, FileError> {
        self.each_by(num_resamples, weights, HELD)
    }

    fn each_by(
        &self,
        num_resamples: u64,
        weights: impl Fn(u64) -> Vec<u32> + Sync,
        held: usize,
    ) -> Result<Vec<Figures>, FileError> {
        let together = (held / self.truths.len().max(1)).max(1);
        let mut curved: Vec<u32> = self.truths.clone();
        curved.sort_unstable();
        curved.dedup();
        let mut found: Vec<(Option<Figures>, Vec<f64>)> = Vec::new();
        found.resize_with(num_resamples as usize, Default::default);
        // Where there are no classes, there are figures all the same.
        let groups = (curved.chunks(together)).chain(curved.is_empty().then_some(&[][..]));
        for classes in groups {
            let curve = |&class: &u32| self.curve(class);
            let curves: Result<Vec<_>, _> = classes.par_iter().map(curve).collect();
            let curves = curves?;
            let numbered = found.par_iter_mut().enumerate();
            numbered.for_each(|(resample, (figures, areas))| {
                let weights = weights(resample as u64);
                figures.get_or_insert_with(|| self.without_curves(&weights));
                let area = |curve: &Curve| curve.area(&self.truths, &weights);
                areas.extend(curves.iter().filter_map(area));
            });
        }
        let whole = |(figures, areas): (Option<Figures>, Vec<f64>)| {
            let auroc = (!areas.is_empty()).then(|| mean(areas.iter().copied()));
            figures.map(|figures| Figures { auroc, ..figures })
        };
        Ok(found.into_iter().filter_map(whole).collect())
    }

    fn without_curves(&self, weights: &[u32]) -> Figures {
        let mut confusion = Confusion::new(self.present.len());
        let (mut top, mut loss) = (0.0, 0.0);
        for (i, &weight) in weights.iter().enumerate().take(self.truths.len()) {
            let (truth, answer) = (self.truths[i] as usize, self.answers[i] as usize);
            confusion.add_times(truth, answer, u64::from(weight));
            let (own, in_top) = self.losses[i];
            top += f64::from(weight) * f64::from(u8::from(in_top));
            loss += f64::from(weight) * own;
        }
        let total = (confusion.total() as f64).max(1.0);
        Figures::new(&confusion, top / total, loss / total, &[])
    }

    fn curve(&self, class: u32) -> Result<Curve, FileError> {
        let scores = (self.predictions).probabilities_of(self.present[class as usize] as usize)?;
        Ok(Curve::new(class, &scores))
    }
}

impl Curve {
    fn new(class: u32, scores: &[f32]) -> Self {
        let score = |i: u32| scores[i as usize];
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        order.sort_unstable_by(|&a, &b| score(a).total_cmp(&score(b)));
        let is_end = |pair: &[u32]| score(pair[0]) != score(pair[1]);
        let mut ends: Vec<bool> = order.windows(2).map(is_end).collect();
        ends.push(true);
        Self { class, order, ends }
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
    #![allow(clippy::unwrap_used)]
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
            once.add(*truth, row).unwrap();
            (0..times).for_each(|_| repeated.add(*truth, row).unwrap());
        }
        let ready = Resampler::new(&once);
        let of = |resample: u64| [weights, [1; 5]][resample as usize].to_vec();
        let found = ready.each(2, of).unwrap();
        assert_eq!(ready.each_by(2, of, 7).unwrap(), found, "class by class");
        for (found, expected) in found
            .into_iter()
            .zip([repeated.figures().unwrap(), once.figures().unwrap()])
        {
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
