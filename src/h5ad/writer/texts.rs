//! Strings of variable length: their bytes in global heaps, 16 bytes of reference each.
//!
//! A heap is a run of at least 4096 bytes that holds up to 65,535 numbered objects, each padded to
//! 8 bytes; what is left over is object 0.

/// Bytes of a heap, unless one text is longer.
const HEAP_BYTES: usize = 64 << 10;
const HEADER_BYTES: usize = 16;
const OBJECT_BYTES: usize = 16;

/// A heap that is being filled.
#[derive(Debug, Default)]
pub(super) struct Heap {
    address: u64,
    bytes: Vec<u8>,
    capacity: usize,
    objects: u16,
}

impl Heap {
    /// An empty heap that takes a text of `len` bytes, and how much room it needs.
    pub(super) fn capacity_for(len: usize) -> u64 {
        let needed = HEADER_BYTES + object_bytes(len) + OBJECT_BYTES;
        needed.max(HEAP_BYTES) as u64
    }

    /// Begins a heap in the room of `capacity` bytes at `address`.
    pub(super) fn new(address: u64, capacity: u64) -> Heap {
        let mut bytes = b"GCOL".to_vec();
        bytes.extend([1, 0, 0, 0]);
        bytes.extend(capacity.to_le_bytes());
        Heap {
            address,
            bytes,
            capacity: capacity as usize,
            objects: 0,
        }
    }

    /// Puts `text` into the heap and returns its reference; `None` where there is no room.
    pub(super) fn push(&mut self, text: &str) -> Option<[u8; 16]> {
        let after = self.bytes.len() + object_bytes(text.len()) + OBJECT_BYTES;
        if after > self.capacity || self.objects == u16::MAX {
            return None;
        }
        self.objects += 1;
        let end = self.bytes.len() + object_bytes(text.len());
        self.bytes.extend(self.objects.to_le_bytes());
        self.bytes.extend([0; 6]);
        self.bytes.extend((text.len() as u64).to_le_bytes());
        self.bytes.extend(text.as_bytes());
        self.bytes.resize(end, 0);
        Some(reference(text.len(), self.address, self.objects))
    }

    /// The bytes of the heap and where they belong; `None` where nothing was ever put in.
    pub(super) fn finish(mut self) -> Option<(u64, Vec<u8>)> {
        if self.objects == 0 {
            return None;
        }
        let left = self.capacity - self.bytes.len();
        self.bytes.extend([0; 8]);
        self.bytes.extend((left as u64).to_le_bytes());
        self.bytes.resize(self.capacity, 0);
        Some((self.address, self.bytes))
    }
}

/// The reference of an empty text: it lies nowhere.
pub(super) fn reference(len: usize, heap: u64, object: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
    bytes[4..12].copy_from_slice(&heap.to_le_bytes());
    bytes[12..].copy_from_slice(&u32::from(object).to_le_bytes());
    bytes
}

fn object_bytes(len: usize) -> usize {
    OBJECT_BYTES + len.next_multiple_of(8)
}
