//! The other cell sources behind [`crate::cell::CellSource`]: today cells in memory.

mod memory;

pub use memory::MemorySource;
