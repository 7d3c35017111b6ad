//! Tiles with the instructions that came with AVX512-BF16: packing full ones, and their products.
//!
//! Rounding is as that of plain loops, but numbers below the smallest normal one count as zero.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps,
    _mm512_loadu_ps, _mm512_permutex2var_epi16, _mm512_permutex2var_epi32,
    _mm512_permutexvar_epi16, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_store_si512,
};
use std::mem::MaybeUninit;

use super::packed::Role;
use super::{DEPTH, SIDE, Tile};

/// The order that deals two halves of 16-bit numbers into pairs.
static PAIRS: [u16; 32] = {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 32 {
        order[i] = (i / 2 + 16 * (i % 2)) as u16;
        i += 1;
    }
    order
};

/// The orders that deal the first, or second, halves of two rows into one.
static DEAL: [[u32; 16]; 2] = {
    let mut order = [[0; 16]; 2];
    let mut i = 0;
    while i < 32 {
        order[i / 16][i % 16] = (i / 2 + 16 * (i % 2)) as u32;
        i += 1;
    }
    order
};

/// The orders that deal the first, or second, halves of two rows of 16-bit numbers into pairs.
static DEAL_PAIRS: [[u16; 32]; 2] = {
    let mut order = [[0; 32]; 2];
    let mut i = 0;
    while i < 64 {
        order[i / 32][i % 32] = (i / 2 + 32 * (i % 2)) as u16;
        i += 1;
    }
    order
};

/// A full tile; one stride (of rows, of columns) must be 1.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn pack(
    values: &[f32],
    (rows, columns): (usize, usize),
    role: Role,
    to: &mut MaybeUninit<Tile>,
) {
    let mut tile = [_mm512_setzero_si512(); SIDE];
    if columns == 1 {
        for (row, to) in tile.iter_mut().enumerate() {
            let from = &values[row * rows..][..DEPTH];
            prefetch(from, 2 * DEPTH);
            prefetch(&from[SIDE..], 2 * DEPTH);
            *to = round(&from[..SIDE], &from[SIDE..]);
        }
    } else {
        assert!(rows == 1, "a matrix of rows or of columns");
        // SAFETY: 64 bytes of any bits.
        let pairs: __m512i = unsafe { std::mem::transmute(PAIRS) };
        for (pair, to) in tile.iter_mut().enumerate() {
            let first = &values[2 * pair * columns..][..SIDE];
            let second = &values[(2 * pair + 1) * columns..][..SIDE];
            prefetch(first, 4 * SIDE);
            prefetch(second, 4 * SIDE);
            *to = _mm512_permutexvar_epi16(pairs, round(first, second));
        }
    }
    put(tile, (role == Role::Right) == (columns == 1), to);
}

/// Asks for the line `ahead` values after the first, which is likely needed next.
#[inline(always)]
fn prefetch(values: &[f32], ahead: usize) {
    // SAFETY: a hint, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_add(ahead).cast()) };
}

/// The rows as they are or transposed, to a tile.
#[target_feature(enable = "avx512f")]
fn put(mut tile: [__m512i; SIDE], transposed: bool, to: &mut MaybeUninit<Tile>) {
    if transposed {
        transpose(&mut tile);
    }
    let to = to.as_mut_ptr().cast::<__m512i>();
    for (i, row) in tile.into_iter().enumerate() {
        // SAFETY: a tile is 16 times 64 bytes of any bits, and aligned.
        unsafe { _mm512_store_si512(to.add(i), row) };
    }
}

/// 32 values as a row of a tile.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn round_row(values: &[f32; DEPTH], to: &mut MaybeUninit<[u32; SIDE]>) {
    let rounded = round(&values[..SIDE], &values[SIDE..]);
    // SAFETY: 64 bytes of any bits.
    to.write(unsafe { std::mem::transmute::<__m512i, [u32; SIDE]>(rounded) });
}

/// One half (of columns) of two tiles, one below the other, as a tile of the transpose.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn turn(
    [upper, lower]: [&Tile; 2],
    half: usize,
    role: Role,
    to: &mut MaybeUninit<Tile>,
) {
    // SAFETY: 64 bytes of any bits.
    let order: __m512i = unsafe { std::mem::transmute(DEAL_PAIRS[half]) };
    let mut tile = [_mm512_setzero_si512(); SIDE];
    for (from, to) in [upper, lower]
        .into_iter()
        .zip(tile.chunks_exact_mut(SIDE / 2))
    {
        for (rows, to) in from.0.chunks_exact(2).zip(to) {
            // SAFETY: rows are 64 bytes of any bits.
            let [first, second] = [rows[0], rows[1]]
                .map(|row| unsafe { std::mem::transmute::<[u32; SIDE], __m512i>(row) });
            *to = _mm512_permutex2var_epi16(first, order, second);
        }
    }
    put(tile, role == Role::Left, to);
}

/// 16 numbers of each, those of `first` in front.
#[target_feature(enable = "avx512f,avx512bf16")]
fn round(first: &[f32], second: &[f32]) -> __m512i {
    assert!(
        first.len() == SIDE && second.len() == SIDE,
        "rows of a tile"
    );
    // SAFETY: both have 16 numbers.
    let (first, second) = unsafe {
        (
            _mm512_loadu_ps(first.as_ptr()),
            _mm512_loadu_ps(second.as_ptr()),
        )
    };
    let rounded = _mm512_cvtne2ps_pbh(second, first);
    // SAFETY: 64 bytes of any bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(rounded) }
}

/// Deals row i and row i + 8 into rows 2i and 2i + 1, four times.
#[target_feature(enable = "avx512f")]
fn transpose(tile: &mut [__m512i; SIDE]) {
    // SAFETY: 64 bytes of any bits.
    let [low, high]: [__m512i; 2] = unsafe { std::mem::transmute(DEAL) };
    for _ in 0..4 {
        let old = *tile;
        for i in 0..SIDE / 2 {
            tile[2 * i] = _mm512_permutex2var_epi32(old[i], low, old[i + SIDE / 2]);
            tile[2 * i + 1] = _mm512_permutex2var_epi32(old[i], high, old[i + SIDE / 2]);
        }
    }
}

/// A tile of the block on AVX512-BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn tile(left: &[Tile], right: &[Tile]) -> [[f32; SIDE]; SIDE] {
    let mut sums: [__m512; SIDE] = [_mm512_setzero_ps(); SIDE];
    for (left, right) in left.iter().zip(right) {
        for (p, right) in right.0.iter().enumerate() {
            // SAFETY: both are 64 bytes of any bits.
            let right: __m512bh = unsafe { std::mem::transmute(*right) };
            for (sum, left) in sums.iter_mut().zip(&left.0) {
                let pair: __m512i = _mm512_set1_epi32(left[p] as i32);
                // SAFETY: as above.
                let pair: __m512bh = unsafe { std::mem::transmute(pair) };
                *sum = _mm512_dpbf16_ps(*sum, pair, right);
            }
        }
    }
    // SAFETY: a vector register is 16 floats.
    unsafe { std::mem::transmute::<[__m512; SIDE], [[f32; SIDE]; SIDE]>(sums) }
}
