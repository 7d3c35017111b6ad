//! Cyclic redundancy checks of 32 bits, by the polynomial: CRC-32 (IEEE 802.3) and CRC-32C
//! (Castagnoli, RFC 3720), bits reflected, one byte at a time by a table.

/// IEEE's polynomial, reflected.
pub(super) const IEEE: [u32; 256] = table(0xEDB8_8320);
/// Castagnoli's polynomial, reflected.
pub(super) const CASTAGNOLI: [u32; 256] = table(0x82F6_3B78);

const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut rest = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            rest = (rest >> 1) ^ (polynomial * (rest & 1));
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
}

/// The check of the bytes of all `parts`, one after the other.
pub(super) fn check(table: &[u32; 256], parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    !bytes.fold(!0, |rest, byte| {
        (rest >> 8) ^ table[((rest ^ u32::from(*byte)) & 0xFF) as usize]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_those_of_the_catalogue() {
        assert_eq!(check(&IEEE, &[b"12345", b"6789"]), 0xCBF4_3926);
        assert_eq!(check(&CASTAGNOLI, &[b"1234", b"56789"]), 0xE306_9283);
    }
}
