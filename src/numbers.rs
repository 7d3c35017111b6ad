//! Numbers as they lie in a file: every integer width, half, single and double precision, either
//! byte order, and h5py's booleans (an enumeration over one byte). Which of them a file has is for
//! the rooms to know that own its format.
//!
//! A window of raw bytes becomes `f32` values, `u32` columns or `i64`/`f64` table entries in one
//! pass; the element type is matched once per window, not once per element.

/// A type of number: of a matrix in a file, read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// h5py's boolean: 0 or 1 in one byte.
    Bool,
    /// int8
    I8,
    /// int16
    I16,
    /// int32
    I32,
    /// int64
    I64,
    /// uint8
    U8,
    /// uint16
    U16,
    /// uint32
    U32,
    /// uint64
    U64,
    /// float16
    F16,
    /// float32
    F32,
    /// float64
    F64,
}

/// An element type and its byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number {
    pub(crate) kind: Kind,
    pub(crate) big_endian: bool,
}

impl Kind {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Kind::Bool | Kind::I8 | Kind::U8 => 1,
            Kind::I16 | Kind::U16 | Kind::F16 => 2,
            Kind::I32 | Kind::U32 | Kind::F32 => 4,
            Kind::I64 | Kind::U64 | Kind::F64 => 8,
        }
    }

    /// numpy's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::I8 => "int8",
            Kind::I16 => "int16",
            Kind::I32 => "int32",
            Kind::I64 => "int64",
            Kind::U8 => "uint8",
            Kind::U16 => "uint16",
            Kind::U32 => "uint32",
            Kind::U64 => "uint64",
            Kind::F16 => "float16",
            Kind::F32 => "float32",
            Kind::F64 => "float64",
        }
    }

    /// Whether it is one of the floating-point types.
    pub fn is_float(self) -> bool {
        matches!(self, Kind::F16 | Kind::F32 | Kind::F64)
    }
}

/// Appends `$convert` of every element to `$out`: an iterator of known length, so that what can be
/// done to many elements at once is.
macro_rules! extend_with {
    ($number:expr, $raw:expr, $out:expr, |$value:ident| $convert:expr) => {{
        macro_rules! each {
            ($t:ty, $n:literal) => {{
                let elements = $raw.as_chunks::<$n>().0.iter();
                if $number.big_endian {
                    $out.extend(elements.map(|bytes| {
                        let $value = <$t>::from_be_bytes(*bytes);
                        $convert
                    }));
                } else {
                    $out.extend(elements.map(|bytes| {
                        let $value = <$t>::from_le_bytes(*bytes);
                        $convert
                    }));
                }
            }};
        }
        match $number.kind {
            Kind::Bool | Kind::U8 => each!(u8, 1),
            Kind::I8 => each!(i8, 1),
            Kind::I16 => each!(i16, 2),
            Kind::I32 => each!(i32, 4),
            Kind::I64 => each!(i64, 8),
            Kind::U16 => each!(u16, 2),
            Kind::U32 => each!(u32, 4),
            Kind::U64 => each!(u64, 8),
            Kind::F32 => each!(f32, 4),
            Kind::F64 => each!(f64, 8),
            Kind::F16 => $out.extend($raw.as_chunks::<2>().0.iter().map(|bytes| {
                let bits = if $number.big_endian {
                    u16::from_be_bytes(*bytes)
                } else {
                    u16::from_le_bytes(*bytes)
                };
                let $value = half_to_f32(bits);
                $convert
            })),
        }
    }};
}

impl Number {
    /// A type in little-endian order.
    pub(crate) fn little(kind: Kind) -> Self {
        let big_endian = false;
        Self { kind, big_endian }
    }

    /// Bytes of one element.
    pub(crate) fn size(self) -> usize {
        self.kind.size()
    }

    /// Appends every element as `f32`, the nearest where the stored type is wider.
    pub(crate) fn extend_f32(self, raw: &[u8], out: &mut Vec<f32>) {
        extend_with!(self, raw, out, |value| value as f32);
    }

    /// Appends every element as `f64`, the nearest for 64-bit integers.
    pub(crate) fn extend_f64(self, raw: &[u8], out: &mut Vec<f64>) {
        extend_with!(self, raw, out, |value| value as f64);
    }

    /// Appends every element as `i64`; floats are cut off, `u64` beyond `i64` is saturated.
    pub(crate) fn extend_i64(self, raw: &[u8], out: &mut Vec<i64>) {
        out.reserve(raw.len() / self.size());
        if self.kind == Kind::U64 {
            let get = if self.big_endian {
                u64::from_be_bytes
            } else {
                u64::from_le_bytes
            };
            let elements = raw.as_chunks::<8>().0.iter();
            out.extend(elements.map(|bytes| i64::try_from(get(*bytes)).unwrap_or(i64::MAX)));
            return;
        }
        extend_with!(self, raw, out, |value| value as i64);
    }

    /// Appends every element as a column number; one that is negative or beyond `u32` becomes
    /// [`u32::MAX`], which no matrix has.
    pub(crate) fn extend_columns(self, raw: &[u8], out: &mut Vec<u32>) {
        out.reserve(raw.len() / self.size());
        match (self.kind, self.big_endian) {
            // A negative i32 read as u32 is at least 2^31; it is caught as out of range.
            (Kind::I32 | Kind::U32, false) => {
                out.extend(
                    raw.as_chunks::<4>()
                        .0
                        .iter()
                        .map(|bytes| u32::from_le_bytes(*bytes)),
                );
            }
            (Kind::I64 | Kind::U64, false) => {
                let elements = raw.as_chunks::<8>().0.iter();
                out.extend(
                    elements
                        .map(|bytes| u32::try_from(u64::from_le_bytes(*bytes)).unwrap_or(u32::MAX)),
                );
            }
            _ => {
                let mut wide = Vec::new();
                self.extend_i64(raw, &mut wide);
                out.extend(
                    wide.into_iter()
                        .map(|at| u32::try_from(at).unwrap_or(u32::MAX)),
                );
            }
        }
    }
}

/// IEEE 754 half precision to single.
fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from((bits >> 10) & 0x1f);
    let mantissa = f32::from(bits & 0x3ff);
    match exponent {
        0 => sign * mantissa * 2f32.powi(-24),
        31 if mantissa == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + mantissa / 1024.0) * 2f32.powi(exponent - 15),
    }
}

/// Single to half precision, the nearest (of two, the even one), and what that is again.
pub(crate) fn f32_to_half(value: f32) -> (u16, f32) {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let magnitude = value.abs();
    let bits = if value.is_nan() {
        0x7e00
    } else if magnitude >= 65_520.0 {
        0x7c00
    } else {
        // In units of the last place: 2^-24 below 2^-14, else 2^-10 of the power of two below.
        let exponent = (i32::from((magnitude.to_bits() >> 23) as u16) - 127).max(-14);
        let units = (magnitude * 2f32.powi(10 - exponent)).round_ties_even() as u16;
        // A mantissa that rounds up to the next power of two carries into the exponent.
        ((exponent + 14) as u16) * 1024 + units
    };
    (sign | bits, half_to_f32(sign | bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_agrees_with_known_values() {
        let known = [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x3555, 0.333_251_95),
            (0x7c00, f32::INFINITY),
        ];
        for (bits, value) in known {
            assert_eq!(half_to_f32(bits), value, "{bits:#x}");
        }
        assert!(half_to_f32(0x7e00).is_nan());
    }

    #[test]
    fn negative_and_huge_columns_are_out_of_range() {
        let number = Number {
            kind: Kind::I64,
            big_endian: false,
        };
        let raw: Vec<u8> = [7i64, -1, i64::MAX]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let mut columns = Vec::new();
        number.extend_columns(&raw, &mut columns);
        assert_eq!(columns, [7, u32::MAX, u32::MAX]);
        let number = Number {
            kind: Kind::I16,
            big_endian: true,
        };
        let raw: Vec<u8> = [7i16, -1].iter().flat_map(|v| v.to_be_bytes()).collect();
        columns.clear();
        number.extend_columns(&raw, &mut columns);
        assert_eq!(columns, [7, u32::MAX]);
    }
}
