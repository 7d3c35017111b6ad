//! Splitting work over threads so that results do not depend on their number: the split follows
//! from the shape, and partial sums are added in order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rayon::prelude::*;

use super::simd::vectorized;

/// Has `threads` threads compute (`None`: one per core), the calling one among them: operations that
/// a thread outside of the pool calls have to wake it, which takes a twentieth of a step. To be
/// called once, by the thread that will call the operations until the process ends; later, or where
/// something has computed already, it changes nothing.
pub fn compute_with(threads: Option<usize>) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    let _ = pool.use_current_thread().build_global();
}

/// Elements that one task of an element-wise pass handles, about; a multiple of whole rows.
const TASK_ELEMENTS: usize = 16 * 1024;
/// Rows whose column sums make one partial sum.
pub(super) const SUM_ROWS: usize = 128;

/// Rows of `width` elements that one task of an element-wise pass handles.
pub(super) fn rows_per_task(width: usize) -> usize {
    (TASK_ELEMENTS / width.max(1)).max(1)
}

/// Does `count` tasks, each once, begun in order by whichever thread is free: with the largest first,
/// no thread has one left when the others are through.
pub(super) fn in_order(count: usize, act: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let workers = (0..rayon::current_num_threads().min(count)).into_par_iter();
    workers.with_max_len(1).for_each(|_| {
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= count {
                return;
            }
            act(task);
        }
    });
}

/// Adds partial sums, first to last.
pub(super) fn add_in_order(parts: Vec<Vec<f32>>, width: usize) -> Vec<f32> {
    let mut parts = parts.into_iter();
    let mut sums = parts.next().unwrap_or_else(|| vec![0.0; width]);
    for part in parts {
        for (sum, part) in sums.iter_mut().zip(part) {
            *sum += part;
        }
    }
    sums
}

/// Column sums of a matrix [N, width], task by task: each task has some rows.
pub(super) struct ColumnSums<'a> {
    values: &'a [f32],
    width: usize,
    parts: Vec<OnceLock<Vec<f32>>>,
}

impl<'a> ColumnSums<'a> {
    pub(super) fn new(values: &'a [f32], width: usize) -> Self {
        let num_parts = values.len().div_ceil(SUM_ROWS * width.max(1));
        let parts = (0..num_parts).map(|_| OnceLock::new()).collect();
        Self {
            values,
            width,
            parts,
        }
    }

    pub(super) fn num_tasks(&self) -> usize {
        self.parts.len()
    }

    /// Does one task, below [`ColumnSums::num_tasks`].
    pub(super) fn act(&self, task: usize) {
        let rows = SUM_ROWS * self.width;
        let values = &self.values[task * rows..self.values.len().min((task + 1) * rows)];
        let mut sums = vec![0.0f32; self.width];
        add_rows(values, &mut sums);
        // A task is done once.
        let _ = self.parts[task].set(sums);
    }

    /// The sums, once all tasks are done.
    pub(super) fn done(self) -> Vec<f32> {
        let parts = self.parts.into_iter().filter_map(OnceLock::into_inner);
        add_in_order(parts.collect(), self.width)
    }
}

/// Column sums of a matrix of which tasks have parts, done in any order.
#[derive(Default)]
pub(super) struct PartialSums(Mutex<Vec<PartSums>>);

/// Where a part begins (column, row), and its sums.
type PartSums = ((usize, usize), Vec<f32>);

impl PartialSums {
    /// The sums of one part, which begins at `(column, row)`.
    pub(super) fn take(&self, begin: (usize, usize), sums: Vec<f32>) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.push((begin, sums));
    }

    /// The sums of `width` columns, parts added from the first row on.
    pub(super) fn done(self, width: usize) -> Vec<f32> {
        let mut parts = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        parts.sort_unstable_by_key(|(begin, _)| *begin);
        let mut sums = vec![0.0; width];
        for ((column, _), part) in parts {
            add_rows(&part, &mut sums[column..column + part.len()]);
        }
        sums
    }
}

vectorized! {
    pub(super) fn add_rows(values: &[f32], sums: &mut [f32]) {
        for row in values.chunks_exact(sums.len().max(1)) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
    }
}
