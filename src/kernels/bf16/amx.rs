//! The matrix unit of some Intel processors: registers of 16 rows by 64 bytes.

use super::engine::Place;
use super::{SIDE, Tile};

/// How the eight registers are used: all of full size.
#[repr(C, align(64))]
struct Palette {
    id: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static PALETTE: Palette = {
    let mut palette = Palette {
        id: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
    let mut register = 0;
    while register < 8 {
        palette.row_bytes[register] = 64;
        palette.rows[register] = SIDE as u8;
        register += 1;
    }
    palette
};

/// Whether the processor has it and the system lets this process use it.
pub(super) fn is_usable() -> bool {
    #[cfg(target_os = "linux")]
    {
        const REQUEST_PERMISSION: libc::c_long = 0x1023;
        const TILE_DATA: libc::c_long = 18;
        const BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
        let has = std::arch::x86_64::__cpuid_count(7, 0).edx & BF16_AND_TILE == BF16_AND_TILE;
        // SAFETY: asks the kernel for a permission; touches no memory.
        has && unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Sets the registers to full size.
pub(super) fn configure() {
    // SAFETY: only called where `is_usable`; reads the palette, and nothing else uses the
    // registers.
    unsafe {
        std::arch::asm!("ldtilecfg [{}]", in(reg) &raw const PALETTE, options(nostack));
    }
}

/// Leaves the registers as if never used.
pub(super) fn release() {
    // SAFETY: only called where `is_usable`.
    unsafe { std::arch::asm!("tilerelease", options(nostack, nomem)) };
}

/// The block of two rows of tiles with two columns of tiles, between `configure` and `release`.
///
/// # Safety
/// `is_usable`, all four sides of one length, and the place as for `Engine::compute`.
pub(super) unsafe fn compute(left: [&[Tile]; 2], right: [&[Tile]; 2], to: Place) {
    // SAFETY: reads the tiles (the loop is skipped where there are none), and reads and writes
    // the four quarters of the place, rows of 64 bytes; changes no other memory.
    unsafe {
        std::arch::asm!(
            "lea {low}, [{stride} * 8]",
            "lea {low}, [{low} * 2]",
            "add {low}, {to}",
            "test {add}, {add}",
            "jz 4f",
            "tileloadd tmm0, [{to} + {stride}]",
            "tileloadd tmm1, [{to} + {stride} + 64]",
            "tileloadd tmm2, [{low} + {stride}]",
            "tileloadd tmm3, [{low} + {stride} + 64]",
            "jmp 5f",
            "4:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "5:",
            "test {depth}, {depth}",
            "jz 3f",
            "2:",
            "tileloadd tmm4, [{a0} + {row}]",
            "tileloadd tmm6, [{b0} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {row}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {row}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, 1024",
            "add {a1}, 1024",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {depth}",
            "jnz 2b",
            "3:",
            "tilestored [{to} + {stride}], tmm0",
            "tilestored [{to} + {stride} + 64], tmm1",
            "tilestored [{low} + {stride}], tmm2",
            "tilestored [{low} + {stride} + 64], tmm3",
            depth = inout(reg) left[0].len() => _,
            a0 = inout(reg) left[0].as_ptr() => _,
            a1 = inout(reg) left[1].as_ptr() => _,
            b0 = inout(reg) right[0].as_ptr() => _,
            b1 = inout(reg) right[1].as_ptr() => _,
            row = in(reg) 64usize,
            to = in(reg) to.start,
            stride = in(reg) 4 * to.stride,
            low = out(reg) _,
            add = in(reg) usize::from(to.add),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
