//! One process: every sum is its own.

use super::{Collective, DistError, Wire};
use crate::kernels::timed::Timed;

/// The engine of a run in one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn sum(&mut self, values: Timed, _: Wire) -> Result<Timed, DistError> {
        Ok(values)
    }

    fn join(&mut self, all: Timed, _: &[usize]) -> Result<Timed, DistError> {
        Ok(all)
    }

    fn broadcast(&mut self, message: Vec<u8>) -> Result<Vec<u8>, DistError> {
        Ok(message)
    }

    fn gather(&mut self, message: &[u8]) -> Result<Vec<Vec<u8>>, DistError> {
        Ok(vec![message.to_vec()])
    }

    fn barrier(&mut self) -> Result<(), DistError> {
        Ok(())
    }

    fn close(self) -> Result<(), DistError> {
        Ok(())
    }
}
