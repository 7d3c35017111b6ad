//! Draws genes that a cell does not express: distinct, and never one of the cell's own.
//!
//! Most genes of a source are absent from most cells, so candidates are drawn and those that do
//! not fit thrown away; a cell that expresses most of them gets the list of absent genes instead.
//! Both ways give the same distribution: uniform, or by weight, without replacement.

use rand::Rng;
use rand::seq::index;

use crate::rng::ChaCha8Rng;

/// The genes of one cell, both lists ascending.
pub(super) struct Genes<'a> {
    /// What the source measures.
    pub(super) measured: &'a [u32],
    /// What the cell expresses.
    pub(super) expressed: &'a [u32],
}

impl Genes<'_> {
    fn is_absent(&self, gene: u32) -> bool {
        self.expressed.binary_search(&gene).is_err()
    }

    /// The absent genes that are not in `taken`, ascending.
    fn absent(&self, taken: &[u32]) -> Vec<u32> {
        let fits = |gene: &u32| self.is_absent(*gene) && !taken.contains(gene);
        self.measured.iter().copied().filter(fits).collect()
    }
}

/// Up to `count` absent genes, each as likely as the other.
pub(super) fn draw_uniform(genes: &Genes<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
    let Genes {
        measured,
        expressed,
    } = genes;
    if measured.len() < 2 * (expressed.len() + count) {
        let absent = genes.absent(&[]);
        let drawn = index::sample(rng, absent.len(), count.min(absent.len()));
        return drawn.into_iter().map(|i| absent[i]).collect();
    }
    let mut seen = Vec::with_capacity(count); // ascending
    let mut drawn = Vec::with_capacity(count);
    while drawn.len() < count {
        let gene = measured[rng.random_range(0..measured.len() as u32) as usize];
        if let (true, Err(place)) = (genes.is_absent(gene), seen.binary_search(&gene)) {
            seen.insert(place, gene);
            drawn.push(gene);
        }
    }
    drawn
}

/// Weights of all genes of the vocabulary, summed up for drawing.
#[derive(Debug, Clone)]
pub(super) struct GeneWeights {
    weights: Vec<f64>,
    /// Sum of the weights up to and with each gene.
    sums: Vec<f64>,
}

impl GeneWeights {
    /// `None` where a weight is negative or not finite, or all are zero.
    pub(super) fn new(weights: &[f64]) -> Option<Self> {
        if weights.iter().any(|w| !w.is_finite() || *w < 0.0) {
            return None;
        }
        let mut sum = 0.0;
        let sums: Vec<f64> = weights
            .iter()
            .map(|w| {
                sum += w;
                sum
            })
            .collect();
        (sum > 0.0 && sum.is_finite()).then(|| Self {
            weights: weights.to_vec(),
            sums,
        })
    }

    fn weight(&self, gene: u32) -> f64 {
        self.weights.get(gene as usize).copied().unwrap_or(0.0)
    }

    fn candidate(&self, rng: &mut ChaCha8Rng) -> u32 {
        let total = self.sums.last().copied().unwrap_or(0.0);
        let at = rng.random::<f64>() * total;
        self.sums
            .partition_point(|&sum| sum <= at)
            .min(self.sums.len() - 1) as u32
    }
}

/// Up to `count` absent genes, by weight. Genes of weight 0 only when nothing else is left.
pub(super) fn draw_weighted(
    genes: &Genes<'_>,
    weights: &GeneWeights,
    count: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<u32> {
    let mut seen: Vec<u32> = Vec::with_capacity(count); // ascending
    let mut drawn = Vec::with_capacity(count);
    let mut tries = 16 * count + 256;
    while drawn.len() < count && tries > 0 {
        tries -= 1;
        let gene = weights.candidate(rng);
        let fits = genes.is_absent(gene) && genes.measured.binary_search(&gene).is_ok();
        if let (true, Err(place)) = (fits, seen.binary_search(&gene)) {
            seen.insert(place, gene);
            drawn.push(gene);
        }
    }
    let missing = count - drawn.len();
    drawn.extend(best_of_the_rest(
        &genes.absent(&seen),
        weights,
        missing,
        rng,
    ));
    drawn
}

/// Sampling by weight without replacement in one pass: the `count` smallest of independent
/// exponential times with the weights as rates (Efraimidis and Spirakis, 2006).
fn best_of_the_rest(
    absent: &[u32],
    weights: &GeneWeights,
    count: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<u32> {
    if count == 0 {
        return Vec::new();
    }
    let mut timed: Vec<(bool, f64, u32)> = absent
        .iter()
        .map(|&gene| {
            let (time, weight) = (-(1.0 - rng.random::<f64>()).ln(), weights.weight(gene));
            if weight > 0.0 {
                (false, time / weight, gene)
            } else {
                (true, time, gene)
            }
        })
        .collect();
    timed.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)));
    timed
        .into_iter()
        .take(count)
        .map(|(_, _, gene)| gene)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rng::{Stream, stream};

    fn check(drawn: &[u32], genes: &Genes<'_>) {
        let distinct: std::collections::BTreeSet<_> = drawn.iter().collect();
        assert_eq!(distinct.len(), drawn.len());
        for gene in drawn {
            assert!(genes.measured.contains(gene) && !genes.expressed.contains(gene));
        }
    }

    #[test]
    fn only_absent_genes_and_each_once() {
        let measured: Vec<u32> = (0..300).filter(|g| g % 3 != 0).collect();
        let weights = GeneWeights::new(&(0..300).map(f64::from).collect::<Vec<_>>()).unwrap();
        for num_expressed in [0, 1, 40, 150, 199, 200] {
            let expressed: Vec<u32> = measured.iter().copied().take(num_expressed).collect();
            let genes = Genes {
                measured: &measured,
                expressed: &expressed,
            };
            for count in [0, 1, 7, 60, 250] {
                let mut rng = stream(1, Stream::Mask, 0, num_expressed as u64);
                let possible = count.min(200 - num_expressed);
                for drawn in [
                    draw_uniform(&genes, count, &mut rng),
                    draw_weighted(&genes, &weights, count, &mut rng),
                ] {
                    assert_eq!(drawn.len(), possible);
                    check(&drawn, &genes);
                }
            }
        }
    }

    /// Both ways of drawing, each gene's share of single draws against the expected one.
    #[test]
    fn draws_follow_the_weights() {
        let measured: Vec<u32> = (0..40).collect();
        let weights = GeneWeights::new(&(0..40).map(f64::from).collect::<Vec<_>>()).unwrap();
        for expressed in [vec![3, 4], (0..36).collect::<Vec<u32>>()] {
            let genes = Genes {
                measured: &measured,
                expressed: &expressed,
            };
            let absent = genes.absent(&[]);
            let total: f64 = absent.iter().map(|&g| f64::from(g)).sum();
            let (mut uniform, mut weighted) = ([0.0; 40], [0.0; 40]);
            let runs = 40_000;
            for id in 0..runs {
                let mut rng = stream(2, Stream::Mask, 0, id);
                uniform[draw_uniform(&genes, 1, &mut rng)[0] as usize] += 1.0 / runs as f64;
                weighted[draw_weighted(&genes, &weights, 1, &mut rng)[0] as usize] +=
                    1.0 / runs as f64;
            }
            for &gene in &absent {
                let even = 1.0 / absent.len() as f64;
                assert!((uniform[gene as usize] - even).abs() < 0.01);
                assert!((weighted[gene as usize] - f64::from(gene) / total).abs() < 0.01);
            }
        }
    }

    #[test]
    fn weights_that_cannot_be_drawn_from_are_refused() {
        for bad in [&[0.0, 0.0][..], &[-1.0, 2.0], &[f64::NAN], &[]] {
            assert!(GeneWeights::new(bad).is_none());
        }
    }
}
