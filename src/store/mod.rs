//! The other cell sources behind [`crate::cell::CellSource`]: cells in memory, SCDL archives.

mod memory;
mod scdl;

pub use memory::MemorySource;
pub use scdl::{
    Feature, NeighborChoice, NeighborWriter, ScalarType, ScdlArchive, ScdlError, ScdlNeighbors,
    ScdlOptions, ScdlTable, ScdlWriter,
};
