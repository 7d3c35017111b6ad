//! Matrix products by cuBLAS: f32 sums, whatever the type of the numbers.

use std::ffi::c_void;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::{DType, Result, Tensor, bail};

use super::Gpu;

/// A matrix as it lies, row by row, or turned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Side<'a> {
    pub tensor: &'a Tensor, // [rows, columns]
    pub turned: bool,
}

impl<'a> Side<'a> {
    pub(super) fn as_it_lies(tensor: &'a Tensor) -> Self {
        let turned = false;
        Self { tensor, turned }
    }

    pub(super) fn turned(tensor: &'a Tensor) -> Self {
        let turned = true;
        Self { tensor, turned }
    }
}

/// `to` [m, n] = left [m, k] · right [k, n], added to `to` where `add` says so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product<'a> {
    pub left: Side<'a>,
    pub right: Side<'a>,
    pub to: &'a Tensor,
    pub add: bool,
}

impl Product<'_> {
    /// m, n and k.
    pub(super) fn sizes(&self) -> Result<[usize; 3]> {
        let ((m, n), (rows, columns)) = (self.to.dims2()?, self.left.tensor.dims2()?);
        Ok([m, n, if self.left.turned { rows } else { columns }])
    }

    /// What the old numbers of `to` count.
    pub(super) fn beta(&self) -> f32 {
        if self.add { 1.0 } else { 0.0 }
    }

    /// Computes it.
    pub(super) fn run(&self, gpu: &Gpu) -> Result<()> {
        let ([m, n, k], to) = (self.sizes()?, self.to);
        if to.elem_count() == 0 {
            return Ok(());
        }
        let operation = |side: Side<'_>| match side.turned {
            true => sys::cublasOperation_t::CUBLAS_OP_T,
            false => sys::cublasOperation_t::CUBLAS_OP_N,
        };
        let stride = |side: Side<'_>| side.tensor.dim(1).map(|columns| columns as i32);
        let at = |tensor: &Tensor| Ok::<_, candle_core::Error>(gpu.address(tensor)? as *mut c_void);
        let (one, beta) = (1.0f32, self.beta());
        // cuBLAS has matrices column by column, where ours are their transposes: toᵀ = rightᵀ leftᵀ.
        // SAFETY: addresses and sizes are those of tensors on this device.
        unsafe {
            result::gemm_ex(
                *gpu.inner.cublas_handle().handle(),
                operation(self.right),
                operation(self.left),
                n as i32,
                m as i32,
                k as i32,
                (&raw const one).cast(),
                at(self.right.tensor)?,
                kind(self.right.tensor)?,
                stride(self.right)?,
                at(self.left.tensor)?,
                kind(self.left.tensor)?,
                stride(self.left)?,
                (&raw const beta).cast(),
                at(to)?,
                kind(to)?,
                n as i32,
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .w()
    }
}

/// Whether products of f32 are computed in tf32.
pub(super) fn is_tf32(gpu: &Gpu) -> Result<bool> {
    let mut mode = sys::cublasMath_t::CUBLAS_DEFAULT_MATH;
    // SAFETY: the handle is the device's.
    unsafe { sys::cublasGetMathMode(*gpu.inner.cublas_handle().handle(), &raw mut mode) }
        .result()
        .w()?;
    Ok(mode == sys::cublasMath_t::CUBLAS_TF32_TENSOR_OP_MATH)
}

fn kind(tensor: &Tensor) -> Result<sys::cudaDataType> {
    Ok(match tensor.dtype() {
        DType::F32 => sys::cudaDataType::CUDA_R_32F,
        DType::BF16 => sys::cudaDataType::CUDA_R_16BF,
        DType::F16 => sys::cudaDataType::CUDA_R_16F,
        other => bail!("no matrix product of {other:?}"),
    })
}
