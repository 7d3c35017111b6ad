//! Folders in the SCDL format of `bionemo-scdl` (schema 0.1.0), read and written.
//!
//! ```text
//! data.npy, col_ptr.npy    value and column of every entry: bare arrays, no header of their own
//! row_ptr.npy              where each row begins: rows + 1 numbers
//! header.sch               magic SCDL, schema, arrays with length and type; big-endian
//! version.json             version of the package, metadata.json: the number of rows
//! var_features/, obs_features/
//!     dataframe_N.parquet        columns of block N
//!     cumulative_sum_index.npy   -1, then the last row of each block + 1
//!     labels.npy, version.npy
//! neighbor_indptr.npy, neighbor_indices.npy, neighbor_values.npy   where there is a graph
//! ```
//!
//! A block of `var_features` is a run of rows that share their genes. What the header declares is
//! compared with the files before it is used. The main types are [`ScdlArchive`], a
//! [`crate::cell::CellSource`], and [`ScdlWriter`].

mod archive;
mod error;
mod features;
mod header;
mod neighbors;
mod npy;
mod rows;
mod writer;

pub use archive::{ScdlArchive, ScdlOptions};
pub use error::ScdlError;
pub use features::Feature;
pub use header::ScalarType;
pub use neighbors::{NeighborChoice, NeighborWriter, ScdlNeighbors};
pub use writer::{ScdlTable, ScdlWriter};

/// The arrays: their names in the header, and their files.
const ARRAYS: [(&str, &str); 3] = [
    ("DATA", "data.npy"),
    ("ROWPTR", "row_ptr.npy"),
    ("COLPTR", "col_ptr.npy"),
];
const HEADER: &str = "header.sch";
const VAR: &str = "var_features";
const OBS: &str = "obs_features";
/// The columns that hold the names of genes and cells.
const GENE_IDS: &str = "var_feature_id";
const CELL_NAMES: &str = "obs_feature_id";
/// The version of the package whose layout is written.
const VERSION: &str = "0.1.3";
