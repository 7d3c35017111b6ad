//! AnnData (h5ad) files of any encoding, as row blocks and obs columns.
//!
//! What this room owns: the HDF5 layouts that anndata has used since its first release, and how
//! each becomes the same two things, a block of rows ([`crate::cell::CsrBlock`]) and a column of
//! labels ([`crate::cell::Labels`]). What it refuses to know: tokens, vocabularies, models.
//!
//! The main type is [`H5ad`], a [`crate::cell::CellSource`]. Legend of a file:
//!
//! ```text
//! X, layers/<name>, raw/X    cells × genes: a dense array, or a group of data/indices/indptr
//! obs, var, raw/var          tables: a group with one member per column, or one compound array
//! uns/<name>_categories      categories of the oldest generation
//! ```
//!
//! A file is read through one handle that threads share, a window of rows at a time; what stays
//! in memory is the row pointer of the matrix and the gene names. Every number that comes from
//! the file is checked before it is used as a place or a size.

mod array;
mod chunks;
mod column;
mod compound;
mod container;
mod dense;
mod diagnose;
pub mod edit;
mod error;
mod foundation;
mod gene_map;
mod genes;
mod graph;
mod inspect;
mod joined;
mod late_rows;
mod matrix;
mod number;
mod open_files;
mod options;
mod reader;
mod report;
mod rows;
mod sample;
mod scan;
mod sparse;
mod table;
mod transcode;
mod turned;
pub mod write;
pub mod writer;

pub use crate::numbers::Kind;
pub use column::VarColumn;
pub use error::H5adError;
pub use gene_map::{GENE_MAP_COLUMNS, GeneMap};
pub use genes::style as gene_style;
pub use graph::{CellGraph, GraphRows};
pub use inspect::{inspect, inspect_with};
pub use joined::{Entries, JoinedTable, Part, TableColumn};
pub use open_files::{H5adSource, OpenFiles};
pub use options::{MatrixKey, OpenOptions, ValuePolicy};
pub use reader::H5ad;
pub use report::{ColumnReport, GeneReport, GeneStyle, MatrixReport, Report, Spread, ValueKind};
pub use sample::{NegativeValue, ValueSample};
pub use transcode::{ColumnMap, RowBytes, Survey};
