//! What an engine must be able to do.

use serde::{Deserialize, Serialize};

use super::DistError;
use crate::kernels::timed::Timed;

/// The type that values have on their way between ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16: half the bytes. Between CPUs bf16 is summed in f32 and the sum rounded again;
    /// between GPUs the engine sums in bf16, and rounds as often as there are ranks.
    Bf16,
}

impl std::str::FromStr for Wire {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(format!(
                "`{text}` cannot be sent between processes: there are f32 and bf16"
            )),
        }
    }
}

/// An engine: every method is called by all ranks, in the same order.
///
/// Values are tensors of one dimension where the model computes: f32 on the CPU; on a GPU f32, bf16
/// and f64, where a call only asks for the work and the tensor that is given back is whole later
/// ([`Timed`]).
pub trait Collective {
    /// This process, 0..world.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world(&self) -> usize;

    /// Replaces `values` by their sum over all ranks, the same bits on each. `wire` is for the CPU: on
    /// a GPU values have their type on the way already.
    ///
    /// # Errors
    /// The engine's; likewise below.
    fn sum(&mut self, values: Timed, wire: Wire) -> Result<Timed, DistError>;

    /// Fills in the values of the other ranks. All lie one after the other by rank, `counts[r]` of
    /// rank `r`, which all know; this rank's are in their place already.
    ///
    /// # Errors
    /// The engine's.
    fn join(&mut self, all: Timed, counts: &[usize]) -> Result<Timed, DistError>;

    /// The message of rank 0, on every rank; what the others give is not looked at.
    ///
    /// # Errors
    /// The engine's.
    fn broadcast(&mut self, message: Vec<u8>) -> Result<Vec<u8>, DistError>;

    /// The messages of all ranks, by rank, on every rank.
    ///
    /// # Errors
    /// The engine's.
    fn gather(&mut self, message: &[u8]) -> Result<Vec<Vec<u8>>, DistError>;

    /// Returns once every rank has called it.
    ///
    /// # Errors
    /// The engine's.
    fn barrier(&mut self) -> Result<(), DistError>;

    /// Parts from the other ranks in good order, as the last of all calls.
    ///
    /// # Errors
    /// The engine's.
    fn close(self) -> Result<(), DistError>
    where
        Self: Sized;
}

/// The places of the values of `rank` among those of all, which lie one after the other.
pub fn places(counts: &[usize], rank: usize) -> std::ops::Range<usize> {
    let start = counts.iter().take(rank).sum();
    start..start + counts.get(rank).copied().unwrap_or(0)
}
