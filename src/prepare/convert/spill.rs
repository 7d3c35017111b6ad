//! The rows of a shuffle on their way: sorted roughly into buckets of places, each of which fits
//! into memory.
//!
//! Rows are kept as records of place (8 bytes), number of entries (4), columns and values. All
//! buckets share one file, each holds a list of the runs that are its own; where everything fits
//! into memory there is no file.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use crate::file::{FileError, read_exact_at, write_all_at};
use crate::h5ad::RowBytes;

/// Rows by bucket.
#[derive(Debug)]
pub(super) struct Spill {
    /// Places of each bucket, ascending, without gaps.
    buckets: Vec<Range<u64>>,
    value_bytes: usize,
    file: Option<SpillFile>,
    runs: Vec<Vec<Run>>,
}

#[derive(Debug)]
enum Run {
    Memory(Vec<u8>),
    Stored { at: u64, bytes: usize },
}

#[derive(Debug)]
struct SpillFile {
    path: std::path::PathBuf,
    file: File,
    end: u64,
}

impl SpillFile {
    fn failed(&self, error: std::io::Error) -> FileError {
        FileError::io("keep rows under way in it", &self.path, error)
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Spill {
    /// Begins with nothing in any bucket; rows are kept in the file `path` where there is one.
    pub(super) fn new(
        buckets: Vec<Range<u64>>,
        value_bytes: usize,
        path: Option<&Path>,
    ) -> Result<Self, FileError> {
        let file = match path {
            None => None,
            Some(path) => {
                let mut options = OpenOptions::new();
                options.read(true).write(true).create(true).truncate(true);
                let file = options.open(path);
                let file = file.map_err(|e| FileError::io("create it", path, e))?;
                // Unnamed from now on where the system allows it: nothing is left of it then.
                #[cfg(unix)]
                let _ = std::fs::remove_file(path);
                let path = path.to_owned();
                Some(SpillFile { path, file, end: 0 })
            }
        };
        let runs = buckets.iter().map(|_| Vec::new()).collect();
        Ok(Self {
            buckets,
            value_bytes,
            file,
            runs,
        })
    }

    /// Puts rows into their buckets; `places[i]` holds the places of the rows of `blocks[i]`.
    pub(super) fn push(&mut self, blocks: &[RowBytes], places: &[&[u64]]) -> Result<(), FileError> {
        let (buckets, size) = (&self.buckets, self.value_bytes);
        let mut rows: Vec<Row<'_>> = blocks
            .par_iter()
            .zip(places)
            .flat_map_iter(|(block, places)| rows_of(block, places, size, buckets))
            .collect();
        rows.par_sort_unstable_by_key(|row| (row.bucket, row.place));
        let own: Vec<&[Row<'_>]> = rows.chunk_by(|a, b| a.bucket == b.bucket).collect();
        let runs: Vec<(usize, Vec<u8>)> = own
            .into_par_iter()
            .filter_map(|rows| Some((rows.first()?.bucket, records(rows))))
            .collect();
        for (bucket, bytes) in runs {
            let run = match &mut self.file {
                None => Run::Memory(bytes),
                Some(file) => {
                    let at = file.end;
                    write_all_at(&file.file, at, &bytes).map_err(|e| file.failed(e))?;
                    file.end += bytes.len() as u64;
                    Run::Stored {
                        at,
                        bytes: bytes.len(),
                    }
                }
            };
            if let Some(runs) = self.runs.get_mut(bucket) {
                runs.push(run);
            }
        }
        Ok(())
    }

    /// Number of buckets.
    pub(super) fn num_buckets(&self) -> usize {
        self.buckets.len()
    }

    /// The rows of a bucket in the order of their places.
    pub(super) fn bucket(&self, bucket: usize) -> Result<RowBytes, FileError> {
        let mut pieces = Vec::new();
        for run in self.runs.get(bucket).into_iter().flatten() {
            pieces.push(match (run, &self.file) {
                (Run::Stored { at, bytes }, Some(file)) => {
                    let mut piece = vec![0; *bytes];
                    read_exact_at(&file.file, *at, &mut piece).map_err(|e| file.failed(e))?;
                    std::borrow::Cow::Owned(piece)
                }
                (Run::Memory(bytes), _) => std::borrow::Cow::Borrowed(bytes.as_slice()),
                (Run::Stored { .. }, None) => continue,
            });
        }
        let mut rows: Vec<(u64, &[u8], &[u8])> = Vec::new();
        for piece in &pieces {
            let mut rest: &[u8] = piece;
            while let Some((row, after)) = next_record(rest, self.value_bytes) {
                rows.push(row);
                rest = after;
            }
        }
        rows.par_sort_unstable_by_key(|(place, _, _)| *place);
        let entries: usize = rows.iter().map(|(_, columns, _)| columns.len() / 4).sum();
        let mut out = RowBytes {
            lengths: rows
                .iter()
                .map(|(_, columns, _)| (columns.len() / 4) as u32)
                .collect(),
            columns: Vec::with_capacity(4 * entries),
            values: Vec::with_capacity(self.value_bytes * entries),
            num_changed: 0,
        };
        for (_, columns, values) in rows {
            out.columns.extend_from_slice(columns);
            out.values.extend_from_slice(values);
        }
        Ok(out)
    }
}

struct Row<'a> {
    bucket: usize,
    place: u64,
    columns: &'a [u8],
    values: &'a [u8],
}

fn rows_of<'a>(
    block: &'a RowBytes,
    places: &[u64],
    value_bytes: usize,
    buckets: &[Range<u64>],
) -> Vec<Row<'a>> {
    let mut start = 0;
    let mut rows = Vec::with_capacity(places.len());
    for (place, len) in places.iter().zip(&block.lengths) {
        let end = start + *len as usize;
        let columns = block.columns.get(4 * start..4 * end);
        let values = block.values.get(value_bytes * start..value_bytes * end);
        start = end;
        // Places before the first bucket belong to files that are finished.
        let bucket = buckets.partition_point(|bucket| bucket.end <= *place);
        let wanted = buckets
            .get(bucket)
            .is_some_and(|bucket| bucket.contains(place));
        if let (true, Some((columns, values))) = (wanted, columns.zip(values)) {
            rows.push(Row {
                bucket,
                place: *place,
                columns,
                values,
            });
        }
    }
    rows
}

fn records(rows: &[Row<'_>]) -> Vec<u8> {
    let bytes = rows
        .iter()
        .map(|row| 12 + row.columns.len() + row.values.len())
        .sum();
    let mut out = Vec::with_capacity(bytes);
    for row in rows {
        out.extend(row.place.to_le_bytes());
        out.extend(((row.columns.len() / 4) as u32).to_le_bytes());
        out.extend_from_slice(row.columns);
        out.extend_from_slice(row.values);
    }
    out
}

type Record<'a> = (u64, &'a [u8], &'a [u8]);

fn next_record(bytes: &[u8], value_bytes: usize) -> Option<(Record<'_>, &[u8])> {
    let (place, rest) = bytes.split_first_chunk::<8>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len) as usize;
    let (columns, rest) = rest.split_at_checked(4 * len)?;
    let (values, rest) = rest.split_at_checked(value_bytes * len)?;
    Some(((u64::from_le_bytes(*place), columns, values), rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_come_back_in_the_order_of_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spill");
        let block = |lengths: &[u32], seed: u8| {
            let entries = lengths.iter().sum::<u32>() as u8;
            RowBytes {
                lengths: lengths.to_vec(),
                columns: (0..entries)
                    .flat_map(|i| u32::from(i).to_le_bytes())
                    .collect(),
                values: (0..entries).map(|i| seed + i).collect(),
                num_changed: 0,
            }
        };
        let blocks = [block(&[2, 0, 1], 10), block(&[1], 50)];
        for path in [None, Some(path.as_path())] {
            let mut spill = Spill::new(vec![0..2, 2..4], 1, path).unwrap();
            spill.push(&blocks, &[&[3, 0, 2], &[1]]).unwrap();
            let first = spill.bucket(0).unwrap();
            assert_eq!((first.lengths, first.values), (vec![0, 1], vec![50]));
            let second = spill.bucket(1).unwrap();
            assert_eq!(
                (second.lengths, second.values),
                (vec![1, 2], vec![12, 10, 11])
            );
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
