//! The operations on a CUDA device: the kernels of the `.cu` files here, launched over tensors that
//! live there, and matrix products by cuBLAS and cuBLASLt.
//!
//! Each function is the twin of one in the room's other files and is called by it where its tensors
//! are on a device. Activations are of the tensors' type (f32 or bf16); weights, their gradients,
//! moments and all sums are f32. Kernels add nothing atomically, so results do not change from run
//! to run. All work of a device goes to one stream, in order: a tensor that is freed or written
//! again is so after the kernels that were launched before; [`sent`] and `nccl` have streams of their
//! own, ordered by events. What a kernel computes is said and proved beside it
//! (`scripts/cuda-simulate`); shapes are checked by the callers.

mod attention;
pub(super) mod clock;
mod epilogue;
mod linear;
mod loss;
#[cfg(feature = "nccl")]
pub mod nccl;
mod norm;
mod optimizer;
mod product;
mod rows;
mod sent;
#[cfg(test)]
mod tests;
mod tiles;
mod upload;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, OnceLock};

use candle_core::cuda_backend::cudarc::driver::sys::{self, CUfunction_attribute as Attribute};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice, WrapErr};
use candle_core::{DType, Device, Result, Shape, Storage, Tensor, bail};

pub(super) use attention::{attention_backward, attention_forward};
pub(super) use linear::{activation_backward, linear_backward, linear_forward};
pub(super) use loss::{cross_entropy, sum_of_losses};
pub(super) use norm::{Cut, embed, layer_norm_backward, layer_norm_forward, scatter_embedding};
pub(super) use optimizer::{adamw, guarded_adamw, sums_of_squares};
pub(super) use rows::{add_rows, apply_dropout, gather, scatter};
pub(super) use sent::{Arrival, There, Uploader, send_in_order};
pub(super) use tiles::tiles;

use super::dropout::Dropout;

/// Bytes of dynamic shared memory that every kernel may have: of 48 KiB, arrays that a kernel declares
/// take up to 8.
const USUAL_SHARED: usize = 40 << 10;
/// Threads of a block of most kernels.
const THREADS: u32 = 128;

/// A compiled `.cu` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Activation,
    AdamW,
    Attention,
    AttentionAny,
    AttentionHopper,
    CrossEntropy,
    Embedding,
    Gather,
    Guard,
    LayerNorm,
    Reduce,
}

impl Source {
    fn fatbin(self) -> &'static [u8] {
        macro_rules! fatbin {
            ($name:literal) => {
                include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".fatbin"))
            };
        }
        match self {
            Self::Activation => fatbin!("activation"),
            Self::AdamW => fatbin!("adamw"),
            Self::Attention => fatbin!("attention"),
            Self::AttentionAny => fatbin!("attention_any"),
            Self::AttentionHopper => fatbin!("attention_hopper"),
            Self::CrossEntropy => fatbin!("cross_entropy"),
            Self::Embedding => fatbin!("embedding"),
            Self::Gather => fatbin!("gather"),
            Self::Guard => fatbin!("guard"),
            Self::LayerNorm => fatbin!("layer_norm"),
            Self::Reduce => fatbin!("reduce"),
        }
    }
}

/// A file that has been loaded, and those of its kernels that were asked for, with the bytes of dynamic
/// shared memory that they may have.
struct Loaded {
    module: Arc<CudaModule>,
    kernels: HashMap<String, (CudaFunction, usize)>,
}

impl Loaded {
    fn new(gpu: &Gpu, source: Source) -> Result<Self> {
        let fatbin = Ptx::from_binary(source.fatbin().to_vec());
        let stream = gpu.inner.cuda_stream();
        Ok(Self {
            module: stream.context().load_module(fatbin).w()?,
            kernels: HashMap::new(),
        })
    }

    /// A kernel that may have `shared` bytes; the driver is asked once.
    fn kernel(&mut self, name: &str, shared: usize) -> Result<CudaFunction> {
        if let Some((kernel, most)) = self.kernels.get(name)
            && shared <= *most
        {
            return Ok(kernel.clone());
        }
        let kernel = self.module.load_function(name).w()?;
        if shared > USUAL_SHARED {
            let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            kernel.set_attribute(attribute, shared as i32).w()?;
        }
        let known = (kernel.clone(), shared.max(USUAL_SHARED));
        self.kernels.insert(name.to_owned(), known);
        Ok(kernel)
    }
}

/// Blocks (x, y), threads of each, bytes of dynamic shared memory.
#[derive(Debug, Clone, Copy)]
struct Grid {
    blocks: (usize, usize),
    threads: u32,
    shared: usize,
}

impl Grid {
    /// `blocks` blocks of [`THREADS`].
    fn of(blocks: usize) -> Self {
        Self {
            blocks: (blocks, 1),
            threads: THREADS,
            shared: 0,
        }
    }
}

/// The dropout of a launch, as `device.cuh` has it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct DropoutArgument {
    key: u64,
    threshold: u32,
    scale: f32,
}

impl From<Option<&Dropout>> for Argument {
    fn from(dropout: Option<&Dropout>) -> Self {
        Self::Dropout(match dropout {
            Some(dropout) => DropoutArgument {
                key: dropout.key(),
                threshold: dropout.threshold(),
                scale: dropout.scale(),
            },
            None => DropoutArgument {
                key: 0,
                threshold: 0,
                scale: 1.0,
            },
        })
    }
}

/// The heads of a launch, as `attention.cuh` has them.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct HeadsArgument {
    num_tokens: u64,
    num_heads: i32,
    scale: f32,
}

/// The packed cells of a launch, as `attention_any.cu` has them.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct PackedArgument {
    cells: u64,
    num_cells: u32,
    num_tokens: u64,
    num_heads: i32,
    head_width: i32,
    scale: f32,
}

// SAFETY: plain numbers in the order and alignment that the kernels declare.
unsafe impl DeviceRepr for DropoutArgument {}
// SAFETY: as above.
unsafe impl DeviceRepr for HeadsArgument {}
// SAFETY: as above.
unsafe impl DeviceRepr for PackedArgument {}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
enum Argument {
    /// An address, or a u64.
    Word(u64),
    Int(i32),
    Index(u32),
    Float(f32),
    Floats4([f32; 4]),
    /// The rule of `guard.cu`.
    Rule([f64; 7]),
    Dropout(DropoutArgument),
    Heads(HeadsArgument),
    Packed(PackedArgument),
}

impl Argument {
    const NULL: Self = Self::Word(0);

    fn word(number: usize) -> Self {
        Self::Word(number as u64)
    }

    fn int(number: usize) -> Self {
        Self::Int(number as i32)
    }

    fn num_bytes(&self) -> usize {
        match self {
            Self::Word(value) => size_of_val(value),
            Self::Int(value) => size_of_val(value),
            Self::Index(value) => size_of_val(value),
            Self::Float(value) => size_of_val(value),
            Self::Floats4(value) => size_of_val(value),
            Self::Rule(value) => size_of_val(value),
            Self::Dropout(value) => size_of_val(value),
            Self::Heads(value) => size_of_val(value),
            Self::Packed(value) => size_of_val(value),
        }
    }
}

/// Refuses arguments of which a kernel has fewer, more or others: the driver would read what lies
/// behind them. Compiled kernels know the sizes of their parameters, but not their types.
fn check(function: &CudaFunction, name: &str, arguments: &[Argument]) -> Result<()> {
    let (mut declared, mut offset, mut size) = (Vec::new(), 0, 0);
    // SAFETY: the function is loaded; the driver refuses an index past the last parameter.
    while unsafe {
        let function = function.cu_function();
        sys::cuFuncGetParamInfo(function, declared.len(), &raw mut offset, &raw mut size)
    } == sys::CUresult::CUDA_SUCCESS
    {
        declared.push(size);
    }
    let given: Vec<usize> = arguments.iter().map(Argument::num_bytes).collect();
    if given != declared {
        bail!("{name} takes arguments of {declared:?} bytes, given are {given:?}");
    }
    Ok(())
}

/// A device that tensors live on.
#[derive(Debug, Clone)]
struct Gpu {
    device: Device,
    inner: CudaDevice,
}

impl Gpu {
    fn of(tensor: &Tensor) -> Result<Self> {
        Self::new(tensor.device())
    }

    fn new(device: &Device) -> Result<Self> {
        Ok(Self {
            inner: device.as_cuda_device()?.clone(),
            device: device.clone(),
        })
    }

    /// A tensor that holds anything.
    fn fresh(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        let shape = shape.into();
        if shape.elem_count() == 0 {
            // The driver gives no memory of no bytes.
            return Tensor::zeros(1, dtype, &self.device)?
                .narrow(0, 0, 0)?
                .reshape(shape);
        }
        // SAFETY: every kernel here writes all numbers of the results it is given.
        unsafe { Tensor::empty(shape, dtype, &self.device) }
    }

    /// The address of a tensor's first number; 0 of one without numbers.
    fn address(&self, tensor: &Tensor) -> Result<u64> {
        if tensor.elem_count() == 0 {
            return Ok(0);
        }
        let (storage, layout) = tensor.storage_and_layout();
        let Some((start, _)) = layout.contiguous_offsets() else {
            bail!("expected a contiguous tensor, found the layout {layout:?}");
        };
        let Storage::Cuda(storage) = &*storage else {
            bail!("a tensor on {:?} among those of a GPU", tensor.device());
        };
        let stream = self.inner.cuda_stream();
        let first = match &storage.slice {
            CudaStorageSlice::F32(values) => values.device_ptr(&stream).0,
            CudaStorageSlice::BF16(values) => values.device_ptr(&stream).0,
            CudaStorageSlice::F16(values) => values.device_ptr(&stream).0,
            CudaStorageSlice::F64(values) => values.device_ptr(&stream).0,
            CudaStorageSlice::U32(values) => values.device_ptr(&stream).0,
            CudaStorageSlice::I64(values) => values.device_ptr(&stream).0,
            _ => bail!("no kernel takes tensors of {:?}", tensor.dtype()),
        };
        Ok(first + (start * tensor.dtype().size_in_bytes()) as u64)
    }

    fn at(&self, tensor: &Tensor) -> Result<Argument> {
        Ok(Argument::Word(self.address(tensor)?))
    }

    fn at_some(&self, tensor: Option<&Tensor>) -> Result<Argument> {
        tensor.map_or(Ok(Argument::NULL), |tensor| self.at(tensor))
    }

    /// Launches a kernel; one without blocks is left out.
    fn launch(&self, source: Source, name: &str, grid: Grid, arguments: &[Argument]) -> Result<()> {
        let (x, y) = (grid.blocks.0 as u32, grid.blocks.1 as u32);
        if x == 0 || y == 0 {
            return Ok(());
        }
        let function = self.function(source, name, grid.shared)?;
        if cfg!(debug_assertions) {
            check(&function, name, arguments)?;
        }
        let stream = self.inner.cuda_stream();
        let mut launch = stream.launch_builder(&function);
        for argument in arguments {
            match argument {
                Argument::Word(value) => launch.arg(value),
                Argument::Int(value) => launch.arg(value),
                Argument::Index(value) => launch.arg(value),
                Argument::Float(value) => launch.arg(value),
                Argument::Floats4(value) => launch.arg(value),
                Argument::Rule(value) => launch.arg(value),
                Argument::Dropout(value) => launch.arg(value),
                Argument::Heads(value) => launch.arg(value),
                Argument::Packed(value) => launch.arg(value),
            };
        }
        let config = LaunchConfig {
            grid_dim: (x, y, 1),
            block_dim: (grid.threads, 1, 1),
            shared_mem_bytes: grid.shared as u32,
        };
        // SAFETY: the arguments are those that the kernel declares, their tensors live on this
        // device and are as large as the caller has checked.
        unsafe { launch.launch(config) }.w()?;
        Ok(())
    }

    fn function(&self, source: Source, name: &str, shared: usize) -> Result<CudaFunction> {
        static LOADED: OnceLock<Mutex<HashMap<(usize, Source), Loaded>>> = OnceLock::new();
        let Ok(mut loaded) = LOADED.get_or_init(Mutex::default).lock() else {
            bail!("a thread failed while it loaded kernels");
        };
        let context = self.inner.cuda_stream().context().cu_ctx() as usize;
        let loaded = match loaded.entry((context, source)) {
            Entry::Occupied(file) => file.into_mut(),
            Entry::Vacant(place) => place.insert(Loaded::new(self, source)?),
        };
        loaded.kernel(name, shared)
    }
}

/// What the kernels of a type are called.
fn suffix(tensor: &Tensor) -> Result<&'static str> {
    Ok(match tensor.dtype() {
        DType::F32 => "f32",
        DType::BF16 => "bf16",
        DType::F16 => "f16",
        other => bail!("no kernel takes tensors of {other:?}"),
    })
}
