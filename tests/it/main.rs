//! The integration tests: goldens, and the real command in a fresh folder.

mod bad_use;
mod layering;
mod shared;
