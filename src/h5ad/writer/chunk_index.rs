//! The index of the chunks of a one-dimensional array: a B-tree of version 1, built from its
//! leaves upwards once all chunks are written.
//!
//! A key is (stored bytes, skipped filters, first element, 0); a node holds at most 64 children,
//! its keys stand before, between and after them.

use super::structure::UNDEFINED;

/// Children of a node: twice the 32 that readers take for granted.
const CHILDREN: usize = 64;
const KEY_BYTES: usize = 24;
/// Every node takes the room of a full one.
const NODE_BYTES: usize = 24 + (CHILDREN + 1) * KEY_BYTES + CHILDREN * 8;

/// Where a chunk lies and how many bytes are stored of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) address: u64,
    pub(super) bytes: u32,
}

/// A child of a node and the key before it.
#[derive(Clone, Copy)]
struct Child {
    bytes: u32,
    first: u64,
    address: u64,
}

/// The nodes of the tree over `places`, to be written at `address`, and the root's address.
pub(super) fn chunk_tree(places: &[Place], chunk_len: u64, address: u64) -> (Vec<u8>, u64) {
    let end = places.len() as u64 * chunk_len;
    let mut children: Vec<Child> = (0u64..)
        .zip(places)
        .map(|(at, place)| Child {
            bytes: place.bytes,
            first: at * chunk_len,
            address: place.address,
        })
        .collect();
    let mut nodes = Vec::new();
    let mut level = 0u8;
    loop {
        let first_node = address + nodes.len() as u64;
        let count = children.len().div_ceil(CHILDREN);
        let mut parents = Vec::with_capacity(count);
        for (at, own) in children.chunks(CHILDREN).enumerate() {
            let place = |node: usize| first_node + (node * NODE_BYTES) as u64;
            let left = at.checked_sub(1).map_or(UNDEFINED, place);
            let right = if at + 1 < count {
                place(at + 1)
            } else {
                UNDEFINED
            };
            let next = children.get((at + 1) * CHILDREN);
            nodes.extend(node(
                level,
                own,
                [left, right],
                next.map_or(end, |n| n.first),
            ));
            parents.extend(own.first().map(|first| Child {
                address: place(at),
                ..*first
            }));
        }
        if count == 1 {
            return (nodes, first_node);
        }
        children = parents;
        level += 1;
    }
}

fn node(level: u8, children: &[Child], siblings: [u64; 2], end: u64) -> Vec<u8> {
    let mut bytes = b"TREE".to_vec();
    bytes.extend([1, level]);
    bytes.extend((children.len() as u16).to_le_bytes());
    bytes.extend(siblings.iter().flat_map(|sibling| sibling.to_le_bytes()));
    let key = |bytes: &mut Vec<u8>, stored: u32, first: u64| {
        bytes.extend(stored.to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(first.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
    };
    for child in children {
        key(&mut bytes, child.bytes, child.first);
        bytes.extend(child.address.to_le_bytes());
    }
    key(&mut bytes, 0, end);
    bytes.resize(NODE_BYTES, 0);
    bytes
}
