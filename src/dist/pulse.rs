//! Whether the other ranks live: every rank keeps a TCP connection to rank 0, over which both sides
//! say once a second at which step they are.
//!
//! An engine waits for ever for a rank that is killed, stopped or cut off. Here a closed connection,
//! or silence for longer than the time limit, is a *fault*: rank 0 tells the others which rank it
//! was, and every process ends at once with exit code [`LOST`]. A rank that fails of itself says why
//! first. Time during which this very process was suspended (a laptop that slept) does not count.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::DistError;
use super::mail::{Line, Mail};
use super::pmi::Table;

/// Exit code of a process whose run has lost another one.
pub const LOST: u8 = 3;
/// Exit code of a process whose run has ended because of an error on another one.
const FAILED: u8 = 1;
/// Between two beats, and between two looks at the others'.
const BEAT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(250);
/// A look that comes so much later than planned means that this process was suspended.
const SUSPENDED: Duration = Duration::from_secs(3);
/// How long a process that was told of a failure lets its own error come out first.
const GRACE: Duration = Duration::from_secs(1);

/// One line of JSON on the connection.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// Whose connection this is.
    Hello { rank: usize },
    /// The same of one that is for other messages.
    Mail { rank: usize },
    /// Alive, at this step.
    Beat { step: u64 },
    /// An error has ended this rank.
    Failed { why: String },
    /// Every rank is to end with this exit code.
    Fault { why: String, code: u8 },
    /// This rank has finished.
    Bye,
}

/// Another rank, as this one sees it.
#[derive(Default)]
struct Peer {
    stream: Option<TcpStream>,
    heard: Option<Instant>,
    lost: bool,
    failed: Option<String>,
    left: bool,
}

struct Shared {
    rank: usize,
    limit: Duration,
    step: AtomicU64,
    /// Whether this rank has finished.
    leaving: AtomicBool,
    /// By rank; rank 0's alone where this is another.
    peers: Mutex<Vec<Peer>>,
    /// Where faults are said, if not on standard error.
    voice: Mutex<Option<std::fs::File>>,
    /// Connections for other messages that have come to rank 0.
    mail: Mutex<Vec<(usize, Line)>>,
    mail_came: Condvar,
}

impl std::fmt::Debug for Pulse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pulse of rank {}", self.0.rank)
    }
}

/// This rank's end of the connections.
pub struct Pulse(Arc<Shared>);

impl Pulse {
    /// Rank 0's: waits for the others at `listener`, and answers MPICH's questions there.
    /// Ranks that do not come, or fall silent, for `limit` are lost.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn first(listener: TcpListener, world: usize, limit: Duration) -> Result<Self, DistError> {
        let shared = Shared::new(0, world, limit);
        let table = Arc::new(Table::new(world));
        let own = Arc::clone(&shared);
        spawn("door", move || {
            for stream in listener.incoming().flatten() {
                let (shared, table) = (Arc::clone(&own), Arc::clone(&table));
                let _ = spawn("guest", move || receive(&shared, &table, stream));
            }
        })?;
        Self::beat(shared)
    }

    /// Another rank's: connects to rank 0 at `addresses`, whichever answers first, within `limit`.
    ///
    /// # Errors
    /// Rank 0 does not answer; no thread to be had.
    pub fn other(rank: usize, addresses: &[String], limit: Duration) -> Result<Self, DistError> {
        let began = Instant::now();
        let stream = loop {
            let source = match connect(addresses) {
                Ok(stream) => break stream,
                Err(error) => error,
            };
            if began.elapsed() > limit {
                return Err(DistError::Unreachable {
                    rank,
                    address: addresses.join(" or "),
                    seconds: limit.as_secs(),
                    source,
                });
            }
            thread::sleep(LOOK);
        };
        let shared = Shared::new(rank, 1, limit);
        shared.peers()[0].here(&stream);
        say(&stream, &Word::Hello { rank });
        let own = Arc::clone(&shared);
        spawn("listener", move || listen(&own, 0, BufReader::new(stream)))?;
        Self::beat(shared)
    }

    fn beat(shared: Arc<Shared>) -> Result<Self, DistError> {
        let own = Arc::clone(&shared);
        spawn("pulse", move || watch(&own))?;
        Ok(Self(shared))
    }

    /// Rank 0's connections for other messages: waits for those of all the others. A rank that does
    /// not come is lost.
    pub fn mail_of_first(&self, world: usize) -> Mail {
        let shared = &self.0;
        let mut here = shared.mail.lock().unwrap_or_else(PoisonError::into_inner);
        while here.len() + 1 < world {
            let came = shared.mail_came.wait(here);
            here = came.unwrap_or_else(PoisonError::into_inner);
        }
        let mut lines = std::mem::take(&mut *here);
        lines.sort_by_key(|(rank, _)| *rank);
        let lines = lines.into_iter().map(|(_, line)| line);
        Mail::new(0, lines.collect(), 2 * shared.limit)
    }

    /// Another rank's connection for other messages, to rank 0 at `address`.
    ///
    /// # Errors
    /// Rank 0 does not answer any more.
    pub fn mail_of_other(&self, address: &str) -> Result<Mail, DistError> {
        let Shared { rank, limit, .. } = *self.0;
        let stream = connect(&[address.to_owned()]).map_err(|source| DistError::Unreachable {
            rank,
            address: address.to_owned(),
            seconds: 2 * BEAT.as_secs(),
            source,
        })?;
        say(&stream, &Word::Mail { rank });
        Ok(Mail::new(rank, vec![Line::new(stream)], 2 * limit))
    }

    /// Says at which step this rank is.
    pub fn at_step(&self, step: u64) {
        self.0.step.store(step, Ordering::Relaxed);
    }

    /// Where faults are said from now on, in place of standard error.
    pub fn speak_to(&self, voice: std::fs::File) {
        *self.0.voice.lock().unwrap_or_else(PoisonError::into_inner) = Some(voice);
    }

    /// Tells the others why this rank has failed, so that they end, too.
    pub fn failed(&self, why: &str) {
        let why = why.to_owned();
        let peers = self.0.peers();
        for stream in peers.iter().filter_map(|peer| peer.stream.as_ref()) {
            let why = why.clone();
            let word = match self.0.rank {
                0 => Word::Fault {
                    why: format!("rank 0 failed: {why}"),
                    code: FAILED,
                },
                _ => Word::Failed { why },
            };
            say(stream, &word);
        }
        drop(peers);
        self.0.leaving.store(true, Ordering::SeqCst);
    }

    /// Ends the process some seconds from now if it has not ended by itself: an engine that waits for
    /// another rank may keep it from that.
    pub fn end_soon(&self) {
        let _ = spawn("end", || {
            thread::sleep(10 * GRACE);
            std::process::abort();
        });
    }

    /// Parts from the others, who have all finished: a connection that closes is no fault any more.
    pub fn leave(&self) {
        self.0.leaving.store(true, Ordering::SeqCst);
        let began = Instant::now();
        loop {
            let peers = self.0.peers();
            for stream in peers.iter().filter_map(|peer| peer.stream.as_ref()) {
                say(stream, &Word::Bye);
            }
            let others = peers.iter().skip(usize::from(self.0.rank == 0));
            let all_left = { others }.all(|peer| peer.left || peer.lost);
            drop(peers);
            if all_left || began.elapsed() > self.0.limit {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Shared {
    fn new(rank: usize, num_peers: usize, limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            rank,
            limit,
            step: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            peers: Mutex::new((0..num_peers).map(|_| Peer::default()).collect()),
            voice: Mutex::new(None),
            mail: Mutex::default(),
            mail_came: Condvar::new(),
        })
    }

    fn peers(&self) -> MutexGuard<'_, Vec<Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The step at which this rank is: that of all, as they take each step together.
    fn place(&self) -> String {
        match self.step.load(Ordering::Relaxed) {
            0 => "before the first step".to_owned(),
            step => format!("after step {step}"),
        }
    }

    /// What is wrong with one of the others.
    fn fault(&self) -> Option<(String, u8)> {
        let peers = self.peers();
        let first = usize::from(self.rank == 0);
        for (rank, peer) in peers.iter().enumerate().skip(first) {
            if peer.left {
                continue;
            }
            let place = self.place();
            if let Some(why) = &peer.failed {
                return Some((format!("rank {rank} failed {place}: {why}"), FAILED));
            }
            if peer.lost {
                let why = format!("rank {rank} has died {place}: it closed its connection");
                return Some((why, LOST));
            }
            let silent = peer.heard.is_none_or(|at| at.elapsed() > self.limit);
            if silent {
                let seconds = self.limit.as_secs();
                let why = format!(
                    "rank {rank} was lost {place}: nothing was heard of it for {seconds} s (it is \
                     stopped or hangs, or its machine or the network is down)"
                );
                return Some((why, LOST));
            }
        }
        None
    }

    fn end(&self, why: &str, code: u8, aloud: bool) -> ! {
        let text = format!("error: {why}\nhint: --resume continues from the last checkpoint\n");
        let voice = self.voice.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut voice) = voice.as_ref().filter(|_| aloud) {
            let _ = voice.write_all(text.as_bytes());
        }
        eprint!("{text}");
        // An engine that waits for the lost rank may keep the process from ending.
        let _ = spawn("end", || {
            thread::sleep(3 * GRACE);
            std::process::abort();
        });
        std::process::exit(i32::from(code));
    }
}

impl Peer {
    fn here(&mut self, stream: &TcpStream) {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_write_timeout(Some(BEAT));
        self.stream = stream.try_clone().ok();
        self.heard = Some(Instant::now());
    }
}

/// A connection to whichever of `addresses` answers first.
fn connect(addresses: &[String]) -> io::Result<TcpStream> {
    let mut error = io::Error::other("no such host");
    for address in addresses {
        match address.to_socket_addrs() {
            Err(unknown) => error = unknown,
            Ok(numbers) => {
                for number in numbers {
                    match TcpStream::connect_timeout(&number, 2 * BEAT) {
                        Ok(stream) => return Ok(stream),
                        Err(refused) => error = refused,
                    }
                }
            }
        }
    }
    Err(error)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), DistError> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map(drop).map_err(|source| DistError::Start {
        program: format!("the thread `{name}`"),
        source,
    })
}

/// A line that cannot be sent is no loss: the silence will tell.
fn say(mut stream: &TcpStream, word: &Word) {
    if let Ok(mut line) = serde_json::to_string(word) {
        line.push('\n');
        let _ = stream.write_all(line.as_bytes());
    }
}

/// Rank 0 takes in a connection: one of MPICH's, or the pulse of a rank.
fn receive(shared: &Shared, table: &Table, stream: TcpStream) {
    let Ok(reading) = stream.try_clone() else {
        return;
    };
    let mut reading = BufReader::new(reading);
    let mut line = String::new();
    if reading.read_line(&mut line).is_err() {
        return;
    }
    if Table::is_asked(&line) {
        let _ = stream.set_nodelay(true);
        let _ = table.serve(line, reading, stream);
        return;
    }
    let rank = match serde_json::from_str(&line) {
        Ok(Word::Hello { rank }) => rank,
        Ok(Word::Mail { rank }) => {
            let mut mail = shared.mail.lock().unwrap_or_else(PoisonError::into_inner);
            mail.push((rank, reading));
            shared.mail_came.notify_all();
            return;
        }
        _ => return,
    };
    match shared.peers().get_mut(rank) {
        Some(peer) => peer.here(&stream),
        None => return,
    }
    listen(shared, rank, reading);
}

/// Reads what rank `from` says until it closes the connection.
fn listen(shared: &Shared, from: usize, reading: BufReader<TcpStream>) {
    for line in reading.lines() {
        let Ok(word) = line.map(|line| serde_json::from_str(&line)) else {
            break;
        };
        let mut peers = shared.peers();
        let Some(peer) = peers.get_mut(from) else {
            return;
        };
        peer.heard = Some(Instant::now());
        match word {
            Ok(Word::Bye) => peer.left = true,
            Ok(Word::Failed { why }) => peer.failed = Some(why),
            Ok(Word::Fault { why, code }) => {
                drop(peers);
                if code == FAILED {
                    thread::sleep(GRACE);
                }
                shared.end(&why, code, false);
            }
            Ok(Word::Hello { .. } | Word::Mail { .. } | Word::Beat { .. }) | Err(_) => {}
        }
    }
    if let Some(peer) = shared.peers().get_mut(from) {
        peer.lost = true;
    }
}

/// Beats, and looks whether the others do.
fn watch(shared: &Shared) {
    let (mut looked, mut beaten) = (Instant::now(), Instant::now());
    for peer in shared.peers().iter_mut() {
        peer.heard = Some(Instant::now());
    }
    loop {
        thread::sleep(LOOK);
        if looked.elapsed() > SUSPENDED {
            for peer in shared.peers().iter_mut() {
                peer.heard = Some(Instant::now());
            }
        }
        looked = Instant::now();
        if beaten.elapsed() >= BEAT {
            beaten = Instant::now();
            let step = shared.step.load(Ordering::Relaxed);
            for peer in shared.peers().iter() {
                if let Some(stream) = &peer.stream {
                    say(stream, &Word::Beat { step });
                }
            }
        }
        if shared.leaving.load(Ordering::SeqCst) {
            continue;
        }
        if let Some((why, code)) = shared.fault() {
            if code == FAILED {
                thread::sleep(GRACE);
            }
            for stream in shared
                .peers()
                .iter()
                .filter_map(|peer| peer.stream.as_ref())
            {
                let why = why.clone();
                say(stream, &Word::Fault { why, code });
            }
            // Where rank 0 is gone, one of the others speaks for all.
            shared.end(&why, code, shared.rank <= 1);
        }
    }
}
