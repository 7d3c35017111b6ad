//! Linear maps by cuBLAS, their bias and activation, and the way back.

use std::ffi::c_void;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::{DType, Result, Tensor, bail};

use super::norm::add_parts;
use super::{Argument, Gpu, Grid, Source, suffix};
use crate::buffers::Target;
use crate::kernels::activation::Activation;
use crate::kernels::linear::{InputGradient, Map, MapGradient};

/// Threads of a pass over all numbers, and the most blocks of it.
const PASS_THREADS: u32 = 256;
const MOST_BLOCKS: usize = 4096;
/// Rows whose column sums are one part.
const ROWS_PER_PART: usize = 128;

/// A matrix as it lies, row by row, or turned.
#[derive(Clone, Copy)]
struct Side<'a> {
    tensor: &'a Tensor, // [rows, columns]
    turned: bool,
}

/// c [m, n] = left [m, k] · right [k, n], added to c where `add` says so; sums are f32.
fn multiply(gpu: &Gpu, left: Side<'_>, right: Side<'_>, c: &Tensor, add: bool) -> Result<()> {
    let ((m, n), (left_rows, left_columns)) = (c.dims2()?, left.tensor.dims2()?);
    let k = if left.turned { left_rows } else { left_columns };
    if c.elem_count() == 0 {
        return Ok(());
    }
    let operation = |side: Side<'_>| match side.turned {
        true => sys::cublasOperation_t::CUBLAS_OP_T,
        false => sys::cublasOperation_t::CUBLAS_OP_N,
    };
    let stride = |tensor: &Tensor| tensor.dim(1).map(|columns| columns as i32);
    let (one, beta) = (1.0f32, if add { 1.0f32 } else { 0.0 });
    let at = |tensor: &Tensor| Ok::<_, candle_core::Error>(gpu.address(tensor)? as *mut c_void);
    // cuBLAS has matrices column by column, where ours are their transposes: cᵀ = rightᵀ leftᵀ.
    // SAFETY: addresses and sizes are those of tensors on this device.
    unsafe {
        result::gemm_ex(
            *gpu.inner.cublas_handle().handle(),
            operation(right),
            operation(left),
            n as i32,
            m as i32,
            k as i32,
            (&raw const one).cast(),
            at(right.tensor)?,
            kind(right.tensor)?,
            stride(right.tensor)?,
            at(left.tensor)?,
            kind(left.tensor)?,
            stride(left.tensor)?,
            (&raw const beta).cast(),
            at(c)?,
            kind(c)?,
            n as i32,
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    }
    .w()?;
    Ok(())
}

fn kind(tensor: &Tensor) -> Result<sys::cudaDataType> {
    Ok(match tensor.dtype() {
        DType::F32 => sys::cudaDataType::CUDA_R_32F,
        DType::BF16 => sys::cudaDataType::CUDA_R_16BF,
        DType::F16 => sys::cudaDataType::CUDA_R_16F,
        other => bail!("no matrix product of {other:?}"),
    })
}

fn as_it_lies(tensor: &Tensor) -> Side<'_> {
    let turned = false;
    Side { tensor, turned }
}

fn turned(tensor: &Tensor) -> Side<'_> {
    let turned = true;
    Side { tensor, turned }
}

fn number(activation: Activation) -> Argument {
    Argument::Int(match activation {
        Activation::Gelu => 1,
        Activation::Relu => 2,
    })
}

fn pass(count: usize) -> Grid {
    let per_block = PASS_THREADS as usize * 8;
    Grid {
        threads: PASS_THREADS,
        ..Grid::of(count.div_ceil(per_block).min(MOST_BLOCKS))
    }
}

/// As `linear::forward_activated`: x [N, I] → y [N, O] before and after the activation, if any.
pub(in crate::kernels) fn linear_forward(
    x: &Tensor,
    map: Map<'_>,
    activation: Option<Activation>,
) -> Result<(Tensor, Option<Tensor>)> {
    let (gpu, n, outer) = (Gpu::of(x)?, x.dim(0)?, map.weight.dim(0)?);
    let y = gpu.fresh((n, outer), x.dtype())?;
    let weight = map.weight.to_dtype(x.dtype())?;
    multiply(&gpu, as_it_lies(x), turned(&weight), &y, false)?;
    let activated = activation
        .map(|_| gpu.fresh((n, outer), x.dtype()))
        .transpose()?;
    let arguments = [
        gpu.at(&y)?,
        gpu.at(map.bias)?,
        gpu.at_some(activated.as_ref())?,
        activation.map_or(Argument::Int(0), number),
        Argument::word(n * outer),
        Argument::int(outer),
    ];
    let name = format!("bias_activation_{}", suffix(x)?);
    gpu.launch(Source::Activation, &name, pass(n * outer), &arguments)?;
    Ok((y, activated))
}

/// As `linear::backward`.
pub(in crate::kernels) fn linear_backward(
    x: &Tensor,
    maps: &[MapGradient<'_>],
    to: InputGradient<'_>,
) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let (dx, mut add) = match to {
        InputGradient::Onto(dx) => (dx.clone(), true),
        InputGradient::New => (gpu.fresh(x.shape(), x.dtype())?, false),
    };
    for map in maps {
        let dy = map.dy.tensor()?;
        bias_gradient(&gpu, dy, map.dbias)?;
        let dweight = map.dweight;
        multiply(
            &gpu,
            turned(dy),
            as_it_lies(x),
            &dweight.tensor,
            dweight.add,
        )?;
        let weight = map.weight.to_dtype(x.dtype())?;
        multiply(&gpu, as_it_lies(dy), as_it_lies(&weight), &dx, add)?;
        add = true;
    }
    Ok(dx)
}

/// dy *= the slope at `pre`.
pub(in crate::kernels) fn activation_backward(
    activation: Activation,
    pre: &Tensor,
    dy: &Tensor,
) -> Result<()> {
    let (gpu, count) = (Gpu::of(dy)?, dy.elem_count());
    let (kind, count_word) = (number(activation), Argument::word(count));
    let arguments = [gpu.at(pre)?, gpu.at(dy)?, kind, count_word];
    let name = format!("activation_backward_{}", suffix(dy)?);
    gpu.launch(Source::Activation, &name, pass(count), &arguments)
}

fn bias_gradient(gpu: &Gpu, dy: &Tensor, dbias: &Target) -> Result<()> {
    let (n, width) = dy.dims2()?;
    let num_parts = n.div_ceil(ROWS_PER_PART);
    let parts = gpu.fresh((num_parts, width), DType::F32)?;
    let grid = Grid {
        blocks: (width.div_ceil(32), num_parts),
        threads: 256,
        shared: 0,
    };
    let arguments = [
        gpu.at(dy)?,
        gpu.at(&parts)?,
        Argument::word(n),
        Argument::int(width),
        Argument::int(ROWS_PER_PART),
    ];
    let name = format!("column_parts_{}", suffix(dy)?);
    gpu.launch(Source::Reduce, &name, grid, &arguments)?;
    add_parts(gpu, &parts, width, dbias, None)
}
