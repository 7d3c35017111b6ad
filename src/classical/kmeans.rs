//! Clusters by k-means: centres drawn as k-means++ does, the best of a few starts.

use rand::Rng;
use rayon::prelude::*;

use super::neighbours::square;
use crate::rng::{self, ChaCha8Rng, Stream};

const NUM_STARTS: u64 = 5;
const MAX_ROUNDS: usize = 100;

/// The cluster, 0..`num`, of each of `rows` \[N, width\].
pub fn cluster(rows: &[f32], width: usize, num: usize, seed: u64) -> Vec<u32> {
    let rows: Vec<&[f32]> = rows.chunks_exact(width.max(1)).collect();
    if rows.is_empty() || num == 0 {
        return vec![0; rows.len()];
    }
    let start = |number| {
        let mut rng = rng::stream(seed, Stream::Layout, 1, number);
        one_start(&rows, draw_centres(&rows, num, &mut rng))
    };
    let starts = (0..NUM_STARTS).map(start);
    let best = starts.reduce(|best, other| if other.1 < best.1 { other } else { best });
    best.map_or_else(Vec::new, |(clusters, _)| clusters)
}

/// Each further centre is a row, drawn by the square of its distance to the nearest so far.
fn draw_centres(rows: &[&[f32]], num: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f32>> {
    let mut centres = vec![rows[rng.random_range(0..rows.len())].to_vec()];
    let mut squares: Vec<f32> = rows.iter().map(|row| square(row, &centres[0])).collect();
    while centres.len() < num.min(rows.len()) {
        let total: f64 = squares.iter().map(|&s| f64::from(s)).sum();
        let mut left = rng.random::<f64>() * total;
        let drawn = squares.iter().position(|&s| {
            left -= f64::from(s);
            left < 0.0
        });
        let centre = rows[drawn.unwrap_or(rows.len() - 1)].to_vec();
        for (nearest, row) in squares.iter_mut().zip(rows) {
            *nearest = nearest.min(square(row, &centre));
        }
        centres.push(centre);
    }
    centres
}

/// Clusters and the sum of squares within them.
fn one_start(rows: &[&[f32]], mut centres: Vec<Vec<f32>>) -> (Vec<u32>, f64) {
    let mut clusters = vec![0; rows.len()];
    let mut within = f64::INFINITY;
    for _ in 0..MAX_ROUNDS {
        let found: Vec<(u32, f32)> = rows.par_iter().map(|row| nearest(&centres, row)).collect();
        clusters = found.iter().map(|(cluster, _)| *cluster).collect();
        let sum: f64 = found.iter().map(|(_, square)| f64::from(*square)).sum();
        if sum >= within {
            break;
        }
        within = sum;
        move_centres(&mut centres, rows, &clusters);
    }
    (clusters, within)
}

fn nearest(centres: &[Vec<f32>], row: &[f32]) -> (u32, f32) {
    let squares = (0..)
        .zip(centres)
        .map(|(number, centre)| (number, square(row, centre)));
    let nearer = |best: (u32, f32), other: (u32, f32)| if other.1 < best.1 { other } else { best };
    squares.reduce(nearer).unwrap_or((0, 0.0))
}

/// Each centre becomes the mean of its rows; one without rows stays.
fn move_centres(centres: &mut [Vec<f32>], rows: &[&[f32]], clusters: &[u32]) {
    for (number, centre) in (0..).zip(centres) {
        let mut sums = vec![0f64; centre.len()];
        let mut count = 0.0;
        for (row, _) in rows
            .iter()
            .zip(clusters)
            .filter(|(_, cluster)| **cluster == number)
        {
            sums.iter_mut()
                .zip(*row)
                .for_each(|(sum, &x)| *sum += f64::from(x));
            count += 1.0;
        }
        if count > 0.0 {
            *centre = sums.iter().map(|sum| (sum / count) as f32).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_lie_apart_are_found() {
        let rows: Vec<f32> = (0..60)
            .flat_map(|n| [(n % 3) as f32 * 10.0, (n / 3) as f32 * 0.05])
            .collect();
        let clusters = cluster(&rows, 2, 3, 4);
        for n in 0..60 {
            assert_eq!(clusters[n], clusters[n % 3]);
        }
        assert!(clusters[0] != clusters[1] && clusters[1] != clusters[2]);
        assert_eq!(cluster(&[1.0, 1.0], 1, 5, 0).len(), 2);
        assert!(cluster(&[], 1, 5, 0).is_empty());
    }
}
