//! Which weights each rank's optimizer holds the moments of, and moves.
//!
//! All weights, laid end to end in the parameters' order, are cut into as many pieces of the same
//! size as there are ranks, each cut moved up to where a row of a parameter begins (a row is what
//! lies along all dimensions but the first). A piece is therefore, of each parameter, some rows
//! that lie side by side: a part of a rank may be of any number of parameters, or of a large table.

use std::ops::Range;

/// All weights, shared out over ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Division {
    /// Where each parameter begins, and where the last ends.
    starts: Vec<usize>,
    /// Rows and weights per row of each parameter.
    shapes: Vec<(usize, usize)>,
    /// Where the piece of each rank begins, and where the last ends.
    cuts: Vec<usize>,
}

impl Division {
    /// The parameters of these shapes, over `world` ranks.
    pub fn new<'a>(shapes: impl Iterator<Item = &'a [usize]>, world: usize) -> Self {
        let shapes = shapes.map(|shape| match shape.split_first() {
            Some((rows, others)) => (*rows, others.iter().product()),
            None => (1, 1),
        });
        let shapes: Vec<(usize, usize)> = shapes.collect();
        let mut starts = vec![0];
        let mut end = 0;
        for (rows, width) in &shapes {
            end += rows * width;
            starts.push(end);
        }
        let mut division = Self {
            starts,
            shapes,
            cuts: Vec::new(),
        };
        let even = |rank: usize| (end as u128 * rank as u128 / world.max(1) as u128) as usize;
        division.cuts = (0..=world.max(1))
            .map(|rank| division.row_from(even(rank)))
            .collect();
        division
    }

    /// The first place from `at` on where a row begins.
    fn row_from(&self, at: usize) -> usize {
        let after = self.starts.partition_point(|&start| start <= at);
        match self.shapes.get(after - 1) {
            Some((_, width)) if *width > 0 => {
                let start = self.starts[after - 1];
                start + (at - start).next_multiple_of(*width)
            }
            _ => at,
        }
    }

    /// The rows of a parameter that belong to a rank.
    pub fn rows(&self, parameter: usize, rank: usize) -> Range<usize> {
        let (rows, width) = self.shapes[parameter];
        let row = |place: usize| {
            let within = place.saturating_sub(self.starts[parameter]);
            (within / width.max(1)).min(rows)
        };
        row(self.cuts[rank])..row(self.cuts[rank + 1])
    }

    /// The piece of each rank, as places among all weights.
    pub fn pieces(&self) -> impl Iterator<Item = Range<usize>> {
        self.cuts.windows(2).map(|cut| cut[0]..cut[1])
    }

    /// The weights of some places: the parameters, and which of each one's weights.
    pub fn weights_at(&self, places: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let first = self.starts.partition_point(|&start| start <= places.start);
        let starts = self.starts.windows(2).enumerate().skip(first.max(1) - 1);
        let end = places.end;
        starts
            .take_while(move |(_, at)| at[0] < end)
            .map(move |(parameter, at)| {
                let from = places.start.max(at[0]) - at[0];
                (parameter, from..end.min(at[1]) - at[0])
            })
            .filter(|(_, weights)| !weights.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_belongs_to_one_rank_and_ranks_have_about_as_much() {
        let shapes: [&[usize]; 5] = [&[7, 4], &[4], &[1000, 4], &[3, 4, 2], &[4]];
        let total = 28 + 4 + 4000 + 24 + 4;
        for world in [1, 2, 3, 7, 64] {
            let division = Division::new(shapes.into_iter(), world);
            for (parameter, shape) in shapes.iter().enumerate() {
                let mut next = 0;
                for rank in 0..world {
                    let rows = division.rows(parameter, rank);
                    assert_eq!(rows.start, next, "{shape:?} over {world}");
                    next = rows.end;
                }
                assert_eq!(next, shape[0]);
            }
            let sizes: Vec<usize> = division.pieces().map(|piece| piece.len()).collect();
            assert_eq!(sizes.iter().sum::<usize>(), total);
            assert!(
                sizes.iter().all(|size| size.abs_diff(total / world) <= 8),
                "{sizes:?}"
            );
        }
        let few = Division::new([&[2][..]].into_iter(), 4);
        assert!(few.pieces().eq([0..0, 0..1, 1..1, 1..2]));
    }

    #[test]
    fn places_are_weights_of_parameters() {
        let shapes: [&[usize]; 3] = [&[2, 4], &[3], &[5, 2]];
        let division = Division::new(shapes.into_iter(), 2);
        let at = |places| division.weights_at(places).collect::<Vec<_>>();
        assert_eq!(at(0..21), [(0, 0..8), (1, 0..3), (2, 0..10)]);
        assert_eq!(at(7..9), [(0, 7..8), (1, 0..1)]);
        assert_eq!(at(8..8), []);
        assert_eq!(at(12..14), [(2, 1..3)]);
    }
}
