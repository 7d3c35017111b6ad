//! What an engine must be able to do.

use serde::{Deserialize, Serialize};

use super::DistError;

/// The type that values have on their way between ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16, summed in f32, the sum rounded again: half the bytes.
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
pub trait Collective {
    /// This process, 0..world.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world(&self) -> usize;

    /// Replaces `values` by their sum over all ranks, the same bits on each.
    ///
    /// # Errors
    /// The engine's; likewise below.
    fn all_reduce(&mut self, values: &mut [f32], wire: Wire) -> Result<(), DistError>;

    /// The message of rank 0, on every rank; what the others give is not looked at.
    ///
    /// # Errors
    /// The engine's.
    fn broadcast(&mut self, message: Vec<u8>) -> Result<Vec<u8>, DistError>;

    /// The values of all ranks, one after the other by rank, on every rank; rank `r` gives
    /// `counts[r]` of them, which all know.
    ///
    /// # Errors
    /// The engine's.
    fn all_gather(&mut self, own: &[f32], counts: &[usize]) -> Result<Vec<f32>, DistError>;

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
}
