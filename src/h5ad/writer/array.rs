//! One growing array of one dimension.

use rayon::prelude::*;

use super::super::H5adError;
use super::chunk_index::{Place, chunk_tree};
use super::output::Output;
use super::structure::{Element, Message, UNDEFINED};
use crate::numbers::Kind;

/// Contiguous data begin on such a boundary, so that they can be mapped into memory.
const PAGE_BYTES: u64 = 4096;
/// Chunks that are compressed together.
const CHUNKS_TOGETHER: usize = 32;

/// How the numbers of an array are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In one run of bytes: can be mapped into memory.
    Contiguous,
    /// In chunks of so many elements, compressed by gzip of a level from 0 to 9 where there is one.
    Chunked {
        /// Elements of a chunk.
        len: u32,
        /// The level of gzip; `None`: not compressed.
        gzip: Option<u32>,
    },
}

/// An array that grows by bytes of its elements (little-endian).
#[derive(Debug)]
pub struct ArrayWriter {
    element: Element,
    place: Room,
    num_elements: u64,
    /// Bytes of elements that are not written yet.
    waiting: Vec<u8>,
}

#[derive(Debug)]
enum Room {
    Contiguous {
        address: u64,
        written: u64,
        bytes: u64,
    },
    Chunked {
        len: u32,
        gzip: Option<u32>,
        places: Vec<Place>,
    },
}

impl ArrayWriter {
    /// Begins an array of numbers of `kind`. `most` is how many elements it can come to: a
    /// contiguous array takes room for them at once.
    pub fn new(output: &mut Output, kind: Kind, storage: Storage, most: u64) -> Self {
        let element = Element::Number(kind);
        let place = match storage {
            Storage::Contiguous => {
                let bytes = most * element.size() as u64;
                Room::Contiguous {
                    address: output.allocate(bytes, PAGE_BYTES),
                    written: 0,
                    bytes,
                }
            }
            Storage::Chunked { len, gzip } => Room::Chunked {
                // A chunk that is larger than the array is room for nothing.
                len: len.min(u32::try_from(most).unwrap_or(u32::MAX)).max(1),
                gzip,
                places: Vec::new(),
            },
        };
        Self {
            element,
            place,
            num_elements: 0,
            waiting: Vec::new(),
        }
    }

    /// Appends elements given as their bytes.
    ///
    /// # Errors
    /// The disk is full; more elements than were announced.
    pub fn push(&mut self, output: &mut Output, bytes: &[u8]) -> Result<(), H5adError> {
        self.num_elements += (bytes.len() / self.element.size()) as u64;
        match &mut self.place {
            Room::Contiguous {
                address,
                written,
                bytes: most,
            } => {
                let end = *written + bytes.len() as u64;
                if end > *most {
                    return Err(output.refuse("more values came than were counted before"));
                }
                let parts = bytes.par_chunks(4 << 20).enumerate();
                let start = *address + *written;
                *written = end;
                parts.try_for_each(|(at, part)| output.write(start + ((at as u64) << 22), part))
            }
            Room::Chunked { len, .. } => {
                let together = *len as usize * self.element.size() * CHUNKS_TOGETHER;
                let mut rest = bytes;
                while self.waiting.len() + rest.len() >= together {
                    let (now, later) = rest.split_at(together - self.waiting.len());
                    self.waiting.extend_from_slice(now);
                    self.flush(output)?;
                    rest = later;
                }
                self.waiting.extend_from_slice(rest);
                Ok(())
            }
        }
    }

    /// Writes what waits as chunks; the last one is filled up with zeros.
    fn flush(&mut self, output: &mut Output) -> Result<(), H5adError> {
        let Room::Chunked { len, gzip, places } = &mut self.place else {
            return Ok(());
        };
        let (size, len, gzip) = (self.element.size(), *len as usize, *gzip);
        let padded = self.waiting.len().next_multiple_of(len * size);
        self.waiting.resize(padded, 0);
        let stored: Vec<std::io::Result<Vec<u8>>> = self
            .waiting
            .par_chunks(len * size)
            .map(|raw| match gzip {
                Some(level) => deflate(&shuffle(raw, size), level),
                None => Ok(raw.to_vec()),
            })
            .collect();
        for chunk in stored {
            let chunk = chunk.map_err(|e| output.refuse(&e.to_string()))?;
            let address = output.append(&chunk)?;
            places.push(Place {
                address,
                bytes: chunk.len() as u32,
            });
        }
        self.waiting.clear();
        Ok(())
    }

    /// As if so many zeros had come, in whole chunks: holes in the file, or, where they are
    /// compressed, the same chunk again and again.
    #[cfg(test)]
    pub(super) fn skip(&mut self, output: &mut Output, elements: u64) -> Result<(), H5adError> {
        self.num_elements += elements;
        let size = self.element.size() as u64;
        self.flush(output)?;
        match &mut self.place {
            Room::Contiguous { written, .. } => *written += elements * size,
            Room::Chunked { len, gzip, places } => {
                let zeros = vec![0; *len as usize * size as usize];
                let chunk = match gzip {
                    Some(level) => {
                        deflate(&zeros, *level).map_err(|e| output.refuse(&e.to_string()))?
                    }
                    None => zeros,
                };
                let (address, bytes) = (output.append(&chunk)?, chunk.len() as u32);
                let chunks = elements / u64::from(*len);
                // Room for all of them: a file is not believed to hold more than it can.
                output.allocate((chunks - 1) * u64::from(bytes), 1);
                let apart = gzip.map_or(u64::from(bytes), |_| 0);
                places.extend((0..chunks).map(|n| Place {
                    address: address + n * apart,
                    bytes,
                }));
            }
        }
        Ok(())
    }

    /// Number of elements so far.
    pub fn num_elements(&self) -> u64 {
        self.num_elements
    }

    /// Writes the rest and the object header, whose address it returns; `encoding`: anndata's name
    /// of what the array is, where it is a thing of its own.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(mut self, output: &mut Output, encoding: Option<&str>) -> Result<u64, H5adError> {
        if !self.waiting.is_empty() {
            self.flush(output)?;
        }
        let mut messages = vec![
            Message::dataspace(Some(&[self.num_elements])),
            Message::datatype(self.element),
        ];
        match &self.place {
            Room::Chunked { places, .. } if places.is_empty() => {
                messages.push(Message::fill(false));
                messages.push(Message::contiguous(UNDEFINED, 0));
            }
            Room::Chunked { len, gzip, places } => {
                let address = output.allocate(0, 8);
                let (nodes, root) = chunk_tree(places, u64::from(*len), address);
                output.append(&nodes)?;
                messages.push(Message::fill(true));
                messages.push(Message::chunked(root, *len, self.element));
                messages.extend(gzip.map(|level| Message::filters(self.element, level)));
            }
            Room::Contiguous {
                address, written, ..
            } => {
                let address = if *written == 0 { UNDEFINED } else { *address };
                messages.push(Message::fill(false));
                messages.push(Message::contiguous(address, *written));
            }
        }
        if let Some(encoding) = encoding {
            messages.push(output.text_attribute("encoding-type", encoding)?);
            messages.push(output.text_attribute("encoding-version", "0.2.0")?);
        }
        output.object(&messages)
    }
}

/// Writes an array of texts and returns its address.
pub(super) fn write_texts<'a>(
    output: &mut Output,
    texts: impl Iterator<Item = &'a str>,
) -> Result<u64, H5adError> {
    let mut references = Vec::new();
    for text in texts {
        references.extend(output.text(text)?);
    }
    let count = (references.len() / 16) as u64;
    let address = match count {
        0 => UNDEFINED,
        _ => output.append(&references)?,
    };
    let messages = [
        Message::dataspace(Some(&[count])),
        Message::datatype(Element::Text),
        Message::fill(false),
        Message::contiguous(address, references.len() as u64),
        output.text_attribute("encoding-type", "string-array")?,
        output.text_attribute("encoding-version", "0.2.0")?,
    ];
    output.object(&messages)
}

/// All first bytes, then all second bytes, and so on.
fn shuffle(raw: &[u8], size: usize) -> Vec<u8> {
    let mut out = vec![0u8; raw.len()];
    let elements = raw.len() / size.max(1);
    for (byte, plane) in out.chunks_exact_mut(elements.max(1)).enumerate() {
        let from = raw.iter().skip(byte).step_by(size);
        plane
            .iter_mut()
            .zip(from)
            .for_each(|(to, from)| *to = *from);
    }
    out
}

fn deflate(raw: &[u8], level: u32) -> std::io::Result<Vec<u8>> {
    use std::io::Write;
    let level = flate2::Compression::new(level);
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::with_capacity(raw.len() / 2), level);
    encoder.write_all(raw)?;
    encoder.finish()
}
