//! One-dimensional arrays, read and decoded here rather than by the HDF5 library.
//!
//! The values of nearly every h5ad file are gzip chunks of a one-dimensional array. Reading them
//! directly (one positioned read, a faster inflate, no copy through a buffer of the whole window)
//! about doubles what one thread decodes. An array that lies in one piece is read from its place,
//! without any index or lock. Whatever is not that simple is left to the library:
//! other filters, chunks that were never written or whose filters were skipped, and any chunk that
//! does not decode, so that its error is the library's.
//!
//! The last chunk of a window is kept for the reader whose window begins there.

use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use hdf5_pure::{Dataset, Layout};
use zune_inflate::{DeflateDecoder, DeflateOptions};

use crate::file::read_exact_at;

/// Decoded chunks kept of an array for the windows that follow: about one for each thread that
/// reads it.
const MOST_KEPT: usize = 16;
const MOST_KEPT_BYTES: usize = 16 << 20;
/// Uncompressed bytes read at a time: a piece is still in the cache when it is converted.
const PIECE_BYTES: usize = 256 << 10;

/// Where the chunks of an array lie, and how they are compressed.
pub(super) struct Chunks {
    file: Arc<File>,
    /// Position in the file and stored size of each chunk.
    places: Vec<(u64, usize)>,
    /// Elements of a chunk.
    len: u64,
    element_bytes: usize,
    shuffled: bool,
    deflated: bool,
    /// The most recent last.
    kept: Mutex<Vec<(usize, Arc<Vec<u8>>)>>,
}

impl Chunks {
    /// The chunks of `dataset`, `None` where the library has to read them.
    pub(super) fn of(
        dataset: &Dataset,
        num_elements: u64,
        element_bytes: usize,
        file: &Arc<File>,
        file_bytes: u64,
    ) -> Option<Chunks> {
        let layout = dataset.layout().ok()?;
        if let Layout::Contiguous { address, size } = layout {
            return Chunks::of_one_piece(address?, size, (num_elements, element_bytes), file)
                .filter(|_| address.is_some_and(|at| at.saturating_add(size) <= file_bytes))
                .filter(|_| dataset.filters().is_empty());
        }
        let Layout::Chunked { chunk_shape, .. } = layout else {
            return None;
        };
        let [len] = chunk_shape.as_slice() else {
            return None;
        };
        let (shuffled, deflated) = match dataset.filters().as_slice() {
            [] => (false, false),
            [1] => (false, true),
            [2, 1] => (true, true),
            _ => return None,
        };
        let mut places = vec![None; usize::try_from(num_elements.div_ceil(*len)).ok()?];
        let raw_bytes = usize::try_from(*len).ok()?.checked_mul(element_bytes)?;
        for chunk in dataset.chunks().ok()? {
            let at = chunk.offset.first()? / len;
            let bytes = chunk.storage_size;
            let inside = chunk.address.checked_add(bytes)? <= file_bytes;
            let whole = deflated || bytes == raw_bytes as u64;
            if chunk.filter_mask != 0 || !inside || !whole {
                return None;
            }
            *places.get_mut(usize::try_from(at).ok()?)? =
                Some((chunk.address, usize::try_from(bytes).ok()?));
        }
        Some(Chunks {
            file: Arc::clone(file),
            places: places.into_iter().collect::<Option<Vec<_>>>()?,
            len: *len,
            element_bytes,
            shuffled,
            deflated,
            kept: Mutex::new(Vec::new()),
        })
    }

    /// An array of one piece: one chunk that is not compressed.
    fn of_one_piece(
        address: u64,
        size: u64,
        (num_elements, element_bytes): (u64, usize),
        file: &Arc<File>,
    ) -> Option<Chunks> {
        let whole = num_elements.checked_mul(element_bytes as u64)?;
        (whole == size && size > 0).then(|| Chunks {
            file: Arc::clone(file),
            places: vec![(address, usize::try_from(size).unwrap_or(usize::MAX))],
            len: num_elements,
            element_bytes,
            shuffled: false,
            deflated: false,
            kept: Mutex::new(Vec::new()),
        })
    }

    /// Hands the bytes of the elements `window` to `each`, a piece at a time; `None` where a chunk
    /// does not decode, and what was handed over until then is to be forgotten.
    pub(super) fn read(&self, window: &Range<u64>, mut each: impl FnMut(&[u8])) -> Option<()> {
        let mut stored = Vec::new();
        let mut start = window.start;
        while start < window.end {
            let chunk = usize::try_from(start / self.len).ok()?;
            let first = start - start % self.len;
            let end = window.end.min(first + self.len);
            let within = self.bytes_of(start - first)?..self.bytes_of(end - first)?;
            if self.deflated {
                let decoded = match self.kept(chunk) {
                    Some(decoded) => decoded,
                    None => Arc::new(self.decode(chunk, &mut stored)?),
                };
                each(decoded.get(within)?);
                if end == window.end && end < first + self.len {
                    self.keep(chunk, decoded);
                }
            } else {
                let (address, _) = *self.places.get(chunk)?;
                let piece = PIECE_BYTES - PIECE_BYTES % self.element_bytes.max(1);
                for from in within.clone().step_by(piece) {
                    stored.resize(piece.min(within.end - from), 0);
                    read_exact_at(&self.file, address + from as u64, &mut stored).ok()?;
                    each(&stored);
                }
            }
            start = end;
        }
        Some(())
    }

    fn bytes_of(&self, elements: u64) -> Option<usize> {
        usize::try_from(elements)
            .ok()?
            .checked_mul(self.element_bytes)
    }

    fn decode(&self, chunk: usize, stored: &mut Vec<u8>) -> Option<Vec<u8>> {
        let (address, bytes) = *self.places.get(chunk)?;
        stored.resize(bytes, 0);
        read_exact_at(&self.file, address, stored).ok()?;
        let raw_bytes = self.bytes_of(self.len)?;
        let options = DeflateOptions::default()
            .set_size_hint(raw_bytes)
            .set_limit(raw_bytes)
            .set_confirm_checksum(true);
        let decoded = DeflateDecoder::new_with_options(stored, options)
            .decode_zlib()
            .ok()?;
        if decoded.len() != raw_bytes {
            return None;
        }
        Some(if self.shuffled {
            unshuffle(&decoded, self.element_bytes)
        } else {
            decoded
        })
    }

    fn kept(&self, chunk: usize) -> Option<Arc<Vec<u8>>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter()
            .find(|(at, _)| *at == chunk)
            .map(|(_, decoded)| Arc::clone(decoded))
    }

    fn keep(&self, chunk: usize, decoded: Arc<Vec<u8>>) {
        let most = (MOST_KEPT_BYTES / decoded.len().max(1)).clamp(1, MOST_KEPT);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(at, _)| *at != chunk);
        let surplus = (kept.len() + 1).saturating_sub(most);
        kept.drain(..surplus);
        kept.push((chunk, decoded));
    }
}

/// Puts the bytes of each element together again: the filter stores all first bytes, then all
/// second bytes, and so on.
fn unshuffle(shuffled: &[u8], element_bytes: usize) -> Vec<u8> {
    let elements = shuffled.len() / element_bytes.max(1);
    let mut out = vec![0u8; shuffled.len()];
    for (byte, plane) in shuffled.chunks_exact(elements.max(1)).enumerate() {
        let places = out.iter_mut().skip(byte).step_by(element_bytes);
        places.zip(plane).for_each(|(place, value)| *place = *value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffled_bytes_come_together() {
        let values: Vec<u8> = [0x0403_0201u32, 0x1413_1211, 0x2423_2221]
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let shuffled = [1, 0x11, 0x21, 2, 0x12, 0x22, 3, 0x13, 0x23, 4, 0x14, 0x24];
        assert_eq!(unshuffle(&shuffled, 4), values);
        assert!(unshuffle(&[], 4).is_empty());
    }
}
