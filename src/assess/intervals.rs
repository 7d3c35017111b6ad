//! Confidence intervals: the figures of many resamples of the cells (or of groups of them, drawn
//! whole, where cells of one donor are alike), from the 2.5th to the 97.5th percentile.

use std::collections::BTreeMap;

use rand::Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::units::Units;
use crate::metrics::{Predictions, Resampler};
use crate::rng::{self, Stream};
use crate::train::answers::GenesOfCell;

/// Where 95 % of the resamples lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The 2.5th percentile.
    pub low: f64,
    /// The 97.5th.
    pub high: f64,
}

/// How resamples are drawn.
pub(super) struct Bootstrap {
    pub(super) seed: u64,
    pub(super) num_resamples: u64,
    pub(super) units: Option<Units>,
}

impl Bootstrap {
    /// The interval of every figure of the predictions for `cells`; empty where none is asked for.
    pub(super) fn of_predictions(
        &self,
        cells: &[u64],
        predictions: &Predictions,
    ) -> BTreeMap<String, Interval> {
        if self.num_resamples == 0 || cells.is_empty() {
            return BTreeMap::new();
        }
        let ready = Resampler::new(predictions);
        let found = self.each(cells, |weights| {
            let figures = ready.figures(weights);
            let named = figures.named().chain([("log_loss", figures.log_loss)]);
            named.collect::<Vec<_>>()
        });
        summed_up(found)
    }

    /// Those of the accuracy of masked genes, and of its baseline.
    pub(super) fn of_genes(&self, genes: &[GenesOfCell]) -> BTreeMap<String, Interval> {
        if self.num_resamples == 0 || genes.is_empty() {
            return BTreeMap::new();
        }
        let cells: Vec<u64> = genes.iter().map(|of| of.cell).collect();
        let found = self.each(&cells, |weights| {
            let sum = |of: fn(&GenesOfCell) -> u64| {
                let weighted = genes.iter().zip(weights);
                let weighted = weighted.map(|(cell, &w)| of(cell) * u64::from(w));
                weighted.sum::<u64>() as f64
            };
            let all = sum(|cell| cell.num_genes).max(1.0);
            vec![
                ("accuracy", sum(|cell| cell.right) / all),
                ("mode_accuracy", sum(|cell| cell.right_by_mode) / all),
            ]
        });
        summed_up(found)
    }

    /// `figures` of every resample, in order.
    fn each<T: Send>(&self, cells: &[u64], figures: impl Fn(&[u32]) -> T + Sync) -> Vec<T> {
        let unit_of: Vec<u32> = match &self.units {
            None => (0..cells.len() as u32).collect(),
            Some(units) => renumbered(cells.iter().map(|&cell| units.of_cell[cell as usize])),
        };
        let num_units = unit_of.iter().max().map_or(0, |&last| last + 1);
        let resample = |number: u64| {
            let mut rng = rng::stream(self.seed, Stream::Bootstrap, 0, number);
            let mut times = vec![0u32; num_units as usize];
            for _ in 0..num_units {
                times[rng.random_range(0..num_units) as usize] += 1;
            }
            let weights: Vec<u32> = unit_of.iter().map(|&unit| times[unit as usize]).collect();
            figures(&weights)
        };
        (0..self.num_resamples)
            .into_par_iter()
            .map(resample)
            .collect()
    }
}

/// The groups that occur, numbered from 0.
fn renumbered(groups: impl Iterator<Item = u32>) -> Vec<u32> {
    let groups: Vec<u32> = groups.collect();
    let mut present = groups.clone();
    present.sort_unstable();
    present.dedup();
    let number = |group: &u32| present.partition_point(|other| other < group) as u32;
    groups.iter().map(number).collect()
}

fn summed_up(resamples: Vec<Vec<(&'static str, f64)>>) -> BTreeMap<String, Interval> {
    let mut by_name: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, value) in resamples.into_iter().flatten() {
        by_name.entry(name).or_default().push(value);
    }
    let interval = |(name, mut values): (&str, Vec<f64>)| {
        values.sort_unstable_by(f64::total_cmp);
        let (low, high) = (quantile(&values, 0.025), quantile(&values, 0.975));
        (name.to_owned(), Interval { low, high })
    };
    by_name.into_iter().map(interval).collect()
}

/// Of ascending values, at least one; linear between them.
fn quantile(values: &[f64], share: f64) -> f64 {
    let place = share * (values.len() - 1) as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(values.len() - 1);
    values[below] + part * (values[above] - values[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predictions(num_cells: u64) -> (Vec<u64>, Predictions) {
        let mut predictions = Predictions::new(2);
        for cell in 0..num_cells {
            // Right in four of five cells.
            let p = if cell % 5 == 0 { 0.1 } else { 0.9 };
            predictions.add(
                (cell % 2) as usize,
                &[[p, 1.0 - p], [1.0 - p, p]][(cell % 2) as usize],
            );
        }
        ((0..num_cells).collect(), predictions)
    }

    #[test]
    fn the_interval_of_an_accuracy_is_that_of_a_share() {
        let (cells, predictions) = predictions(400);
        let bootstrap = |units| Bootstrap {
            seed: 1,
            num_resamples: 1000,
            units,
        };
        let found = bootstrap(None).of_predictions(&cells, &predictions);
        let Interval { low, high } = found["accuracy"];
        // 0.8 ± 1.96 · sqrt(0.8 · 0.2 / 400)
        assert!(
            (low - 0.7608).abs() < 0.008 && (high - 0.8392).abs() < 0.008,
            "{low} {high}"
        );
        let again = bootstrap(None).of_predictions(&cells, &predictions);
        assert_eq!(found, again);
        // Groups in which all cells are right, or none, leave a far wider one.
        let units = Units {
            names: Vec::new(),
            of_cell: cells.iter().map(|cell| (cell % 5) as u32 * 3).collect(),
        };
        let by_donor = bootstrap(Some(units)).of_predictions(&cells, &predictions);
        let Interval { low, high } = by_donor["accuracy"];
        assert_eq!((low <= 0.41, high), (true, 1.0));
    }

    #[test]
    fn quantiles_lie_between_values() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[7.0], 0.025), 7.0);
    }
}
