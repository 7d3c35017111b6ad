//! The first bytes of an HDF5 file that is edited where it stands, and room behind its end.
//!
//! `hdf5-pure` edits a file in bounded memory where its superblock is of version 2 or 3; older ones,
//! which h5py writes unless told otherwise, it holds in memory whole. So an old superblock is first
//! replaced by one of version 2 that says the same (groups may stay of the old kind): HDF5 reads
//! that since 1.8, as it does all that is added. Files with a user block, an extension of the
//! superblock or other sizes of B-trees than HDF5's own are left as they are.
//!
//! An edit never writes over what is there: all that is new lies behind the old end. So
//! [`Foundation::restore`], which puts the first bytes back and cuts the file, undoes all of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use super::writer::structure::{SUPERBLOCK_BYTES, UNDEFINED, checked, superblock};
use crate::file::{self, Spool, read_exact_at, write_all_at};

/// More than any superblock takes.
const MOST_BYTES: usize = 128;
/// Sizes of B-trees that superblocks of version 2 need not tell: leaves and nodes of groups, nodes
/// over chunks.
const TREE_SIZES: [u16; 3] = [4, 16, 32];
/// Where a superblock of version 2 has the end of the file, the root group and its checksum.
const END_AT: usize = 28;
const ROOT_AT: usize = 36;
const SUM_AT: usize = 44;
/// Bytes that are moved at a time.
const AT_ONCE: u64 = 4 << 20;

/// A file that is about to be edited, and how it began.
#[derive(Debug)]
pub(super) struct Foundation {
    pub(super) file: File,
    first: Vec<u8>,
    len: u64,
}

impl Foundation {
    /// Opens a file, which no other program may be writing.
    ///
    /// # Errors
    /// It cannot be written to, or is in use.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        // Let go again at once: the library takes the lock itself. Where there are no locks, it
        // goes without them.
        if !file::lock_soon(&file) {
            let problem = "another program has locked the file";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, problem));
        }
        let _ = file.unlock();
        let len = file.metadata()?.len();
        let mut first = vec![0; MOST_BYTES.min(len as usize)];
        read_exact_at(&file, 0, &mut first)?;
        Ok(Self { file, first, len })
    }

    /// Replaces a superblock of version 0 or 1, where one of version 2 says the same.
    ///
    /// # Errors
    /// The file cannot be written to.
    pub(super) fn modernise(&self) -> io::Result<()> {
        match modern(&self.first) {
            Some(bytes) => write_all_at(&self.file, 0, &bytes),
            None => Ok(()),
        }
    }

    /// The address of the root group; `None` where the superblock is not one that is known to the
    /// last bit.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn root(&self) -> io::Result<Option<u64>> {
        let bytes = self.superblock()?;
        Ok(bytes.and_then(|bytes| number(&bytes, ROOT_AT)))
    }

    /// Writes the numbers behind the end of the file and lets the file end behind them; returns
    /// where they begin. `None`, and nothing done: as [`Foundation::root`].
    ///
    /// # Errors
    /// The disk is full.
    pub(super) fn append(&self, numbers: &Spool) -> io::Result<Option<u64>> {
        let Some(mut bytes) = self.superblock()? else {
            return Ok(None);
        };
        let end = number(&bytes, END_AT).unwrap_or(self.len);
        let start = end.max(self.len).next_multiple_of(8);
        let num_bytes = 4 * numbers.len();
        let mut block = Vec::new();
        for from in (0..num_bytes).step_by(AT_ONCE as usize) {
            block.resize(AT_ONCE.min(num_bytes - from) as usize, 0);
            (numbers.read_bytes(from / 4, &mut block)).map_err(io::Error::other)?;
            write_all_at(&self.file, start + from, &block)?;
        }
        self.file.sync_data()?;
        bytes[END_AT..ROOT_AT].copy_from_slice(&(start + num_bytes).to_le_bytes());
        bytes.truncate(SUM_AT);
        write_all_at(&self.file, 0, &checked(bytes))?;
        Ok(Some(start))
    }

    /// The file as it was opened.
    ///
    /// # Errors
    /// It cannot be written to any more.
    pub(super) fn restore(&self) -> io::Result<()> {
        write_all_at(&self.file, 0, &self.first)?;
        self.file.set_len(self.len)?;
        self.file.sync_all()
    }

    /// The superblock, if it is of version 2 or 3 without an extension.
    fn superblock(&self) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; SUPERBLOCK_BYTES as usize];
        if self.len < SUPERBLOCK_BYTES {
            return Ok(None);
        }
        read_exact_at(&self.file, 0, &mut bytes)?;
        let plain = bytes.starts_with(SIGNATURE)
            && matches!(bytes[8], 2 | 3)
            && bytes[9..11] == [8, 8]
            && number(&bytes, 12) == Some(0)
            && number(&bytes, 20) == Some(UNDEFINED);
        Ok(plain.then_some(bytes))
    }
}

const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";

/// A number of 8 bytes.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// What says the same as these first bytes of a file; `None` where nothing does.
fn modern(first: &[u8]) -> Option<Vec<u8>> {
    let version = *first.get(8)?;
    if !first.starts_with(SIGNATURE) || version > 1 || *first.get(13..15)? != [8, 8] {
        return None;
    }
    let small = |at: usize| Some(u16::from_le_bytes(first.get(at..at + 2)?.try_into().ok()?));
    let over_chunks = match version {
        0 => TREE_SIZES[2],
        _ => small(24)?,
    };
    let sizes = [small(16)?, small(18)?, over_chunks];
    // Version 1 tells one size more, in 4 bytes.
    let at = 24 + 4 * usize::from(version);
    let [base, free, end, driver] = [at, at + 8, at + 16, at + 24].map(|at| number(first, at));
    let plain = sizes == TREE_SIZES
        && first.get(20..24)? == [0; 4]
        && (base?, free?, driver?) == (0, UNDEFINED, UNDEFINED);
    let root = number(first, at + 40)?;
    plain.then(|| end.map(|end| superblock(root, end)))?
}
