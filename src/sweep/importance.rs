//! Which parameters mattered: how much worse bagged regression trees predict a trial's place in the
//! ranking when one parameter's values are shuffled (Breiman 2001), on the trials that each tree
//! did not learn from; and Spearman's rank correlation of each parameter with the metric.
//!
//! Trees learn ranks, so that one diverged trial does not decide. How much of the variance of the
//! ranks they explain is told besides: where that is little, so are the shares worth.

use rand::Rng;
use rand::seq::SliceRandom;

use crate::rng::{ChaCha8Rng, Stream, stream};

/// Trees.
const TREES: u64 = 200;
/// Fewest trials that a leaf has.
const LEAF: usize = 2;
/// Fewest trials that anything is said about.
const LEAST: usize = 8;

/// What a study tells about its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    /// Share of the variance of unseen trials' ranks that the trees explain; may be below 0.
    pub explained: f64,
    /// Of each parameter: its share in the loss of all when shuffled; they sum to 1, or are all 0.
    pub shares: Vec<f64>,
    /// Spearman's correlation of each parameter with the target.
    pub correlations: Vec<f64>,
}

/// The importance of the columns of `rows` for `target`; `None`: there are too few rows, or nothing
/// differs.
pub fn importance(rows: &[Vec<f64>], target: &[f64], seed: u64) -> Option<Importance> {
    let columns = rows.first()?.len();
    let ranked = ranks(target);
    let mean = ranked.iter().sum::<f64>() / ranked.len() as f64;
    let variance = ranked.iter().map(|r| (r - mean).powi(2)).sum::<f64>();
    if rows.len() < LEAST || variance == 0.0 || columns == 0 {
        return None;
    }
    let column = |n: usize| rows.iter().map(|row| row[n]).collect::<Vec<f64>>();
    let correlations = (0..columns).map(|n| correlation(&ranks(&column(n)), &ranked));
    let mut sums = Sums {
        worse: vec![0.0; columns],
        guesses: vec![(0.0, 0); rows.len()],
    };
    for number in 0..TREES {
        let mut rng = stream(seed, Stream::Sweep, u64::MAX, number);
        sums.add_tree(rows, &ranked, &mut rng);
    }
    let total: f64 = sums.worse.iter().map(|worse| worse.max(0.0)).sum();
    let shares = sums
        .worse
        .iter()
        .map(|worse| worse.max(0.0) / total.max(1e-300));
    let guessed = sums
        .guesses
        .iter()
        .zip(&ranked)
        .filter(|((_, num), _)| *num > 0);
    let error: f64 = guessed
        .map(|((sum, num), truth)| (sum / *num as f64 - truth).powi(2))
        .sum();
    Some(Importance {
        explained: 1.0 - error / variance,
        shares: shares.collect(),
        correlations: correlations.collect(),
    })
}

struct Sums {
    /// By how much the squared error grew when a column was shuffled.
    worse: Vec<f64>,
    /// Sum and number of the guesses for each row by trees that did not learn from it.
    guesses: Vec<(f64, u64)>,
}

impl Sums {
    fn add_tree(&mut self, rows: &[Vec<f64>], target: &[f64], rng: &mut ChaCha8Rng) {
        let drawn: Vec<usize> = rows
            .iter()
            .map(|_| rng.random_range(0..rows.len()))
            .collect();
        let left_out: Vec<usize> = (0..rows.len()).filter(|row| !drawn.contains(row)).collect();
        let tree = grow(rows, target, drawn);
        let error = |guess: f64, row: usize| (guess - target[row]).powi(2);
        let mut plain = 0.0;
        for &row in &left_out {
            let guess = tree.guess(&rows[row]);
            plain += error(guess, row);
            self.guesses[row].0 += guess;
            self.guesses[row].1 += 1;
        }
        let number = left_out.len().max(1) as f64;
        for column in 0..self.worse.len() {
            let mut others = left_out.clone();
            others.shuffle(rng);
            let with = |(&row, &other): (&usize, &usize)| {
                let mut changed = rows[row].clone();
                changed[column] = rows[other][column];
                error(tree.guess(&changed), row)
            };
            let shuffled: f64 = left_out.iter().zip(&others).map(with).sum();
            self.worse[column] += (shuffled - plain) / number;
        }
    }
}

enum Tree {
    Leaf(f64),
    Split {
        column: usize,
        at: f64,
        below: Box<Tree>,
        above: Box<Tree>,
    },
}

impl Tree {
    fn guess(&self, row: &[f64]) -> f64 {
        match self {
            Self::Leaf(mean) => *mean,
            Self::Split {
                column,
                at,
                below,
                above,
            } => {
                let side = if row[*column] < *at { below } else { above };
                side.guess(row)
            }
        }
    }
}

/// A tree that splits where the squared error falls most, down to leaves.
fn grow(rows: &[Vec<f64>], target: &[f64], of: Vec<usize>) -> Tree {
    let sum: f64 = of.iter().map(|&row| target[row]).sum();
    let leaf = Tree::Leaf(sum / of.len() as f64);
    let mut best = (sum * sum / of.len() as f64 + 1e-9, None);
    let num_columns = rows.first().map_or(0, Vec::len);
    for column in 0..num_columns {
        if let Some((gain, at)) = best_cut(rows, target, &of, column)
            && gain > best.0
        {
            best = (gain, Some((column, at)));
        }
    }
    let Some((column, at)) = best.1 else {
        return leaf;
    };
    let (below, above) = of.into_iter().partition(|&row| rows[row][column] < at);
    Tree::Split {
        column,
        at,
        below: Box::new(grow(rows, target, below)),
        above: Box::new(grow(rows, target, above)),
    }
}

/// The best cut of one column, and its sum²/number over both sides: the greater, the less is the
/// squared error. `None`: there is nothing to cut.
fn best_cut(rows: &[Vec<f64>], target: &[f64], of: &[usize], column: usize) -> Option<(f64, f64)> {
    let mut sorted: Vec<(f64, f64)> = of.iter().map(|&r| (rows[r][column], target[r])).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let sum: f64 = sorted.iter().map(|pair| pair.1).sum();
    let (mut best, mut below): (Option<(f64, f64)>, f64) = (None, 0.0);
    for (cut, pair) in (1..).zip(sorted.windows(2)) {
        below += pair[0].1;
        let above = sorted.len() - cut;
        if pair[0].0 == pair[1].0 || cut < LEAF || above < LEAF {
            continue;
        }
        let gain = below * below / cut as f64 + (sum - below).powi(2) / above as f64;
        if best.is_none_or(|best| gain > best.0) {
            best = Some((gain, (pair[0].0 + pair[1].0) / 2.0));
        }
    }
    best
}

/// The place of each value in order, from 0; equal ones share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let below = |a: f64| values.iter().filter(|&&b| b < a).count();
    let equal = |a: f64| values.iter().filter(|&&b| b == a).count().max(1);
    let rank = |&a: &f64| below(a) as f64 + (equal(a) - 1) as f64 / 2.0;
    values.iter().map(rank).collect()
}

/// Pearson's correlation; 0 where one side is constant.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter().zip(b).map(|(x, y)| f(x - ma, y - mb)).sum()
    };
    let spread = (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
    if spread > 0.0 {
        sum(&|x, y| x * y) / spread
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_decides_is_found() {
        let mut rng = stream(1, Stream::Sweep, 0, 0);
        let rows: Vec<Vec<f64>> = (0..40)
            .map(|_| (0..3).map(|_| rng.random()).collect())
            .collect();
        let target: Vec<f64> = rows.iter().map(|r| -3.0 * r[1] + 0.5 * r[2]).collect();
        let found = importance(&rows, &target, 1).unwrap();
        assert!(found.explained > 0.6, "{found:?}");
        assert!(found.shares[1] > 0.8 && found.shares[0] < 0.1, "{found:?}");
        assert!(found.correlations[1] < -0.9, "{found:?}");
        assert!((found.shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert_eq!(found, importance(&rows, &target, 1).unwrap());
        let noise: Vec<f64> = rows.iter().map(|_| rng.random()).collect();
        assert!(importance(&rows, &noise, 1).unwrap().explained < 0.2);
        assert_eq!(importance(&rows[..7], &target[..7], 1), None);
        assert_eq!(importance(&rows, &[1.0; 40], 1), None);
    }

    #[test]
    fn equal_values_share_a_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 0.0]), [2.5, 1.0, 2.5, 0.0]);
    }
}
