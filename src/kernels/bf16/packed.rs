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
#[derive(Debug)]
pub(in crate::kernels) struct Packed {
    pub(super) tiles: Vec<Tile>,
    /// Rows of a left side, columns of a right one.
    pub(in crate::kernels) length: usize,
    /// Places of the inner side.
    pub(in crate::kernels) inner: usize,
    /// Tiles along the inner side.
    pub(super) depth: usize,
}

impl Packed {
    /// The left side of a product, packed in the calling thread.
    pub(in crate::kernels) fn left_here(a: Matrix<'_>) -> Self {
        Packing::left(a).here()
    }

    /// The right side of a product, packed in the calling thread.
    pub(in crate::kernels) fn right_here(b: Matrix<'_>) -> Self {
        Packing::right(b).here()
    }

    /// The values of a left side, row by row.
    #[cfg(test)]
    pub(in crate::kernels) fn values(&self) -> Vec<f32> {
        let value = |row: usize, column: usize| {
            let tile = &self.tiles_at(row / SIDE)[column / DEPTH];
            let pair = tile.0[row % SIDE][column % DEPTH / 2];
            f32::from_bits(if column.is_multiple_of(2) {
                pair << 16
            } else {
                pair & 0xFFFF_0000
            })
        };
        let places = 0..self.length * self.inner;
        places
            .map(|i| value(i / self.inner, i % self.inner))
            .collect()
    }

    /// All its rows or columns of tiles.
    pub(in crate::kernels) fn all(&self) -> Range<usize> {
        0..self.length.div_ceil(SIDE)
    }

    pub(super) fn tiles_at(&self, index: usize) -> &[Tile] {
        &self.tiles[index * self.depth..(index + 1) * self.depth]
    }
}

/// Packs sides, all in one pass of all threads, which does `others` (a number of tasks) on the way.
pub(in crate::kernels) fn pack_beside(
    sides: Vec<Packing<'_>>,
    (num_others, other): (usize, &(dyn Fn(usize) + Sync)),
) -> Vec<Packed> {
    let mut ends = Vec::with_capacity(sides.len());
    let mut end = num_others;
    for side in &sides {
        end += side.num_tasks();
        ends.push(end);
    }
    (0..end).into_par_iter().for_each(|task| {
        if task < num_others {
            return other(task);
        }
        let side = ends.partition_point(|end| *end <= task);
        let first = side
            .checked_sub(1)
            .map_or(num_others, |before| ends[before]);
        // SAFETY: every task is done once.
        unsafe { sides[side].act(task - first) };
    });
    // SAFETY: all tasks are done.
    (sides.into_iter().map(|side| unsafe { side.done() })).collect()
}

/// What a side is made of. Rows are rows or columns of the product, columns its inner side.
#[derive(Clone, Copy)]
enum Origin<'a> {
    Values(Matrix<'a>),
    /// The transpose of what these tiles hold as a left side.
    Turned(&'a Packed),
}

/// A side while it is packed. A task is a row of tiles or a column of them, whichever reads on in
/// memory.
pub(in crate::kernels) struct Packing<'a> {
    origin: Origin<'a>,
    role: Role,
    tiles: Vec<Tile>,
    room: Room,
    length: usize,
    inner: usize,
    height: usize,
    depth: usize,
}

impl<'a> Packing<'a> {
    /// The left side `a`.
    pub(in crate::kernels) fn left(a: Matrix<'a>) -> Self {
        Self::new(Origin::Values(a), Role::Left, (a.rows, a.columns))
    }

    /// The right side `b`.
    pub(in crate::kernels) fn right(b: Matrix<'a>) -> Self {
        let b = b.transposed();
        Self::new(Origin::Values(b), Role::Right, (b.rows, b.columns))
    }

    /// aᵀ as a left side, of a as one.
    pub(in crate::kernels) fn left_of_turned(a: &'a Packed) -> Self {
        Self::new(Origin::Turned(a), Role::Left, (a.inner, a.length))
    }

    /// a as a right side, of a as a left one.
    pub(in crate::kernels) fn right_of_left(a: &'a Packed) -> Self {
        Self::new(Origin::Turned(a), Role::Right, (a.inner, a.length))
    }

    fn new(origin: Origin<'a>, role: Role, (length, inner): (usize, usize)) -> Self {
        let (height, depth) = (length.div_ceil(SIDE), inner.div_ceil(DEPTH));
        let mut tiles = Vec::with_capacity(height * depth);
        Self {
            origin,
            role,
            room: Room(tiles.as_mut_ptr()),
            tiles,
            length,
            inner,
            height,
            depth,
        }
    }

    fn by_rows(&self) -> bool {
        matches!(self.origin, Origin::Values(m) if m.column_stride == 1)
    }

    fn num_tasks(&self) -> usize {
        if self.by_rows() {
            self.height
        } else {
            self.depth
        }
    }

    /// Does one task.
    ///
    /// # Safety
    /// It is below [`Packing::num_tasks`], and nobody else does it.
    unsafe fn act(&self, task: usize) {
        let m = match self.origin {
            Origin::Values(m) => m,
            // SAFETY: the caller's promise.
            Origin::Turned(from) => return unsafe { self.turn(from, task) },
        };
        let by_rows = self.by_rows();
        let steps = if by_rows { self.depth } else { self.height };
        for step in 0..steps {
            let (row, column) = if by_rows { (task, step) } else { (step, task) };
            // SAFETY: within the room, and no other task has this tile.
            let to = unsafe { self.room.place(row * self.depth + column) };
            pack(m, self.role, row * SIDE, column * DEPTH, to);
        }
    }

    /// Column `task` of the tiles: two rows of tiles of the left side that it is made of.
    ///
    /// # Safety
    /// As for [`Packing::act`].
    unsafe fn turn(&self, from: &Packed, task: usize) {
        static ZEROS: Tile = Tile([[0; SIDE]; SIDE]);
        let upper = from.tiles_at(2 * task);
        let lower = match 2 * task + 1 < from.length.div_ceil(SIDE) {
            true => from.tiles_at(2 * task + 1),
            false => &[],
        };
        for (column, upper) in upper.iter().enumerate() {
            let pair = [upper, lower.get(column).unwrap_or(&ZEROS)];
            let rows = 2 * column..self.height.min(2 * column + 2);
            for (half, row) in rows.enumerate() {
                // SAFETY: within the room, and no other task has this tile.
                let to = unsafe { self.room.place(row * self.depth + task) };
                turn(pair, half, self.role, to);
            }
        }
    }

    /// The packed side.
    ///
    /// # Safety
    /// Every task is done.
    unsafe fn done(mut self) -> Packed {
        // SAFETY: the tasks have filled it.
        unsafe { self.tiles.set_len(self.height * self.depth) };
        Packed {
            tiles: self.tiles,
            length: self.length,
            inner: self.inner,
            depth: self.depth,
        }
    }

    fn here(self) -> Packed {
        for task in 0..self.num_tasks() {
            // SAFETY: each once.
            unsafe { self.act(task) };
        }
        // SAFETY: all of them.
        unsafe { self.done() }
    }
}

/// Room for tiles that several threads fill, each its own.
pub(super) struct Room(pub(super) *mut Tile);

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

/// One half (of columns) of two tiles of a left side, one below the other, as a tile of its
/// transpose: inner places are rows.
fn turn(pair: [&Tile; 2], half: usize, role: Role, to: &mut MaybeUninit<Tile>) {
    #[cfg(target_arch = "x86_64")]
    if Engine::best() != Engine::Plain {
        // SAFETY: the other engines are only made where the machine has these instructions.
        unsafe { super::x86::turn(pair, half, role, to) };
        return;
    }
    let mut tile = Tile([[0; SIDE]; SIDE]);
    turn_half(pair, half, &mut tile);
    if role == Role::Left {
        transpose(&mut tile);
    }
    to.write(tile);
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
    /// Rows become pairs, half of the columns of them.
    fn turn_half(pair: [&Tile; 2], half: usize, to: &mut Tile) {
        for (p, to) in to.0.iter_mut().enumerate() {
            let from = &pair[p / (SIDE / 2)].0;
            let (first, second) = (&from[2 * p % SIDE], &from[2 * p % SIDE + 1]);
            let columns = half * SIDE / 2..(half + 1) * SIDE / 2;
            for (i, column) in columns.enumerate() {
                let (first, second) = (first[column], second[column]);
                to[2 * i] = first & 0xFFFF | second << 16;
                to[2 * i + 1] = first >> 16 | second & 0xFFFF_0000;
            }
        }
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
