//! The engine over MPI (Open MPI, MPICH), for CPUs.
//!
//! Made and used by one thread, that of the [`super::Group`]. A sum in bf16 is put together from
//! MPI's own collectives, as MPI has no such type: each rank gets its part of everybody's values
//! (all-to-all), adds them in f32, and all get the rounded sums (all-gather): the bytes of a ring.

use ::mpi::collective::SystemOperation;
use ::mpi::datatype::PartitionMut;
use ::mpi::environment::{Universe, initialize_with_threading, library_version};
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::{Communicator, CommunicatorCollectives, Root};
use ::mpi::{Count, Threading};

use super::place::Place;
use super::{Collective, DistError, Wire, bf16, places};
use crate::buffers;
use crate::kernels::timed::Timed;

/// The program's MPI world; finalised when dropped.
pub struct Mpi {
    world: SimpleCommunicator,
    spare: Vec<f32>,
    _universe: Universe,
}

/// Whether the program was built with MPICH or one of its family, whose ranks can find one another
/// by [`super::pmi`].
pub fn speaks_pmi() -> bool {
    name().contains("MPICH")
}

/// The first line of what the library calls itself.
pub fn name() -> String {
    let version = library_version().unwrap_or_default();
    let line = version.trim_end_matches('\0').lines().next().unwrap_or("");
    line.split(',').next().unwrap_or("").replace('\t', " ")
}

fn engine(problem: impl Into<String>) -> DistError {
    let problem = problem.into();
    DistError::Engine {
        engine: "MPI",
        problem,
    }
}

/// Where the messages of all ranks come to lie, one after the other: how long each is, where it
/// begins, and how long all are.
fn parts(
    lengths: impl Iterator<Item = usize>,
) -> Result<(Vec<Count>, Vec<Count>, usize), DistError> {
    let too_long = |_| engine("the messages of all ranks together exceed 2^31 values");
    let (mut counts, mut places, mut total) = (Vec::new(), Vec::new(), 0);
    for length in lengths {
        counts.push(Count::try_from(length).map_err(too_long)?);
        places.push(Count::try_from(total).map_err(too_long)?);
        total += length;
    }
    Ok((counts, places, total))
}

impl Mpi {
    /// Starts MPI; `place` is what the environment says of this process.
    ///
    /// # Errors
    /// MPI is running already, or has another number of ranks.
    pub fn open(place: &Place) -> Result<Self, DistError> {
        let (universe, _) = initialize_with_threading(Threading::Funneled)
            .ok_or_else(|| engine("is already in use in this process"))?;
        let world = universe.world();
        let found = world.size() as usize;
        if found != place.world || world.rank() as usize != place.rank {
            return Err(DistError::World {
                library: name(),
                found,
                expected: place.world,
                hint: "start the processes with the mpirun of this library, or with srun --mpi=pmix \
                       (Open MPI) or --mpi=pmi2 (MPICH); a build with MPICH (MPICC=mpicc.mpich cargo \
                       install …) also runs under torchrun, Ray and Kubernetes",
            });
        }
        Ok(Self {
            world,
            spare: Vec::new(),
            _universe: universe,
        })
    }

    fn sum_f32(&mut self, values: &mut [f32]) {
        self.spare.resize(values.len(), 0.0);
        let sum = SystemOperation::sum();
        self.world.all_reduce_into(values, &mut self.spare[..], sum);
        values.copy_from_slice(&self.spare);
    }

    fn sum_bf16(&mut self, values: &mut [f32]) {
        let part = values.len().div_ceil(self.world()); // of one rank
        let mut mine: Vec<u16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
        mine.resize(part * self.world(), 0);
        let mut theirs = vec![0u16; mine.len()]; // [world, part]
        self.world.all_to_all_into(&mine[..], &mut theirs[..]);
        let sum = |at: usize| {
            let of_all = theirs.iter().skip(at).step_by(part.max(1));
            of_all.map(|&value| bf16::to_f32(value)).sum::<f32>()
        };
        let sums: Vec<u16> = (0..part).map(|at| bf16::from_f32(sum(at))).collect();
        self.world.all_gather_into(&sums[..], &mut mine[..]);
        for (value, &sum) in values.iter_mut().zip(&mine) {
            *value = bf16::to_f32(sum);
        }
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn world(&self) -> usize {
        self.world.size() as usize
    }

    fn sum(&mut self, values: Timed, wire: Wire) -> Result<Timed, DistError> {
        buffers::write(values.tensor(), |values| match wire {
            Wire::F32 => self.sum_f32(values),
            Wire::Bf16 => self.sum_bf16(values),
        })?;
        Ok(values)
    }

    fn join(&mut self, all: Timed, counts: &[usize]) -> Result<Timed, DistError> {
        let own = places(counts, self.rank());
        let (counts, starts, _) = parts(counts.iter().copied())?;
        buffers::write(all.tensor(), |all| {
            let own = all[own].to_vec();
            let mut parts = PartitionMut::new(all, &counts[..], &starts[..]);
            self.world.all_gather_varcount_into(&own[..], &mut parts);
        })?;
        Ok(all)
    }

    fn broadcast(&mut self, mut message: Vec<u8>) -> Result<Vec<u8>, DistError> {
        let root = self.world.process_at_rank(0);
        let mut len = message.len() as u64;
        root.broadcast_into(&mut len);
        message.resize(len as usize, 0);
        root.broadcast_into(&mut message[..]);
        Ok(message)
    }

    fn gather(&mut self, message: &[u8]) -> Result<Vec<Vec<u8>>, DistError> {
        let mut lengths = vec![0u64; self.world()];
        self.world
            .all_gather_into(&(message.len() as u64), &mut lengths[..]);
        let (counts, places, total) = parts(lengths.iter().map(|&length| length as usize))?;
        let mut all = vec![0u8; total];
        let mut parts = PartitionMut::new(&mut all[..], &counts[..], &places[..]);
        self.world.all_gather_varcount_into(message, &mut parts);
        let mut rest = all.as_slice();
        Ok(lengths
            .iter()
            .map(|&length| {
                let (message, others) = rest.split_at(length as usize);
                rest = others;
                message.to_vec()
            })
            .collect())
    }

    fn barrier(&mut self) -> Result<(), DistError> {
        self.world.barrier();
        Ok(())
    }

    /// Dropping the universe ends MPI.
    fn close(self) -> Result<(), DistError> {
        Ok(())
    }
}
