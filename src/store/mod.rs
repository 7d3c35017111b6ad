//! The other cell sources behind [`crate::cell::CellSource`]: cells in memory, SCDL archives.

mod memory;
mod scdl;

pub use memory::MemorySource;
pub use scdl::{Feature, ScalarType, ScdlArchive, ScdlError, ScdlOptions, ScdlWriter};
