//! Figures of the machine and of this process, every 15 seconds, from `/proc` (Linux; elsewhere
//! there are none), under W&B's names: `cpu` and `memory_percent` in percent of all there is,
//! `proc.cpu.threads`, `proc.memory.rssMB` and `proc.memory.availableMB` in MiB.

use std::fs;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::entry::{Entry, Figures, Number, System, now};
use super::journal::Journal;

const EVERY: Duration = Duration::from_secs(15);
/// The first figures come earlier, so that a short run has some.
const FIRST: Duration = Duration::from_secs(3);

/// Writes figures of the machine into a journal until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins; where it cannot, there are no such figures.
    pub(super) fn start(journal: Arc<Journal>) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let watch = move || {
            let mut before = CpuTimes::read();
            let mut wait = FIRST;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                let after = CpuTimes::read();
                let figures = figures(before, after);
                (before, wait) = (after, EVERY);
                if !figures.is_empty() {
                    let time = now();
                    // What cannot be written is told where figures of steps cannot be.
                    let _ = journal.append(&Entry::System(System { time, figures }));
                }
            }
        };
        let thread = thread::Builder::new().name("system".to_owned());
        Self {
            stop: Some(stop),
            thread: thread.spawn(watch).ok(),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Time of all processors since the start of the machine, in ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
struct CpuTimes {
    all: u64,
    idle: u64,
}

impl CpuTimes {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// The line `cpu  user nice system idle iowait irq softirq steal guest guest_nice`.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks = line.split_whitespace().take(8).map(str::parse);
        let ticks: Vec<u64> = ticks.collect::<Result<_, _>>().ok()?;
        Some(Self {
            all: ticks.iter().sum(),
            idle: ticks.get(3)? + ticks.get(4)?,
        })
    }
}

/// The number of a line `KEY:   123 kB`.
fn number(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

fn figures(before: Option<CpuTimes>, after: Option<CpuTimes>) -> Figures {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (memory, status) = (read("/proc/meminfo"), read("/proc/self/status"));
    let (all, free) = (
        number(&memory, "MemTotal:"),
        number(&memory, "MemAvailable:"),
    );
    let busy = before.zip(after).and_then(|(before, after)| {
        let all = after.all.checked_sub(before.all)?;
        let idle = after.idle.saturating_sub(before.idle);
        (all > 0).then(|| 100.0 * (1.0 - idle as f64 / all as f64))
    });
    let figures = [
        ("cpu", busy),
        (
            "memory_percent",
            all.zip(free).map(|(all, free)| 100.0 * (1.0 - free / all)),
        ),
        ("proc.memory.availableMB", free.map(|kib| kib / 1024.0)),
        (
            "proc.memory.rssMB",
            number(&status, "VmRSS:").map(|kib| kib / 1024.0),
        ),
        ("proc.cpu.threads", number(&status, "Threads:")),
    ];
    let known = figures.into_iter();
    known
        .filter_map(|(name, value)| Some((name.to_owned(), Number(value?))))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn figures_of_the_machine_are_shares() {
        let before = CpuTimes::parse("cpu  10 0 10 70 10 0 0 0 5 5\ncpu0 1 1 1 1\n").unwrap();
        assert_eq!(before, CpuTimes { all: 100, idle: 80 });
        let after = CpuTimes {
            all: 200,
            idle: 105,
        };
        let figures = figures(Some(before), Some(after));
        assert_eq!(figures["cpu"].0, 75.0);
        if cfg!(target_os = "linux") {
            assert!((0.0..=100.0).contains(&figures["memory_percent"].0));
            assert!(figures["proc.memory.rssMB"].0 > 1.0);
        }
    }
}
