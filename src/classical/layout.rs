//! A map of rows in the plane that keeps neighbours together: UMAP's method (McInnes, Healy and
//! Melville, 2018), without threads or approximate neighbours, so that the same rows and seed
//! give the same map everywhere.
//!
//! Each row's distances to its neighbours become weights, scaled so that every row has the same
//! sum of them; the weights of both directions are joined; then rows joined by a weight attract
//! each other, as often as the weight says, and repel rows drawn at random.

use std::collections::BTreeMap;

use rand::Rng;

use super::neighbours::{Neighbours, nearest};
use super::pca::Moments;
use crate::rng::{self, ChaCha8Rng, Stream};

const NUM_NEIGHBOURS: usize = 15;
const NUM_EPOCHS: usize = 400;
/// Rows that repel for each that attracts.
const NUM_REPELLING: usize = 5;
/// 1 / (1 + A·d^(2B)) falls off as weights do beyond a distance of 0.25 in the plane.
const A: f64 = 1.121;
const B: f64 = 1.057;
/// Longest step along one axis.
const MAX_STEP: f64 = 4.0;

/// A place for each of `rows` \[N, width\].
pub fn layout(rows: &[f32], width: usize, seed: u64) -> Vec<[f32; 2]> {
    let mut places = start(rows, width, seed);
    if places.len() < 3 {
        return places.iter().map(|p| p.map(|x| x as f32)).collect();
    }
    let neighbours = nearest(rows, None, width, NUM_NEIGHBOURS);
    let edges = edges(&neighbours, places.len());
    let mut rng = rng::stream(seed, Stream::Layout, 2, 1);
    settle(&mut places, &edges, &mut rng);
    places.iter().map(|p| p.map(|x| x as f32)).collect()
}

/// The first two principal components, within ±10, moved a little so that no two are equal.
fn start(rows: &[f32], width: usize, seed: u64) -> Vec<[f64; 2]> {
    let mut moments = Moments::new(width);
    rows.chunks_exact(width.max(1))
        .for_each(|row| moments.add(row));
    let components = moments.components(2);
    let mut rng = rng::stream(seed, Stream::Layout, 2, 0);
    let place = |row| {
        let mut place = [0.0; 2];
        let found = components.project(row);
        place
            .iter_mut()
            .zip(found)
            .for_each(|(p, x)| *p = f64::from(x));
        place
    };
    let mut places: Vec<[f64; 2]> = rows.chunks_exact(width.max(1)).map(place).collect();
    let largest = places
        .iter()
        .flatten()
        .fold(0f64, |largest, x| largest.max(x.abs()));
    let scale = 10.0 / largest.max(1e-12);
    for x in places.iter_mut().flatten() {
        *x = *x * scale + 1e-3 * (rng.random::<f64>() - 0.5);
    }
    places
}

/// Pairs of rows, in order, and their weights.
fn edges(neighbours: &Neighbours, num_rows: usize) -> Vec<(usize, usize, f64)> {
    let mut directed: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    for row in 0..num_rows {
        let (others, distances) = neighbours.of(row);
        for (&other, weight) in others.iter().zip(weights(distances)) {
            directed.insert((row, other as usize), weight);
        }
    }
    let joined = |(&(a, b), &w): (&(usize, usize), &f64)| {
        let back = directed.get(&(b, a)).copied();
        // Each pair once.
        (a < b || back.is_none()).then(|| {
            let back = back.unwrap_or(0.0);
            (a, b, w + back - w * back)
        })
    };
    directed.iter().filter_map(joined).collect()
}

/// Weights of neighbours: 1 for the nearest, falling off so that they sum up to log2 of their number.
fn weights(distances: &[f32]) -> Vec<f64> {
    let distances: Vec<f64> = distances.iter().map(|&d| f64::from(d)).collect();
    let nearest = distances.iter().copied().find(|&d| d > 0.0).unwrap_or(0.0);
    let target = (distances.len() as f64).log2().max(0.1);
    let weight = |distance: f64, scale: f64| (-(distance - nearest).max(0.0) / scale).exp();
    let (mut low, mut high) = (0.0, f64::INFINITY);
    let mut scale = 1.0;
    for _ in 0..64 {
        let sum: f64 = distances.iter().map(|&d| weight(d, scale)).sum();
        if sum > target {
            high = scale;
            scale = (low + high) / 2.0;
        } else {
            low = scale;
            scale = if high.is_finite() {
                (low + high) / 2.0
            } else {
                scale * 2.0
            };
        }
    }
    let scale = scale.clamp(1e-12, 1e12);
    distances.iter().map(|&d| weight(d, scale)).collect()
}

fn settle(places: &mut [[f64; 2]], edges: &[(usize, usize, f64)], rng: &mut ChaCha8Rng) {
    let strongest = edges.iter().fold(0f64, |most, edge| most.max(edge.2));
    let mut due: Vec<f64> = edges.iter().map(|edge| strongest / edge.2).collect();
    for epoch in 0..NUM_EPOCHS {
        let rate = 1.0 - epoch as f64 / NUM_EPOCHS as f64;
        for (due, &(a, b, weight)) in due.iter_mut().zip(edges) {
            if *due > epoch as f64 {
                continue;
            }
            *due += strongest / weight;
            attract(places, a, b, rate);
            for end in [a, b] {
                for _ in 0..NUM_REPELLING.div_ceil(2) {
                    repel(places, end, rng.random_range(0..places.len()), rate);
                }
            }
        }
    }
}

fn apart(places: &[[f64; 2]], a: usize, b: usize) -> ([f64; 2], f64) {
    let between = [places[a][0] - places[b][0], places[a][1] - places[b][1]];
    (between, between[0] * between[0] + between[1] * between[1])
}

fn attract(places: &mut [[f64; 2]], a: usize, b: usize, rate: f64) {
    let (between, square) = apart(places, a, b);
    if square == 0.0 {
        return;
    }
    let force = -2.0 * A * B * square.powf(B - 1.0) / (1.0 + A * square.powf(B));
    for axis in 0..2 {
        let step = rate * (force * between[axis]).clamp(-MAX_STEP, MAX_STEP);
        places[a][axis] += step;
        places[b][axis] -= step;
    }
}

fn repel(places: &mut [[f64; 2]], a: usize, b: usize, rate: f64) {
    let (between, square) = apart(places, a, b);
    if square == 0.0 {
        return;
    }
    let force = 2.0 * B / ((0.001 + square) * (1.0 + A * square.powf(B)));
    for axis in 0..2 {
        places[a][axis] += rate * (force * between[axis]).clamp(-MAX_STEP, MAX_STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three groups in 20 dimensions, group n in rows n, n + 3, …
    fn groups(num_rows: usize) -> Vec<f32> {
        let mut rng = rng::stream(1, Stream::Layout, 0, 9);
        let row = |n: usize| (0..20).map(move |column| if column == n % 3 { 4.0 } else { 0.0 });
        (0..num_rows)
            .flat_map(row)
            .map(|x: f32| x + rng.random::<f32>() - 0.5)
            .collect()
    }

    #[test]
    fn groups_stay_together_and_apart_from_others() {
        let rows = groups(90);
        let places = layout(&rows, 20, 3);
        assert_eq!(places, layout(&rows, 20, 3));
        let flat: Vec<f32> = places.iter().flatten().copied().collect();
        let found = nearest(&flat, None, 2, 5);
        for row in 0..90 {
            assert!(
                found
                    .of(row)
                    .0
                    .iter()
                    .all(|&other| other as usize % 3 == row % 3)
            );
        }
    }

    #[test]
    fn few_or_equal_rows_have_finite_places() {
        assert!(layout(&[], 4, 0).is_empty());
        for rows in [vec![1.0; 4], vec![1.0; 8], vec![0.5; 4 * 40]] {
            let places = layout(&rows, 4, 0);
            assert_eq!(places.len(), rows.len() / 4);
            assert!(places.iter().flatten().all(|x| x.is_finite()));
        }
    }

    #[test]
    fn weights_sum_to_the_logarithm_of_their_number() {
        let sum: f64 = weights(&[1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 9.0])
            .iter()
            .sum();
        assert!((sum - 3.0).abs() < 1e-6, "{sum}");
    }
}
