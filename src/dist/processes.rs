//! Starts the ranks of a run on this machine and watches them until all have ended.
//!
//! With MPICH and on GPUs each rank is started here, told its place by the variables that
//! [`super::place`] reads; with Open MPI its mpirun does it. Ctrl-C and SIGTERM are passed on once, as SIGTERM, on
//! which the ranks save and end. Once a rank has failed the others end of themselves (see
//! [`super::pulse`]); those that cannot (a stopped one) are killed.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use super::DistError;
use super::pulse::LOST;

/// How long the other ranks may take to end once one has failed.
const GRACE: Duration = Duration::from_secs(4);
const LOOK: Duration = Duration::from_millis(50);

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// What to start.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program of every rank.
    pub program: PathBuf,
    /// Its words.
    pub words: Vec<OsString>,
    /// Ranks on this machine.
    pub num_processes: usize,
    /// Machines.
    pub num_machines: usize,
    /// This machine, 0..num_machines.
    pub machine_rank: usize,
    /// Host of rank 0.
    pub master_addr: String,
    /// Its port; `None`: any that is free.
    pub master_port: Option<u16>,
    /// A file that gets what rank 0 prints, besides the terminal.
    pub log: Option<PathBuf>,
}

/// Who starts the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starter {
    /// This program; the ranks find one another by host and port.
    Own,
    /// Open MPI's mpirun.
    Mpirun,
}

impl Starter {
    /// That of the engine for ranks that compute on GPUs, or on CPUs.
    ///
    /// # Errors
    /// This program was built without it.
    pub fn of_ranks(on_gpus: bool) -> Result<Self, DistError> {
        let asked = "`gene-bert launch` starts several processes".to_owned();
        match on_gpus {
            true if cfg!(feature = "nccl") => Ok(Self::Own),
            true => Err(DistError::no_nccl(asked)),
            false => Self::of_mpi(asked),
        }
    }

    #[cfg(feature = "mpi")]
    fn of_mpi(_: String) -> Result<Self, DistError> {
        Ok(match super::mpi::speaks_pmi() {
            true => Self::Own,
            false => Self::Mpirun,
        })
    }

    #[cfg(not(feature = "mpi"))]
    fn of_mpi(asked: String) -> Result<Self, DistError> {
        Err(DistError::no_mpi(asked))
    }
}

/// How all ranks of this machine have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// 0, or the exit code of the first that failed: [`LOST`] for one that was killed.
    pub code: u8,
    /// Which one that was and how, where one failed.
    pub failure: Option<String>,
    /// Whether the ranks were asked to end by a signal to this process.
    pub interrupted: bool,
}

/// Passes signals to this process on to the ranks from now on.
///
/// # Errors
/// The handler cannot be installed.
pub fn pass_signals_on() -> Result<(), DistError> {
    let handler = || {
        SIGNALS.fetch_add(1, Ordering::SeqCst);
    };
    ctrlc::set_handler(handler).map_err(|error| DistError::Start {
        program: "the handler of signals".to_owned(),
        source: std::io::Error::other(error),
    })
}

/// Starts the ranks and waits for all of them.
///
/// # Errors
/// A rank cannot be started; those that were are ended.
pub fn run(plan: &Plan, starter: Starter) -> Result<Ended, DistError> {
    let mut ranks = Running(Vec::new());
    let mut copies = Vec::new();
    let mut log = plan.log.as_deref().filter(|_| plan.machine_rank == 0);
    for (name, mut command) in commands(plan, starter)? {
        let log = log.take();
        if log.is_some() {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        match command.spawn() {
            Ok(mut child) => {
                if let Some(log) = log {
                    copies.extend(copy_to(log, &mut child));
                }
                ranks.0.push((name, child));
            }
            Err(source) => {
                let program = command.get_program().display().to_string();
                return Err(DistError::Start { program, source });
            }
        }
    }
    let ended = ranks.watch();
    copies.into_iter().for_each(|copy| drop(copy.join()));
    Ok(ended)
}

fn commands(plan: &Plan, starter: Starter) -> Result<Vec<(String, Command)>, DistError> {
    if starter == Starter::Mpirun {
        return Ok(vec![("mpirun".to_owned(), mpirun(plan))]);
    }
    let port = match plan.master_port {
        Some(port) => port,
        None => free_port()?,
    };
    let world = plan.num_processes * plan.num_machines;
    let command = |local: usize| {
        let rank = plan.machine_rank * plan.num_processes + local;
        let mut command = Command::new(&plan.program);
        command.args(&plan.words);
        let variables = [
            ("RANK", rank),
            ("WORLD_SIZE", world),
            ("LOCAL_RANK", local),
            ("LOCAL_WORLD_SIZE", plan.num_processes),
            ("MASTER_PORT", usize::from(port)),
        ];
        command.envs(variables.map(|(name, value)| (name, value.to_string())));
        command.env("MASTER_ADDR", &plan.master_addr);
        by_itself(&mut command);
        (format!("rank {rank}"), command)
    };
    Ok((0..plan.num_processes).map(command).collect())
}

/// More ranks than cores are let through, and none is tied to a core: ranks have several threads.
fn mpirun(plan: &Plan) -> Command {
    let mut command = Command::new("mpirun.openmpi");
    if which("mpirun.openmpi").is_none() {
        command = Command::new("mpirun");
    }
    command.args(["--oversubscribe", "--bind-to", "none", "-n"]);
    command.arg(plan.num_processes.to_string());
    command.arg(&plan.program).args(&plan.words);
    by_itself(&mut command);
    command
}

/// What the first rank prints goes on to the terminal, and to `log` as far as that can be written.
fn copy_to(log: &Path, child: &mut Child) -> [JoinHandle<()>; 2] {
    let folder = log.parent().map(fs::create_dir_all);
    let file = folder.and(Some(OpenOptions::new().create(true).append(true).open(log)));
    let file = Arc::new(Mutex::new(file.and_then(Result::ok)));
    let (out, errors) = (child.stdout.take(), child.stderr.take());
    let of = |from: Option<Box<dyn Read + Send>>, to: Box<dyn Write + Send>| {
        let file = Arc::clone(&file);
        std::thread::spawn(move || {
            if let Some(from) = from {
                copy(from, &file, to);
            }
        })
    };
    [
        of(out.map(|out| Box::new(out) as _), Box::new(io::stdout())),
        of(errors.map(|e| Box::new(e) as _), Box::new(io::stderr())),
    ]
}

fn copy(mut from: impl Read, file: &Mutex<Option<File>>, mut to: impl Write) {
    let mut bytes = [0; 4096];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        let _ = to.write_all(&bytes[..len]).and_then(|()| to.flush());
        if let Some(file) = file.lock().ok().as_mut().and_then(|file| file.as_mut()) {
            let _ = file.write_all(&bytes[..len]);
        }
    }
}

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places = std::env::split_paths(&path).map(|folder| folder.join(program));
    { places }.find(|place| place.is_file())
}

/// In a group of its own, so that Ctrl-C on the terminal reaches it through us only.
fn by_itself(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(not(unix))]
    let _ = command;
}

fn free_port() -> Result<u16, DistError> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let wrong = |source| DistError::Listen {
        address: "any port".to_owned(),
        source,
    };
    listener.map(|address| address.port()).map_err(wrong)
}

/// The ranks that have not been seen to end; killed when dropped.
struct Running(Vec<(String, Child)>);

impl Drop for Running {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Running {
    fn watch(mut self) -> Ended {
        let signals_before = SIGNALS.load(Ordering::SeqCst);
        let mut passed_on = signals_before;
        let mut failure: Option<(u8, Instant)> = None;
        let mut failed = Vec::new();
        while !self.0.is_empty() {
            sleep(LOOK);
            let ended = self.ended();
            let is_late = |at: &Instant| at.elapsed() > GRACE;
            for (name, status) in ended.into_iter().filter(|(_, status)| !status.success()) {
                let (code, how) = describe(status);
                // Those that end because of the first need not be named, but for violent ends: which
                // of them came first is not always seen.
                if failed.is_empty() || status.code().is_none() {
                    failed.push(format!("{name} {how}"));
                }
                failure.get_or_insert((code, Instant::now()));
            }
            while passed_on < SIGNALS.load(Ordering::SeqCst) {
                passed_on += 1;
                self.terminate();
            }
            if failure.as_ref().is_some_and(|(_, at)| is_late(at)) {
                break;
            }
        }
        drop(self); // those that did not end of themselves
        Ended {
            code: failure.map_or(0, |(code, _)| code),
            failure: failure.map(|_| failed.join(", ")),
            interrupted: passed_on > signals_before,
        }
    }

    /// Those that have ended since the last look.
    fn ended(&mut self) -> Vec<(String, ExitStatus)> {
        let mut ended = Vec::new();
        self.0.retain_mut(|(name, child)| match child.try_wait() {
            Ok(Some(status)) => {
                ended.push((name.clone(), status));
                false
            }
            _ => true,
        });
        ended
    }

    /// Asks all to save and end.
    fn terminate(&self) {
        #[cfg(unix)]
        for (_, child) in &self.0 {
            let id = nix::unistd::Pid::from_raw(child.id().cast_signed());
            let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        }
    }
}

fn describe(status: ExitStatus) -> (u8, String) {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return (LOST, format!("was killed by signal {signal}"));
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let code = code.unwrap_or(LOST);
    (code, format!("ended with exit code {code}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run_shell(script: &str, num_processes: usize) -> Ended {
        let plan = Plan {
            program: "/bin/sh".into(),
            words: vec!["-c".into(), script.into()],
            num_processes,
            num_machines: 2,
            machine_rank: 1,
            master_addr: "localhost".to_owned(),
            master_port: Some(7),
            log: None,
        };
        run(&plan, Starter::Own).unwrap()
    }

    #[test]
    fn ranks_are_told_their_place() {
        let script = r#"[ "$WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR:$MASTER_PORT" = "6 3 localhost:7" ] &&
                        [ $RANK = $((3 + LOCAL_RANK)) ]"#;
        let ended = run_shell(script, 3);
        assert_eq!(
            (ended.code, ended.failure, ended.interrupted),
            (0, None, false)
        );
    }

    #[test]
    fn the_first_that_fails_says_how_and_none_is_left() {
        let began = Instant::now();
        let ended = run_shell("[ $RANK = 3 ] && exit 5; sleep 100 & wait", 2);
        assert_eq!(ended.code, 5);
        assert_eq!(
            ended.failure.as_deref(),
            Some("rank 3 ended with exit code 5")
        );
        assert!(began.elapsed() < Duration::from_secs(60));
        let killed = run_shell("kill -9 $$", 1);
        assert_eq!(killed.code, LOST);
        assert_eq!(
            killed.failure.as_deref(),
            Some("rank 1 was killed by signal 9")
        );
    }
}
