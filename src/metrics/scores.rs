//! The probabilities of every class for every prediction: what an area under a curve is made of.
//!
//! A million cells times a thousand classes are 4 GB, so only so many numbers wait in memory; then
//! they go to the disk, one class after the other, so that those of one class are read in long
//! pieces. The disk is that of the system's temporary folder (`TMPDIR`).

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::file::{FileError, Spool};

/// Numbers that wait in memory.
const WAITING: usize = 4 << 20;

/// Probabilities [N, C].
#[derive(Debug, Default)]
pub(super) struct Scores {
    num_classes: usize,
    /// Rows of a piece that goes to the disk at once.
    num_rows: usize,
    /// [rows, C], at most a piece.
    waiting: Vec<f32>,
    /// Pieces of [C, rows].
    pieces: Option<Spool>,
}

impl Scores {
    /// None yet.
    pub(super) fn new(num_classes: usize) -> Self {
        Self::in_pieces(num_classes, (WAITING / num_classes.max(1)).max(1))
    }

    fn in_pieces(num_classes: usize, num_rows: usize) -> Self {
        Self {
            num_classes,
            num_rows,
            ..Self::default()
        }
    }

    /// Adds a row `[C]`.
    pub(super) fn add(&mut self, row: impl Iterator<Item = f32>) -> Result<(), FileError> {
        self.waiting.extend(row);
        if self.waiting.len() < self.num_rows * self.num_classes {
            return Ok(());
        }
        let pieces = match &mut self.pieces {
            Some(pieces) => pieces,
            none => none.insert(Spool::new(&std::env::temp_dir())?),
        };
        for class in 0..self.num_classes {
            pieces.extend(&column(&self.waiting, self.num_classes, class))?;
        }
        self.waiting.clear();
        Ok(())
    }

    /// Adds the rows of others, of as many classes.
    pub(super) fn absorb(&mut self, other: &Self) -> Result<(), FileError> {
        for piece in 0..=other.num_pieces() {
            let rows = other.piece(piece)?;
            for row in rows.chunks_exact(self.num_classes.max(1)) {
                self.add(row.iter().copied())?;
            }
        }
        Ok(())
    }

    /// Those of one class, `[N]`.
    pub(super) fn of_class(&self, class: usize) -> Result<Vec<f32>, FileError> {
        let of_piece = self.num_rows;
        let mut all = vec![0.0; self.num_pieces() * of_piece];
        if let Some(pieces) = &self.pieces {
            for (piece, rows) in all.chunks_exact_mut(of_piece).enumerate() {
                let first = (piece * self.num_classes + class) * of_piece;
                pieces.read(first as u64, rows)?;
            }
        }
        all.extend(column(&self.waiting, self.num_classes, class));
        Ok(all)
    }

    /// Pieces on the disk.
    fn num_pieces(&self) -> usize {
        let numbers = self.pieces.as_ref().map_or(0, Spool::len) as usize;
        numbers / (self.num_rows * self.num_classes).max(1)
    }

    /// The rows of a piece, [rows, C]; those that wait are the last one.
    fn piece(&self, number: usize) -> Result<Vec<f32>, FileError> {
        let Some(pieces) = self.pieces.as_ref().filter(|_| number < self.num_pieces()) else {
            return Ok(self.waiting.clone());
        };
        let mut columns = vec![0.0; self.num_rows * self.num_classes];
        pieces.read((number * columns.len()) as u64, &mut columns)?;
        let rows = 0..self.num_rows;
        Ok(rows
            .flat_map(|row| column(&columns, self.num_rows, row))
            .collect())
    }
}

/// A column of rows of `width`.
fn column(rows: &[f32], width: usize, number: usize) -> Vec<f32> {
    rows.iter()
        .skip(number)
        .step_by(width.max(1))
        .copied()
        .collect()
}

/// As number of classes and rows, all of them in memory.
impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pieces = (0..=self.num_pieces()).map(|piece| self.piece(piece));
        let pieces: Result<Vec<_>, _> = pieces.collect();
        let rows = pieces.map_err(serde::ser::Error::custom)?.concat();
        (self.num_classes, rows).serialize(serializer)
    }
}

impl<'a> Deserialize<'a> for Scores {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        let (num_classes, rows) = <(usize, Vec<f32>)>::deserialize(deserializer)?;
        let mut scores = Self::new(num_classes);
        for row in rows.chunks_exact(num_classes.max(1)) {
            let added = scores.add(row.iter().copied());
            added.map_err(serde::de::Error::custom)?;
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pieces_are_read_by_class_and_added_to_others() {
        let row = |n: usize| (0..3).map(move |class| (10 * n + class) as f32);
        let mut scores = Scores::in_pieces(3, 4);
        (0..10).for_each(|n| scores.add(row(n)).unwrap());
        assert_eq!((scores.num_pieces(), scores.waiting.len()), (2, 6));
        let second: Vec<f32> = (0..10).map(|n| (10 * n + 1) as f32).collect();
        assert_eq!(scores.of_class(1).unwrap(), second);
        let mut more = Scores::in_pieces(3, 4);
        more.add(row(99)).unwrap();
        more.absorb(&scores).unwrap();
        assert_eq!(more.of_class(1).unwrap(), [&[991.0], &second[..]].concat());
        let message = postcard::to_allocvec(&scores).unwrap();
        let read: Scores = postcard::from_bytes(&message).unwrap();
        assert_eq!(read.of_class(2).unwrap(), scores.of_class(2).unwrap());
        assert_eq!(read.num_pieces(), 0);
    }
}
