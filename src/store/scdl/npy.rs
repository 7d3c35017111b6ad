//! Small arrays in numpy's own file format (version 1.0).

use std::path::Path;

use super::error::ScdlError;

const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";

/// The bytes of an array of little-endian 64-bit integers.
pub(super) fn integers(values: &[i64]) -> Vec<u8> {
    let data = values.iter().flat_map(|value| value.to_le_bytes());
    array("<i8", &format!("({},)", values.len()), data)
}

/// The bytes of texts: an array of one dimension, or a scalar.
pub(super) fn texts(values: &[&str], scalar: bool) -> Vec<u8> {
    let width = values
        .iter()
        .map(|text| text.chars().count())
        .max()
        .unwrap_or(0)
        .max(1);
    let data = values.iter().flat_map(|text| {
        let padding = std::iter::repeat_n('\0', width - text.chars().count());
        text.chars()
            .chain(padding)
            .flat_map(|sign| u32::from(sign).to_le_bytes())
    });
    let shape = if scalar {
        "()".to_owned()
    } else {
        format!("({},)", values.len())
    };
    array(&format!("<U{width}"), &shape, data)
}

fn array(kind: &str, shape: &str, data: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    let fixed = MAGIC.len() + 2;
    let padded = (fixed + header.len() + 1).next_multiple_of(64) - fixed;
    header.push_str(&" ".repeat(padded - header.len() - 1));
    header.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// The 64-bit integers of the file `path`, an array of one dimension.
pub(super) fn read_integers(path: &Path) -> Result<Vec<i64>, ScdlError> {
    let bytes = std::fs::read(path).map_err(ScdlError::io("read it", path))?;
    let other = || ScdlError::invalid(path, "expected a numpy array of 64-bit integers");
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(other)?;
    let (len, rest) = rest.split_first_chunk::<2>().ok_or_else(other)?;
    let len = usize::from(u16::from_le_bytes(*len));
    let (header, data) = rest.split_at_checked(len).ok_or_else(other)?;
    let header = std::str::from_utf8(header).map_err(|_| other())?;
    let (numbers, left) = data.as_chunks::<8>();
    let shape = format!("'shape': ({},)", numbers.len());
    let fits = header.contains("'<i8'") && header.contains(&shape) && left.is_empty();
    if !fits {
        return Err(other());
    }
    Ok(numbers
        .iter()
        .map(|bytes| i64::from_le_bytes(*bytes))
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn integers_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        std::fs::write(&path, integers(&[-1, 5])).unwrap();
        assert_eq!(read_integers(&path).unwrap(), [-1, 5]);
        let whole = std::fs::read(&path).unwrap();
        assert_eq!((whole.len() - 16) % 64, 0);
        for end in 0..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert!(read_integers(&path).is_err(), "{end}");
        }
        std::fs::write(&path, texts(&["é", "ab"], false)).unwrap();
        assert!(read_integers(&path).is_err());
    }
}
