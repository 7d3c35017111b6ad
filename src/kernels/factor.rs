//! Matrices that go into products and nowhere else.
//!
//! In bf16 on the CPU such a matrix is rounded and cut into tiles once, when it is made, and kept so:
//! half the memory of f32, and the same numbers in every product as if it were rounded there. In f32,
//! and on a GPU, it is the tensor itself.

#[cfg(feature = "cuda")]
use candle_core::Device;
use candle_core::{Result, Tensor, bail};

use super::bf16::{Packed, Packing, pack_beside};
use super::matrix::Matrix;
use super::products::{Left, Precision, Products, Right};
use super::profile::span;
use crate::buffers::{Slice, read};

/// A matrix [N, W] for products.
#[derive(Debug)]
pub struct Factor(Kind);

#[derive(Debug)]
enum Kind {
    Values(Tensor),
    Tiles(Packed),
}

impl From<Tensor> for Factor {
    /// The tensor as it is; products round it each for itself.
    fn from(values: Tensor) -> Self {
        Self(Kind::Values(values))
    }
}

impl From<Packed> for Factor {
    fn from(tiles: Packed) -> Self {
        Self(Kind::Tiles(tiles))
    }
}

impl Factor {
    /// `x` [N, W], for products in `precision`.
    ///
    /// # Errors
    /// x is no contiguous f32 matrix on the CPU, or any matrix on a GPU.
    pub fn new(precision: Precision, x: &Tensor) -> Result<Self> {
        if precision != Precision::Bf16 || !x.device().is_cpu() {
            return Ok(Self::from(x.clone()));
        }
        let _span = span("rounding", 0);
        let (height, width) = x.dims2()?;
        let x = read::<f32>(x)?;
        let sides = vec![Packing::left(Matrix::new(&x, height, width, width))];
        match pack_beside(sides, (0, &|_| ())).pop() {
            Some(tiles) => Ok(Self::from(tiles)),
            None => bail!("nothing was packed"),
        }
    }

    /// [N, W]
    ///
    /// # Errors
    /// It is made of a tensor that is no matrix.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        match &self.0 {
            Kind::Values(x) => x.dims2(),
            Kind::Tiles(x) => Ok((x.length, x.inner)),
        }
    }

    /// Where it lies.
    #[cfg(feature = "cuda")]
    pub(super) fn device(&self) -> &Device {
        static CPU: Device = Device::Cpu;
        match &self.0 {
            Kind::Values(x) => x.device(),
            Kind::Tiles(_) => &CPU,
        }
    }

    /// The tensor that it was made of.
    ///
    /// # Errors
    /// It was rounded.
    pub(super) fn tensor(&self) -> Result<&Tensor> {
        match &self.0 {
            Kind::Values(x) => Ok(x),
            Kind::Tiles(_) => bail!("the values were rounded"),
        }
    }

    /// The values, rounded or not.
    #[cfg(test)]
    pub(super) fn to_tensor(&self) -> Result<Tensor> {
        match &self.0 {
            Kind::Values(x) => Ok(x.clone()),
            Kind::Tiles(x) => crate::buffers::from_vec(x.values(), (x.length, x.inner)),
        }
    }

    /// Opened for reading, on the CPU.
    ///
    /// # Errors
    /// It is made of a tensor that is no contiguous f32 matrix on the CPU.
    pub(super) fn open(&self) -> Result<Open<'_>> {
        match &self.0 {
            Kind::Values(x) => {
                let (height, width) = x.dims2()?;
                Ok(Open::Values(read::<f32>(x)?, height, width))
            }
            Kind::Tiles(tiles) => Ok(Open::Tiles(tiles)),
        }
    }
}

/// A factor while products of it are computed.
pub(super) enum Open<'a> {
    Values(Slice<'a, f32>, usize, usize),
    Tiles(&'a Packed),
}

impl<'a> Open<'a> {
    fn matrix(values: &'a [f32], height: usize, width: usize) -> Matrix<'a> {
        Matrix::new(values, height, width, width)
    }

    /// The values, where it was not rounded.
    pub(super) fn values(&self) -> Option<&[f32]> {
        match self {
            Self::Values(x, ..) => Some(x),
            Self::Tiles(_) => None,
        }
    }

    /// As a left side [N, W].
    pub(super) fn left(&'a self, products: &mut Products<'a>) -> Left {
        match self {
            Self::Values(x, n, w) => products.left(Self::matrix(x, *n, *w)),
            Self::Tiles(tiles) => products.left_tiles(tiles),
        }
    }

    /// Its transpose as a left side [W, N].
    pub(super) fn left_of_turned(&'a self, products: &mut Products<'a>) -> Left {
        match self {
            Self::Values(x, n, w) => products.left(Self::matrix(x, *n, *w).transposed()),
            Self::Tiles(tiles) => products.left_of_turned(tiles),
        }
    }

    /// As a right side [N, W].
    pub(super) fn right(&'a self, products: &mut Products<'a>) -> Right {
        match self {
            Self::Values(x, n, w) => products.right(Self::matrix(x, *n, *w)),
            Self::Tiles(tiles) => products.right_of_left(tiles),
        }
    }
}
