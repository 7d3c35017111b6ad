//! Sums and sums of squares of the values of genes, and what follows from them.

/// Sums up to here are exact in 64-bit floats.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// A variance below this share of the mean square is rounding.
const ROUNDING: f64 = 1e-13;

/// Sum and sum of squares of the values of each gene.
#[derive(Debug, Clone, Default)]
pub(super) struct Moments {
    sums: Vec<[f64; 2]>,
}

impl Moments {
    pub(super) fn new(num_genes: usize) -> Self {
        Self {
            sums: vec![[0.0; 2]; num_genes],
        }
    }

    /// Adds a value; one of no gene is left out.
    pub(super) fn add(&mut self, gene: u32, value: f64) {
        if let Some([sum, squares]) = self.sums.get_mut(gene as usize) {
            *sum += value;
            *squares += value * value;
        }
    }

    /// Adds all that another has.
    pub(super) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.sums.iter_mut().zip(&other.sums) {
            mine[0] += theirs[0];
            mine[1] += theirs[1];
        }
    }

    /// Sum and sum of squares of a gene's values.
    pub(super) fn sums(&self, gene: usize) -> [f64; 2] {
        self.sums.get(gene).copied().unwrap_or_default()
    }

    /// The mean of a gene over `num_cells`.
    pub(super) fn mean(&self, gene: usize, num_cells: u64) -> f64 {
        self.sums(gene)[0] / num_cells as f64
    }

    /// The variance of a gene over `num_cells`, with n − 1 in the denominator; exact for counts
    /// before the division.
    pub(super) fn variance(&self, gene: usize, num_cells: u64) -> f64 {
        let [sum, squares] = self.sums(gene);
        let cells = num_cells as f64;
        let whole = |v: f64| v.fract() == 0.0 && v.abs() < EXACT;
        let spread = if whole(sum) && whole(squares) {
            let (sum, squares) = (sum as i128, squares as i128);
            (i128::from(num_cells) * squares - sum * sum) as f64
        } else {
            let spread = cells * squares - sum * sum;
            if spread > ROUNDING * cells * squares {
                spread
            } else {
                0.0
            }
        };
        spread / cells / (cells - 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_genes_do_not_vary_at_all() {
        let mut moments = Moments::new(4);
        let genes = [[0.1; 7], [3.0; 7], [0.0; 7], [1., 2., 4., 0., 0., 0., 0.]];
        for (gene, values) in (0..).zip(genes) {
            values.iter().for_each(|&v| moments.add(gene, v));
        }
        moments.add(9, 1.0);
        let found: Vec<f64> = (0..3).map(|g| moments.variance(g, 7)).collect();
        assert_eq!(found, [0.0; 3]);
        assert_eq!(moments.mean(3, 7), 1.0);
        assert!((moments.variance(3, 7) - 14.0 / 6.0).abs() < 1e-15);
    }
}
