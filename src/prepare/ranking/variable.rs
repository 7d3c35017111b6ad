//! The variance of each gene of a batch, compared with that of other genes of the same mean.

use super::loess::{least_points, smooth};
use crate::prepare::moments::Moments;

/// What is expected of each gene by its mean.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    deviations: Vec<f64>,
    means: Vec<f64>,
    num_cells: f64,
    /// Larger values count as this one.
    limits: Vec<f64>,
}

/// Too few genes vary for a curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooFew {
    pub(super) found: usize,
    pub(super) least: usize,
}

impl Expected {
    /// By the sums of `num_genes` genes over `num_cells`.
    pub(super) fn new(
        moments: &Moments,
        num_genes: usize,
        num_cells: u64,
        span: f64,
    ) -> Result<Self, TooFew> {
        let genes = 0..num_genes;
        let means: Vec<f64> = genes.clone().map(|g| moments.mean(g, num_cells)).collect();
        let variances: Vec<f64> = genes.map(|g| moments.variance(g, num_cells)).collect();
        let varies: Vec<usize> = (0..means.len()).filter(|&g| variances[g] > 0.0).collect();
        let log = |of: &[f64]| -> Vec<f64> { varies.iter().map(|&g| of[g].log10()).collect() };
        let Some(curve) = smooth(&log(&means), &log(&variances), span) else {
            let (found, least) = (varies.len(), least_points(span));
            return Err(TooFew { found, least });
        };
        let mut deviations = vec![1.0; means.len()];
        for (gene, log_variance) in varies.into_iter().zip(curve) {
            deviations[gene] = 10f64.powf(log_variance).sqrt();
        }
        let num_cells = num_cells as f64;
        let reach = num_cells.sqrt();
        let limits = deviations.iter().zip(&means);
        let limits = limits.map(|(d, mean)| d * reach + mean).collect();
        Ok(Self {
            deviations,
            means,
            num_cells,
            limits,
        })
    }

    /// Whether a value is clipped.
    pub(super) fn exceeds(&self, gene: u32, value: f64) -> bool {
        let limit = self.limits.get(gene as usize);
        limit.is_some_and(|limit| value > *limit)
    }

    /// The variance of each gene's values when they are clipped and standardised.
    pub(super) fn normalised(&self, moments: &Moments, exceeding: &Exceeding) -> Vec<f64> {
        let num_cells = self.num_cells;
        let gene = |gene: usize| {
            let [sum, squares] = moments.sums(gene);
            let (mean, limit) = (self.means[gene], self.limits[gene]);
            let (cells, over) = exceeding.0[gene];
            let sum = sum - over[0] + cells * limit;
            let squares = squares - over[1] + cells * limit * limit;
            let spread = num_cells * (mean * mean) + squares - 2.0 * sum * mean;
            let deviation = self.deviations[gene];
            1.0 / ((num_cells - 1.0) * (deviation * deviation)) * spread
        };
        (0..self.means.len()).map(gene).collect()
    }
}

/// Of each gene, the number of values that are clipped, their sum and sum of squares.
#[derive(Debug, Clone)]
pub(super) struct Exceeding(Vec<(f64, [f64; 2])>);

impl Exceeding {
    pub(super) fn new(num_genes: usize) -> Self {
        Self(vec![(0.0, [0.0; 2]); num_genes])
    }

    pub(super) fn add(&mut self, gene: u32, value: f64) {
        if let Some((cells, [sum, squares])) = self.0.get_mut(gene as usize) {
            *cells += 1.0;
            *sum += value;
            *squares += value * value;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn genes_that_do_not_vary_have_no_normalised_variance() {
        let varying: Vec<Vec<f64>> = (1..17)
            .filter(|g| g % 7 != 0)
            .map(|g| (0..9).map(|c| f64::from((c * g) % 7)).collect())
            .collect();
        let mut genes: Vec<&[f64]> = varying.iter().map(Vec::as_slice).collect();
        genes.extend([[0.0; 9].as_slice(), [5.0; 9].as_slice()]);
        let moments = |genes: &[&[f64]]| {
            let mut moments = Moments::new(genes.len());
            for (gene, values) in (0..).zip(genes) {
                values.iter().for_each(|&v| moments.add(gene, v));
            }
            moments
        };
        let sums = moments(&genes);
        let expected = Expected::new(&sums, 16, 9, 0.3).unwrap();
        let found = expected.normalised(&sums, &Exceeding::new(16));
        assert!(found[..6].iter().all(|v| v.is_finite() && *v > 0.0));
        assert_eq!(found[14..], [0.0, 0.0]);
        let few = Expected::new(&moments(&genes[10..]), 6, 9, 0.3).unwrap_err();
        assert_eq!((few.found, few.least), (4, 14));
    }
}
