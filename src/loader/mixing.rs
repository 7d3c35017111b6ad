//! How well batches are mixed: the entropy of a label within them, beside the best there can be.

use super::column::CellColumn;

/// The entropy of an obs column within batches, in bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mixing {
    /// Mean over the batches.
    pub entropy: f64,
    /// What batches as large have on average whose cells are drawn at random from all cells.
    pub most: f64,
}

/// Adds up batches.
pub(super) struct Mixed<'a> {
    column: &'a CellColumn,
    counts: Vec<u32>,
    sum: f64,
    num_batches: u64,
}

impl<'a> Mixed<'a> {
    pub(super) fn new(column: &'a CellColumn) -> Self {
        Self {
            column,
            counts: vec![0; column.values.len()],
            sum: 0.0,
            num_batches: 0,
        }
    }

    /// Adds a batch, given by its cells; those without a value do not count.
    pub(super) fn push(&mut self, cells: &[u64]) {
        self.counts.fill(0);
        let code = |cell: &u64| self.column.codes.get(*cell as usize).copied().flatten();
        for code in cells.iter().filter_map(code) {
            if let Some(count) = self.counts.get_mut(code as usize) {
                *count += 1;
            }
        }
        let total: u32 = self.counts.iter().sum();
        if total > 0 {
            let shares = self.counts.iter().map(|n| f64::from(*n) / f64::from(total));
            self.sum += shares
                .map(|p| if p > 0.0 { -p * p.log2() } else { 0.0 })
                .sum::<f64>();
            self.num_batches += 1;
        }
    }

    /// The mean, for batches of `batch_cells`.
    pub(super) fn finish(&self, batch_cells: usize) -> Option<Mixing> {
        let mut counts = vec![0u64; self.column.values.len()];
        for code in self.column.codes.iter().flatten() {
            if let Some(count) = counts.get_mut(*code as usize) {
                *count += 1;
            }
        }
        let total = counts.iter().sum::<u64>() as f64;
        let shares: Vec<f64> = counts.iter().map(|n| *n as f64 / total).collect();
        (self.num_batches > 0).then(|| Mixing {
            entropy: self.sum / self.num_batches as f64,
            most: expected(&shares, batch_cells),
        })
    }
}

/// Expected entropy, in bits, of `num_cells` independent draws of classes with these shares: with
/// C the number of draws of a class, log n − Σ E[C log C] / n.
fn expected(shares: &[f64], num_cells: usize) -> f64 {
    let n = num_cells as f64;
    let mut ln_factorial = vec![0.0; num_cells + 1];
    for at in 1..=num_cells {
        ln_factorial[at] = ln_factorial[at - 1] + (at as f64).ln();
    }
    let of_class = |share: f64| -> f64 {
        let probability = |c: usize| {
            let choose = ln_factorial[num_cells] - ln_factorial[c] - ln_factorial[num_cells - c];
            (choose + c as f64 * share.ln() + (n - c as f64) * (-share).ln_1p()).exp()
        };
        match share {
            0.0 => 0.0,
            1.0 => n * n.log2(),
            _ => (1..=num_cells)
                .map(|c| probability(c) * c as f64 * (c as f64).log2())
                .sum(),
        }
    };
    n.log2() - shares.iter().map(|share| of_class(*share)).sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn entropy_is_that_of_the_counts() {
        let column = CellColumn {
            values: vec!["a".to_owned(), "b".to_owned()],
            codes: vec![Some(0), Some(0), Some(1), Some(1), None],
        };
        let mut mixed = Mixed::new(&column);
        assert_eq!(mixed.finish(2), None);
        mixed.push(&[0, 1]);
        mixed.push(&[0, 2, 4]);
        let mixing = mixed.finish(2).unwrap();
        assert_eq!(mixing.entropy, 0.5);
        // Two draws of two classes: equal or not, each half of the time.
        assert!((mixing.most - 0.5).abs() < 1e-12);
    }

    #[test]
    fn many_draws_come_close_to_the_entropy_of_the_shares() {
        let all = expected(&[0.5, 0.25, 0.125, 0.125], 4096);
        assert!(all < 1.75 && all > 1.749, "{all}");
        assert_eq!(expected(&[1.0], 64), 0.0);
        assert_eq!(expected(&[0.3, 0.7, 0.0], 1), 0.0);
    }
}
