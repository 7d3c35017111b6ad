//! The variance of each gene of a batch, compared with that of other genes of the same mean.

use super::loess::{least_points, smooth};

/// Sums up to here are exact in 64-bit floats.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// A variance below this share of the mean square is rounding.
const ROUNDING: f64 = 1e-13;

/// Number, sum and sum of squares of the values of each gene.
#[derive(Debug, Clone, Default)]
pub(super) struct Moments {
    /// Cells, those without the gene included.
    num_cells: u64,
    sums: Vec<[f64; 2]>,
}

impl Moments {
    pub(super) fn new(num_genes: usize, num_cells: u64) -> Self {
        Self {
            num_cells,
            sums: vec![[0.0; 2]; num_genes],
        }
    }

    /// Adds a value; cells are counted apart.
    pub(super) fn add(&mut self, gene: u32, value: f64) {
        if let Some([sum, squares]) = self.sums.get_mut(gene as usize) {
            *sum += value;
            *squares += value * value;
        }
    }

    /// Adds all that another has.
    pub(super) fn merge(&mut self, other: &Self) {
        self.num_cells += other.num_cells;
        for (mine, theirs) in self.sums.iter_mut().zip(&other.sums) {
            mine[0] += theirs[0];
            mine[1] += theirs[1];
        }
    }

    pub(super) fn num_cells(&self) -> u64 {
        self.num_cells
    }

    pub(super) fn means(&self) -> Vec<f64> {
        let num_cells = self.num_cells as f64;
        self.sums.iter().map(|[sum, _]| sum / num_cells).collect()
    }

    /// Variances with n − 1 in the denominator; exact for counts before the division.
    pub(super) fn variances(&self) -> Vec<f64> {
        let num_cells = self.num_cells as f64;
        let variance = |&[sum, squares]: &[f64; 2]| {
            let whole = |v: f64| v.fract() == 0.0 && v.abs() < EXACT;
            let spread = if whole(sum) && whole(squares) {
                let (sum, squares) = (sum as i128, squares as i128);
                (i128::from(self.num_cells) * squares - sum * sum) as f64
            } else {
                let spread = num_cells * squares - sum * sum;
                if spread > ROUNDING * num_cells * squares {
                    spread
                } else {
                    0.0
                }
            };
            spread / num_cells / (num_cells - 1.0)
        };
        self.sums.iter().map(variance).collect()
    }
}

/// What is expected of each gene by its mean.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    deviations: Vec<f64>,
    means: Vec<f64>,
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
    pub(super) fn new(moments: &Moments, span: f64) -> Result<Self, TooFew> {
        let (means, variances) = (moments.means(), moments.variances());
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
        let reach = (moments.num_cells as f64).sqrt();
        let limits = deviations.iter().zip(&means);
        let limits = limits.map(|(d, mean)| d * reach + mean).collect();
        Ok(Self {
            deviations,
            means,
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
        let num_cells = moments.num_cells as f64;
        let gene = |gene: usize| {
            let [sum, squares] = moments.sums[gene];
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

    fn moments(genes: &[&[f64]]) -> Moments {
        let mut moments = Moments::new(genes.len(), genes[0].len() as u64);
        for (gene, values) in (0..).zip(genes) {
            values.iter().for_each(|&v| moments.add(gene, v));
        }
        moments
    }

    #[test]
    fn constant_genes_do_not_vary_at_all() {
        let found = moments(&[&[0.1; 7], &[3.0; 7], &[0.0; 7]]).variances();
        assert_eq!(found, [0.0; 3]);
        let found = moments(&[&[1.0, 2.0, 4.0]]);
        assert_eq!(found.means(), [7.0 / 3.0]);
        assert!((found.variances()[0] - 7.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn genes_that_do_not_vary_have_no_normalised_variance() {
        let varying: Vec<Vec<f64>> = (1..15)
            .map(|g| (0..9).map(|c| f64::from((c * g) % 7)).collect())
            .collect();
        let mut genes: Vec<&[f64]> = varying.iter().map(Vec::as_slice).collect();
        genes.extend([[0.0; 9].as_slice(), [5.0; 9].as_slice()]);
        let moments = moments(&genes);
        let expected = Expected::new(&moments, 0.3).unwrap();
        let found = expected.normalised(&moments, &Exceeding::new(16));
        assert!(found[..6].iter().all(|v| v.is_finite() && *v > 0.0));
        assert_eq!(found[14..], [0.0, 0.0]);
        let few = self::moments(&genes[10..]);
        let few = Expected::new(&few, 0.3).unwrap_err();
        assert_eq!((few.found, few.least), (4, 14));
    }
}
