//! h5ad files of any size, written piece by piece: what is in memory is a few chunks.
//!
//! The HDF5 library builds files in memory only, so the structures of the format are laid out
//! here: the parts of a file are appended as they come, every object header after what it points
//! at, and the superblock, which makes the file one, goes to the front last.
//!
//! | file | what it owns |
//! |---|---|
//! | [`Output`] | the growing file: room, positioned writes, groups |
//! | `structure` | the bytes of superblock, object headers and their messages |
//! | `chunk_index` | the B-tree (version 1) over the chunks of an array |
//! | `texts` | strings of variable length in global heaps |
//! | [`ArrayWriter`] | one growing array, contiguous or in chunks compressed in parallel |
//! | [`MatrixWriter`] | a `csr_matrix` group |
//! | `table` | the `obs` and `var` groups |
//!
//! Only what every HDF5 release since 1.8 reads is used. Legend of a file: superblock (version 2)
//! · parts · root group.

mod array;
mod chunk_index;
mod matrix;
mod output;
pub(super) mod structure;
mod table;
mod texts;

pub use array::{ArrayWriter, Storage};
pub use matrix::MatrixWriter;
pub use output::{GroupParts, Output};
pub use table::{TableParts, TableWriter};
