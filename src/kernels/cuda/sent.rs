//! Lists of a batch on a device: sent ahead in a stream of their own, or in that of the step.
//!
//! An [`Uploader`] copies all lists of a batch as one block. Three events keep order, and only the
//! last one is ever waited for by the host, in the uploader's thread: the step's stream waits for the
//! copy ([`Arrival`]); the block goes back to the uploader's stream, which allocated it, when that has
//! waited for all that the step's stream was given while anybody had the block ([`Block`]'s drop); and
//! pinned memory is written again, or freed, after the copy that reads it ([`Pinned`]; cudarc's own event
//! for that is not recorded where its tracking is off, as it is here).

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaSlice, CudaStream, DevicePtr, PinnedHostSlice, result,
};
use candle_core::{Device, Result, Tensor};

use super::{Argument, Gpu};
use crate::kernels::lists::Numbers;

/// Pinned blocks that are written in turn.
const NUM_PINNED: usize = 3;
/// Lists begin at multiples of so many numbers, and pinned blocks have a multiple of more.
const STEP: usize = 64;
const PINNED_STEP: usize = 1 << 16;

/// Lists of a batch on a device.
#[derive(Debug)]
enum Block {
    /// In memory of the uploader's stream, read by the device's own.
    Sent(CudaSlice<u32>, Gpu),
    /// In memory of the device's own stream.
    Own(Tensor),
}

impl Block {
    fn address(&self) -> Result<u64> {
        match self {
            Self::Sent(memory, _) => Ok(memory.device_ptr(memory.stream()).0),
            Self::Own(tensor) => Gpu::of(tensor)?.address(tensor),
        }
    }

    fn device(&self) -> &Device {
        match self {
            Self::Sent(_, gpu) => &gpu.device,
            Self::Own(tensor) => tensor.device(),
        }
    }
}

/// Memory is freed in its own stream, which may not come to that before the other is done with it.
impl Drop for Block {
    fn drop(&mut self) {
        if let Self::Sent(memory, gpu) = self
            && let Ok(event) = gpu.inner.cuda_stream().record_event(None)
        {
            let _ = memory.stream().wait(&event);
        }
    }
}

/// Where numbers lie on a device.
#[derive(Debug, Clone)]
pub(in crate::kernels) struct There {
    block: Arc<Block>,
    /// The first of them.
    at: usize,
}

/// Where each of `lists` begins in a block of all, and how many numbers that has. Empty ones have no
/// place.
fn places(lists: &[&mut Numbers]) -> (Vec<Option<usize>>, usize) {
    let mut end = 0;
    let place = |list: &&mut Numbers| {
        let at = (!list.is_empty()).then_some(end);
        end += list.len().next_multiple_of(STEP);
        at
    };
    (lists.iter().map(place).collect(), end)
}

fn write(block: &mut [u32], lists: &[&mut Numbers], places: &[Option<usize>]) {
    for (list, at) in lists.iter().zip(places) {
        if let Some(at) = *at {
            block[at..at + list.len()].copy_from_slice(list);
        }
    }
}

fn say_where(lists: Vec<&mut Numbers>, places: &[Option<usize>], block: Block) {
    let block = Arc::new(block);
    for (list, at) in lists.into_iter().zip(places) {
        list.there = at.map(|at| There {
            block: Arc::clone(&block),
            at,
        });
    }
}

/// Sends `lists` in the device's own stream.
pub(in crate::kernels) fn send_in_order(device: &Device, lists: Vec<&mut Numbers>) -> Result<()> {
    let (places, count) = places(&lists);
    let mut all = vec![0; count];
    write(&mut all, &lists, &places);
    let block = Block::Own(Gpu::new(device)?.upload(&all)?);
    say_where(lists, &places, block);
    Ok(())
}

/// Sends lists to a device in a stream of its own.
#[derive(Debug)]
pub(in crate::kernels) struct Uploader {
    gpu: Gpu,
    stream: Arc<CudaStream>,
    pinned: VecDeque<Pinned>,
}

/// Pinned memory, and the copy that last read it.
#[derive(Debug)]
struct Pinned {
    memory: PinnedHostSlice<u32>,
    copied: Option<Arc<CudaEvent>>,
}

impl Pinned {
    /// Waits for the copy.
    fn settle(&mut self) -> Result<()> {
        match self.copied.take() {
            Some(event) => event.synchronize().w(),
            None => Ok(()),
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = self.settle();
    }
}

/// When lists have arrived.
#[derive(Debug)]
pub(in crate::kernels) struct Arrival {
    event: Arc<CudaEvent>,
    gpu: Gpu,
}

impl Arrival {
    /// Lets the device's own stream wait.
    pub(in crate::kernels) fn wait(&self) -> Result<()> {
        self.gpu.inner.cuda_stream().wait(&self.event).w()
    }
}

impl Uploader {
    pub(in crate::kernels) fn new(device: &Device) -> Result<Self> {
        let gpu = Gpu::new(device)?;
        let stream = gpu.inner.cuda_stream().context().new_stream().w()?;
        Ok(Self {
            gpu,
            stream,
            pinned: VecDeque::new(),
        })
    }

    /// Sends `lists`, which then say where they lie.
    pub(in crate::kernels) fn send(&mut self, lists: Vec<&mut Numbers>) -> Result<Arrival> {
        let (places, count) = places(&lists);
        let count = count.max(1);
        let mut pinned = self.pinned(count)?;
        pinned.settle()?;
        let numbers = &mut pinned.memory.as_mut_slice().w()?[..count];
        write(numbers, &lists, &places);
        // SAFETY: the copy below writes what is read of it.
        let memory = unsafe { self.stream.alloc::<u32>(count) }.w()?;
        let address = memory.device_ptr(&self.stream).0;
        // SAFETY: the address is that of as many numbers of this stream; the pinned ones stay as they
        // are until the event below has passed.
        unsafe { result::memcpy_htod_async(address, numbers, self.stream.cu_stream()) }.w()?;
        let event = Arc::new(self.stream.record_event(None).w()?);
        pinned.copied = Some(Arc::clone(&event));
        self.pinned.push_back(pinned);
        say_where(lists, &places, Block::Sent(memory, self.gpu.clone()));
        Ok(Arrival {
            event,
            gpu: self.gpu.clone(),
        })
    }

    /// Pinned memory for so many numbers, which an earlier copy may still read.
    fn pinned(&mut self, count: usize) -> Result<Pinned> {
        let oldest = match self.pinned.len() < NUM_PINNED {
            true => None,
            false => self.pinned.pop_front(),
        };
        match oldest.filter(|pinned| pinned.memory.len() >= count) {
            Some(pinned) => Ok(pinned),
            None => {
                let context = self.stream.context();
                let count = count.next_multiple_of(PINNED_STEP);
                // SAFETY: numbers are written before they are read.
                let memory = unsafe { context.alloc_pinned_with_flags(count, 0) }.w()?;
                let copied = None;
                Ok(Pinned { memory, copied })
            }
        }
    }
}

/// Numbers on a device, there until this is dropped.
#[derive(Debug)]
pub(super) struct Lent {
    pub(super) address: u64,
    /// What was sent for this, where nobody had sent them.
    _sent: Option<Tensor>,
}

impl Lent {
    pub(super) fn at(&self) -> Argument {
        Argument::Word(self.address)
    }
}

impl Gpu {
    /// `numbers` on this device, for a kernel that is launched while `numbers` and this are there.
    pub(super) fn lend(&self, numbers: &Numbers) -> Result<Lent> {
        match &numbers.there {
            Some(there) if there.block.device().same_device(&self.device) => Ok(Lent {
                address: there.block.address()? + (there.at * size_of::<u32>()) as u64,
                _sent: None,
            }),
            _ => {
                let tensor = self.upload(numbers)?;
                Ok(Lent {
                    address: self.address(&tensor)?,
                    _sent: Some(tensor),
                })
            }
        }
    }
}
