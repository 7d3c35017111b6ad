//! The loop, hooks, checkpoints, evaluation.
