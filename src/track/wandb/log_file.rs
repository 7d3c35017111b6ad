//! The frame of a `.wandb` file: 7 bytes (`:W&B`, u16 0xBEE1, u8 0), then records cut into chunks
//! that do not cross blocks of 32,768 bytes (counted from the beginning of the file).
//!
//! A chunk is u32 CRC-32 (IEEE) of type and payload, u16 length, u8 type, payload, little-endian;
//! the type says whether it is a whole record or its first, middle or last part. What is left of a
//! block that is too small for a chunk's head is zeros. The frame is LevelDB's log format but for
//! head and checksum.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::track::crc::{IEEE, check};

const FILE_HEAD: [u8; 7] = *b":W&B\xE1\xBE\0";
const BLOCK_BYTES: usize = 32_768;
const CHUNK_HEAD_BYTES: usize = 7;

const WHOLE: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// A file that records are appended to.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    num_bytes: u64,
}

impl LogFile {
    /// Begins a file; there must be none of this name.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(path)?;
        file.write_all(&FILE_HEAD)?;
        let num_bytes = FILE_HEAD.len() as u64;
        Ok(Self { file, num_bytes })
    }

    /// Appends all records or none.
    pub(super) fn append(&mut self, records: &[Vec<u8>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            frame(&mut bytes, self.num_bytes, record);
        }
        self.file.write_all(&bytes).inspect_err(|_| {
            // A part of it may have been written.
            let _ = self.file.set_len(self.num_bytes);
        })?;
        self.num_bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Appends the chunks of `record` to `bytes`, which stand at byte `begin` of the file.
fn frame(bytes: &mut Vec<u8>, begin: u64, record: &[u8]) {
    let mut rest = record;
    let mut is_first = true;
    loop {
        let at = (begin as usize + bytes.len()) % BLOCK_BYTES;
        let left = BLOCK_BYTES - at;
        if left < CHUNK_HEAD_BYTES {
            bytes.resize(bytes.len() + left, 0);
            continue;
        }
        let (chunk, after) = rest.split_at(rest.len().min(left - CHUNK_HEAD_BYTES));
        let kind = match (is_first, after.is_empty()) {
            (true, true) => WHOLE,
            (true, false) => FIRST,
            (false, false) => MIDDLE,
            (false, true) => LAST,
        };
        bytes.extend(check(&IEEE, &[&[kind], chunk]).to_le_bytes());
        bytes.extend((chunk.len() as u16).to_le_bytes());
        bytes.push(kind);
        bytes.extend(chunk);
        if after.is_empty() {
            return;
        }
        (rest, is_first) = (after, false);
    }
}

#[cfg(test)]
pub(super) mod reading {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The records of a file, by the description above.
    pub(in super::super) fn records(file: &[u8]) -> Vec<Vec<u8>> {
        assert_eq!(file[..7], FILE_HEAD);
        let (mut at, mut records, mut open) = (7, Vec::new(), None::<Vec<u8>>);
        while at < file.len() {
            let left = BLOCK_BYTES - at % BLOCK_BYTES;
            if left < CHUNK_HEAD_BYTES {
                assert!(file[at..at + left].iter().all(|byte| *byte == 0));
                at += left;
                continue;
            }
            let sum = u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
            let length = u16::from_le_bytes(file[at + 4..at + 6].try_into().unwrap());
            let (kind, end) = (file[at + 6], at + 7 + usize::from(length));
            assert!(end - at <= left, "a chunk crosses blocks");
            assert_eq!(check(&IEEE, &[&file[at + 6..end]]), sum);
            assert_eq!(open.is_some(), kind == MIDDLE || kind == LAST);
            let mut record = open.take().unwrap_or_default();
            record.extend(&file[at + 7..end]);
            match kind {
                WHOLE | LAST => records.push(record),
                _ => open = Some(record),
            }
            at = end;
        }
        assert!(open.is_none());
        records
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn records_of_every_length_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.wandb");
        let mut file = LogFile::create(&path).unwrap();
        let lengths = [
            0, 1, 100, 32_600, 20, 7, 32_761, 32_754, 200_000, 5, 65_522, 0, 3,
        ];
        let mut records: Vec<Vec<u8>> = Vec::new();
        for (i, length) in lengths.into_iter().chain(32_700..32_770).enumerate() {
            records.push((0..length).map(|j| (i + j) as u8).collect());
        }
        for part in records.chunks(3) {
            file.append(part).unwrap();
        }
        let read = reading::records(&std::fs::read(&path).unwrap());
        assert!(read == records);
        assert!(LogFile::create(&path).is_err());
    }
}
