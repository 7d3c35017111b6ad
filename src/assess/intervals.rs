//! Confidence intervals: the figures of many resamples of the cells (or of groups of them, drawn
//! whole, where cells of one donor are alike), from the 2.5th to the 97.5th percentile.

use std::collections::BTreeMap;

use anyhow::Result;
use rand::Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::units::Units;
use crate::metrics::{Figures, Predictions, Resampler};
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
    ///
    /// # Errors
    /// Probabilities that went to the disk cannot be read.
    pub(super) fn of_predictions(
        &self,
        cells: &[u64],
        predictions: &Predictions,
    ) -> Result<BTreeMap<String, Interval>> {
        if self.num_resamples == 0 || cells.is_empty() {
            return Ok(BTreeMap::new());
        }
        let drawn = Drawn::new(self, cells);
        let ready = Resampler::new(predictions);
        let found = ready.each(self.num_resamples, |number| drawn.weights(number))?;
        let named = |figures: &Figures| {
            let named = figures.named().chain([("log_loss", figures.log_loss)]);
            named.collect::<Vec<_>>()
        };
        Ok(summed_up(found.iter().map(named).collect()))
    }

    /// Those of the accuracy of masked genes, and of its baseline.
    pub(super) fn of_genes(&self, genes: &[GenesOfCell]) -> BTreeMap<String, Interval> {
        if self.num_resamples == 0 || genes.is_empty() {
            return BTreeMap::new();
        }
        let cells: Vec<u64> = genes.iter().map(|of| of.cell).collect();
        let drawn = Drawn::new(self, &cells);
        let accuracies = |number: u64| {
            let weights = drawn.weights(number);
            let sum = |of: fn(&GenesOfCell) -> u64| {
                let weighted = genes.iter().zip(&weights);
                let weighted = weighted.map(|(cell, &w)| of(cell) * u64::from(w));
                weighted.sum::<u64>() as f64
            };
            let all = sum(|cell| cell.num_genes).max(1.0);
            vec![
                ("accuracy", sum(|cell| cell.right) / all),
                ("mode_accuracy", sum(|cell| cell.right_by_mode) / all),
            ]
        };
        let numbers = (0..self.num_resamples).into_par_iter();
        summed_up(numbers.map(accuracies).collect())
    }
}

/// What is drawn: the cells, or the groups that they are in.
struct Drawn {
    seed: u64,
    unit_of: Vec<u32>,
    num_units: u32,
}

impl Drawn {
    fn new(bootstrap: &Bootstrap, cells: &[u64]) -> Self {
        let unit_of: Vec<u32> = match &bootstrap.units {
            None => (0..cells.len() as u32).collect(),
            Some(units) => renumbered(cells.iter().map(|&cell| units.of_cell[cell as usize])),
        };
        Self {
            seed: bootstrap.seed,
            num_units: unit_of.iter().max().map_or(0, |&last| last + 1),
            unit_of,
        }
    }

    /// How often each cell is in a resample.
    fn weights(&self, number: u64) -> Vec<u32> {
        let mut rng = rng::stream(self.seed, Stream::Bootstrap, 0, number);
        let mut times = vec![0u32; self.num_units as usize];
        for _ in 0..self.num_units {
            times[rng.random_range(0..self.num_units) as usize] += 1;
        }
        let units = self.unit_of.iter();
        units.map(|&unit| times[unit as usize]).collect()
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
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn predictions(num_cells: u64) -> (Vec<u64>, Predictions) {
        let mut predictions = Predictions::new(2);
        for cell in 0..num_cells {
            // Right in four of five cells.
            let p = if cell % 5 == 0 { 0.1 } else { 0.9 };
            let truth = (cell % 2) as usize;
            let rows = [[p, 1.0 - p], [1.0 - p, p]];
            predictions.add(truth, &rows[truth]).unwrap();
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
        let found = bootstrap(None)
            .of_predictions(&cells, &predictions)
            .unwrap();
        let Interval { low, high } = found["accuracy"];
        // 0.8 ± 1.96 · sqrt(0.8 · 0.2 / 400)
        assert!(
            (low - 0.7608).abs() < 0.008 && (high - 0.8392).abs() < 0.008,
            "{low} {high}"
        );
        let again = bootstrap(None)
            .of_predictions(&cells, &predictions)
            .unwrap();
        assert_eq!(found, again);
        // Groups in which all cells are right, or none, leave a far wider one.
        let units = Units {
            names: Vec::new(),
            of_cell: cells.iter().map(|cell| (cell % 5) as u32 * 3).collect(),
        };
        let by_donor = bootstrap(Some(units))
            .of_predictions(&cells, &predictions)
            .unwrap();
        let Interval { low, high } = by_donor["accuracy"];
        assert_eq!((low <= 0.41, high), (true, 1.0));
    }

    #[test]
    fn quantiles_lie_between_values() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[7.0], 0.025), 7.0);
    }
}
