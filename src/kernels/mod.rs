//! The fused operations of a training step, one file each, over packed rows.
//!
//! An operation takes candle tensors and gives candle tensors; its backward pass is a second
//! function that takes what the forward pass kept and leaves parameters' gradients in
//! [`crate::buffers::Target`]s, so that nothing is zeroed, added or copied in between. The tensors
//! are flat `[T, …]` arrays of the tokens of all cells, without padding; only [`attention`] and
//! [`first_attention`] look at where cells begin. Results are bit for bit the same for any number of threads: work is split
//! by shape alone, and partial sums are added in order.
//!
//! Each file ends with the slow, readable reference that it is checked against. `unsafe` is
//! allowed in this room only, and stands in [`matmul`], [`matrix`], [`bf16`], [`simd`],
//! [`products`], [`linear`], [`attention`], [`memory`], [`device`] and
//! `cuda`, whose functions stand in for these where tensors live on a GPU (feature `cuda`).

/// Returns what the CUDA twin gives, where the tensor lives on a CUDA device.
macro_rules! on_gpu {
    ($tensor:expr, $call:expr) => {
        #[cfg(feature = "cuda")]
        if $tensor.device().is_cuda() {
            return $call;
        }
    };
}

pub mod activation;
pub mod adamw;
pub mod attention;
mod bf16;
pub mod cross_entropy;
#[cfg(feature = "cuda")]
mod cuda;
pub mod device;
pub mod dropout;
pub mod embedding;
pub mod factor;
pub mod first_attention;
pub mod grad_norm;
pub mod layer_norm;
pub mod linear;
pub mod lists;
mod matmul;
mod matrix;
pub mod memory;
pub mod parallel;
pub mod peak;
pub mod products;
pub mod profile;
pub mod rows;
mod simd;
#[cfg(test)]
mod testing;
pub mod timed;

#[cfg(feature = "nccl")]
pub use cuda::nccl;
