//! Ranks of genes within batches, and the order over all of them.

use std::cmp::Ordering;

/// How genes that stand out in several batches are ordered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Flavor {
    /// By median rank, then by the number of batches in which they stand out.
    #[default]
    SeuratV3,
    /// By the number of batches in which they stand out, then by median rank.
    SeuratV3Paper,
}

/// What was found out about a gene.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// Its id.
    pub gene: String,
    /// Whether it is among the genes asked for.
    pub highly_variable: bool,
    /// Median rank over the batches in which it is among the first genes asked for, 0 the best;
    /// `None` where there is no such batch.
    pub rank: Option<f64>,
    /// Number of those batches.
    pub num_batches: u32,
    /// Mean over all cells.
    pub mean: f64,
    /// Variance over all cells.
    pub variance: f64,
    /// Normalised variance, the mean over batches.
    pub normalised_variance: f64,
}

/// All genes, the most variable first.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// The genes in their order.
    pub genes: Vec<Ranked>,
    /// Files read.
    pub num_files: usize,
    /// Cells looked at.
    pub num_cells: u64,
    /// The batches and their cells; one without a name where cells were not divided.
    pub batches: Vec<(String, u64)>,
    /// What a user should know although nothing is wrong.
    pub notes: Vec<String>,
}

/// A gene's place within the batches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Standing {
    pub(super) rank: Option<f64>,
    pub(super) num_batches: u32,
    pub(super) normalised: f64,
}

/// Where each gene stands, by the normalised variances of each batch.
pub(super) fn standings(batches: &[Vec<f64>], num_top: usize) -> Vec<Standing> {
    let num_genes = batches.first().map_or(0, Vec::len);
    let mut ranks: Vec<Vec<f64>> = vec![Vec::new(); num_genes];
    for batch in batches {
        let mut order: Vec<usize> = (0..num_genes).collect();
        order.sort_by(|&a, &b| batch[b].total_cmp(&batch[a]));
        for (rank, gene) in order.into_iter().take(num_top).enumerate() {
            ranks[gene].push(rank as f64);
        }
    }
    let standing = |(gene, ranks): (usize, Vec<f64>)| Standing {
        num_batches: ranks.len() as u32,
        rank: median(ranks),
        normalised: batches.iter().map(|b| b[gene]).sum::<f64>() / batches.len() as f64,
    };
    ranks.into_iter().enumerate().map(standing).collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(values.get(low)?.midpoint(*values.get(high)?))
}

/// Genes, the best first; those without a rank come last, the more variable first.
pub(super) fn best_first(standings: &[Standing], flavor: Flavor) -> Vec<usize> {
    let by_rank = |a: &Standing, b: &Standing| match (a.rank, b.rank) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => b.normalised.total_cmp(&a.normalised),
    };
    let by_batches = |a: &Standing, b: &Standing| b.num_batches.cmp(&a.num_batches);
    let mut order: Vec<usize> = (0..standings.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (&standings[a], &standings[b]);
        match flavor {
            Flavor::SeuratV3 => by_rank(a, b).then_with(|| by_batches(a, b)),
            Flavor::SeuratV3Paper => by_batches(a, b).then_with(|| by_rank(a, b)),
        }
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_medians_over_the_batches_where_a_gene_is_among_the_first() {
        let batches = [vec![5.0, 4.0, 3.0, 2.0, 1.0], vec![4.0, 1.0, 5.0, 0.5, 3.0]];
        let found = standings(&batches, 3);
        let ranks: Vec<_> = found.iter().map(|s| (s.rank, s.num_batches)).collect();
        let expected = [
            (Some(0.5), 2),
            (Some(1.0), 1),
            (Some(1.0), 2),
            (None, 0),
            (Some(2.0), 1),
        ];
        assert_eq!(ranks, expected);
        assert_eq!(best_first(&found, Flavor::SeuratV3), [0, 2, 1, 4, 3]);
        let even = standings(&[vec![1.0, 2.0, 1.0], vec![1.0, 1.0, 2.0]], 1);
        assert_eq!(best_first(&even, Flavor::SeuratV3), [1, 2, 0]);
    }

    #[test]
    fn the_paper_counts_batches_first() {
        let batches = [
            vec![9.0, 8.0, 0.0],
            vec![1.0, 8.0, 9.0],
            vec![0.0, 1.0, 2.0],
        ];
        let found = standings(&batches, 2);
        assert_eq!(best_first(&found, Flavor::SeuratV3), [2, 0, 1]);
        assert_eq!(best_first(&found, Flavor::SeuratV3Paper), [1, 2, 0]);
    }
}
