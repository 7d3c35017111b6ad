//! bf16 as it travels between ranks: the upper half of an f32, rounded to nearest, ties to even.

/// The nearest bf16; NaN stays NaN.
pub fn from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    let tie = (bits >> 16) & 1;
    ((bits + 0x7fff + tie) >> 16) as u16
}

/// The same number as f32.
pub fn to_f32(value: u16) -> f32 {
    f32::from_bits(u32::from(value) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_the_nearest_and_ties_to_even() {
        let there_and_back = |value: f32| to_f32(from_f32(value));
        for exact in [0.0, -0.0, 1.0, -2.5, f32::INFINITY, f32::MIN_POSITIVE] {
            assert_eq!(there_and_back(exact).to_bits(), exact.to_bits());
        }
        let step = 1.0 / 128.0;
        assert_eq!(there_and_back(1.0 + 0.49 * step), 1.0);
        assert_eq!(there_and_back(1.0 + 0.5 * step), 1.0);
        assert_eq!(there_and_back(1.0 + 1.5 * step), 1.0 + 2.0 * step);
        assert_eq!(there_and_back(f32::MAX), f32::INFINITY);
        assert!(there_and_back(f32::NAN).is_nan());
    }
}
