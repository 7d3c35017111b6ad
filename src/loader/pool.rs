//! Reader threads that work ahead of the model, and hand over whole fetches strictly in order.
//!
//! Threads take parts of fetches in order from one queue. A new fetch begins while fewer than
//! `max_fetches` wait, and a part of a fetch that is not the next one due begins only while what
//! waits and what is being read stay within `max_bytes`; the next one due is always read, so the
//! queue cannot lock up. After an error nothing new begins; the fetches before it are still handed
//! over, then the error: the same sequence for any number of threads.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::error::LoaderError;
use super::fetch::{Filled, ReadCells, Remaining, Wanted, read};

/// The cells of one fetch that this rank takes, in order.
pub(super) type Fetched<C> = Vec<Slot<C>>;

/// A place among the cells of a fetch.
pub(super) enum Slot<C> {
    /// No cell belongs there.
    Empty,
    /// The tokenizer skipped the cell.
    Skipped,
    /// A cell, ready for a batch.
    Cell(C),
}

/// How far to read ahead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_fetches: usize,
    pub(super) max_bytes: usize,
}

/// A part of a fetch, to be read.
struct Job {
    generation: u64,
    fetch: u64,
    part: usize,
    wanted: Vec<Wanted>,
}

/// The cells of a part, and the memory that they take.
struct Finished<C> {
    filled: Vec<Filled<C>>,
    bytes: usize,
}

/// A fetch that has begun and was not handed over yet.
struct Pending<C> {
    slots: Fetched<C>,
    parts_left: usize,
    bytes: usize,
    /// The error of the first part that failed.
    error: Option<(usize, LoaderError)>,
}

struct State<C> {
    /// Counts restarts; what belongs to an earlier one is thrown away.
    generation: u64,
    remaining: Option<Arc<Remaining>>,
    next_fetch: u64,
    queue: VecDeque<Job>,
    pending: VecDeque<Pending<C>>,
    jobs_running: usize,
    bytes_waiting: usize,
    largest_part_bytes: usize,
    failed: bool,
    stop: bool,
}

struct Shared<R: ReadCells> {
    reader: R,
    limits: Limits,
    state: Mutex<State<R::Cell>>,
    /// There may be something to read.
    work: Condvar,
    /// There may be something to hand over.
    done: Condvar,
}

/// The threads; without any, the caller reads.
pub(super) struct Pool<R: ReadCells> {
    shared: Arc<Shared<R>>,
    threads: Vec<JoinHandle<()>>,
}

impl<R: ReadCells> Pool<R> {
    pub(super) fn new(reader: R, limits: Limits, num_threads: usize) -> Result<Self, LoaderError> {
        let shared = Arc::new(Shared {
            reader,
            limits,
            state: Mutex::new(State::new()),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let mut pool = Self {
            shared,
            threads: Vec::with_capacity(num_threads),
        };
        for n in 0..num_threads {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new()
                .name(format!("reader-{n}"))
                .spawn(move || shared.serve())
                .map_err(|cause| LoaderError::Spawn { cause })?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// What makes cells and batches.
    pub(super) fn reader(&self) -> &R {
        &self.shared.reader
    }

    /// Forgets everything underway and reads from `first_fetch` of `remaining` on.
    pub(super) fn restart(&self, remaining: Arc<Remaining>, first_fetch: u64) {
        let mut state = self.shared.lock();
        state.clear();
        state.next_fetch = first_fetch;
        state.remaining = Some(remaining);
        drop(state);
        self.shared.work.notify_all();
    }

    /// Forgets everything underway.
    pub(super) fn cancel(&self) {
        self.shared.lock().clear();
    }

    /// The next fetch in order; `None` after the last.
    pub(super) fn next(&self) -> Result<Option<Fetched<R::Cell>>, LoaderError> {
        let mut state = self.shared.lock();
        loop {
            if let Some(fetched) = state.take_complete() {
                drop(state);
                self.shared.work.notify_all();
                return fetched.map(Some);
            }
            if self.threads.is_empty() {
                let Some(job) = state.next_job(self.shared.limits) else {
                    if state.pending.is_empty() {
                        return Ok(None);
                    }
                    continue; // the fetch just begun has no cell for this rank
                };
                drop(state);
                self.shared.run(job);
                state = self.shared.lock();
            } else if state.is_exhausted() {
                return Ok(None);
            } else {
                state = self
                    .shared
                    .done
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl<R: ReadCells> Drop for Pool<R> {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A reader catches panics itself; there is nobody left to tell of one here.
            let _ = thread.join();
        }
    }
}

impl<R: ReadCells> Shared<R> {
    fn lock(&self) -> MutexGuard<'_, State<R::Cell>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a reader thread.
    fn serve(&self) {
        let mut state = self.lock();
        while !state.stop {
            if let Some(job) = state.next_job(self.limits) {
                drop(state);
                self.run(job);
                state = self.lock();
            } else {
                self.done.notify_all(); // a fetch without cells may have become complete
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn run(&self, job: Job) {
        let result = read(&self.reader, &job.wanted).map(|filled| Finished {
            bytes: filled.iter().map(filled_bytes::<R>).sum(),
            filled,
        });
        self.lock().finish(&job, result);
        self.done.notify_all();
        self.work.notify_all();
    }
}

impl<C> State<C> {
    fn new() -> Self {
        Self {
            generation: 0,
            remaining: None,
            next_fetch: 0,
            queue: VecDeque::new(),
            pending: VecDeque::new(),
            jobs_running: 0,
            bytes_waiting: 0,
            largest_part_bytes: 0,
            failed: false,
            stop: false,
        }
    }

    fn clear(&mut self) {
        self.generation += 1;
        self.remaining = None;
        self.queue.clear();
        self.pending.clear();
        self.bytes_waiting = 0;
        self.failed = false;
    }

    /// Number of the fetch at the front of `pending`.
    fn front(&self) -> u64 {
        self.next_fetch - self.pending.len() as u64
    }

    fn is_exhausted(&self) -> bool {
        let last = |remaining: &Arc<Remaining>| self.next_fetch >= remaining.end();
        self.pending.is_empty() && self.remaining.as_ref().is_none_or(last)
    }

    /// The next part to read, if one may begin now.
    fn next_job(&mut self, limits: Limits) -> Option<Job> {
        if self.failed {
            return None;
        }
        while self.queue.is_empty() {
            self.begin_fetch(limits)?;
        }
        let due = self
            .queue
            .front()
            .is_some_and(|job| job.fetch == self.front());
        let expected = self.bytes_waiting + (self.jobs_running + 1) * self.largest_part_bytes;
        if !due && expected > limits.max_bytes {
            return None;
        }
        self.jobs_running += 1;
        self.queue.pop_front()
    }

    /// Puts the parts of the next fetch into the queue; `None` where none may begin.
    fn begin_fetch(&mut self, limits: Limits) -> Option<()> {
        let remaining = Arc::clone(self.remaining.as_ref()?);
        let fetch = self.next_fetch;
        if self.pending.len() >= limits.max_fetches || fetch >= remaining.end() {
            return None;
        }
        let (num_slots, parts) = remaining.parts(fetch);
        let slots = std::iter::repeat_with(|| Slot::Empty)
            .take(num_slots)
            .collect();
        self.pending.push_back(Pending {
            slots,
            parts_left: parts.len(),
            bytes: 0,
            error: None,
        });
        self.next_fetch += 1;
        let generation = self.generation;
        self.queue
            .extend(parts.into_iter().enumerate().map(|(part, wanted)| Job {
                generation,
                fetch,
                part,
                wanted,
            }));
        Some(())
    }

    fn finish(&mut self, job: &Job, result: Result<Finished<C>, LoaderError>) {
        self.jobs_running -= 1;
        if job.generation != self.generation {
            return;
        }
        let index = (job.fetch - self.front()) as usize;
        let pending = &mut self.pending[index];
        pending.parts_left -= 1;
        match result {
            Ok(Finished { filled, bytes }) => {
                pending.bytes += bytes;
                self.bytes_waiting += bytes;
                self.largest_part_bytes = self.largest_part_bytes.max(bytes);
                for (slot, cell) in filled {
                    pending.slots[slot as usize] = cell.map_or(Slot::Skipped, Slot::Cell);
                }
            }
            Err(error) => self.fail(index, job.part, error),
        }
    }

    /// Keeps the error for when its fetch is due, and gives up what nobody reads yet.
    fn fail(&mut self, index: usize, part: usize, error: LoaderError) {
        self.failed = true;
        let front = self.front();
        for job in self.queue.drain(..) {
            self.pending[(job.fetch - front) as usize].parts_left -= 1;
        }
        let earliest = &mut self.pending[index].error;
        if earliest.as_ref().is_none_or(|(other, _)| part < *other) {
            *earliest = Some((part, error));
        }
    }

    /// The fetch at the front, where all its parts are read.
    fn take_complete(&mut self) -> Option<Result<Fetched<C>, LoaderError>> {
        if self.pending.front()?.parts_left > 0 {
            return None;
        }
        let pending = self.pending.pop_front()?;
        self.bytes_waiting -= pending.bytes;
        Some(
            pending
                .error
                .map_or(Ok(pending.slots), |(_, error)| Err(error)),
        )
    }
}

fn filled_bytes<R: ReadCells>((_, cell): &Filled<R::Cell>) -> usize {
    size_of::<Filled<R::Cell>>() + cell.as_ref().map_or(0, R::bytes)
}
