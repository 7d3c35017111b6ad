//! A `csr_matrix` group, written row block by row block.

use super::super::H5adError;
use super::array::{ArrayWriter, Storage};
use super::output::{GroupParts, Output};
use crate::numbers::Kind;

/// A sparse matrix that grows by rows.
#[derive(Debug)]
pub struct MatrixWriter {
    num_columns: u64,
    data: ArrayWriter,
    indices: ArrayWriter,
    /// Where each row begins.
    pointer: Vec<u64>,
}

impl MatrixWriter {
    /// Begins a matrix of `num_columns` columns whose values are of `kind`; it can come to `most`
    /// entries.
    pub fn new(
        output: &mut Output,
        num_columns: u64,
        kind: Kind,
        storage: Storage,
        most: u64,
    ) -> Self {
        Self {
            num_columns,
            data: ArrayWriter::new(output, kind, storage, most),
            indices: ArrayWriter::new(output, Kind::I32, storage, most),
            pointer: vec![0],
        }
    }

    /// Appends rows of `lengths` entries each: `columns` as bytes of `i32`, `values` as bytes of
    /// the matrix's kind.
    ///
    /// # Errors
    /// The disk is full.
    pub fn push(
        &mut self,
        output: &mut Output,
        lengths: &[u32],
        columns: &[u8],
        values: &[u8],
    ) -> Result<(), H5adError> {
        let mut end = self.num_entries();
        self.pointer.extend(lengths.iter().map(|len| {
            end += u64::from(*len);
            end
        }));
        self.indices.push(output, columns)?;
        self.data.push(output, values)?;
        if self.data.num_elements() != end || self.indices.num_elements() != end {
            return Err(output.refuse("rows and their entries do not agree"));
        }
        Ok(())
    }

    /// Number of entries so far.
    pub fn num_entries(&self) -> u64 {
        self.pointer.last().copied().unwrap_or(0)
    }

    /// Number of rows so far.
    pub fn num_rows(&self) -> u64 {
        self.pointer.len() as u64 - 1
    }

    /// Writes the rest and returns the address of the group.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(self, output: &mut Output, storage: Storage) -> Result<u64, H5adError> {
        let mut parts = GroupParts::encoded("csr_matrix", "0.1.0");
        parts.shape(self.num_rows(), self.num_columns);
        let most = self.pointer.len() as u64;
        let mut pointer = ArrayWriter::new(output, Kind::I64, storage, most);
        for part in self.pointer.chunks(1 << 16) {
            let bytes: Vec<u8> = part.iter().flat_map(|at| at.to_le_bytes()).collect();
            pointer.push(output, &bytes)?;
        }
        parts.member("data", self.data.finish(output, None)?);
        parts.member("indices", self.indices.finish(output, None)?);
        parts.member("indptr", pointer.finish(output, None)?);
        output.group(parts)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::h5ad::writer::TableWriter;
    use crate::h5ad::{ColumnMap, H5ad, OpenOptions};

    /// Entries of a row, and of a chunk.
    const WIDTH: u32 = 1 << 16;
    /// Rows of zeros between the first row and the last: 5.4 billion entries.
    const SKIPPED: u64 = 5 * (1 << 30) / WIDTH as u64;

    /// A matrix of so many entries that their places need more than 32 bits: its first and last
    /// rows are there, what is between them is a hole.
    fn write(output: &mut Output, storage: Storage) -> GroupParts {
        let (num_rows, most) = (SKIPPED + 2, (SKIPPED + 2) * u64::from(WIDTH));
        let mut matrix = MatrixWriter::new(output, u64::from(WIDTH), Kind::U8, storage, most);
        let columns: Vec<u8> = (0..WIDTH).flat_map(u32::to_le_bytes).collect();
        let row = |first: u8| vec![first; WIDTH as usize];
        matrix.push(output, &[WIDTH], &columns, &row(3)).unwrap();
        let skipped = SKIPPED * u64::from(WIDTH);
        matrix.data.skip(output, skipped).unwrap();
        matrix.indices.skip(output, skipped).unwrap();
        let ends = (0..SKIPPED).map(|row| (row + 2) * u64::from(WIDTH));
        matrix.pointer.extend(ends);
        matrix.push(output, &[WIDTH], &columns, &row(7)).unwrap();
        assert_eq!(matrix.num_rows(), num_rows);
        let mut root = GroupParts::encoded("anndata", "0.1.0");
        root.member("X", matrix.finish(output, storage).unwrap());
        for (name, len) in [("obs", num_rows), ("var", u64::from(WIDTH))] {
            let names: Vec<String> = (0..len).map(|n| n.to_string()).collect();
            let names = names.iter().map(String::as_str);
            let table = TableWriter::new(output, "_index", names, false).unwrap();
            root.member(name, table.finish(output).unwrap());
        }
        root
    }

    #[test]
    fn more_entries_than_32_bits_can_count() {
        let dir = tempfile::tempdir().unwrap();
        let chunked = |gzip| Storage::Chunked { len: WIDTH, gzip };
        for storage in [Storage::Contiguous, chunked(None), chunked(Some(1))] {
            let path = dir.path().join("large.h5ad");
            let mut output = Output::create(&path).unwrap();
            let root = write(&mut output, storage);
            output.finish(root).unwrap();
            let file = H5ad::open(&path, &OpenOptions::default()).unwrap();
            let last = SKIPPED + 1;
            let entries = file.num_entries(0..last + 1).unwrap();
            assert!(entries > u64::from(u32::MAX), "{entries}");
            for (row, value) in [(0, 3.0), (1, 0.0), (last, 7.0)] {
                let read = file.read(std::slice::from_ref(&(row..row + 1))).unwrap();
                let expected = if value == 0.0 { 0 } else { WIDTH as usize };
                assert_eq!(read.nnz(), expected, "{storage:?}, row {row}");
                assert!(read.data().iter().all(|found| *found == value));
            }
            let bytes = file.read_bytes(last..last + 1, Kind::U16, &ColumnMap::Same);
            assert_eq!(bytes.unwrap().lengths, [WIDTH]);
        }
    }
}
