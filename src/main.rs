//! The `gene-bert` command.
fn main() {}
