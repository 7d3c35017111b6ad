//! The nearest rows by Euclidean distance, found exactly.

use rayon::prelude::*;

/// For each query its nearest rows, nearest first, the smaller number first of equals.
#[derive(Debug, Clone)]
pub struct Neighbours {
    /// How many each query has.
    pub num: usize,
    /// Numbers of rows \[queries, num\].
    pub rows: Vec<u32>,
    /// Distances, as many.
    pub distances: Vec<f32>,
}

impl Neighbours {
    /// Neighbours of query `number`: rows and distances.
    pub fn of(&self, number: usize) -> (&[u32], &[f32]) {
        let range = number * self.num..(number + 1) * self.num;
        (&self.rows[range.clone()], &self.distances[range])
    }
}

/// The `num` rows of `rows` \[N, width\] that are nearest to each of `queries` \[M, width\]; `None`:
/// to each of `rows` itself, which is then no neighbour of its own.
pub fn nearest(rows: &[f32], queries: Option<&[f32]>, width: usize, num: usize) -> Neighbours {
    let own = queries.is_none();
    let num_rows = rows.len() / width.max(1);
    let num = num.min(num_rows.saturating_sub(usize::from(own)));
    let of = |(number, query): (usize, &[f32])| {
        let others = rows.chunks_exact(width.max(1)).enumerate();
        let others = others.filter(|(other, _)| !(own && *other == number));
        let mut found: Vec<(f32, u32)> = others
            .map(|(other, row)| (square(query, row), other as u32))
            .collect();
        let order = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        if num < found.len() && num > 0 {
            found.select_nth_unstable_by(num - 1, order);
        }
        found.truncate(num);
        found.sort_unstable_by(order);
        found
    };
    let queries = queries.unwrap_or(rows);
    let found: Vec<Vec<(f32, u32)>> = queries
        .par_chunks_exact(width.max(1))
        .enumerate()
        .map(of)
        .collect();
    let flat = || found.iter().flatten();
    Neighbours {
        num,
        rows: flat().map(|(_, row)| *row).collect(),
        distances: flat().map(|(square, _)| square.sqrt()).collect(),
    }
}

/// The square of the distance.
pub(super) fn square(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a.remainder().iter().zip(b.remainder());
    let rest: f32 = rest.map(|(x, y)| (x - y) * (x - y)).sum();
    for (x, y) in a.zip(b) {
        for lane in 0..LANES {
            let difference = x[lane] - y[lane];
            sums[lane] += difference * difference;
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_the_nearest_and_not_oneself() {
        let rows = [0.0, 0.0, 3.0, 4.0, 0.0, 1.0, 6.0, 8.0];
        let own = nearest(&rows, None, 2, 2);
        assert_eq!(own.of(0), (&[2, 1][..], &[1.0, 5.0][..]));
        assert_eq!(own.of(3).0, [1, 2]);
        let asked = nearest(&rows, Some(&[0.0, 0.5]), 2, 9);
        assert_eq!((asked.num, asked.of(0).0), (4, &[0, 2, 1, 3][..]));
    }
}
