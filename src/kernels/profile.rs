//! Where the time of a training step goes: one clock per operation, off unless asked for.
//!
//! Every operation of this room opens a [`span`] on the thread that calls it; between [`start`] and
//! [`stop`] on that thread spans are added up by name, otherwise they do nothing. Operations never
//! call one another, so spans do not overlap and their times add up to no more than the step's.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

/// What one operation took.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Operation {
    /// What it is called.
    pub name: &'static str,
    /// How often it ran.
    pub calls: u64,
    /// Wall time of all calls.
    #[serde(skip)]
    pub time: Duration,
    /// Floating-point operations of its matrix products; 0 where it has none.
    pub flops: u64,
}

thread_local! {
    static RECORD: RefCell<Option<BTreeMap<&'static str, Operation>>> = const { RefCell::new(None) };
}

/// Begins to record the operations that this thread calls; forgets what was recorded.
pub fn start() {
    RECORD.set(Some(BTreeMap::new()));
}

/// Ends the recording; the operations, the longest first.
pub fn stop() -> Vec<Operation> {
    let record = RECORD.take().unwrap_or_default();
    let mut operations: Vec<Operation> = record.into_values().collect();
    operations.sort_by_key(|operation| std::cmp::Reverse(operation.time));
    operations
}

/// A call of an operation, from now until it is dropped.
pub(super) struct Span {
    name: &'static str,
    flops: usize,
    began: Option<Instant>,
}

/// Opens a span of operation `name`, whose matrix products take `flops` operations.
pub(super) fn span(name: &'static str, flops: usize) -> Span {
    let on = RECORD.with_borrow(Option::is_some);
    Span {
        name,
        flops,
        began: on.then(Instant::now),
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(began) = self.began else { return };
        RECORD.with_borrow_mut(|record| {
            let Some(record) = record else { return };
            let operation = record.entry(self.name).or_default();
            operation.name = self.name;
            operation.calls += 1;
            operation.time += began.elapsed();
            operation.flops += self.flops as u64;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_count_only_between_start_and_stop() {
        drop(span("before", 1));
        start();
        drop(span("twice", 3));
        drop(span("twice", 4));
        drop(span("once", 0));
        let operations = stop();
        drop(span("after", 1));
        assert_eq!(operations.len(), 2);
        let twice = operations.iter().find(|o| o.name == "twice");
        assert_eq!(twice.map(|o| (o.calls, o.flops)), Some((2, 7)));
        assert!(stop().is_empty());
    }
}
