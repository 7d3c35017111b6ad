//! Where tensors live and kernels run: the CPU, or a CUDA device by its number.
//!
//! [`cuda`] opens a device, [`probe`] looks one up, or they say in plain words why it cannot be used: a build without CUDA, no
//! driver, a missing library, no such device, one that is too old. A build with the loaders of `scripts/cuda-toolkit` starts
//! without a driver or CUDA's libraries, so their absence is looked for here, before candle's own
//! calls.

use candle_core::Device;

/// Why a CUDA device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoGpu {
    /// The program was built without the feature `cuda`.
    #[error("this build has no CUDA, so cuda:{0} cannot be used")]
    NotBuilt(usize),
    /// The program has CUDA, this machine has not.
    #[error("cuda:{number} cannot be used: {reason}")]
    Unusable {
        /// The device asked for.
        number: usize,
        /// Why not.
        reason: String,
    },
}

impl NoGpu {
    /// What helps.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotBuilt(_) => {
                "set cpu, or build with CUDA: eval \"$(scripts/cuda-toolkit)\" && cargo build \
                 --release --features cuda"
            }
            Self::Unusable { .. } => {
                "set cpu, or auto, which takes a GPU only where one can be used"
            }
        }
    }
}

/// Whether this build can use CUDA devices at all.
pub const IS_BUILT: bool = cfg!(feature = "cuda");

/// A CUDA device that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its number.
    pub number: usize,
    /// What the driver calls it.
    pub name: String,
    /// Its memory, in bytes.
    pub bytes: usize,
}

/// Looks whether device `number` can be used.
///
/// # Errors
/// It cannot; the error says why.
pub fn probe(number: usize) -> Result<Gpu, NoGpu> {
    #[cfg(feature = "cuda")]
    return found::probe(number).map_err(|reason| NoGpu::Unusable { number, reason });
    #[cfg(not(feature = "cuda"))]
    Err(NoGpu::NotBuilt(number))
}

/// Opens device `number`; with `tf32` products of f32 are computed in tf32.
///
/// # Errors
/// It cannot be used; the error says why.
pub fn cuda(number: usize, tf32: bool) -> Result<(Device, Gpu), NoGpu> {
    let gpu = probe(number)?;
    #[cfg(feature = "cuda")]
    let device = found::open(number, tf32);
    #[cfg(not(feature = "cuda"))]
    let device = {
        let _ = tf32;
        Device::new_cuda(number)
    };
    let device = device.map_err(|error| NoGpu::Unusable {
        number,
        reason: format!("{} does not start: {error}", gpu.name),
    })?;
    Ok((device, gpu))
}

/// How many CUDA devices there are; none in a build without CUDA.
pub fn count() -> usize {
    #[cfg(feature = "cuda")]
    return found::count();
    #[cfg(not(feature = "cuda"))]
    0
}

/// Bytes of a GPU's memory that nobody has taken; `None` for the CPU.
pub fn free_bytes(device: &Device) -> Option<u64> {
    #[cfg(feature = "cuda")]
    return found::free_bytes(device);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = device;
        None
    }
}

/// The most bytes of a GPU's memory that tensors have taken so far; `None` for the CPU.
pub fn most_bytes(device: &Device) -> Option<u64> {
    #[cfg(feature = "cuda")]
    return found::most_bytes(device);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = device;
        None
    }
}

#[cfg(feature = "nccl")]
pub(super) use found::opens;

#[cfg(feature = "cuda")]
mod found {
    use std::ffi::CStr;

    use candle_core::Device;
    use candle_core::cuda_backend::WrapErr;
    use candle_core::cuda_backend::cudarc::cublas::sys as cublas;
    use candle_core::cuda_backend::cudarc::driver::result::{self, DriverError};
    use candle_core::cuda_backend::cudarc::driver::sys::{self, CUdevice_attribute as Attribute};

    use super::Gpu;

    /// The driver, without which there is no device.
    const DRIVER: &CStr = c"libcuda.so.1";
    /// What the loaders of `scripts/cuda-toolkit` open when it is first called.
    const LIBRARIES: [&CStr; 3] = [c"libcublasLt.so.13", c"libcublas.so.13", c"libcurand.so.10"];
    /// The lowest compute capability that the kernels are compiled for.
    const CAPABILITY: (i32, i32) = (9, 0);

    pub(super) fn probe(number: usize) -> Result<Gpu, String> {
        if !opens(DRIVER) {
            return Err("there is no NVIDIA driver (libcuda.so.1)".to_owned());
        }
        let said = |error: DriverError| format!("the driver says: {error}");
        result::init().map_err(said)?;
        let count = result::device::get_count().map_err(said)?;
        let Some(ordinal) = i32::try_from(number).ok().filter(|n| *n < count) else {
            return Err(format!("this machine has {count} CUDA devices"));
        };
        let device = result::device::get(ordinal).map_err(said)?;
        let name = result::device::get_name(device).map_err(said)?;
        // SAFETY: `device` is one that the driver gave.
        let (bytes, major, minor) = unsafe {
            let attribute = |which| result::device::get_attribute(device, which).map_err(said);
            (
                result::device::total_mem(device).map_err(said)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            )
        };
        if (major, minor) < CAPABILITY {
            let (least, least_minor) = CAPABILITY;
            return Err(format!(
                "{name} has compute capability {major}.{minor}, the kernels need \
                 {least}.{least_minor} (Hopper) or later"
            ));
        }
        if option_env!("GENE_BERT_CUDA_LOADERS").is_some()
            && let Some(missing) = LIBRARIES.into_iter().find(|library| !opens(library))
        {
            return Err(format!(
                "{} is not found (it comes with CUDA 13, and in PyTorch's nvidia/*/lib folders: \
                 put its folder on LD_LIBRARY_PATH)",
                missing.to_string_lossy()
            ));
        }
        Ok(Gpu {
            number,
            name,
            bytes,
        })
    }

    pub(super) fn count() -> usize {
        if !opens(DRIVER) || result::init().is_err() {
            return 0;
        }
        let count = result::device::get_count().map(usize::try_from);
        count.map_or(0, |count| count.unwrap_or(0))
    }

    /// Opens a device with a stream of its own, in which all of its work goes in order, whichever
    /// thread asks for it. Memory that is freed stays with the program.
    pub(super) fn open(number: usize, tf32: bool) -> candle_core::Result<Device> {
        let device = Device::new_cuda_with_stream(number)?;
        let cuda = device.as_cuda_device()?;
        // SAFETY: all of candle's work is in one stream; `timed` orders it beside others.
        unsafe { cuda.disable_event_tracking() };
        let mut most = u64::MAX;
        let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: this attribute of a pool is a u64.
        unsafe { sys::cuMemPoolSetAttribute(pool(&device)?, threshold, (&raw mut most).cast()) }
            .result()
            .w()?;
        if tf32 {
            let mode = cublas::cublasMath_t::CUBLAS_TF32_TENSOR_OP_MATH;
            // SAFETY: the handle is the device's.
            unsafe { cublas::cublasSetMathMode(*cuda.cublas_handle().handle(), mode) }
                .result()
                .w()?;
        }
        Ok(device)
    }

    /// What tensors of the device are allocated from.
    fn pool(device: &Device) -> candle_core::Result<sys::CUmemoryPool> {
        let mut pool = std::ptr::null_mut();
        let context = device.as_cuda_device()?.cuda_stream().context().clone();
        // SAFETY: the device is open.
        unsafe { sys::cuDeviceGetDefaultMemPool(&raw mut pool, context.cu_device()) }
            .result()
            .w()?;
        Ok(pool)
    }

    pub(super) fn free_bytes(device: &Device) -> Option<u64> {
        let stream = device.as_cuda_device().ok()?.cuda_stream();
        let (free, _) = stream.context().mem_get_info().ok()?;
        Some(free as u64)
    }

    pub(super) fn most_bytes(device: &Device) -> Option<u64> {
        let (pool, mut bytes) = (pool(device).ok()?, 0u64);
        let high = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        // SAFETY: this attribute of a pool is a u64.
        let found = unsafe { sys::cuMemPoolGetAttribute(pool, high, (&raw mut bytes).cast()) };
        found.result().ok().map(|()| bytes)
    }

    /// Whether the system's loader finds `library`; it stays loaded.
    pub(in crate::kernels) fn opens(library: &CStr) -> bool {
        // SAFETY: the name ends in a zero; a CUDA library may be loaded at any time.
        let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        !handle.is_null()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_probed_or_the_reason_is_said() {
        match probe(0) {
            Ok(gpu) => assert!(gpu.bytes > 0 && !gpu.name.is_empty()),
            Err(NoGpu::NotBuilt(number)) => assert!(!IS_BUILT && number == 0),
            Err(NoGpu::Unusable { number, reason }) => {
                assert!(IS_BUILT && number == 0 && !reason.is_empty());
            }
        }
        let error = probe(4096).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("cuda:4096")));
    }
}
