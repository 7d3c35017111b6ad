//! The times at which a device comes to places in its stream.

use std::sync::Arc;
use std::time::Duration;

use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream};

/// A device's stream, in which moments are marked.
pub(in crate::kernels) struct Clock(Arc<CudaStream>);

/// Where the work ends that the stream had been given.
pub(in crate::kernels) struct Moment(CudaEvent);

impl Clock {
    /// `None`: not a CUDA device.
    pub(in crate::kernels) fn of(device: &Device) -> Option<Self> {
        Some(Self(device.as_cuda_device().ok()?.cuda_stream()))
    }

    /// `None` where the device fails, which whatever it does next will say.
    pub(in crate::kernels) fn now(&self) -> Option<Moment> {
        let event = self.0.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        event.ok().map(Moment)
    }
}

impl Moment {
    /// How much later `end` was; waits for it. `None` where the device fails.
    pub(in crate::kernels) fn until(&self, end: &Self) -> Option<Duration> {
        let milliseconds = f64::from(self.0.elapsed_ms(&end.0).ok()?);
        Duration::try_from_secs_f64(milliseconds / 1e3).ok()
    }
}
