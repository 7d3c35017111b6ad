//! What a tracker is to its courier.

use std::time::Duration;

use serde_json::Value;

use super::entry::Entry;

/// Why entries did not arrive.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It may work later: down, slow, overloaded.
    Later(String),
    /// It will not work this time, with what would help.
    Never(String),
}

/// A tracker. All methods are called by one thread, which may wait as long as it likes.
pub(super) trait Sink: Send {
    /// What users call it; also names the file that says what has arrived.
    fn name(&self) -> &'static str;

    /// Takes back what [`Sink::state`] gave, in an earlier process; returns whether it goes on from
    /// there, or else wants the journal from its beginning.
    fn resume(&mut self, state: &Value) -> bool;

    /// What it has to remember besides how far it is.
    fn state(&self) -> Value;

    /// Hands on entries. Where it fails, the same entries, and perhaps later ones after them, come
    /// again: what has arrived already must not stand there twice.
    ///
    /// # Errors
    /// They did not all arrive.
    fn deliver(&mut self, entries: &[Entry]) -> Result<(), Trouble>;

    /// Says that the run is alive, where that is asked for; called when there is nothing to deliver.
    ///
    /// # Errors
    /// It did not arrive.
    fn alive(&mut self) -> Result<(), Trouble> {
        Ok(())
    }

    /// Time between deliveries, so that each carries a number of entries.
    fn pace(&self) -> Duration;
}
