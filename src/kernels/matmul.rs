//! Single-threaded f32 matrix products on views with strides, and the split of large ones.
//!
//! A thin, bounds-checked skin over the `gemm` crate, which picks its micro-kernel (AVX-512, AVX2,
//! …) at run time. Threads are the callers' business: they cut a product into stripes by
//! [`stripe_rows`], so that no thread ever waits inside a product.

use std::marker::PhantomData;
use std::ops::Range;

use gemm::{Parallelism, gemm};

/// A matrix to read: any two strides.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
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
    start: *mut f32,
    rows: usize,
    columns: usize,
    row_stride: usize,
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

/// c = factor · a b, or c += factor · a b with `add`, in the calling thread.
pub(super) fn multiply(
    factor: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    add: bool,
    c: &mut MatrixMut<'_>,
) {
    assert!(
        a.rows == c.rows && b.columns == c.columns && a.columns == b.rows,
        "shapes of a product"
    );
    if c.rows == 0 || c.columns == 0 {
        return;
    }
    // SAFETY: every view was checked against its values when it was made, the shapes agree, and
    // `c` is borrowed mutably, so it overlaps neither `a` nor `b`.
    unsafe {
        gemm(
            c.rows,
            c.columns,
            a.columns,
            c.start,
            1,
            c.row_stride as isize,
            add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Rows of the result that one task computes, for a result of `rows` rows: enough for the product
/// to run at full speed, few enough for 16 tasks where there are rows for them.
pub(super) fn stripe_rows(rows: usize) -> usize {
    rows.div_ceil(16).next_multiple_of(48).clamp(96, 384)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_with_strides_transposes_and_an_empty_inner_side() {
        let a = [1.0, 2.0, 9.0, 3.0, 4.0, 9.0];
        let b = [5.0, 6.0, 7.0, 8.0];
        let mut c = [1.0; 4];
        let a = Matrix::new(&a, 2, 2, 3);
        let b = Matrix::new(&b, 2, 2, 2);
        multiply(2.0, a, b, true, &mut MatrixMut::new(&mut c, 2, 2, 2));
        assert_eq!(c, [39.0, 45.0, 87.0, 101.0]);
        multiply(
            1.0,
            a.transposed(),
            b,
            false,
            &mut MatrixMut::new(&mut c, 2, 2, 2),
        );
        assert_eq!(c, [26.0, 30.0, 38.0, 44.0]);
        let none = Matrix::new(&[], 2, 0, 0);
        let mut to = MatrixMut::new(&mut c, 2, 2, 2);
        multiply(1.0, none, Matrix::new(&[], 0, 2, 2), false, &mut to);
        assert_eq!(c, [0.0; 4]);
    }
}
