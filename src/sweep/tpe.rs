//! The tree-structured Parzen estimator (Bergstra, Bardenet, Bengio & Kégl 2011): trials so far are
//! split into the good ones, the best share γ, and the rest; for each parameter on its own, l is
//! the density of the good ones' places and g that of the rest; of some places drawn from l, the
//! one with the greatest l/g is tried next.
//!
//! Places are quantiles, so that the prior is uniform on 0..1 for every distribution. A density is
//! the mean of that prior and a Gaussian around each place, as wide as the distance to the farther
//! of its neighbours, reflected at 0 and 1. Of a categorical parameter it is the counts of each
//! value, with the prior counted once per value. Failed trials are among the rest.

use rand::Rng;

use super::distribution::{Distribution, normal_quantile, place};
use crate::rng::ChaCha8Rng;

/// Share of the trials that are good.
const GOOD: f64 = 0.15;
/// Places drawn from the good ones' density.
const CANDIDATES: usize = 24;
/// Values of a categorical parameter drawn from it: among many the greatest ratio is always the
/// same value's, and one that had bad luck once would not be tried again.
const CATEGORICAL_CANDIDATES: usize = 2;
/// A Gaussian is at most this wide.
const MAX_WIDTH: f64 = 0.5;

/// A trial that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Its places in 0..1, one for each parameter.
    pub point: Vec<f64>,
    /// Its result, lower is better; `None`: it failed.
    pub score: Option<f64>,
}

/// The point to try next, by those tried.
pub fn suggest(
    distributions: &[&Distribution],
    seen: &[Observation],
    rng: &mut ChaCha8Rng,
) -> Vec<f64> {
    let mut order: Vec<&Observation> = seen.iter().collect();
    let score = |o: &Observation| o.score.unwrap_or(f64::INFINITY);
    order.sort_by(|a, b| score(a).total_cmp(&score(b)));
    let succeeded = order.iter().filter(|o| score(o).is_finite()).count();
    let num_good = ((GOOD * seen.len() as f64).ceil() as usize).min(succeeded);
    let (good, rest) = order.split_at(num_good);
    let places = |of: &[&Observation], parameter: usize| -> Vec<f64> {
        of.iter().map(|o| o.point[parameter]).collect()
    };
    let one = |(n, distribution): (usize, &&Distribution)| {
        let (good, rest) = (places(good, n), places(rest, n));
        match distribution.shares() {
            Some(shares) => categorical(shares, &good, &rest, rng),
            None => numeric(distribution, &good, &rest, rng),
        }
    };
    distributions.iter().enumerate().map(one).collect()
}

fn numeric(distribution: &Distribution, good: &[f64], rest: &[f64], rng: &mut ChaCha8Rng) -> f64 {
    let (l, g) = (
        Density::new(good, distribution),
        Density::new(rest, distribution),
    );
    let mut best = (f64::NEG_INFINITY, 0.5);
    for _ in 0..CANDIDATES {
        let place = l.draw(rng);
        let ratio = l.at(place).ln() - g.at(place).ln();
        if ratio > best.0 {
            best = (ratio, place);
        }
    }
    best.1
}

fn categorical(shares: &[f64], good: &[f64], rest: &[f64], rng: &mut ChaCha8Rng) -> f64 {
    let density = |places: &[f64]| -> Vec<f64> {
        let mut counts: Vec<f64> = shares.iter().map(|p| p * shares.len() as f64).collect();
        for &u in places {
            counts[place(shares, u)] += 1.0;
        }
        let sum: f64 = counts.iter().sum();
        counts.iter().map(|count| count / sum).collect()
    };
    let (l, g) = (density(good), density(rest));
    let mut best = (f64::NEG_INFINITY, 0);
    for _ in 0..CATEGORICAL_CANDIDATES {
        let value = place(&l, rng.random());
        let ratio = l[value].ln() - g[value].ln();
        if ratio > best.0 {
            best = (ratio, value);
        }
    }
    let before: f64 = shares[..best.1].iter().sum();
    before + shares[best.1] / 2.0
}

/// A Parzen estimator on 0..1.
struct Density {
    /// Centre and width of each Gaussian.
    kernels: Vec<(f64, f64)>,
}

impl Density {
    fn new(places: &[f64], distribution: &Distribution) -> Self {
        let mut sorted = places.to_vec();
        sorted.sort_by(f64::total_cmp);
        // Narrow kernels among many trials; but never narrower than the step between two values.
        let step = distribution.num_values().map_or(0.0, |n| 0.5 / n as f64);
        let least = (1.0 / (1 + places.len()).min(100) as f64).max(step);
        let width = |n: usize| {
            let left = sorted[n] - n.checked_sub(1).map_or(0.0, |before| sorted[before]);
            let right = sorted.get(n + 1).copied().unwrap_or(1.0) - sorted[n];
            left.max(right).clamp(least.min(MAX_WIDTH), MAX_WIDTH)
        };
        let kernels = (0..sorted.len()).map(|n| (sorted[n], width(n))).collect();
        Self { kernels }
    }

    fn at(&self, place: f64) -> f64 {
        let gaussian = |centre: f64, width: f64| {
            let z = (place - centre) / width;
            (-0.5 * z * z).exp() / (width * (2.0 * std::f64::consts::PI).sqrt())
        };
        let kernel = |&(centre, width): &(f64, f64)| {
            let images = [centre, -centre, 2.0 - centre];
            images.iter().map(|&c| gaussian(c, width)).sum::<f64>()
        };
        let sum: f64 = self.kernels.iter().map(kernel).sum();
        (1.0 + sum) / (self.kernels.len() + 1) as f64
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> f64 {
        let chosen = rng.random_range(0..=self.kernels.len());
        let u: f64 = rng.random();
        let Some(&(centre, width)) = self.kernels.get(chosen) else {
            return u;
        };
        let drawn = (centre + width * normal_quantile(u)).rem_euclid(2.0);
        if drawn > 1.0 { 2.0 - drawn } else { drawn }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rng::{Stream, stream};
    use crate::sweep::distribution::{Continuous, Coordinate, Scale};
    use crate::sweep::value::Value;

    #[test]
    fn a_density_sums_to_one_and_draws_follow_it() {
        let uniform = Distribution::Continuous(Continuous {
            name: "uniform",
            coordinate: Coordinate::Uniform {
                low: 0.0,
                high: 1.0,
            },
            scale: Scale::Plain,
            q: None,
        });
        let density = Density::new(&[0.05, 0.1, 0.9], &uniform);
        let number = 20_000;
        let middle = |n: usize| (n as f64 + 0.5) / number as f64;
        let mass = |from: f64, to: f64| {
            let inside = (0..number).map(middle).filter(|u| (from..to).contains(u));
            inside.map(|u| density.at(u)).sum::<f64>() / number as f64
        };
        assert!((mass(0.0, 1.0) - 1.0).abs() < 0.01, "{}", mass(0.0, 1.0));
        let mut rng = stream(1, Stream::Sweep, 0, 0);
        let draws: Vec<f64> = (0..number).map(|_| density.draw(&mut rng)).collect();
        for (from, to) in [(0.0, 0.2), (0.2, 0.6), (0.6, 1.0)] {
            let drawn = draws.iter().filter(|u| (from..to).contains(*u)).count() as f64;
            assert!(
                (drawn / number as f64 - mass(from, to)).abs() < 0.02,
                "{from}"
            );
        }
    }

    #[test]
    fn a_value_that_was_good_is_tried_more_often() {
        let values: Vec<Value> = (0..4).map(|n| Value::computed(f64::from(n))).collect();
        let shares = vec![0.25; 4];
        let some = Distribution::Categorical { values, shares };
        let seen: Vec<Observation> = (0..20)
            .map(|n| Observation {
                point: vec![some.place_of(n % 4)],
                score: (n % 5 != 4).then_some(if n % 4 == 2 { 0.0 } else { 1.0 }),
            })
            .collect();
        let mut rng = stream(1, Stream::Sweep, 0, 0);
        let again = (0..50).filter(|_| {
            let point = suggest(&[&some], &seen, &mut rng);
            some.at(point[0]).to_string() == "2"
        });
        assert!(again.count() > 30);
    }
}
