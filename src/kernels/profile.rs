//! Where the time of a training step goes: one clock per operation, off unless asked for.
//!
//! Every operation of this room opens a [`span`] on the thread that calls it; between [`start`] and
//! [`stop`] on that thread spans are added up by name, otherwise they do nothing. Operations never
//! call one another, so spans do not overlap and their times add up to no more than the step's.
//! Where a GPU computes, a span is what lies between two events in its stream: what the GPU needed,
//! and what it waited for, not what it took to ask for it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use candle_core::Device;
use serde::Serialize;

#[cfg(feature = "cuda")]
use super::cuda::clock;

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

/// What is recorded: on the device's clock where it has one.
#[derive(Default)]
struct Record {
    operations: BTreeMap<&'static str, Operation>,
    #[cfg(feature = "cuda")]
    clock: Option<clock::Clock>,
    /// Calls whose times are asked for at the end, as the GPU is behind.
    #[cfg(feature = "cuda")]
    calls: Vec<(&'static str, clock::Moment, clock::Moment)>,
}

enum Moment {
    Here(Instant),
    #[cfg(feature = "cuda")]
    There(clock::Moment),
}

impl Record {
    fn now(&self) -> Option<Moment> {
        #[cfg(feature = "cuda")]
        if let Some(clock) = &self.clock {
            return clock.now().map(Moment::There);
        }
        Some(Moment::Here(Instant::now()))
    }

    fn add(&mut self, name: &'static str, flops: usize, began: Moment) {
        #[cfg(feature = "cuda")]
        let ended = self.now();
        let operation = self.operations.entry(name).or_default();
        operation.name = name;
        operation.calls += 1;
        operation.flops += flops as u64;
        match began {
            Moment::Here(began) => operation.time += began.elapsed(),
            #[cfg(feature = "cuda")]
            Moment::There(began) => {
                if let Some(Moment::There(ended)) = ended {
                    self.calls.push((name, began, ended));
                }
            }
        }
    }

    #[cfg(feature = "cuda")]
    fn settle(&mut self) {
        for (name, began, ended) in self.calls.drain(..) {
            if let Some(operation) = self.operations.get_mut(name) {
                operation.time += began.until(&ended).unwrap_or_default();
            }
        }
    }
}

thread_local! {
    static RECORD: RefCell<Option<Record>> = const { RefCell::new(None) };
}

/// Begins to record the operations that this thread calls on `device`; forgets what was recorded.
pub fn start(device: &Device) {
    let _ = device;
    RECORD.set(Some(Record {
        #[cfg(feature = "cuda")]
        clock: clock::Clock::of(device),
        ..Record::default()
    }));
}

/// Ends the recording; the operations, the longest first. Waits for a GPU.
pub fn stop() -> Vec<Operation> {
    #[cfg_attr(not(feature = "cuda"), allow(unused_mut))]
    let mut record = RECORD.take().unwrap_or_default();
    #[cfg(feature = "cuda")]
    record.settle();
    let mut operations: Vec<Operation> = record.operations.into_values().collect();
    operations.sort_by_key(|operation| std::cmp::Reverse(operation.time));
    operations
}

/// A call of an operation, from now until it is dropped.
pub(super) struct Span {
    name: &'static str,
    flops: usize,
    began: Option<Moment>,
}

/// Opens a span of operation `name`, whose matrix products take `flops` operations.
pub(super) fn span(name: &'static str, flops: usize) -> Span {
    let began = RECORD.with_borrow(|record| record.as_ref().and_then(Record::now));
    Span { name, flops, began }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(began) = self.began.take() else {
            return;
        };
        RECORD.with_borrow_mut(|record| {
            if let Some(record) = record {
                record.add(self.name, self.flops, began);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_count_only_between_start_and_stop() {
        drop(span("before", 1));
        start(&Device::Cpu);
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
