//! Views of f32 matrices: to read with any two strides, to write by rows, and by several threads at
//! once. Every view is checked against its values when it is made.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

/// A matrix to read: any two strides.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `rows` rows of `columns` values, `row_stride` apart.
    pub(super) fn new(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(
            fits(rows, columns, row_stride, values.len()),
            "matrix beyond its values"
        );
        Self {
            values,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// Some of its rows and columns.
    pub(super) fn part(self, rows: Range<usize>, columns: Range<usize>) -> Self {
        assert!(
            rows.end <= self.rows && columns.end <= self.columns,
            "part beyond its matrix"
        );
        let at = rows.start * self.row_stride + columns.start * self.column_stride;
        Self {
            values: &self.values[at.min(self.values.len())..],
            rows: rows.len(),
            columns: columns.len(),
            ..self
        }
    }

    /// The same values with rows and columns exchanged; nothing moves.
    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// A matrix to write, rows of consecutive values.
pub(super) struct MatrixMut<'a> {
    pub(super) start: *mut f32,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

impl<'a> MatrixMut<'a> {
    /// `rows` rows of `columns` values, `row_stride` apart.
    pub(super) fn new(values: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(
            fits(rows, columns, stride, values.len()),
            "matrix beyond its values"
        );
        Self {
            start: values.as_mut_ptr(),
            rows,
            columns,
            row_stride: stride,
            lifetime: PhantomData,
        }
    }

    /// Some columns of row `row`, which must have been written before they are read.
    pub(super) fn row_mut(&mut self, row: usize, columns: Range<usize>) -> &mut [f32] {
        assert!(
            row < self.rows && columns.start <= columns.end && columns.end <= self.columns,
            "row beyond its matrix"
        );
        let at = row * self.row_stride + columns.start;
        // SAFETY: within the values that this view was checked against, which it has alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), columns.len()) }
    }
}

fn fits(rows: usize, columns: usize, row_stride: usize, length: usize) -> bool {
    rows == 0
        || columns == 0
        || (columns <= row_stride || rows == 1) && (rows - 1) * row_stride + columns <= length
}

/// Values of which several threads write different parts at once.
pub(super) struct Shared<'a> {
    start: *mut f32,
    length: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `Shared` gives access to its values only through `matrix` and `slice`, whose callers
// promise that no two threads touch the same element.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(super) fn new(values: &'a mut [f32]) -> Self {
        Self {
            start: values.as_mut_ptr(),
            length: values.len(),
            lifetime: PhantomData,
        }
    }

    /// `rows` rows of `columns` values beginning at `at`, `row_stride` apart.
    ///
    /// # Safety
    /// While the view lives, nobody else touches those elements.
    pub(super) unsafe fn matrix(
        &self,
        at: usize,
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> MatrixMut<'a> {
        let length = self.length.saturating_sub(at);
        assert!(
            fits(rows, columns, row_stride, length),
            "matrix beyond its values"
        );
        MatrixMut {
            // SAFETY: `at` is within the values, or the matrix is empty and never touched.
            start: unsafe { self.start.add(at.min(self.length)) },
            rows,
            columns,
            row_stride,
            lifetime: PhantomData,
        }
    }

    /// The values of `range`.
    ///
    /// # Safety
    /// While the slice lives, nobody else touches those elements.
    pub(super) unsafe fn slice(&self, range: Range<usize>) -> &'a mut [f32] {
        assert!(
            range.start <= range.end && range.end <= self.length,
            "slice beyond its values"
        );
        // SAFETY: within the values that this was made of, and the caller has them alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

/// Memory for values that are about to be written: a new result, without clearing it first.
pub(super) struct Fresh {
    values: Vec<f32>,
    length: usize,
}

impl Fresh {
    /// Room for `length` values.
    pub(super) fn new(length: usize) -> Self {
        Self {
            values: Vec::with_capacity(length),
            length,
        }
    }

    /// The room, to be written by several threads; a value must not be read before it is written.
    pub(super) fn shared(&mut self) -> Shared<'_> {
        Shared {
            start: self.values.as_mut_ptr(),
            length: self.length,
            lifetime: PhantomData,
        }
    }

    /// The values.
    ///
    /// # Safety
    /// Every one of them has been written.
    pub(super) unsafe fn written(mut self) -> Vec<f32> {
        // SAFETY: the room is there, and the caller has filled it.
        unsafe { self.values.set_len(self.length) };
        self.values
    }
}

/// `length` new values, made by all threads in chunks of `chunk`: `make` fills a chunk of zeros in,
/// given the item of `with` for it, of which there is one for each.
pub(super) fn filled<I: IndexedParallelIterator>(
    (length, chunk): (usize, usize),
    with: I,
    make: impl Fn(&mut [f32], I::Item) + Sync,
) -> Vec<f32> {
    assert!(
        with.len() == length.div_ceil(chunk),
        "an item for each chunk"
    );
    let mut fresh = Fresh::new(length);
    let to = fresh.shared();
    with.enumerate().for_each(|(i, item)| {
        // SAFETY: chunk i is this task's alone, and no value of it is read before it is set.
        let values = unsafe { to.slice(i * chunk..length.min((i + 1) * chunk)) };
        values.fill(0.0);
        make(values, item);
    });
    // SAFETY: the chunks cover all values.
    unsafe { fresh.written() }
}
