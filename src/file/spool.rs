//! Numbers that are too many for memory: written to the disk one after the other, read from any
//! place.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{FileError, read_exact_at, write_all_at};

/// Bytes of an f32.
const BYTES: usize = 4;
/// Numbers that are turned into bytes at a time.
const AT_ONCE: usize = 1 << 16;

/// A growing row of f32 in a file that goes away with it, whatever becomes of the process: where
/// the system allows, the file has no name from the start.
#[derive(Debug)]
pub struct Spool {
    file: File,
    path: PathBuf,
    len: u64,
}

impl Spool {
    /// An empty one on the disk of `folder`.
    ///
    /// # Errors
    /// The folder is absent or cannot be written to.
    pub fn new(folder: &Path) -> Result<Self, FileError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!(".gene-bert-{}-{count}.partial", std::process::id());
        let path = folder.join(name);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = opened.map_err(|e| FileError::io("write temporary numbers to", folder, e))?;
        if cfg!(unix) {
            let _ = fs::remove_file(&path);
        }
        Ok(Self { file, path, len: 0 })
    }

    /// How many numbers there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds numbers at the end.
    ///
    /// # Errors
    /// The disk is full.
    pub fn extend(&mut self, numbers: &[f32]) -> Result<(), FileError> {
        for part in numbers.chunks(AT_ONCE) {
            let bytes: Vec<u8> = part.iter().flat_map(|x| x.to_le_bytes()).collect();
            write_all_at(&self.file, self.len * BYTES as u64, &bytes)
                .map_err(|e| self.failed("write temporary numbers to", e))?;
            self.len += part.len() as u64;
        }
        Ok(())
    }

    /// Fills `numbers` with those from number `from` on.
    ///
    /// # Errors
    /// There are not so many; the system refuses.
    pub fn read(&self, from: u64, numbers: &mut [f32]) -> Result<(), FileError> {
        let mut bytes = vec![0; numbers.len() * BYTES];
        self.read_bytes(from, &mut bytes)?;
        for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks::<BYTES>().0) {
            *number = f32::from_le_bytes(*bytes);
        }
        Ok(())
    }

    /// The same as they lie in the file, little-endian.
    ///
    /// # Errors
    /// As [`Spool::read`].
    pub fn read_bytes(&self, from: u64, bytes: &mut [u8]) -> Result<(), FileError> {
        read_exact_at(&self.file, from * BYTES as u64, bytes)
            .map_err(|e| self.failed("read temporary numbers from", e))
    }

    fn failed(&self, action: &'static str, error: io::Error) -> FileError {
        FileError::io(action, &self.path, error)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !cfg!(unix) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_are_read_from_any_place_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path()).unwrap();
        let numbers: Vec<f32> = (0..AT_ONCE + 9).map(|x| x as f32 / 3.0).collect();
        spool.extend(&numbers[..5]).unwrap();
        spool.extend(&numbers[5..]).unwrap();
        assert_eq!(spool.len() as usize, numbers.len());
        let mut found = [0.0; 7];
        spool.read(AT_ONCE as u64 - 2, &mut found).unwrap();
        assert_eq!(found, numbers[AT_ONCE - 2..][..7]);
        assert!(spool.read(AT_ONCE as u64 + 3, &mut found).is_err());
        drop(spool);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(Spool::new(&folder.path().join("absent")).is_err());
    }
}
