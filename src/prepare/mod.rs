//! Jobs on data.

pub mod simulate;
