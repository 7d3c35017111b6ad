//! Random tensors and comparisons for the tests of this room.
