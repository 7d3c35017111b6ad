//! What computes blocks of a product: AMX, AVX512-BF16 or plain loops.

use super::{SIDE, Tile};
#[cfg(target_arch = "x86_64")]
use super::{amx, x86};
use crate::kernels::simd::vectorized;

/// What computes a block of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    Plain,
}

/// Rows and columns of a block: two tiles by two.
pub(super) const BLOCK: usize = 2 * SIDE;

#[repr(C, align(64))]
pub(super) struct Block(pub(super) [[f32; BLOCK]; BLOCK]);

/// Where a block goes: rows of [`BLOCK`] values, `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) start: *mut f32,
    pub(super) stride: usize,
    pub(super) add: bool,
}

impl Engine {
    /// The fastest that this machine has.
    pub(super) fn best() -> Self {
        static BEST: std::sync::OnceLock<Engine> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| Self::all().first().copied().unwrap_or(Self::Plain))
    }

    /// Those that this machine has, the fastest first.
    pub(super) fn all() -> Vec<Self> {
        let mut engines = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let has_bf16 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512bf16");
            if has_bf16 && amx::is_usable() {
                engines.push(Self::Amx);
            }
            if has_bf16 {
                engines.push(Self::Avx512);
            }
        }
        engines.push(Self::Plain);
        engines
    }

    /// Before the first block of a product.
    pub(super) fn begin(self) {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Amx {
            amx::configure();
        }
    }

    /// After its last.
    pub(super) fn end(self) {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Amx {
            amx::release();
        }
    }

    /// The block of two tile rows of the left side with two tile columns of the right one.
    ///
    /// # Safety
    /// The place is the caller's alone, and holds values where they are added to.
    pub(super) unsafe fn compute(self, left: [&[Tile]; 2], right: [&[Tile]; 2], to: Place) {
        let depth = left[0].len();
        assert!(
            [left[1], right[0], right[1]]
                .iter()
                .all(|side| side.len() == depth),
            "tiles of a product"
        );
        #[cfg(target_arch = "x86_64")]
        if self == Self::Amx {
            // SAFETY: this engine is only made where the machine has AMX; the rest as promised.
            unsafe { amx::compute(left, right, to) };
            return;
        }
        for (i, left) in left.into_iter().enumerate() {
            for (j, right) in right.into_iter().enumerate() {
                let sums = match self {
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: this engine is only made where the machine has AVX512-BF16.
                    Self::Avx512 => unsafe { x86::tile(left, right) },
                    _ => plain(left, right),
                };
                for (row, sums) in sums.iter().enumerate() {
                    // SAFETY: within the place.
                    let values = unsafe {
                        let at = to.start.add((i * SIDE + row) * to.stride + j * SIDE);
                        std::slice::from_raw_parts_mut(at, SIDE)
                    };
                    put(sums, to.add, values);
                }
            }
        }
    }
}

vectorized! {
    /// to = from, or to += from with `add`.
    pub(super) fn put(from: &[f32], add: bool, to: &mut [f32]) {
        if add {
            for (to, from) in to.iter_mut().zip(from) {
                *to += from;
            }
        } else {
            to.copy_from_slice(&from[..to.len()]);
        }
    }
}

vectorized! {
    /// A tile of the block by plain loops.
    fn plain(left: &[Tile], right: &[Tile]) -> [[f32; SIDE]; SIDE] {
        let halves = |pair: u32| (f32::from_bits(pair << 16), f32::from_bits(pair & 0xFFFF_0000));
        let mut sums = [[0.0f32; SIDE]; SIDE];
        for (left, right) in left.iter().zip(right) {
            for (p, right) in right.0.iter().enumerate() {
                for (sums, left) in sums.iter_mut().zip(&left.0) {
                    let (a, b) = halves(left[p]);
                    for (sum, right) in sums.iter_mut().zip(right) {
                        let (x, y) = halves(*right);
                        *sum = a.mul_add(x, *sum);
                        *sum = b.mul_add(y, *sum);
                    }
                }
            }
        }
        sums
    }
}
