//! Numbers on their way to a device through pinned memory, so that the host goes on at once: a copy
//! from other memory waits until the device has come to it.
//!
//! A [`Ring`] of pinned bytes is written round and round. Each copy is followed by an event in the
//! device's stream; bytes are written again when the event of the copy that reads them has passed.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Mutex, OnceLock};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, DeviceRepr, PinnedHostSlice, result};
use candle_core::{DType, Result, Tensor, bail};

use super::Gpu;

/// Bytes of a ring; more than that goes in pieces of so many.
const RING_BYTES: usize = 32 << 20;
/// Copies begin at multiples of this.
const STEP: usize = 256;

struct Ring {
    memory: PinnedHostSlice<u8>,
    head: usize,
    /// What copies still read, the oldest first.
    flying: VecDeque<(Range<usize>, CudaEvent)>,
}

impl Ring {
    fn new(gpu: &Gpu) -> Result<Self> {
        let context = gpu.inner.cuda_stream().context().clone();
        // SAFETY: bytes are written before they are read.
        let memory = unsafe { context.alloc_pinned_with_flags(RING_BYTES, 0) }.w()?;
        Ok(Self {
            memory,
            head: 0,
            flying: VecDeque::new(),
        })
    }

    /// Copies `bytes` to `address`.
    fn copy(&mut self, gpu: &Gpu, bytes: &[u8], address: u64) -> Result<()> {
        let stream = gpu.inner.cuda_stream();
        let range = place(self.head, bytes.len());
        while let Some((_, event)) = self.flying.front() {
            let in_the_way = self.flying.iter().any(|(other, _)| overlap(other, &range));
            if in_the_way {
                event.synchronize().w()?;
            } else if !event.is_complete() {
                break;
            }
            self.flying.pop_front();
        }
        let memory = self.memory.as_mut_slice().w()?;
        let pinned = &mut memory[range.clone()];
        pinned.copy_from_slice(bytes);
        // SAFETY: the address is that of as many bytes on the device; the pinned ones stay as they
        // are until the event below has passed.
        unsafe { result::memcpy_htod_async(address, pinned, stream.cu_stream()) }.w()?;
        let event = stream.record_event(None).w()?;
        self.head = range.end.next_multiple_of(STEP);
        self.flying.push_back((range, event));
        Ok(())
    }
}

/// Where so many bytes go that follow `head`.
fn place(head: usize, count: usize) -> Range<usize> {
    match head + count <= RING_BYTES {
        true => head..head + count,
        false => 0..count,
    }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

impl Gpu {
    pub(super) fn upload(&self, numbers: &[u32]) -> Result<Tensor> {
        self.upload_as(numbers, DType::U32)
    }

    pub(super) fn upload_floats(&self, numbers: &[f32]) -> Result<Tensor> {
        self.upload_as(numbers, DType::F32)
    }

    pub(super) fn upload_words(&self, numbers: &[u64]) -> Result<Tensor> {
        self.upload_as(numbers, DType::I64)
    }

    fn upload_as<T: DeviceRepr>(&self, numbers: &[T], dtype: DType) -> Result<Tensor> {
        static RINGS: OnceLock<Mutex<HashMap<usize, Ring>>> = OnceLock::new();
        let tensor = self.fresh(numbers.len(), dtype)?;
        if numbers.is_empty() {
            return Ok(tensor);
        }
        let address = self.address(&tensor)?;
        let Ok(mut rings) = RINGS.get_or_init(Mutex::default).lock() else {
            bail!("a thread failed while it copied numbers to a GPU");
        };
        let key = self.inner.cuda_stream().cu_stream() as usize;
        let ring = match rings.entry(key) {
            Entry::Occupied(ring) => ring.into_mut(),
            Entry::Vacant(place) => place.insert(Ring::new(self)?),
        };
        // SAFETY: plain numbers, seen as the bytes that they are.
        let bytes = unsafe {
            std::slice::from_raw_parts(numbers.as_ptr().cast::<u8>(), size_of_val(numbers))
        };
        for (i, piece) in bytes.chunks(RING_BYTES).enumerate() {
            ring.copy(self, piece, address + (i * RING_BYTES) as u64)?;
        }
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_goes_round_and_never_over_its_end() {
        assert_eq!(place(0, 10), 0..10);
        assert_eq!(place(RING_BYTES - 10, 10), RING_BYTES - 10..RING_BYTES);
        assert_eq!(place(RING_BYTES - 9, 10), 0..10);
        assert!(overlap(&(0..5), &(4..9)) && !overlap(&(0..5), &(5..9)));
    }
}
