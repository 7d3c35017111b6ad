//! Sums over the GPUs of several processes, by NCCL.
//!
//! A [`Communicator`] has a stream of its own, in which sums go on beside the device's other work:
//! each waits for the event of the tensor that it is given, and leaves an event behind
//! ([`Timed`]). NCCL sums in the tensor's own type, bf16 included, and gives every process the same
//! bits. Calls only queue work; the first of a communicator may take seconds, and any call may never
//! return once another process has gone, which is for others to notice.

use std::ffi::{CStr, c_char, c_void};
use std::mem::MaybeUninit;
use std::sync::Arc;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaStream};
use candle_core::cuda_backend::cudarc::nccl::result::{self, NcclError};
use candle_core::cuda_backend::cudarc::nccl::sys;
use candle_core::{DType, Error, Result, Tensor, bail};

use super::Gpu;
use crate::kernels::device::opens;
use crate::kernels::timed::Timed;

/// What the loaders of `scripts/cuda-toolkit` open when NCCL is first called.
const LIBRARY: &CStr = c"libnccl.so.2";

/// This process among those that sum together.
pub struct Communicator {
    inner: sys::ncclComm_t,
    stream: Arc<CudaStream>,
}

/// The bytes by which the processes of a new communicator find one another; one of them makes
/// them, all need them.
///
/// # Errors
/// NCCL is not there, or fails.
pub fn new_id() -> Result<Vec<u8>> {
    require()?;
    let id = result::get_uniqueid().map_err(said)?;
    Ok(id
        .internal
        .iter()
        .map(|byte| byte.cast_unsigned())
        .collect())
}

/// Whether NCCL can be called.
fn require() -> Result<()> {
    if option_env!("GENE_BERT_CUDA_LOADERS").is_some() && !opens(LIBRARY) {
        bail!(
            "{} is not found\nhint: it comes with NVIDIA's nvidia-nccl-cu13 from the Python registry, \
             with PyTorch's wheels (nvidia/nccl/lib), or as Debian's libnccl2: put its folder on \
             LD_LIBRARY_PATH",
            LIBRARY.to_string_lossy()
        );
    }
    Ok(())
}

fn said(error: NcclError) -> Error {
    // SAFETY: NCCL answers for any code with a text that stays.
    let text = unsafe { CStr::from_ptr(sys::ncclGetErrorString(error.0)) };
    let text = text.to_string_lossy();
    Error::Msg(format!(
        "{text}\nhint: NCCL_DEBUG=WARN lets NCCL say more; each process needs a GPU of its own, and \
         a network that the others reach (NCCL_SOCKET_IFNAME)"
    ))
}

impl Communicator {
    /// Meets the others of `id` at process `rank` of `world`, which has the device `gpu`; all call it,
    /// and it returns when all have.
    ///
    /// # Errors
    /// NCCL is not there, or fails: for example where two processes have one GPU.
    pub fn open(gpu: usize, rank: usize, world: usize, id: &[u8]) -> Result<Self> {
        require()?;
        let letters: Vec<c_char> = id.iter().map(|byte| byte.cast_signed()).collect();
        let (Ok(internal), Ok(own), Ok(all)) = (
            letters.try_into(),
            i32::try_from(rank),
            i32::try_from(world),
        ) else {
            bail!("process {rank} of {world} and an id of {} bytes", id.len());
        };
        let context = CudaContext::new(gpu).w()?;
        let stream = context.new_stream().w()?;
        // Never destroyed: that could wait for the sums of a process that has gone.
        std::mem::forget(Arc::clone(&stream));
        let mut inner = MaybeUninit::uninit();
        let id = sys::ncclUniqueId { internal };
        // SAFETY: there is room for the communicator, which is only taken out where it was made; the
        // device's context is that of this thread.
        let inner = unsafe {
            result::comm_init_rank(inner.as_mut_ptr(), all, id, own).map_err(said)?;
            inner.assume_init()
        };
        Ok(Self { inner, stream })
    }

    /// Replaces `values` (f32, bf16 or f64) by their sums over all processes.
    ///
    /// # Errors
    /// NCCL or the device fails.
    pub fn sum(&self, mut values: Timed) -> Result<Timed> {
        let count = values.tensor.elem_count();
        if count == 0 {
            return Ok(values);
        }
        let (from, to, dtype) = self.take(&values)?;
        let sum = sys::ncclRedOp_t::ncclSum;
        // SAFETY: the address is that of so many numbers of this type on this process's device.
        unsafe { result::all_reduce(from, to, count, dtype, sum, self.inner, self.raw()) }
            .map_err(said)?;
        values.event = Some(self.stream.record_event(None).w()?);
        Ok(values)
    }

    /// Fills in what the other processes have of `values`: they lie one after the other by rank,
    /// `counts` of each, this one's in their place already.
    ///
    /// # Errors
    /// NCCL or the device fails; counts that do not add up.
    pub fn share(&self, mut values: Timed, counts: &[usize]) -> Result<Timed> {
        let total = values.tensor.elem_count();
        if counts.iter().sum::<usize>() != total {
            bail!("{total} values for the counts {counts:?}");
        }
        let (from, _, dtype) = self.take(&values)?;
        let bytes = values.tensor.dtype().size_in_bytes();
        result::group_start().map_err(said)?;
        let mut place = from as usize;
        for (root, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (from, to) = (place as *const c_void, place as *mut c_void);
            let root = root as i32;
            // SAFETY: the places of all ranks lie side by side in the tensor, as counted above.
            unsafe { result::broadcast(from, to, count, dtype, root, self.inner, self.raw()) }
                .map_err(said)?;
            place += count * bytes;
        }
        result::group_end().map_err(said)?;
        values.event = Some(self.stream.record_event(None).w()?);
        Ok(values)
    }

    /// Lets the stream wait for `values`; gives their address twice, and their type.
    fn take(&self, values: &Timed) -> Result<(*const c_void, *mut c_void, sys::ncclDataType_t)> {
        if let Some(event) = &values.event {
            self.stream.wait(event).w()?;
        }
        let address = Gpu::of(&values.tensor)?.address(&values.tensor)? as usize;
        Ok((
            address as *const c_void,
            address as *mut c_void,
            kind(&values.tensor)?,
        ))
    }

    fn raw(&self) -> sys::cudaStream_t {
        self.stream.cu_stream().cast()
    }

    /// Parts from the others in good order: all call it, with no sum on its way. A communicator that
    /// is only dropped stays open until the process ends, so that one that failed need not wait.
    ///
    /// # Errors
    /// NCCL or the device fails.
    pub fn close(self) -> Result<()> {
        self.stream.synchronize().w()?;
        // SAFETY: it was opened, and nobody has it after this.
        unsafe { result::comm_destroy(self.inner) }.map_err(said)?;
        Ok(())
    }
}

fn kind(tensor: &Tensor) -> Result<sys::ncclDataType_t> {
    Ok(match tensor.dtype() {
        DType::F32 => sys::ncclDataType_t::ncclFloat32,
        DType::F64 => sys::ncclDataType_t::ncclFloat64,
        DType::BF16 => sys::ncclDataType_t::ncclBfloat16,
        other => bail!("processes do not sum tensors of {other:?}"),
    })
}
