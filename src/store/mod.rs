//! The other cell sources behind `CellSource`.
