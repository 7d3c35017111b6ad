//! Answers of all ranks, where each has evaluated its part of the cells: figures are then made of all
//! of them together, never averaged over ranks.

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::dist::Ranks;

/// What every rank has found, by rank.
///
/// # Errors
/// The engine's; a rank of another version.
pub(super) fn gather<T: Serialize + DeserializeOwned>(ranks: &Ranks, own: T) -> Result<Vec<T>> {
    if ranks.world() == 1 {
        return Ok(vec![own]);
    }
    let messages = ranks.group().gather(postcard::to_allocvec(&own)?)?;
    drop(own);
    let read = |(rank, message): (usize, Vec<u8>)| {
        postcard::from_bytes(&message).with_context(|| format!("the answers of rank {rank}"))
    };
    messages.into_iter().enumerate().map(read).collect()
}
