//! The bytes of HDF5 structures: superblock, object headers, messages.
//!
//! Addresses and lengths take 8 bytes, numbers are little-endian, object headers and superblock
//! are of version 2 and end in a checksum.

use crate::numbers::Kind;

/// The address of what is not there.
pub(in super::super) const UNDEFINED: u64 = u64::MAX;
/// Bytes of the superblock.
pub(in super::super) const SUPERBLOCK_BYTES: u64 = 48;

/// What an array is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Element {
    Number(Kind),
    /// UTF-8 text of variable length.
    Text,
}

impl Element {
    /// Bytes of one element as it lies in the array.
    pub(in super::super) fn size(self) -> usize {
        match self {
            Element::Number(kind) => kind.size(),
            Element::Text => 16,
        }
    }
}

/// A message of an object header: its type and its bytes.
pub(super) struct Message(u8, Vec<u8>);

/// The superblock of a file of `end` bytes whose root group lies at `root`.
pub(in super::super) fn superblock(root: u64, end: u64) -> Vec<u8> {
    let mut bytes = b"\x89HDF\r\n\x1a\n".to_vec();
    bytes.extend([2, 8, 8, 0]);
    for address in [0, UNDEFINED, end, root] {
        bytes.extend(address.to_le_bytes());
    }
    checked(bytes)
}

/// An object header of these messages.
pub(super) fn object_header(messages: &[Message]) -> Vec<u8> {
    let len: usize = messages.iter().map(|message| 4 + message.1.len()).sum();
    let mut bytes = b"OHDR".to_vec();
    // Version 2; the length of the messages takes 4 bytes.
    bytes.extend([2, 2]);
    bytes.extend(u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    for Message(kind, body) in messages {
        bytes.push(*kind);
        bytes.extend(u16::try_from(body.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.push(0);
        bytes.extend(body);
    }
    checked(bytes)
}

impl Message {
    /// The most bytes that a message can have.
    pub(super) const MOST_BYTES: usize = u16::MAX as usize;

    pub(super) fn len(&self) -> usize {
        self.1.len()
    }

    /// The shape: a scalar where `shape` is `None`.
    pub(super) fn dataspace(shape: Option<&[u64]>) -> Message {
        Message(1, dataspace(shape))
    }

    pub(super) fn datatype(element: Element) -> Message {
        Message(3, datatype(element))
    }

    /// No fill value; room is given when it is needed, of contiguous arrays at once.
    pub(super) fn fill(chunked: bool) -> Message {
        Message(5, vec![3, if chunked { 0x0b } else { 0x0a }])
    }

    pub(super) fn contiguous(address: u64, bytes: u64) -> Message {
        let mut body = vec![3, 1];
        body.extend(address.to_le_bytes());
        body.extend(bytes.to_le_bytes());
        Message(8, body)
    }

    /// A one-dimensional array of chunks of `len` elements, indexed by a B-tree.
    pub(super) fn chunked(tree: u64, len: u32, element: Element) -> Message {
        let mut body = vec![3, 2, 2];
        body.extend(tree.to_le_bytes());
        body.extend(len.to_le_bytes());
        body.extend((element.size() as u32).to_le_bytes());
        Message(8, body)
    }

    /// The filters shuffle and deflate.
    pub(super) fn filters(element: Element, level: u32) -> Message {
        let mut body = vec![2, 2];
        for (id, value) in [(2u16, element.size() as u32), (1, level)] {
            body.extend(id.to_le_bytes());
            // Optional, as h5py marks them; one number for the filter.
            body.extend([1, 0, 1, 0]);
            body.extend(value.to_le_bytes());
        }
        Message(11, body)
    }

    /// An attribute whose elements are given as bytes.
    pub(super) fn attribute(
        name: &str,
        element: Element,
        shape: Option<&[u64]>,
        data: &[u8],
    ) -> Message {
        let (datatype, dataspace) = (datatype(element), dataspace(shape));
        let mut body = vec![3, 0];
        for len in [name.len() + 1, datatype.len(), dataspace.len()] {
            body.extend((len as u16).to_le_bytes());
        }
        body.push(1);
        body.extend(name.as_bytes());
        body.push(0);
        body.extend(datatype);
        body.extend(dataspace);
        body.extend(data);
        Message(12, body)
    }

    /// What makes an object header a group: its links follow as messages.
    pub(super) fn group() -> [Message; 2] {
        let mut links = vec![0, 0];
        links.extend(UNDEFINED.to_le_bytes());
        links.extend(UNDEFINED.to_le_bytes());
        [Message(2, links), Message(10, vec![0, 0])]
    }

    /// A member of a group.
    pub(super) fn link(name: &str, address: u64) -> Message {
        // The length of the name takes 2 bytes; the name is UTF-8.
        let mut body = vec![1, 0x11, 1];
        body.extend((name.len() as u16).to_le_bytes());
        body.extend(name.as_bytes());
        body.extend(address.to_le_bytes());
        Message(6, body)
    }
}

fn dataspace(shape: Option<&[u64]>) -> Vec<u8> {
    let Some(shape) = shape else {
        return vec![2, 0, 0, 0];
    };
    let mut body = vec![2, shape.len() as u8, 0, 1];
    body.extend(shape.iter().flat_map(|extent| extent.to_le_bytes()));
    body
}

fn datatype(element: Element) -> Vec<u8> {
    match element {
        // Class 9, variable length: a string, ended by its length, UTF-8, of bytes.
        Element::Text => {
            let mut body = vec![0x19, 1, 1, 0, 16, 0, 0, 0];
            body.extend(integer(1, false));
            body
        }
        Element::Number(Kind::Bool) => {
            // Class 8, an enumeration of two names over one byte.
            let mut body = vec![0x38, 2, 0, 0, 1, 0, 0, 0];
            body.extend(integer(1, true));
            body.extend(b"FALSE\0TRUE\0");
            body.extend([0, 1]);
            body
        }
        Element::Number(Kind::F16) => float(2, [10, 5, 0, 10], 15),
        Element::Number(Kind::F32) => float(4, [23, 8, 0, 23], 127),
        Element::Number(Kind::F64) => float(8, [52, 11, 0, 52], 1023),
        Element::Number(kind) => {
            let signed = matches!(kind, Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64);
            integer(kind.size() as u32, signed)
        }
    }
}

fn integer(size: u32, signed: bool) -> Vec<u8> {
    let mut body = vec![0x10, if signed { 8 } else { 0 }, 0, 0];
    body.extend(size.to_le_bytes());
    body.extend(0u16.to_le_bytes());
    body.extend((8 * size as u16).to_le_bytes());
    body
}

/// `places`: position and size of the exponent, position and size of the mantissa.
fn float(size: u32, places: [u8; 4], bias: u32) -> Vec<u8> {
    let bits = 8 * size as u16;
    let mut body = vec![0x11, 0x20, (bits - 1) as u8, 0];
    body.extend(size.to_le_bytes());
    body.extend(0u16.to_le_bytes());
    body.extend(bits.to_le_bytes());
    body.extend(places);
    body.extend(bias.to_le_bytes());
    body
}

/// `bytes` followed by their checksum.
pub(in super::super) fn checked(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = lookup3(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

/// Bob Jenkins' hash of 2006, which HDF5 guards its structures with (initial value 0).
fn lookup3(bytes: &[u8]) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(bytes.len() as u32);
    let (mut a, mut b, mut c) = (start, start, start);
    if bytes.is_empty() {
        return c;
    }
    // All but the last 1 to 12 bytes.
    let (front, last) = bytes.split_at((bytes.len() - 1) / 12 * 12);
    let words = |block: &[u8; 12]| {
        let word = |at: usize| {
            u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
        };
        [word(0), word(4), word(8)]
    };
    for block in front.as_chunks::<12>().0 {
        let [x, y, z] = words(block);
        (a, b, c) = (a.wrapping_add(x), b.wrapping_add(y), c.wrapping_add(z));
        let step = |p: &mut u32, q: &mut u32, r: &mut u32, turn: u32| {
            *p = p.wrapping_sub(*r) ^ r.rotate_left(turn);
            *r = r.wrapping_add(*q);
        };
        step(&mut a, &mut b, &mut c, 4);
        step(&mut b, &mut c, &mut a, 6);
        step(&mut c, &mut a, &mut b, 8);
        step(&mut a, &mut b, &mut c, 16);
        step(&mut b, &mut c, &mut a, 19);
        step(&mut c, &mut a, &mut b, 4);
    }
    let mut block = [0u8; 12];
    block
        .iter_mut()
        .zip(last)
        .for_each(|(to, from)| *to = *from);
    let [x, y, z] = words(&block);
    (a, b, c) = (a.wrapping_add(x), b.wrapping_add(y), c.wrapping_add(z));
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_agrees_with_its_authors_values() {
        assert_eq!(lookup3(b""), 0xdead_beef);
        let text = b"Four score and seven years ago";
        assert_eq!(lookup3(text), 0x1777_0551);
    }
}
