//! The numbers of an HDF5 file: which type a data set has, and what its values are read as.

use std::iter::Sum;
use std::sync::OnceLock;

use hdf5_pure::{Datatype, DatatypeByteOrder};

use super::sparse::Sparse;
use super::turned::Turned;
use crate::numbers::{Kind, Number};

/// The element type of a data set, `None` where it is not a number that we read.
pub(super) fn number_of(datatype: &Datatype) -> Option<Number> {
    match datatype {
        Datatype::FixedPoint {
            size,
            byte_order,
            layout,
        } => {
            if u32::from(layout.bit_precision) != size * 8 || layout.bit_offset != 0 {
                return None;
            }
            let kind = match (size, layout.signed) {
                (1, true) => Kind::I8,
                (2, true) => Kind::I16,
                (4, true) => Kind::I32,
                (8, true) => Kind::I64,
                (1, false) => Kind::U8,
                (2, false) => Kind::U16,
                (4, false) => Kind::U32,
                (8, false) => Kind::U64,
                _ => return None,
            };
            Some(Number {
                kind,
                big_endian: big_endian(byte_order)?,
            })
        }
        Datatype::FloatingPoint {
            size,
            byte_order,
            layout,
        } => {
            let kind = match (size, layout.exponent_size, layout.mantissa_size) {
                (2, 5, 10) => Kind::F16,
                (4, 8, 23) => Kind::F32,
                (8, 11, 52) => Kind::F64,
                _ => return None,
            };
            Some(Number {
                kind,
                big_endian: big_endian(byte_order)?,
            })
        }
        Datatype::Enumeration { base_type, .. } => {
            let base = number_of(base_type)?;
            let kind = match base.kind {
                Kind::I8 | Kind::U8 => Kind::Bool,
                other => other,
            };
            Some(Number { kind, ..base })
        }
        _ => None,
    }
}

fn big_endian(order: &DatatypeByteOrder) -> Option<bool> {
    match order {
        DatatypeByteOrder::LittleEndian => Some(false),
        DatatypeByteOrder::BigEndian => Some(true),
        _ => None,
    }
}

/// What values are read as: `f32`, which is what models take, or `f64`, which holds more of the
/// types of a file exactly.
pub(super) trait Value:
    Copy + PartialOrd + Sum + Send + Sync + std::fmt::Debug + 'static
{
    const ZERO: Self;
    const INFINITY: Self;
    /// Appends every element of `raw`.
    fn extend(number: Number, raw: &[u8], out: &mut Vec<Self>);
    fn to_f64(self) -> f64;
    /// Where a matrix keeps its rows once it has been turned round.
    fn turned(sparse: &Sparse) -> &OnceLock<Turned<Self>>;
}

impl Value for f32 {
    const ZERO: f32 = 0.0;
    const INFINITY: f32 = f32::INFINITY;

    fn extend(number: Number, raw: &[u8], out: &mut Vec<f32>) {
        number.extend_f32(raw, out);
    }

    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    fn turned(sparse: &Sparse) -> &OnceLock<Turned<f32>> {
        &sparse.turned
    }
}

impl Value for f64 {
    const ZERO: f64 = 0.0;
    const INFINITY: f64 = f64::INFINITY;

    fn extend(number: Number, raw: &[u8], out: &mut Vec<f64>) {
        number.extend_f64(raw, out);
    }

    fn to_f64(self) -> f64 {
        self
    }

    fn turned(sparse: &Sparse) -> &OnceLock<Turned<f64>> {
        &sparse.turned_wide
    }
}
