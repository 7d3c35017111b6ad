//! Matrix products in bf16 with f32 sums, on operands that are rounded and cut into tiles first.
//!
//! A tile is 16 rows (of the left side) or columns (of the right side) by 32 places of the inner
//! side: 1 KiB, just what an AMX register holds. In tiles of the left side a row is 16 pairs of
//! neighbouring inner places; in those of the right side the pairs stand in columns. [`Packed`]
//! holds the tiles of a matrix, tile rows one after the other, zeros where the matrix ends.
//!
//! Products run on AMX, else on AVX512-BF16, else as plain loops, whichever the machine has; the
//! sums of the three may differ in the last bits, those on one machine never do.

#[cfg(target_arch = "x86_64")]
mod amx;
mod engine;
mod packed;
mod rows;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

use engine::{BLOCK, Block, Engine, Place, put};
pub(super) use packed::{Packed, Packing, pack_beside};
pub(super) use rows::Rows;

use super::matrix::MatrixMut;

/// Rows or columns of a tile.
pub(super) const SIDE: usize = 16;
/// Inner places of a tile.
pub(super) const DEPTH: usize = 32;

/// 16 × 16 pairs of bf16; the first of a pair in the low half.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Tile([[u32; SIDE]; SIDE]);

/// c = a b, or c += a b with `add`, for some tile rows of a and tile columns of
/// b, in the calling thread; c has the rows and columns of those.
pub(super) fn multiply(
    (a, rows): (&Packed, Range<usize>),
    (b, columns): (&Packed, Range<usize>),
    add: bool,
    c: &mut MatrixMut<'_>,
) {
    multiply_with(Engine::best(), (a, rows), (b, columns), add, c);
}

fn multiply_with(
    engine: Engine,
    (a, rows): (&Packed, Range<usize>),
    (b, columns): (&Packed, Range<usize>),
    add: bool,
    c: &mut MatrixMut<'_>,
) {
    let end = |side: &Packed, range: &Range<usize>| (range.end * SIDE).min(side.length);
    let (height, width) = (end(a, &rows), end(b, &columns));
    assert!(
        a.depth == b.depth
            && c.rows == height.saturating_sub(rows.start * SIDE)
            && c.columns == width.saturating_sub(columns.start * SIDE),
        "shapes of a product"
    );
    let mut block = Block([[0.0; BLOCK]; BLOCK]);
    // An odd tile at the end is computed twice, and the second one left.
    let pair = |side, i: usize, end: usize| {
        let tiles = |i| Packed::tiles_at(side, i);
        [tiles(i), tiles((i + 1).min(end - 1))]
    };
    engine.begin();
    for i in rows.clone().step_by(2) {
        let left = pair(a, i, rows.end);
        for j in columns.clone().step_by(2) {
            let right = pair(b, j, columns.end);
            let (row, column) = ((i - rows.start) * SIDE, (j - columns.start) * SIDE);
            if row + BLOCK <= c.rows && column + BLOCK <= c.columns {
                // SAFETY: the whole block is within c, which is borrowed mutably.
                unsafe {
                    let start = c.start.add(row * c.row_stride + column);
                    let stride = c.row_stride;
                    engine.compute(left, right, Place { start, stride, add });
                }
                continue;
            }
            let to = Place {
                start: block.0.as_mut_ptr().cast(),
                stride: BLOCK,
                add: false,
            };
            // SAFETY: the block is large enough.
            unsafe { engine.compute(left, right, to) };
            for (at, from) in (row..c.rows).zip(&block.0) {
                let columns = column..c.columns.min(column + BLOCK);
                put(from, add, c.row_mut(at, columns));
            }
        }
    }
    engine.end();
}

#[cfg(test)]
mod tests {
    use super::packed::round;
    use super::*;
    use crate::kernels::matrix::Matrix;
    use crate::kernels::testing::Random;

    fn rounded(x: f32) -> f32 {
        f32::from_bits(round(x) << 16)
    }

    #[test]
    fn rounding_is_to_the_nearest_even() {
        for (x, bits) in [
            (1.0f32, 0x3F80),
            (f32::from_bits(0x3F80_8000), 0x3F80),
            (f32::from_bits(0x3F81_8000), 0x3F82),
            (f32::from_bits(0x3F80_8001), 0x3F81),
            (f32::INFINITY, 0x7F80),
            (f32::MAX, 0x7F80),
        ] {
            assert_eq!(round(x), bits, "{x}");
        }
        assert!(rounded(f32::NAN).is_nan() && rounded(f32::from_bits(0x7F80_0001)).is_nan());
    }

    #[test]
    fn every_engine_agrees_with_the_sum_in_f64_of_rounded_values() {
        let shapes = [
            (1, 1, 1),
            (16, 32, 16),
            (33, 70, 47),
            (5, 0, 7),
            (48, 31, 17),
            (0, 3, 2),
        ];
        for (m, k, n) in shapes {
            let mut random = Random::new((m * k + n) as u64);
            let mut values = |count: usize| -> Vec<f32> {
                (0..count)
                    .map(|_| random.below(2000) as f32 / 999.0 - 1.0)
                    .collect()
            };
            let (a, b, start) = (values(m * k), values(k * n), values(m * n));
            // The left side by rows or by columns, the right one too.
            let turned = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..rows * columns)
                    .map(|i| x[i % rows * columns + i / rows])
                    .collect()
            };
            let (a_turned, b_turned) = (turned(&a, m, k), turned(&b, k, n));
            let lefts = [
                Matrix::new(&a, m, k, k),
                Matrix::new(&a_turned, k, m, m).transposed(),
            ];
            let rights = [
                Matrix::new(&b, k, n, n),
                Matrix::new(&b_turned, n, k, k).transposed(),
            ];
            for (engine, left, right) in Engine::all().into_iter().flat_map(|e| {
                lefts
                    .map(|l| rights.map(|r| (e, l, r)))
                    .into_iter()
                    .flatten()
            }) {
                let (left, right) = (Packed::left_here(left), Packed::right_here(right));
                let mut c = start.clone();
                let mut to = MatrixMut::new(&mut c, m, n, n);
                let (rows, columns) = (left.all(), right.all());
                multiply_with(engine, (&left, rows), (&right, columns), true, &mut to);
                for (i, found) in c.iter().enumerate() {
                    let terms = (0..k).map(|p| {
                        f64::from(rounded(a[i / n * k + p])) * f64::from(rounded(b[p * n + i % n]))
                    });
                    let expected = f64::from(start[i]) + terms.sum::<f64>();
                    let error = (f64::from(*found) - expected).abs();
                    assert!(
                        error < 1e-5,
                        "{engine:?} {m}x{k}x{n}: {found} for {expected}"
                    );
                }
            }
        }
    }
}
