//! Where every cell of the inputs goes, and in which pieces the inputs are read.

use std::ops::Range;

use rand::seq::SliceRandom;
use rayon::prelude::*;

use crate::cell::CellSource;
use crate::h5ad::{H5ad, H5adError};
use crate::rng::{Stream, stream};

/// Rows of one file that are read together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) file: usize,
    pub(super) rows: Range<u64>,
    /// The first of them, counted over all files.
    pub(super) first: u64,
    /// About how many entries they have.
    pub(super) entries: u64,
}

/// The cells of all inputs, in order, and of all outputs.
#[derive(Debug)]
pub(super) struct Places {
    /// First cell of each file, and one past the last.
    pub(super) offsets: Vec<u64>,
    /// Entries of each cell: exactly, or about where the files do not say.
    pub(super) entries: Vec<u32>,
    /// Cell at each place of the output; `None`: they stay where they are.
    pub(super) order: Option<Vec<u64>>,
    /// Places of each output file.
    pub(super) shards: Vec<Range<u64>>,
}

impl Places {
    /// The places of the cells of `files`. With `exact`, entries are counted where the files do
    /// not say how many there are.
    pub(super) fn new(
        files: &[H5ad],
        shuffle: Option<u64>,
        cells_per_file: Option<u64>,
        exact: bool,
    ) -> Result<Self, H5adError> {
        let mut offsets = vec![0];
        let mut entries = Vec::new();
        for file in files {
            entries.extend(entries_of(file, exact)?);
            offsets.push(entries.len() as u64);
        }
        let num_cells = entries.len() as u64;
        let order = shuffle.map(|seed| {
            let mut order: Vec<u64> = (0..num_cells).collect();
            order.shuffle(&mut stream(seed, Stream::Shuffle, 0, 0));
            order
        });
        let step = cells_per_file.unwrap_or(num_cells).max(1);
        let starts = (0..num_cells.max(1)).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        let shards = starts.map(|start| start..num_cells.min(start.saturating_add(step)));
        let shards = shards.collect();
        Ok(Self {
            offsets,
            entries,
            order,
            shards,
        })
    }

    /// Number of cells.
    pub(super) fn num_cells(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The cell at `place`.
    pub(super) fn cell(&self, place: u64) -> u64 {
        let order = self.order.as_ref();
        order
            .and_then(|order| order.get(place as usize))
            .copied()
            .unwrap_or(place)
    }

    /// The place of every cell; `None` where each stays where it is.
    pub(super) fn places(&self) -> Option<Vec<u64>> {
        let order = self.order.as_ref()?;
        let mut places = vec![0; order.len()];
        for (place, cell) in (0u64..).zip(order) {
            if let Some(slot) = places.get_mut(*cell as usize) {
                *slot = place;
            }
        }
        Some(places)
    }

    /// Entries of the cells at `places`, in all.
    pub(super) fn entries_at(&self, places: Range<u64>) -> u64 {
        let of = |place: u64| {
            self.entries
                .get(self.cell(place) as usize)
                .copied()
                .unwrap_or(0)
        };
        places.map(|place| u64::from(of(place))).sum()
    }

    /// The cells `within` as tasks of about `most` entries, each within a file and between `cuts`.
    pub(super) fn tasks(&self, files: &[H5ad], within: Range<u64>, most: u64) -> Vec<Task> {
        let mut tasks = Vec::new();
        for (file, own) in self.offsets.windows(2).enumerate() {
            let &[start, end] = own else { continue };
            let (start, end) = (start.max(within.start), end.min(within.end));
            // A column-compressed matrix may be scanned whole for each task.
            let by_column = files.get(file).is_some_and(H5ad::is_by_column);
            let most = if by_column {
                most.saturating_mul(8)
            } else {
                most
            };
            let mut first = start;
            while first < end {
                let (mut next, mut entries) = (first, 0u64);
                while next < end && (next == first || entries < most) {
                    entries += u64::from(self.entries.get(next as usize).copied().unwrap_or(0)) + 1;
                    next += 1;
                }
                let own_start = own[0];
                tasks.push(Task {
                    file,
                    rows: first - own_start..next - own_start,
                    first,
                    entries,
                });
                first = next;
            }
        }
        tasks
    }
}

fn entries_of(file: &H5ad, exact: bool) -> Result<Vec<u32>, H5adError> {
    let num_cells = file.num_cells();
    if file.num_entries(0..num_cells).is_some() {
        let of = |row| file.num_entries(row..row + 1).unwrap_or(0) as u32;
        return Ok((0..num_cells).map(of).collect());
    }
    let about = file.about_entries();
    if !exact || num_cells == 0 {
        return Ok(vec![about; num_cells as usize]);
    }
    let rows = (4_000_000 / u64::from(about.max(1))).max(1);
    let starts: Vec<u64> = (0..num_cells).step_by(rows as usize).collect();
    let counted = starts
        .into_par_iter()
        .map(|start| file.count_entries(start..num_cells.min(start + rows)));
    Ok(counted.collect::<Result<Vec<_>, _>>()?.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_many_cells_are_counted_in_64_bits() {
        let places = Places {
            offsets: vec![0, 2, 4],
            entries: vec![1_500_000_000; 4],
            order: Some(vec![3, 1, 0, 2]),
            shards: vec![0..3, 3..4],
        };
        assert_eq!(places.entries_at(0..4), 6_000_000_000);
        let tasks = places.tasks(&[], 0..4, 2_000_000_000);
        let rows: Vec<_> = tasks.iter().map(|t| (t.file, t.rows.clone())).collect();
        assert_eq!(rows, [(0, 0..2), (1, 0..2)]);
        assert!(tasks.iter().all(|task| task.entries == 3_000_000_002));
    }
}
