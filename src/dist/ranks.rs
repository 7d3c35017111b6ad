//! All that a training process has of the others: the engine, the pulse, its place.

#[cfg(any(feature = "mpi", feature = "nccl"))]
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use super::place::Place;
use super::pulse::Pulse;
use super::{DistError, Group};

/// What sums over the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// MPI, between CPUs.
    Mpi,
    /// NCCL, between GPUs; this process has the one of this number.
    Nccl {
        /// The number.
        gpu: usize,
    },
}

/// This process among those of its run.
#[derive(Debug)]
pub struct Ranks {
    group: Group,
    pulse: Option<Pulse>,
    place: Option<Place>,
    gpu: Option<usize>,
}

impl Ranks {
    /// One process.
    pub fn alone() -> Self {
        Self::of(Group::alone())
    }

    /// Ranks that need no pulse, as those of one process.
    pub fn of(group: Group) -> Self {
        Self {
            group,
            pulse: None,
            place: None,
            gpu: None,
        }
    }

    /// This rank and the others of `place`. With MPICH and without its starter the process begins
    /// anew, with the variables by which MPICH finds its own.
    ///
    /// # Errors
    /// A build without this engine; ranks that do not find one another within `limit`.
    pub fn join(place: Place, engine: Engine, limit: Duration) -> Result<Self, DistError> {
        match engine {
            Engine::Mpi => join_by_mpi(place, limit),
            Engine::Nccl { gpu } => join_by_nccl(place, gpu, limit),
        }
    }

    /// This process, 0..world.
    pub fn rank(&self) -> usize {
        self.group.rank()
    }

    /// Number of processes.
    pub fn world(&self) -> usize {
        self.group.world()
    }

    /// Whether this is the process that writes and prints.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// The device of this rank, where the ranks sum on GPUs.
    pub fn gpu(&self) -> Option<usize> {
        self.gpu
    }

    /// The collectives.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Processes of this machine.
    pub fn on_this_machine(&self) -> usize {
        let told = self.place.as_ref().and_then(|place| place.local_world);
        told.unwrap_or_else(|| self.world()).max(1)
    }

    /// From now on what this process prints, unless it is the first, goes to `log`; the last of
    /// faults also to where it went so far.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn print_to(&self, log: &Path) -> std::io::Result<()> {
        if self.is_first() || self.pulse.is_none() {
            return Ok(());
        }
        let voice = redirect(log)?;
        if let Some(pulse) = &self.pulse {
            pulse.speak_to(voice);
        }
        Ok(())
    }

    /// Lets the others know at which step this rank is.
    pub fn at_step(&self, step: u64) {
        if let Some(pulse) = &self.pulse {
            pulse.at_step(step);
        }
    }

    /// Parts from the others: in good order if the run went well, else with the reason.
    pub fn leave(&self, failure: Option<&str>) {
        match (failure, &self.pulse) {
            (Some(why), Some(pulse)) => {
                pulse.failed(why);
                if self.gpu.is_some() {
                    pulse.end_soon();
                }
            }
            (Some(_), None) => {}
            (None, pulse) => {
                // What keeps a rank from this shows as a fault on the others.
                let _ = self.group.barrier();
                self.group.close();
                if let Some(pulse) = pulse {
                    pulse.leave();
                }
            }
        }
    }
}

#[cfg(any(not(feature = "mpi"), not(feature = "nccl")))]
fn asked_by(place: &Place) -> String {
    let Place { world, told_by, .. } = place;
    format!("the environment ({told_by}) says that this is one of {world} processes")
}

#[cfg(not(feature = "nccl"))]
fn join_by_nccl(place: Place, _: usize, _: Duration) -> Result<Ranks, DistError> {
    Err(DistError::no_nccl(asked_by(&place)))
}

#[cfg(feature = "nccl")]
fn join_by_nccl(place: Place, gpu: usize, limit: Duration) -> Result<Ranks, DistError> {
    use super::nccl::Nccl;

    let Some(address) = place.meeting.clone() else {
        let told_by = place.told_by;
        return Err(DistError::NoMaster { told_by });
    };
    let pulse = meet(&place, &address, limit)?;
    let mail = match place.rank {
        0 => pulse.mail_of_first(place.world),
        _ => pulse.mail_of_other(&format!("{}:{}", address.0, address.1))?,
    };
    let own = place.clone();
    let group = Group::new(move || Nccl::open(&own, gpu, mail));
    // The others wait for this one, and cannot know why.
    let group = group.inspect_err(|error| pulse.failed(&error.to_string()))?;
    Ok(Ranks {
        group,
        pulse: Some(pulse),
        place: Some(place),
        gpu: Some(gpu),
    })
}

#[cfg(not(feature = "mpi"))]
fn join_by_mpi(place: Place, _: Duration) -> Result<Ranks, DistError> {
    Err(DistError::no_mpi(asked_by(&place)))
}

#[cfg(feature = "mpi")]
fn join_by_mpi(place: Place, limit: Duration) -> Result<Ranks, DistError> {
    use super::mpi::{self, Mpi};

    let master = place.master.clone();
    if let Some((host, port)) = master.as_ref().filter(|_| mpi::speaks_pmi()) {
        begin_anew(&place, host, *port)?;
    }
    let mut pulse = match &master {
        Some(address) => Some(meet(&place, address, limit)?),
        None => None,
    };
    let own = place.clone();
    let group = Group::new(move || Mpi::open(&own))?;
    if pulse.is_none() {
        pulse = Some(meet_by(&group, limit)?);
    }
    Ok(Ranks {
        group,
        pulse,
        place: Some(place),
        gpu: None,
    })
}

/// Rank 0 opens the port at which the others have been told to look for it.
#[cfg(any(feature = "mpi", feature = "nccl"))]
fn meet(place: &Place, (host, port): &(String, u16), limit: Duration) -> Result<Pulse, DistError> {
    if place.rank > 0 {
        return Pulse::other(place.rank, &[format!("{host}:{port}")], limit);
    }
    let listener = TcpListener::bind(("0.0.0.0", *port));
    let listener = listener.map_err(|source| DistError::Listen {
        address: format!("port {port}"),
        source,
    })?;
    Pulse::first(listener, place.world, limit)
}

/// Rank 0 opens any port and tells the others over the engine.
#[cfg(feature = "mpi")]
fn meet_by(group: &Group, limit: Duration) -> Result<Pulse, DistError> {
    let wrong = |source| DistError::Listen {
        address: "any port".to_owned(),
        source,
    };
    if group.rank() > 0 {
        let told = group.broadcast(Vec::new())?;
        let told = String::from_utf8_lossy(&told).into_owned();
        let addresses: Vec<String> = told.split(' ').map(str::to_owned).collect();
        return Pulse::other(group.rank(), &addresses, limit);
    }
    let listener = TcpListener::bind("0.0.0.0:0").map_err(wrong)?;
    let port = listener.local_addr().map_err(wrong)?.port();
    let host = ::mpi::environment::processor_name().unwrap_or_default();
    let host = host.trim_end_matches('\0');
    group.broadcast(format!("{host}:{port} 127.0.0.1:{port}").into_bytes())?;
    Pulse::first(listener, group.world(), limit)
}

/// Replaces this process by itself with the variables by which MPICH finds rank 0's table.
#[cfg(feature = "mpi")]
fn begin_anew(place: &Place, host: &str, port: u16) -> Result<(), DistError> {
    use std::os::unix::process::CommandExt;

    const PORT: &str = "PMI_PORT";
    const TRANSPORTS: &str = "UCX_TLS";
    if std::env::var_os(PORT).is_some() {
        return Ok(());
    }
    // Reading another process's memory (cma) is fatal to the library where that process has died,
    // and nobody could say any more who it was.
    let transports = match place.local_world == Some(place.world) {
        true => "sysv,self",
        false => "^cma",
    };
    let transports = std::env::var_os(TRANSPORTS).unwrap_or_else(|| transports.into());
    let program = std::env::current_exe().unwrap_or_default();
    let source = std::process::Command::new(&program)
        .args(std::env::args_os().skip(1))
        .env(PORT, format!("{host}:{port}"))
        .env("PMI_ID", place.rank.to_string())
        .env(TRANSPORTS, transports)
        .exec();
    let program = program.display().to_string();
    Err(DistError::Start { program, source })
}

/// Standard output and error go to `log`; gives what standard error was.
#[cfg(unix)]
fn redirect(log: &Path) -> std::io::Result<std::fs::File> {
    use std::os::fd::AsFd;

    use nix::unistd::{dup2_stderr, dup2_stdout};

    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)?;
    let voice = std::io::stderr().as_fd().try_clone_to_owned()?;
    dup2_stdout(&file)?;
    dup2_stderr(&file)?;
    Ok(voice.into())
}

#[cfg(not(unix))]
fn redirect(_: &Path) -> std::io::Result<std::fs::File> {
    Err(std::io::ErrorKind::Unsupported.into())
}
