//! Splitting work over threads so that results do not depend on their number: the split follows
//! from the shape, and partial sums are added in order.

use rayon::prelude::*;

/// Elements that one task of an element-wise pass handles, about; a multiple of whole rows.
const TASK_ELEMENTS: usize = 16 * 1024;
/// Rows whose column sums make one partial sum.
pub(super) const SUM_ROWS: usize = 128;

/// Rows of `width` elements that one task of an element-wise pass handles.
pub(super) fn rows_per_task(width: usize) -> usize {
    (TASK_ELEMENTS / width.max(1)).max(1)
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

/// The column sums of `values`, [N, width].
pub(super) fn column_sums(values: &[f32], width: usize) -> Vec<f32> {
    let parts = values.par_chunks(SUM_ROWS * width.max(1)).map(|rows| {
        let mut sums = vec![0.0f32; width];
        for row in rows.chunks_exact(width) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
        sums
    });
    add_in_order(parts.collect(), width)
}
