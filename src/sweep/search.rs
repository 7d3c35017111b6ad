//! Which trial comes next: a grid's walk, independent draws, or by the results so far.
//!
//! A suggestion depends on the seed, its number and the results that it may see, and on nothing
//! else, so that a study that is resumed goes on as if never interrupted. Draws that would repeat a
//! combination are made again.

use std::collections::HashSet;

use rand::Rng;

use super::distribution::Distribution;
use super::study::{Method, Study};
use super::tpe::{self, Observation};
use crate::rng::{Stream, stream};

/// Trials drawn at random before results are looked at.
const RANDOM_STARTS: usize = 10;
/// Draws of one trial before it is held that all combinations have been tried.
const DRAWS: u64 = 100;

/// The point of trial `number` (from 0), given the points of all before it and the results that
/// may be `seen`; `None`: there is none left.
pub fn suggest(
    study: &Study,
    seed: u64,
    number: usize,
    tried: &[&[f64]],
    seen: &[Observation],
) -> Option<Vec<f64>> {
    if study.max_trials().is_some_and(|most| number as u64 >= most) {
        return None;
    }
    if study.method == Method::Grid {
        return Some(grid_point(study, number as u64));
    }
    let values = |point: &[f64]| -> Vec<String> {
        let values = study.values(point).into_iter();
        values.map(|(_, value)| value.to_string()).collect()
    };
    let tried: HashSet<Vec<String>> = tried.iter().map(|point| values(point)).collect();
    let distributions: Vec<&Distribution> =
        study.parameters.iter().map(|p| &p.distribution).collect();
    let by_results = study.method == Method::Bayes && seen.len() >= RANDOM_STARTS;
    // Once the best places have all been tried, any other will do.
    let draws = (0..DRAWS).map(|draw| (draw, by_results));
    let draws = draws.chain((DRAWS..2 * DRAWS).map(|draw| (draw, false)));
    for (draw, by_results) in draws {
        let mut rng = stream(seed, Stream::Sweep, number as u64, draw);
        let point = if by_results {
            tpe::suggest(&distributions, seen, &mut rng)
        } else {
            distributions.iter().map(|_| rng.random()).collect()
        };
        if !tried.contains(&values(&point)) {
            return Some(point);
        }
    }
    None
}

/// The combination `number` of a grid: the last parameter changes fastest.
fn grid_point(study: &Study, number: u64) -> Vec<f64> {
    let mut rest = number;
    let mut point = Vec::new();
    for parameter in study.parameters.iter().rev() {
        let size = parameter.distribution.num_values().unwrap_or(1).max(1) as u64;
        let place = usize::try_from(rest % size).unwrap_or(0);
        point.push(parameter.distribution.place_of(place));
        rest /= size;
    }
    point.reverse();
    point
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn study(text: &str) -> Study {
        // A command of another program: any parameter will do.
        let text = format!("command: [x, \"${{output_dir}}\"]\n{text}");
        Study::parse(&text, "s", &[]).unwrap()
    }

    /// The texts of `cap` trials whose results `score` tells.
    fn trials(study: &Study, seed: u64, score: impl Fn(&[f64]) -> f64) -> Vec<(Vec<f64>, f64)> {
        let mut done: Vec<Observation> = Vec::new();
        let mut all = Vec::new();
        loop {
            let tried: Vec<&[f64]> = done.iter().map(|o| o.point.as_slice()).collect();
            let Some(point) = suggest(study, seed, done.len(), &tried, &done) else {
                return all;
            };
            let numbers: Vec<f64> = study
                .values(&point)
                .iter()
                .map(|(_, value)| value.number().unwrap_or(-1.0))
                .collect();
            let score = score(&numbers);
            all.push((numbers, score));
            done.push(Observation {
                point,
                score: Some(score),
            });
        }
    }

    #[test]
    fn a_grid_is_walked_in_order_and_once() {
        let text = "method: grid\nparameters:\n  a: {values: [1, 2]}\n  b: {value: 7}\n  \
                    c: {min: 3, max: 5}\n  d: {distribution: q_uniform, min: 0, max: 0.5, q: 0.5}\n";
        let found: Vec<Vec<f64>> = trials(&study(text), 1, |_| 0.0)
            .into_iter()
            .map(|(numbers, _)| numbers)
            .collect();
        let mut expected = Vec::new();
        for a in [1.0, 2.0] {
            for c in [3.0, 4.0, 5.0] {
                for d in [0.0, 0.5] {
                    expected.push(vec![a, 7.0, c, d]);
                }
            }
        }
        assert_eq!(found, expected);
        let capped = study(&format!("{text}run_cap: 5\n"));
        assert_eq!(trials(&capped, 1, |_| 0.0).len(), 5);
    }

    #[test]
    fn random_draws_repeat_with_the_seed_only_and_never_within_a_study() {
        let text = "method: random\nrun_cap: 30\nparameters:\n  a: {min: 1, max: 4}\n  \
                    b: {values: [1, 2, 3]}\n";
        let study = study(text);
        let found = trials(&study, 1, |_| 0.0);
        assert_eq!(found.len(), 12, "every combination once, and no more");
        assert_eq!(found, trials(&study, 1, |_| 0.0));
        assert_ne!(found, trials(&study, 2, |_| 0.0));
    }

    /// A bowl in the logarithm of the rate, with a category that shifts it.
    fn bowl(x: &[f64]) -> f64 {
        (x[0].log10() + 3.0).powi(2) + (x[1] - 0.3).powi(2) * 4.0 + f64::from(x[2] != 2.0)
    }

    const BOWL: &str = "  rate: {distribution: log_uniform_values, min: 1e-6, max: 1.0}\n  \
                        share: {min: 0.0, max: 1.0}\n  kind: {values: [1, 2, 3]}\n";

    fn branin(x: &[f64]) -> f64 {
        let pi = std::f64::consts::PI;
        let valley = x[1] - 5.1 / (4.0 * pi * pi) * x[0] * x[0] + 5.0 / pi * x[0] - 6.0;
        valley.powi(2) + 10.0 * (1.0 - 1.0 / (8.0 * pi)) * x[0].cos() + 10.0 - 0.397887
    }

    /// The least values that both methods find over `seeds`, sorted, and how often bayes won.
    fn compare(
        parameters: &str,
        num_trials: usize,
        seeds: u64,
        score: impl Fn(&[f64]) -> f64 + Copy,
    ) -> (Vec<f64>, Vec<f64>, usize) {
        let text =
            format!("run_cap: {num_trials}\nmetric: {{name: loss}}\nparameters:\n{parameters}");
        let best = |method: &str, seed: u64| {
            let study = study(&format!("method: {method}\n{text}"));
            let all = trials(&study, seed, score);
            assert_eq!(all.len(), num_trials);
            all.iter()
                .map(|trial| trial.1)
                .fold(f64::INFINITY, f64::min)
        };
        let mut wins = 0;
        let (mut of_bayes, mut of_random) = (Vec::new(), Vec::new());
        for seed in 0..seeds {
            let (bayes, random) = (best("bayes", seed), best("random", seed));
            wins += usize::from(bayes < random);
            of_bayes.push(bayes);
            of_random.push(random);
        }
        of_bayes.sort_by(f64::total_cmp);
        of_random.sort_by(f64::total_cmp);
        (of_bayes, of_random, wins)
    }

    #[test]
    fn bayes_finds_a_minimum_better_than_random() {
        let (bayes, random, wins) = compare(BOWL, 40, 20, bowl);
        assert!(wins >= 13, "{wins} of 20: {bayes:?} {random:?}");
        assert!(
            bayes[10] < 0.5 * random[10],
            "medians {} and {}",
            bayes[10],
            random[10]
        );
    }

    /// The table in `tests/bench/README.md`.
    #[test]
    #[ignore = "takes long"]
    fn tpe_against_random() {
        let squares: String = (0..5)
            .map(|n| format!("  x{n}: {{min: -1.0, max: 1.0}}\n"))
            .collect();
        let cats = "  a: {values: [1, 2, 3, 4]}\n  b: {values: [1, 2, 3, 4, 5]}\n  \
                    c: {values: [1, 2, 3]}\n  d: {min: 0.0, max: 1.0}\n";
        let plane = "  x: {min: -5.0, max: 10.0}\n  y: {min: 0.0, max: 15.0}\n";
        let sphere = |x: &[f64]| x.iter().map(|v| (v - 0.3).powi(2)).sum();
        let steps = |x: &[f64]| {
            (x[0] - 3.0).abs()
                + (x[1] - 2.0).abs() * 0.5
                + (x[2] - 1.0).abs() * 0.3
                + (x[3] - 0.6).abs()
        };
        type Function<'a> = (&'a str, &'a str, fn(&[f64]) -> f64);
        let functions: [Function<'_>; 4] = [
            ("bowl", BOWL, bowl),
            ("branin", plane, branin),
            ("squares", &squares, sphere),
            ("categories", cats, steps),
        ];
        for (name, parameters, score) in functions {
            for num_trials in [24, 50] {
                let (bayes, random, wins) = compare(parameters, num_trials, 100, score);
                println!(
                    "{name}, {num_trials} trials: {:.3} against {:.3}, won {wins} %",
                    bayes[50], random[50]
                );
                assert!(wins > 50, "{name}");
            }
        }
    }
}
