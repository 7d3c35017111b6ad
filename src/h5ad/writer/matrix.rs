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
