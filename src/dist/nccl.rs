//! The engine over NCCL, for GPUs: one process each.
//!
//! Values never leave the devices; what NCCL does of them is in [`crate::kernels::nccl`]. Messages
//! between the hosts go by [`Mail`], so that none of them waits for a device, and so does at the
//! start the id by which the GPUs find one another. Made and used by one thread, that of the
//! [`super::Group`].

use super::mail::Mail;
use super::place::Place;
use super::{Collective, DistError, Wire};
use crate::kernels::nccl::{Communicator, new_id};
use crate::kernels::timed::Timed;

/// This process's GPU among those of the run.
pub struct Nccl {
    rank: usize,
    world: usize,
    communicator: Communicator,
    mail: Mail,
}

impl Nccl {
    /// Meets the others with the device `gpu`.
    ///
    /// # Errors
    /// NCCL is not there or fails.
    pub fn open(place: &Place, gpu: usize, mut mail: Mail) -> Result<Self, DistError> {
        let Place { rank, world, .. } = *place;
        let own = match rank {
            0 => new_id().map_err(said)?,
            _ => Vec::new(),
        };
        let id = mail.broadcast(own)?;
        let communicator = Communicator::open(gpu, rank, world, &id).map_err(said)?;
        Ok(Self {
            rank,
            world,
            communicator,
            mail,
        })
    }
}

fn said(error: candle_core::Error) -> DistError {
    DistError::Engine {
        engine: "NCCL",
        problem: error.to_string(),
    }
}

impl Collective for Nccl {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn sum(&mut self, values: Timed, _: Wire) -> Result<Timed, DistError> {
        self.communicator.sum(values).map_err(said)
    }

    fn join(&mut self, all: Timed, counts: &[usize]) -> Result<Timed, DistError> {
        self.communicator.share(all, counts).map_err(said)
    }

    fn broadcast(&mut self, message: Vec<u8>) -> Result<Vec<u8>, DistError> {
        self.mail.broadcast(message)
    }

    fn gather(&mut self, message: &[u8]) -> Result<Vec<Vec<u8>>, DistError> {
        self.mail.gather(message)
    }

    fn barrier(&mut self) -> Result<(), DistError> {
        self.mail.gather(&[]).map(drop)
    }

    fn close(self) -> Result<(), DistError> {
        self.communicator.close().map_err(said)
    }
}
