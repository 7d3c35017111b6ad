//! Divides groups of cells among parts, whole, so that every part comes close to its share.

use rand::seq::SliceRandom;

use crate::rng::{self, Stream};

/// Most orders of the groups that are tried, and most groups over all tries.
const TRIES: usize = 64;
const TRIED_GROUPS: usize = 1 << 20;

/// A part of `shares` (which add up to 1) for each group; `None` where there are fewer groups than
/// parts. `sizes[g]` is the number of group g's cells in each stratum: each stratum is to be
/// divided by the shares, and the more so the larger it is.
///
/// Groups are taken in a random order and each given to the part where it does best; of several
/// orders the one counts that comes closest. `draw` is the seed and the number of the draw.
pub(super) fn assign_groups(
    sizes: &[&[u64]],
    shares: &[f64],
    draw: (u64, u64),
) -> Option<Vec<usize>> {
    if sizes.len() < shares.len() {
        return None;
    }
    let mut rng = rng::stream(draw.0, Stream::Split, 2, draw.1);
    let num_tries = (TRIED_GROUPS / sizes.len().max(1)).clamp(1, TRIES);
    let tries = (0..num_tries).map(|_| {
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        order.shuffle(&mut rng);
        one_try(sizes, shares, &order)
    });
    let best = tries.min_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(best.1)
}

/// How far from the shares, and the part of each group.
fn one_try(sizes: &[&[u64]], shares: &[f64], order: &[usize]) -> (f64, Vec<usize>) {
    let num_strata = sizes.first().map_or(0, |size| size.len());
    let total = |stratum: usize| sizes.iter().map(|g| g[stratum]).sum::<u64>() as f64;
    let totals: Vec<f64> = (0..num_strata).map(total).collect();
    let mut filled = vec![vec![0.0; num_strata]; shares.len()];
    let (mut parts, mut num_groups) = (vec![0; sizes.len()], vec![0; shares.len()]);
    let lack = |filled: &[f64], share: f64| -> f64 {
        let strata = filled
            .iter()
            .zip(&totals)
            .filter(|(_, total)| **total > 0.0);
        strata
            .map(|(has, total)| (has - share * total).powi(2) / total)
            .sum()
    };
    for (place, &group) in order.iter().enumerate() {
        let num_empty = num_groups.iter().filter(|n| **n == 0).count();
        let only_empty = order.len() - place == num_empty;
        let gain = |part: usize| {
            let with = filled[part].iter().zip(sizes[group]);
            let with: Vec<f64> = with.map(|(has, more)| has + *more as f64).collect();
            lack(&with, shares[part]) - lack(&filled[part], shares[part])
        };
        let open = (0..shares.len()).filter(|part| !only_empty || num_groups[*part] == 0);
        let best = open
            .min_by(|a, b| gain(*a).total_cmp(&gain(*b)))
            .unwrap_or(0);
        parts[group] = best;
        num_groups[best] += 1;
        let cells = filled[best].iter_mut().zip(sizes[group]);
        cells.for_each(|(has, more)| *has += *more as f64);
    }
    let lacks = filled
        .iter()
        .zip(shares)
        .map(|(has, share)| lack(has, *share));
    (lacks.sum(), parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn assign(sizes: &[Vec<u64>], shares: &[f64], seed: u64) -> Option<Vec<usize>> {
        let sizes: Vec<&[u64]> = sizes.iter().map(Vec::as_slice).collect();
        assign_groups(&sizes, shares, (seed, 0))
    }

    fn cells(sizes: &[Vec<u64>], parts: &[usize], part: usize, stratum: usize) -> u64 {
        let of = sizes.iter().zip(parts);
        of.filter(|(_, p)| **p == part)
            .map(|(size, _)| size[stratum])
            .sum()
    }

    #[test]
    fn parts_come_close_to_their_shares() {
        let sizes: Vec<Vec<u64>> = (0..60).map(|g| vec![50 + 37 * g % 101]).collect();
        let total: u64 = sizes.iter().map(|size| size[0]).sum();
        let shares = [0.7, 0.1, 0.2];
        let parts = assign(&sizes, &shares, 1).unwrap();
        for (part, share) in shares.into_iter().enumerate() {
            let found = cells(&sizes, &parts, part, 0) as f64 / total as f64;
            assert!((found - share).abs() < 0.02, "{part}: {found}");
        }
        assert_eq!(parts, assign(&sizes, &shares, 1).unwrap());
        assert_ne!(parts, assign(&sizes, &shares, 2).unwrap());
    }

    #[test]
    fn strata_are_divided_alike() {
        // Half of the groups are of one condition, half of another.
        let sizes: Vec<Vec<u64>> = (0..20)
            .map(|g| vec![(g % 2) * 100, (1 - g % 2) * 100])
            .collect();
        let parts = assign(&sizes, &[0.8, 0.2], 3).unwrap();
        for stratum in 0..2 {
            assert_eq!(cells(&sizes, &parts, 1, stratum), 200);
        }
    }

    #[test]
    fn no_part_stays_empty_if_that_can_be() {
        let sizes = vec![vec![25]; 4];
        let parts = assign(&sizes, &[0.8, 0.1, 0.1], 0).unwrap();
        assert!((0..3).all(|part| parts.contains(&part)));
        assert!(assign(&sizes[..2], &[0.8, 0.1, 0.1], 0).is_none());
        assert_eq!(
            assign(&[vec![900], vec![5]], &[0.5, 0.5], 0).unwrap().len(),
            2
        );
    }
}
