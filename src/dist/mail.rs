//! Messages between ranks over TCP, through rank 0: for an engine that sums on GPUs, whose host
//! would have to wait for the device if its few numbers went there and back.
//!
//! Every rank has one connection to rank 0, beside its [`super::pulse`] and at the same port. A
//! message is its length (u64, little endian) and its bytes. A connection that breaks is a rank that
//! was lost: the pulse says which and ends the process, so it is given the time for that first.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::DistError;

/// A connection, read through a buffer and written to directly.
pub(super) type Line = BufReader<TcpStream>;

/// The connections of one rank.
pub struct Mail {
    /// Rank 0's: to the others, by rank; another's: to rank 0 alone.
    lines: Vec<Line>,
    rank: usize,
    /// How long the pulse may take to notice that a rank is lost.
    limit: Duration,
}

impl Mail {
    pub(super) fn new(rank: usize, lines: Vec<Line>, limit: Duration) -> Self {
        let quick = |line: &Line| drop(line.get_ref().set_nodelay(true));
        lines.iter().for_each(quick);
        Self { lines, rank, limit }
    }

    /// The messages of all ranks, by rank.
    ///
    /// # Errors
    /// A connection breaks.
    pub fn gather(&mut self, message: &[u8]) -> Result<Vec<Vec<u8>>, DistError> {
        let all = self.exchange(message);
        self.unless_lost(all)
    }

    /// The message of rank 0.
    ///
    /// # Errors
    /// As [`Mail::gather`].
    pub fn broadcast(&mut self, message: Vec<u8>) -> Result<Vec<u8>, DistError> {
        let told = match self.rank {
            0 => {
                let mut lines = self.lines.iter_mut();
                lines
                    .try_for_each(|line| put(line, &message))
                    .map(|()| message)
            }
            _ => self.of_first(take),
        };
        self.unless_lost(told)
    }

    fn exchange(&mut self, message: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        if self.rank > 0 {
            return self.of_first(|line| {
                put(line, message)?;
                let count = u64::from_le_bytes(take(line)?.try_into().unwrap_or_default());
                (0..count).map(|_| take(line)).collect()
            });
        }
        let mut all = vec![message.to_vec()];
        for line in &mut self.lines {
            all.push(take(line)?);
        }
        let mut bytes = Vec::new();
        put_into(&mut bytes, &(all.len() as u64).to_le_bytes());
        all.iter().for_each(|message| put_into(&mut bytes, message));
        for line in &self.lines {
            line.get_ref().write_all(&bytes)?;
        }
        Ok(all)
    }

    fn of_first<T>(&mut self, act: impl FnOnce(&mut Line) -> io::Result<T>) -> io::Result<T> {
        match self.lines.first_mut() {
            Some(line) => act(line),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn unless_lost<T>(&self, found: io::Result<T>) -> Result<T, DistError> {
        found.map_err(|error| {
            thread::sleep(self.limit);
            DistError::Engine {
                engine: "messages between the ranks",
                problem: error.to_string(),
            }
        })
    }
}

fn put(line: &mut Line, message: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(8 + message.len());
    put_into(&mut bytes, message);
    line.get_ref().write_all(&bytes)
}

fn put_into(bytes: &mut Vec<u8>, message: &[u8]) {
    bytes.extend((message.len() as u64).to_le_bytes());
    bytes.extend_from_slice(message);
}

fn take(line: &mut Line) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    line.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut message = Vec::new();
    let read = line.by_ref().take(length).read_to_end(&mut message)?;
    match read as u64 == length {
        true => Ok(message),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;

    use super::*;

    /// The mail of three ranks.
    fn three() -> Vec<Mail> {
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = door.local_addr().unwrap();
        let (mut of_first, mut of_others) = (Vec::new(), Vec::new());
        for _ in 1..3 {
            of_others.push(vec![Line::new(TcpStream::connect(address).unwrap())]);
            of_first.push(Line::new(door.accept().unwrap().0));
        }
        let lines = std::iter::once(of_first).chain(of_others);
        let mail = |(rank, lines)| Mail::new(rank, lines, Duration::ZERO);
        lines.enumerate().map(mail).collect()
    }

    #[test]
    fn all_ranks_get_the_messages_of_all_and_those_of_rank_0() {
        let talk = |mut mail: Mail| {
            move || {
                // As long as no buffer of a connection is, ragged, and none.
                for length in [300_000, 7, 0] {
                    let own = vec![mail.rank as u8; length * (mail.rank + 1)];
                    let all = mail.gather(&own).unwrap();
                    let expected = (0..3).map(|rank| vec![rank as u8; length * (rank + 1)]);
                    assert!(all.into_iter().eq(expected));
                    let told = mail.broadcast(vec![9; mail.rank * 5 + length]).unwrap();
                    assert_eq!(told, vec![9; length]);
                }
            }
        };
        let threads = three().into_iter().map(|mail| thread::spawn(talk(mail)));
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_rank_that_has_gone_is_an_error_of_the_others() {
        let mut all = three();
        drop(all.pop());
        let (mut second, mut first) = (all.pop().unwrap(), all.pop().unwrap());
        let waiting = thread::spawn(move || second.gather(&[1]).is_err());
        assert!(first.gather(&[0]).is_err());
        drop(first);
        assert!(waiting.join().unwrap());
    }
}
