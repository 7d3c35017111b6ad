//! Single-threaded f32 matrix products on views with strides.
//!
//! A thin, bounds-checked skin over the `gemm` crate, which picks its micro-kernel (AVX-512, AVX2,
//! …) at run time. Threads are the callers' business: no thread ever waits inside a product.

use gemm::{Parallelism, gemm};

use super::matrix::{Matrix, MatrixMut};

/// c = a b, or c += a b with `add`, in the calling thread.
pub(super) fn multiply(a: Matrix<'_>, b: Matrix<'_>, add: bool, c: &mut MatrixMut<'_>) {
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
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
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
        multiply(a, b, true, &mut MatrixMut::new(&mut c, 2, 2, 2));
        assert_eq!(c, [20.0, 23.0, 44.0, 51.0]);
        multiply(
            a.transposed(),
            b,
            false,
            &mut MatrixMut::new(&mut c, 2, 2, 2),
        );
        assert_eq!(c, [26.0, 30.0, 38.0, 44.0]);
        let none = Matrix::new(&[], 2, 0, 0);
        let mut to = MatrixMut::new(&mut c, 2, 2, 2);
        multiply(none, Matrix::new(&[], 0, 2, 2), false, &mut to);
        assert_eq!(c, [0.0; 4]);
    }
}
