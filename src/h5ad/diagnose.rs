//! Why a file is not a whole HDF5 file: the usual accidents, each with its remedy.
//!
//! * a Git-LFS pointer: the repository was cloned without its large files;
//! * CRLF damage: HDF5's signature carries a CR LF and a lone LF just to catch a transfer in text
//!   mode (`\x89HDF\r\n\x1a\n`), so what became of them tells what happened to the file;
//! * truncation: the superblock stores where the file ends;
//! * a download of a web page, an archive, another format.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::H5adError;

const SIGNATURE: &[u8; 8] = b"\x89HDF\r\n\x1a\n";
const HINT_COPY: &str = "copy or download the file again, and compare sizes";
const HINT_TEXT_MODE: &str = concat!(
    "line ends were changed while it was transferred in text mode; transfer it again in binary ",
    "mode (in Git: mark *.h5ad as binary in .gitattributes)"
);

/// Looks at the first bytes of a file of `bytes` bytes, and at the end its superblock stores.
pub(super) fn before_open(path: &Path, bytes: u64) -> Result<(), H5adError> {
    let io = |source| H5adError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(io)?;
    let head = read_up_to(&mut file, 512).map_err(io)?;
    let Some(superblock) = find_superblock(&mut file, bytes).map_err(io)? else {
        let (what, hint) = not_hdf5(&head, bytes);
        let (path, hint) = (path.to_owned(), hint.into());
        return Err(H5adError::NotHdf5 { path, what, hint });
    };
    match stored_end(&superblock) {
        Some(end) if end > bytes => Err(truncated(path, end, bytes)),
        _ => Ok(()),
    }
}

/// The error of a file that looked whole but does not open.
pub(super) fn on_failure(path: &Path, error: hdf5_pure::Error) -> H5adError {
    H5adError::Hdf5 {
        path: path.to_owned(),
        key: "/".into(),
        source: Box::new(error),
    }
}

fn read_up_to(file: &mut File, bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut buffer = Vec::new();
    file.by_ref().take(bytes).read_to_end(&mut buffer)?;
    Ok(buffer)
}

/// The superblock may stand at 0, 512, 1024, 2048, …: what comes before it is a user block.
fn find_superblock(file: &mut File, bytes: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut at = 0u64;
    while at < bytes {
        file.seek(SeekFrom::Start(at))?;
        let block = read_up_to(file, 96)?;
        if block.starts_with(SIGNATURE) {
            return Ok(Some(block));
        }
        at = if at == 0 { 512 } else { at.saturating_mul(2) };
    }
    Ok(None)
}

/// The end of the file, user block included, that a superblock of any version stores.
fn stored_end(superblock: &[u8]) -> Option<u64> {
    let version = *superblock.get(8)?;
    // Versions 0 and 1: sizes at 13, then after the group constants and flags the addresses of
    // base, free space, end of file. Versions 2 and 3: sizes at 9; base, extension, end of file.
    let (width, first) = match version {
        0 => (*superblock.get(13)?, 24),
        1 => (*superblock.get(13)?, 28),
        2 | 3 => (*superblock.get(9)?, 12),
        _ => return None,
    };
    let at = first + 2 * usize::from(width);
    let bytes = superblock.get(at..at + usize::from(width))?;
    let mut address = [0u8; 8];
    address.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let undefined = bytes.iter().all(|byte| *byte == 0xff);
    Some(if undefined {
        u64::MAX
    } else {
        u64::from_le_bytes(address)
    })
}

fn truncated(path: &Path, end: u64, bytes: u64) -> H5adError {
    H5adError::NotHdf5 {
        path: path.to_owned(),
        what: format!(
            "the file is truncated: its header says that it ends at byte {end}, it has {bytes} \
             bytes"
        ),
        hint: HINT_COPY.into(),
    }
}

/// What a file without a superblock is.
fn not_hdf5(head: &[u8], bytes: u64) -> (String, &'static str) {
    if bytes == 0 {
        return ("the file is empty".into(), HINT_COPY);
    }
    if head.starts_with(b"version https://git-lfs.github.com/spec/") {
        let text = String::from_utf8_lossy(head);
        let size = text
            .lines()
            .find_map(|line| line.strip_prefix("size "))
            .unwrap_or("?");
        return (
            format!("a Git-LFS pointer, not the data ({size} bytes) that it stands for"),
            "run `git lfs pull` in the repository it came from",
        );
    }
    let start = &head[..head.len().min(16)];
    let mangled: [&[u8]; 4] = [
        b"\x89HDF\n\x1a\n",
        b"\x89HDF\r\r\n\x1a",
        b"\x89HDF\r\n\x1a\r\n",
        b"\x89HDF\r\r\x1a",
    ];
    if mangled.iter().any(|signature| start.starts_with(signature)) {
        return (
            "an HDF5 file damaged by a conversion of line ends (CR LF)".into(),
            HINT_TEXT_MODE,
        );
    }
    if start.starts_with(b"\xef\xbf\xbdHDF") {
        return (
            "an HDF5 file damaged by a conversion to UTF-8 text".into(),
            "it was read and written again as text; copy it again as binary data",
        );
    }
    let other = match start {
        [0x1f, 0x8b, ..] => Some(("gzip data", "unpack it first: gunzip FILE.gz")),
        [b'P', b'K', 3, 4, ..] => Some(("a zip archive", "unpack it first: unzip FILE.zip")),
        [b'<', ..] => Some((
            "an HTML or XML page",
            "the download failed; open the address again",
        )),
        [b'{', ..] => Some(("JSON text", "expected an .h5ad file")),
        _ => None,
    };
    match other {
        Some((what, hint)) => (format!("{what}, not an HDF5 file"), hint),
        None => (
            "not an HDF5 file: its signature is missing".into(),
            "expected a file written by AnnData.write_h5ad; if it was one, copy it again",
        ),
    }
}
