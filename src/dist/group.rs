//! The ranks of a run as training sees them: an engine on a thread of its own.
//!
//! Jobs are done in the order in which they are given, which must be the same on all ranks. A sum is
//! started with [`Group::sum`] ([`Group::join`] likewise) and fetched later, so that the next
//! gradients are computed while the last ones travel; the other calls wait. Values stay where they
//! are: on a GPU a sum that has been fetched is one that later work of the device waits for.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use candle_core::{DType, Tensor};

use super::{Alone, Collective, DistError, Wire, places};
use crate::kernels::timed::Timed;

type Done<T> = Sender<Result<T, DistError>>;

enum Job {
    Sum(Timed, Wire, Done<Timed>),
    Join(Timed, Vec<usize>, Done<Timed>),
    Broadcast(Vec<u8>, Done<Vec<u8>>),
    Gather(Vec<u8>, Done<Vec<Vec<u8>>>),
    Barrier(Done<()>),
    Close,
}

/// The ranks of a run.
pub struct Group {
    rank: usize,
    world: usize,
    engine: Mutex<Option<(Sender<Job>, JoinHandle<()>)>>,
}

/// Values that are on their way.
#[must_use]
pub struct Travelling {
    pending: Pending<Timed>,
    dtype: DType,
}

impl Travelling {
    /// Waits until they may be used; on a GPU it is the device's next work that waits.
    ///
    /// # Errors
    /// The engine's.
    pub fn wait(self) -> Result<Tensor, DistError> {
        let arrived = self.pending.wait()?.into_tensor()?;
        Ok(arrived.to_dtype(self.dtype)?)
    }
}

struct Pending<T>(Receiver<Result<T, DistError>>);

impl<T> Pending<T> {
    fn wait(self) -> Result<T, DistError> {
        self.0.recv().map_err(|_| DistError::Ended)?
    }
}

impl Group {
    /// One process; no thread.
    pub fn alone() -> Self {
        Self {
            rank: 0,
            world: 1,
            engine: Mutex::new(None),
        }
    }

    /// The ranks of the engine that `open` makes, on a thread that then belongs to it.
    ///
    /// # Errors
    /// What `open` says; no thread to be had.
    pub fn new<E: Collective>(
        open: impl FnOnce() -> Result<E, DistError> + Send + 'static,
    ) -> Result<Self, DistError> {
        let (jobs, inbox) = channel();
        let (tell, told) = channel();
        let work = move || match open() {
            Ok(mut engine) => {
                let _ = tell.send(Ok((engine.rank(), engine.world())));
                for job in inbox {
                    match job {
                        Job::Close => return drop(engine.close()),
                        job => act(&mut engine, job),
                    }
                }
            }
            Err(error) => drop(tell.send(Err(error))),
        };
        let thread = Builder::new().name("ranks".to_owned()).spawn(work);
        let thread = thread.map_err(|source| DistError::Start {
            program: "the thread that talks with other processes".to_owned(),
            source,
        })?;
        let (rank, world) = told.recv().map_err(|_| DistError::Ended)??;
        Ok(Self {
            rank,
            world,
            engine: Mutex::new(Some((jobs, thread))),
        })
    }

    /// This process, 0..world.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of processes.
    pub fn world(&self) -> usize {
        self.world
    }

    /// Starts to sum `values`, `[N]`, over all ranks, in place where they have their type on the way.
    ///
    /// # Errors
    /// The device fails.
    pub fn sum(&self, values: Tensor, wire: Wire) -> Result<Travelling, DistError> {
        let dtype = values.dtype();
        let rounds = wire == Wire::Bf16 && dtype == DType::F32 && !values.device().is_cpu();
        let values = match rounds {
            true => values.to_dtype(DType::BF16)?,
            false => values,
        };
        let values = Timed::now(values)?;
        let pending = self.give(|done| Job::Sum(values, wire, done));
        Ok(Travelling { pending, dtype })
    }

    /// Starts to put the values of all ranks together, by rank: `counts` of each.
    ///
    /// # Errors
    /// The device fails; `own` is not as long as its count.
    pub fn join(&self, own: &Tensor, counts: Vec<usize>) -> Result<Travelling, DistError> {
        let dtype = own.dtype();
        let total: usize = counts.iter().sum();
        let all = Tensor::zeros(total, dtype, own.device())?;
        let place = places(&counts, self.rank);
        if own.dims() != [place.len()] {
            let problem = format!(
                "{:?} values where {} were announced",
                own.shape(),
                place.len()
            );
            return Err(candle_core::Error::Msg(problem).into());
        }
        if !place.is_empty() {
            all.slice_set(own, 0, place.start)?;
        }
        let all = Timed::now(all)?;
        let pending = self.give(|done| Job::Join(all, counts, done));
        Ok(Travelling { pending, dtype })
    }

    /// The message of rank 0.
    ///
    /// # Errors
    /// The engine's; likewise below.
    pub fn broadcast(&self, message: Vec<u8>) -> Result<Vec<u8>, DistError> {
        self.give(|done| Job::Broadcast(message, done)).wait()
    }

    /// The messages of all ranks, by rank.
    ///
    /// # Errors
    /// The engine's.
    pub fn gather(&self, message: Vec<u8>) -> Result<Vec<Vec<u8>>, DistError> {
        self.give(|done| Job::Gather(message, done)).wait()
    }

    /// Waits until every rank is here.
    ///
    /// # Errors
    /// The engine's.
    pub fn barrier(&self) -> Result<(), DistError> {
        self.give(Job::Barrier).wait()
    }

    fn give<T>(&self, job: impl FnOnce(Done<T>) -> Job) -> Pending<T> {
        let (done, pending) = channel();
        let job = job(done);
        match &*self.engine() {
            // An engine that has ended drops the job, and waiting for it says so.
            Some((jobs, _)) => drop(jobs.send(job)),
            None if self.world == 1 => act(&mut Alone, job),
            None => drop(job),
        }
        Pending(pending)
    }

    /// Closes the engine in good order, which every rank must do. A group that is dropped without
    /// leaves the others alone: so does a process that has failed, and that must not wait for them.
    pub fn close(&self) {
        let engine = self.engine().take();
        if let Some((jobs, thread)) = engine {
            let _ = jobs.send(Job::Close);
            let _ = thread.join();
        }
    }

    fn engine(&self) -> MutexGuard<'_, Option<(Sender<Job>, JoinHandle<()>)>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.world)
    }
}

/// Who gave the job up may be gone: then nobody is told.
fn act(engine: &mut impl Collective, job: Job) {
    match job {
        Job::Sum(values, wire, done) => drop(done.send(engine.sum(values, wire))),
        Job::Join(all, counts, done) => drop(done.send(engine.join(all, &counts))),
        Job::Broadcast(message, done) => drop(done.send(engine.broadcast(message))),
        Job::Gather(message, done) => drop(done.send(engine.gather(&message))),
        Job::Barrier(done) => drop(done.send(engine.barrier())),
        Job::Close => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::buffers::from_vec;

    #[test]
    fn one_process_sums_to_itself_and_an_engine_that_cannot_start_says_why() {
        let alone = Group::alone();
        let values = from_vec(vec![1.0, 2.0], 2).unwrap();
        for arrived in [
            alone.sum(values.clone(), Wire::Bf16),
            alone.join(&values, vec![2]),
        ] {
            let arrived = arrived.unwrap().wait().unwrap();
            assert_eq!(arrived.to_vec1::<f32>().unwrap(), [1.0, 2.0]);
        }
        assert!(alone.join(&values, vec![3]).is_err());
        assert_eq!(alone.gather(vec![7]).unwrap(), [[7]]);
        assert_eq!(alone.broadcast(vec![8]).unwrap(), [8]);
        alone.barrier().unwrap();
        let threaded = Group::new(|| Ok(Alone)).unwrap();
        assert_eq!((threaded.rank(), threaded.world()), (0, 1));
        assert_eq!(threaded.gather(vec![7]).unwrap(), [[7]]);
        threaded.close();
        assert_eq!(threaded.gather(vec![7]).unwrap(), [[7]]);
        let asked = "WORLD_SIZE=2".to_owned();
        let failed = Group::new::<Alone>(|| Err(DistError::no_mpi(asked)));
        assert!(failed.unwrap_err().to_string().contains("--features mpi"));
    }
}
