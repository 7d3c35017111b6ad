//! The integration tests: goldens, and the real command in a fresh folder.

mod shared;
