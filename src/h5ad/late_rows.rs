//! Gives an array that was added without rows those that lie behind the old end of the file.
//!
//! The library adds arrays from memory only. So one of no rows is added, and in its object header,
//! which the library has just written (version 2, in one piece, as are those of the groups above
//! it), number of rows, address and size are replaced.

use std::fs::File;
use std::io;
use std::ops::Range;

use super::foundation::number;
use super::writer::structure::{UNDEFINED, checked};
use crate::file::{read_exact_at, write_all_at};

/// Kinds of messages of an object header.
const DATASPACE: u8 = 1;
const LINK: u8 = 6;
const LAYOUT: u8 = 8;
/// Bytes of a checksum.
const SUM: usize = 4;

/// Where rows lie.
pub(super) struct LateRows {
    pub(super) address: u64,
    pub(super) num_rows: u64,
    pub(super) num_bytes: u64,
}

/// Lets the array `keys` below the group at `root`, which has two dimensions, have these rows.
///
/// # Errors
/// The file cannot be read or written; structures other than the library writes.
pub(super) fn give(file: &File, root: u64, keys: &[&str], rows: &LateRows) -> io::Result<()> {
    let mut header = Header::read(file, root)?;
    for key in keys {
        let address = header.member(key).ok_or_else(|| unlike(key))?;
        header = Header::read(file, address)?;
    }
    header.give(rows).ok_or_else(|| unlike("the new array"))?;
    header.bytes.truncate(header.bytes.len() - SUM);
    write_all_at(file, header.address, &checked(header.bytes))
}

fn unlike(what: &str) -> io::Error {
    io::Error::other(format!("{what}: not written as was expected"))
}

/// An object header.
struct Header {
    address: u64,
    bytes: Vec<u8>,
    /// Kind and place of each message.
    messages: Vec<(u8, Range<usize>)>,
}

impl Header {
    fn read(file: &File, address: u64) -> io::Result<Self> {
        // Signature, version, flags, and what flags add: times, limits of attributes, the length.
        let mut front = [0; 34];
        read_exact_at(file, address, &mut front)?;
        let place = messages_of(&front).ok_or_else(|| unlike("an object header"))?;
        let mut bytes = vec![0; place.end + SUM];
        read_exact_at(file, address, &mut bytes)?;
        let sum = bytes.split_off(place.end);
        let bytes = checked(bytes);
        if bytes[place.end..] != sum {
            return Err(unlike("an object header"));
        }
        // With an order of attributes, messages have a number too.
        let head = if front[5] & 4 == 0 { 4 } else { 6 };
        let (mut messages, mut at) = (Vec::new(), place.start);
        while at + head <= place.end {
            let len = usize::from(u16::from_le_bytes([bytes[at + 1], bytes[at + 2]]));
            let body = at + head..at + head + len;
            if body.end > place.end {
                return Err(unlike("an object header"));
            }
            messages.push((bytes[at], body.clone()));
            at = body.end;
        }
        Ok(Self {
            address,
            bytes,
            messages,
        })
    }

    fn places(&self, kind: u8) -> impl Iterator<Item = Range<usize>> {
        let of_kind = self
            .messages
            .iter()
            .filter(move |(other, _)| *other == kind);
        of_kind.map(|(_, place)| place.clone())
    }

    /// The address of a group's member.
    fn member(&self, name: &str) -> Option<u64> {
        self.places(LINK).find_map(|place| {
            let (found, address) = link(&self.bytes[place])?;
            (found == name.as_bytes()).then_some(address)
        })
    }

    /// Writes the rows into an array's messages; `None` where they are not as expected.
    fn give(&mut self, rows: &LateRows) -> Option<()> {
        let (shape, layout) = (self.places(DATASPACE).next()?, self.places(LAYOUT).next()?);
        let extents = match self.bytes.get(shape.start..shape.start + 2)? {
            [1, 2] => shape.start + 8,
            [2, 2] => shape.start + 4,
            _ => return None,
        };
        let empty = number(&self.bytes, extents)? == 0;
        let contiguous = matches!(self.bytes.get(layout.start..)?, [3 | 4, 1, ..]);
        let nowhere = number(&self.bytes, layout.start + 2)? == UNDEFINED;
        if !empty || !contiguous || !nowhere || layout.len() < 18 {
            return None;
        }
        let numbers = [
            (extents, rows.num_rows),
            (layout.start + 2, rows.address),
            (layout.start + 10, rows.num_bytes),
        ];
        for (at, number) in numbers {
            self.bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        Some(())
    }
}

/// Where the messages of an object header lie, by its first bytes.
fn messages_of(front: &[u8; 34]) -> Option<Range<usize>> {
    let (flags, mut at) = (front[5], 6);
    if !front.starts_with(b"OHDR\x02") {
        return None;
    }
    at += if flags & 0x20 == 0 { 0 } else { 16 };
    at += if flags & 0x10 == 0 { 0 } else { 4 };
    let width = 1 << (flags & 3);
    let mut len = [0; 8];
    len[..width].copy_from_slice(&front[at..at + width]);
    let start = at + width;
    let end = start.checked_add(usize::try_from(u64::from_le_bytes(len)).ok()?)?;
    Some(start..end)
}

/// Name and address of a link that is no soft or external one.
fn link(body: &[u8]) -> Option<(&[u8], u64)> {
    let (&[1, flags], mut at) = (body.first_chunk::<2>()?, 2) else {
        return None;
    };
    if flags & 8 != 0 && *body.get(at)? != 0 {
        return None;
    }
    at += usize::from(flags & 8 != 0);
    at += if flags & 4 == 0 { 0 } else { 8 };
    at += usize::from(flags & 0x10 != 0);
    let width = 1 << (flags & 3);
    let mut len = [0; 8];
    len[..width].copy_from_slice(body.get(at..at + width)?);
    let name = at + width..at + width + usize::try_from(u64::from_le_bytes(len)).ok()?;
    Some((body.get(name.clone())?, number(body, name.end)?))
}
