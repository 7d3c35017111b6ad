//! The fused operations of a training step.
