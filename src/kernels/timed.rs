//! Tensors that go from one stream of a GPU to another.
//!
//! What a device computes is computed later than it is asked for, and streams know nothing of one
//! another; cudarc's own bookkeeping of that is off (see [`super::device`]). A [`Timed`] tensor
//! carries an event: whoever takes it over lets his stream wait for that, and no host waits. On the
//! CPU there is nothing to wait for.

#[cfg(feature = "nccl")]
use candle_core::Device;
#[cfg(feature = "nccl")]
use candle_core::cuda_backend::{WrapErr, cudarc::driver::CudaEvent};
use candle_core::{Result, Tensor};

/// A tensor that is whole once the work has been done that was given before.
#[derive(Debug)]
pub struct Timed {
    pub(super) tensor: Tensor,
    /// Where that work ends; `None`: the tensor's own stream has waited for it.
    #[cfg(feature = "nccl")]
    pub(super) event: Option<CudaEvent>,
}

impl Timed {
    /// `tensor` as the work leaves it that its device has been given so far.
    ///
    /// # Errors
    /// The device fails.
    pub fn now(tensor: Tensor) -> Result<Self> {
        #[cfg(feature = "nccl")]
        let event = match tensor.device() {
            Device::Cuda(gpu) => Some(gpu.cuda_stream().record_event(None).w()?),
            _ => None,
        };
        Ok(Self {
            tensor,
            #[cfg(feature = "nccl")]
            event,
        })
    }

    /// The tensor, which may not be whole yet where it lies on a GPU.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The tensor, for work of its own stream from now on; the host does not wait.
    ///
    /// # Errors
    /// The device fails.
    #[cfg_attr(not(feature = "nccl"), allow(unused_mut))]
    pub fn into_tensor(mut self) -> Result<Tensor> {
        #[cfg(feature = "nccl")]
        self.settle()?;
        Ok(self.tensor.clone())
    }

    #[cfg(feature = "nccl")]
    fn settle(&mut self) -> Result<()> {
        match (self.event.take(), self.tensor.device()) {
            (Some(event), Device::Cuda(gpu)) => gpu.cuda_stream().wait(&event).w(),
            _ => Ok(()),
        }
    }
}

/// Memory goes back to its own stream, which may not use it again before the other is done with it.
#[cfg(feature = "nccl")]
impl Drop for Timed {
    fn drop(&mut self) {
        let _ = self.settle();
    }
}
