//! Which genes come first, and so survive truncation.

use std::cmp::Ordering;

use rand::seq::SliceRandom;

use super::config::GeneOrder;
use super::row::Draw;
use crate::rng::{self, Stream};

/// An expressed gene of a cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Expressed {
    pub gene: u32,
    pub bin: u32,
    pub value: f32,
}

/// Brings the first `keep` genes of `order` to the front in that order and drops the others.
/// `genes` come in file order; `ranks` are indexed by gene.
pub(super) fn keep_first(
    genes: &mut Vec<Expressed>,
    keep: usize,
    order: GeneOrder,
    ranks: Option<&[u32]>,
    draw: Draw,
) {
    match order {
        GeneOrder::File => {}
        GeneOrder::Rank => {
            let rank = |e: &Expressed| ranks.map_or(0, |ranks| ranks[e.gene as usize]);
            sort_first(genes, keep, |a, b| {
                (rank(a), a.gene).cmp(&(rank(b), b.gene))
            });
        }
        GeneOrder::Expression => sort_first(genes, keep, |a, b| {
            b.value.total_cmp(&a.value).then(a.gene.cmp(&b.gene))
        }),
        GeneOrder::Random => {
            let mut rng = rng::stream(draw.seed, Stream::GeneOrder, draw.epoch, draw.cell);
            genes.partial_shuffle(&mut rng, keep);
            // partial_shuffle leaves the drawn ones at the end.
            genes.reverse();
        }
    }
    genes.truncate(keep);
}

fn sort_first(
    genes: &mut Vec<Expressed>,
    keep: usize,
    compare: impl Fn(&Expressed, &Expressed) -> Ordering,
) {
    if keep > 0 && keep < genes.len() {
        genes.select_nth_unstable_by(keep - 1, &compare);
        genes.truncate(keep);
    }
    genes.sort_unstable_by(compare);
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAW: Draw = Draw {
        seed: 1,
        epoch: 0,
        cell: 0,
        augments: false,
    };

    fn order(by: GeneOrder, keep: usize, draw: Draw) -> Vec<u32> {
        let values = [(3, 1.0), (0, 5.0), (2, 5.0), (1, 9.0)];
        let mut genes: Vec<_> = values
            .iter()
            .map(|&(gene, value)| Expressed {
                gene,
                bin: 1,
                value,
            })
            .collect();
        keep_first(&mut genes, keep, by, Some(&[7, 5, 5, 0]), draw);
        genes.iter().map(|e| e.gene).collect()
    }

    #[test]
    fn each_order_brings_its_first_to_the_front() {
        assert_eq!(order(GeneOrder::File, 3, DRAW), [3, 0, 2]);
        assert_eq!(order(GeneOrder::Rank, 3, DRAW), [3, 1, 2]);
        assert_eq!(order(GeneOrder::Expression, 9, DRAW), [1, 0, 2, 3]);
        assert_eq!(order(GeneOrder::Expression, 2, DRAW), [1, 0]);
        assert!(order(GeneOrder::Rank, 0, DRAW).is_empty());
    }

    #[test]
    fn a_random_order_is_a_draw_for_each_cell_and_epoch() {
        let draws: Vec<_> = (0..50)
            .map(|i| {
                order(
                    GeneOrder::Random,
                    2,
                    Draw {
                        epoch: i % 7,
                        cell: i,
                        ..DRAW
                    },
                )
            })
            .collect();
        for gene in 0..4 {
            let times = draws.iter().flatten().filter(|&&g| g == gene).count();
            assert!((10..=40).contains(&times), "gene {gene}: {times} of 100");
        }
        assert_eq!(
            order(GeneOrder::Random, 4, DRAW),
            order(GeneOrder::Random, 4, DRAW)
        );
    }
}
