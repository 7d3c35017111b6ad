//! A left side that is made row by row: what a product leaves for the next one.

use std::mem::MaybeUninit;

#[cfg(target_arch = "x86_64")]
use super::engine::Engine;
use super::packed::{Packed, Room, round};
use super::{DEPTH, SIDE, Tile};

/// A left side that is written row by row, by several threads.
pub(in crate::kernels) struct Rows {
    tiles: Vec<Tile>,
    room: Room,
    length: usize,
    inner: usize,
    depth: usize,
}

impl Rows {
    /// Of `length` rows of `inner` values.
    pub(in crate::kernels) fn new(length: usize, inner: usize) -> Self {
        let (height, depth) = (length.div_ceil(SIDE), inner.div_ceil(DEPTH));
        let mut tiles: Vec<Tile> = Vec::with_capacity(height * depth);
        if !length.is_multiple_of(SIDE) {
            for tile in &mut tiles.spare_capacity_mut()[(height - 1) * depth..height * depth] {
                tile.write(Tile([[0; SIDE]; SIDE]));
            }
        }
        Self {
            room: Room(tiles.as_mut_ptr()),
            tiles,
            length,
            inner,
            depth,
        }
    }

    /// Rounds `values` into row `row` from `column` on: whole tiles, or up to the row's end.
    ///
    /// # Safety
    /// Nobody else touches these places meanwhile.
    pub(in crate::kernels) unsafe fn put(&self, row: usize, column: usize, values: &[f32]) {
        let end = column + values.len();
        assert!(
            row < self.length
                && column.is_multiple_of(DEPTH)
                && (end == self.inner || end < self.inner && end.is_multiple_of(DEPTH)),
            "rows of tiles"
        );
        let first = row / SIDE * self.depth + column / DEPTH;
        let (whole, rest) = values.as_chunks::<DEPTH>();
        // SAFETY: within the room by the assertion, and the caller has these places alone.
        let row_of = |tile: usize| unsafe {
            let tile = self.room.0.add(first + tile).cast::<[u32; SIDE]>();
            &mut *tile.add(row % SIDE).cast::<MaybeUninit<[u32; SIDE]>>()
        };
        #[cfg(target_arch = "x86_64")]
        if Engine::best() != Engine::Plain {
            for (tile, values) in whole.iter().enumerate() {
                // SAFETY: the other engines are only made where the machine has these instructions.
                unsafe { super::x86::round_row(values, row_of(tile)) };
            }
        } else {
            round_rows(whole, row_of);
        }
        #[cfg(not(target_arch = "x86_64"))]
        round_rows(whole, row_of);
        if !rest.is_empty() {
            let mut last = [0.0; DEPTH];
            last[..rest.len()].copy_from_slice(rest);
            row_of(whole.len()).write(rounded_pairs(&last));
        }
    }

    /// The side.
    ///
    /// # Safety
    /// Every value has been put.
    pub(in crate::kernels) unsafe fn written(mut self) -> Packed {
        // SAFETY: the room is there, and the caller has filled it.
        unsafe { self.tiles.set_len(self.length.div_ceil(SIDE) * self.depth) };
        Packed {
            tiles: self.tiles,
            length: self.length,
            inner: self.inner,
            depth: self.depth,
        }
    }
}

/// 32 values as pairs.
#[inline(always)]
fn rounded_pairs(values: &[f32; DEPTH]) -> [u32; SIDE] {
    std::array::from_fn(|pair| round(values[2 * pair]) | round(values[2 * pair + 1]) << 16)
}

fn round_rows<'a>(
    whole: &[[f32; DEPTH]],
    row_of: impl Fn(usize) -> &'a mut MaybeUninit<[u32; SIDE]>,
) {
    for (tile, values) in whole.iter().enumerate() {
        row_of(tile).write(rounded_pairs(values));
    }
}
