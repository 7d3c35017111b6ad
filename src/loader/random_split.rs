//! Divides cells at random into parts of given shares.

use rand::seq::SliceRandom;

use super::error::LoaderError;
use crate::rng::{self, Stream};

/// Divides cells 0..`num_cells` at random into parts of these shares, which add up to 1: the cells
/// of each part, ascending. Parts have their shares up to one cell. Takes 8 bytes per cell.
///
/// For parts that keep donors whole, and mean the same to every command, see [`super::split`].
///
/// # Errors
/// Shares that are negative or do not add up to 1.
pub fn random_split(
    num_cells: u64,
    shares: &[f64],
    seed: u64,
) -> Result<Vec<Vec<u64>>, LoaderError> {
    let sum: f64 = shares.iter().sum();
    if shares.iter().any(|share| *share < 0.0) || !(0.999_999..=1.000_001).contains(&sum) {
        let expected = "shares from 0 up that add up to 1";
        return Err(LoaderError::setting(
            "shares",
            expected,
            format!("{shares:?}"),
        ));
    }
    let mut cells: Vec<u64> = (0..num_cells).collect();
    cells.shuffle(&mut rng::stream(seed, Stream::Split, 3, 0));
    let (mut parts, mut before, mut start) = (Vec::new(), 0.0, 0);
    for share in shares {
        before += share;
        let end = ((before / sum * num_cells as f64).round() as usize).min(cells.len());
        let mut part = cells[start..end.max(start)].to_vec();
        part.sort_unstable();
        parts.push(part);
        start = end.max(start);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_cell_is_in_one_part_and_parts_have_their_shares() {
        for num_cells in [0, 1, 7, 1000] {
            let parts = random_split(num_cells, &[0.7, 0.0, 0.1, 0.2], 1).unwrap();
            for (part, share) in parts.iter().zip([0.7, 0.0, 0.1, 0.2]) {
                assert!((part.len() as f64 - share * num_cells as f64).abs() <= 1.0);
                assert!(part.is_sorted());
            }
            let mut all = parts.concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..num_cells));
        }
        let parts = |seed| random_split(100, &[0.5, 0.5], seed).unwrap();
        assert_eq!(parts(1), parts(1));
        assert_ne!(parts(1), parts(2));
        for bad in [&[0.5, 0.4][..], &[1.5, -0.5], &[f64::NAN], &[]] {
            assert!(random_split(10, bad, 1).is_err(), "{bad:?}");
        }
    }
}
