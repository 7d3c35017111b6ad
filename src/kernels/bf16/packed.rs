//! A matrix as tiles of bf16, for either side of a product.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::engine::Engine;
use super::{DEPTH, SIDE, Tile};
use crate::kernels::matrix::Matrix;
use crate::kernels::simd::vectorized;

/// Which side of a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Left,
    Right,
}

/// One side of a product, in tiles.
pub(in crate::kernels) struct Packed {
    tiles: Vec<Tile>,
    /// Rows of a left side, columns of a right one.
    pub(super) length: usize,
    /// Tiles along the inner side.
    pub(super) depth: usize,
}

impl Packed {
    /// The left side of a product, packed by all threads.
    pub(in crate::kernels) fn left(a: Matrix<'_>) -> Self {
        Self::of(a, Role::Left, by_threads)
    }

    /// The right side of a product, packed by all threads.
    pub(in crate::kernels) fn right(b: Matrix<'_>) -> Self {
        Self::of(b.transposed(), Role::Right, by_threads)
    }

    /// As [`Packed::left`], in the calling thread.
    pub(in crate::kernels) fn left_here(a: Matrix<'_>) -> Self {
        Self::of(a, Role::Left, here)
    }

    /// As [`Packed::right`], in the calling thread.
    pub(in crate::kernels) fn right_here(b: Matrix<'_>) -> Self {
        Self::of(b.transposed(), Role::Right, here)
    }

    /// Rows of m are rows or columns of the product, columns its inner side. A task is a row of tiles
    /// or a column of them, whichever reads on in memory.
    fn of(m: Matrix<'_>, role: Role, run: fn(usize, &(dyn Fn(usize) + Sync))) -> Self {
        let (height, depth) = (m.rows.div_ceil(SIDE), m.columns.div_ceil(DEPTH));
        let mut tiles = Vec::with_capacity(height * depth);
        let room = Room(tiles.as_mut_ptr());
        let by_rows = m.column_stride == 1;
        let (tasks, steps) = if by_rows {
            (height, depth)
        } else {
            (depth, height)
        };
        run(tasks, &|task| {
            for step in 0..steps {
                let (row, column) = if by_rows { (task, step) } else { (step, task) };
                // SAFETY: within the room, and no other task has this tile.
                let to = unsafe { room.place(row * depth + column) };
                pack(m, role, row * SIDE, column * DEPTH, to);
            }
        });
        // SAFETY: the tasks have filled it.
        unsafe { tiles.set_len(height * depth) };
        Self {
            tiles,
            length: m.rows,
            depth,
        }
    }

    /// All its rows or columns of tiles.
    pub(in crate::kernels) fn all(&self) -> Range<usize> {
        0..self.length.div_ceil(SIDE)
    }

    pub(super) fn tiles_at(&self, index: usize) -> &[Tile] {
        &self.tiles[index * self.depth..(index + 1) * self.depth]
    }
}

fn by_threads(tasks: usize, act: &(dyn Fn(usize) + Sync)) {
    (0..tasks).into_par_iter().for_each(act);
}

fn here(tasks: usize, act: &(dyn Fn(usize) + Sync)) {
    (0..tasks).for_each(act);
}

/// Room for tiles that several threads fill, each its own.
struct Room(*mut Tile);

// SAFETY: `place` is only used for tiles that one thread has alone.
unsafe impl Sync for Room {}

impl Room {
    /// The place of a tile, which holds nothing yet.
    ///
    /// # Safety
    /// `index` is within the room, and nobody else has this place.
    #[allow(clippy::mut_from_ref)]
    unsafe fn place(&self, index: usize) -> &mut MaybeUninit<Tile> {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.0.add(index).cast() }
    }
}

/// The tile whose first element is (`row`, `column`) of m: rows are rows or columns of the product,
/// columns its inner side.
fn pack(m: Matrix<'_>, role: Role, row: usize, column: usize, to: &mut MaybeUninit<Tile>) {
    let (rows, columns) = (SIDE.min(m.rows - row), DEPTH.min(m.columns - column));
    let at = row * m.row_stride + column * m.column_stride;
    #[cfg(target_arch = "x86_64")]
    if (rows, columns) == (SIDE, DEPTH) && Engine::best() != Engine::Plain {
        let (values, strides) = (&m.values[at..], (m.row_stride, m.column_stride));
        // SAFETY: the other engines are only made where the machine has these instructions.
        unsafe { super::x86::pack(values, strides, role, to) };
        return;
    }
    let mut tile = Tile([[0; SIDE]; SIDE]);
    if m.column_stride == 1 {
        pack_rows(&mut tile, &m.values[at..], m.row_stride, rows, columns);
        if role == Role::Right {
            transpose(&mut tile);
        }
    } else {
        assert!(m.row_stride == 1, "a matrix of rows or of columns");
        pack_columns(&mut tile, &m.values[at..], m.column_stride, rows, columns);
        if role == Role::Left {
            transpose(&mut tile);
        }
    }
    to.write(tile);
}

/// The nearest bf16, ties to even, in the low half. NaN stays NaN.
#[inline(always)]
pub(super) fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
    if x.is_nan() {
        bits >> 16 | 0x40
    } else {
        rounded
    }
}

vectorized! {
    /// Rows of neighbouring inner places: pairs lie side by side.
    fn pack_rows(tile: &mut Tile, values: &[f32], stride: usize, rows: usize, columns: usize) {
        for (row, to) in tile.0.iter_mut().enumerate().take(rows) {
            let from = &values[row * stride..][..columns];
            if let Some(from) = from.first_chunk::<DEPTH>() {
                for pair in 0..SIDE {
                    to[pair] = round(from[2 * pair]) | round(from[2 * pair + 1]) << 16;
                }
            } else {
                for (pair, from) in to.iter_mut().zip(from.chunks(2)) {
                    let second = from.get(1).map_or(0, |x| round(*x));
                    *pair = round(from[0]) | second << 16;
                }
            }
        }
    }
}

vectorized! {
    /// Columns one after the other: a pair lies in two of them, and the tile comes out transposed.
    fn pack_columns(tile: &mut Tile, values: &[f32], stride: usize, rows: usize, columns: usize) {
        for (pair, to) in tile.0.iter_mut().enumerate().take(columns.div_ceil(2)) {
            let first = &values[2 * pair * stride..][..rows];
            if 2 * pair + 1 == columns {
                for (to, x) in to.iter_mut().zip(first) {
                    *to = round(*x);
                }
                continue;
            }
            let second = &values[(2 * pair + 1) * stride..][..rows];
            match (first.first_chunk::<SIDE>(), second.first_chunk::<SIDE>()) {
                (Some(first), Some(second)) => {
                    for i in 0..SIDE {
                        to[i] = round(first[i]) | round(second[i]) << 16;
                    }
                }
                _ => {
                    for ((to, x), y) in to.iter_mut().zip(first).zip(second) {
                        *to = round(*x) | round(*y) << 16;
                    }
                }
            }
        }
    }
}

vectorized! {
    /// Four rounds of dealing two rows into one: what the compiler makes shuffles of.
    fn transpose(tile: &mut Tile) {
        for _ in 0..4 {
            let old = tile.0;
            for i in 0..SIDE / 2 {
                let (a, b) = (old[i], old[i + SIDE / 2]);
                for j in 0..SIDE / 2 {
                    tile.0[2 * i][2 * j] = a[j];
                    tile.0[2 * i][2 * j + 1] = b[j];
                    tile.0[2 * i + 1][2 * j] = a[j + SIDE / 2];
                    tile.0[2 * i + 1][2 * j + 1] = b[j + SIDE / 2];
                }
            }
        }
    }
}
