//! `header.sch`: which arrays there are, how long they are and of which type.
//!
//! Numbers are big-endian, a text is its length (4 bytes) and UTF-8. Magic `SCDL`, schema (3
//! bytes), byte order (1), storage (4 bytes, 1), number of arrays (4), then of each its name,
//! length (8), type (4), and whether it has a shape (1); number of feature tables (4), then of
//! each its name, length (8), type (4), number of files (4), their names, and whether it has a
//! shape (1).

use super::{ARRAYS, OBS, VAR};
use crate::numbers::{Kind, Number};

/// A type of number in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalarType {
    /// uint8
    U8,
    /// uint16
    U16,
    /// uint32
    U32,
    /// uint64
    U64,
    /// float16
    F16,
    /// float32
    F32,
    /// float64
    F64,
}

impl ScalarType {
    const CODES: [(u32, ScalarType); 7] = [
        (1, ScalarType::U8),
        (2, ScalarType::U16),
        (3, ScalarType::U32),
        (4, ScalarType::U64),
        (5, ScalarType::F16),
        (6, ScalarType::F32),
        (7, ScalarType::F64),
    ];

    /// What it is called elsewhere.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::U8 => Kind::U8,
            Self::U16 => Kind::U16,
            Self::U32 => Kind::U32,
            Self::U64 => Kind::U64,
            Self::F16 => Kind::F16,
            Self::F32 => Kind::F32,
            Self::F64 => Kind::F64,
        }
    }

    /// How numbers of this type lie in a file.
    pub(super) fn number(self) -> Number {
        Number::little(self.kind())
    }

    /// Bytes of a number.
    pub fn size(self) -> usize {
        self.kind().size()
    }

    /// The narrowest type of integers from 0 to `most`.
    pub(super) fn narrowest(most: u64) -> Self {
        match most {
            0..=0xff => Self::U8,
            0x100..=0xffff => Self::U16,
            0x1_0000..=0xffff_ffff => Self::U32,
            _ => Self::U64,
        }
    }

    fn of_code(code: u32) -> Option<Self> {
        Self::CODES
            .iter()
            .find(|(c, _)| *c == code)
            .map(|(_, t)| *t)
    }

    fn code(self) -> u32 {
        Self::CODES
            .iter()
            .find(|(_, t)| *t == self)
            .map_or(0, |(c, _)| *c)
    }
}

/// The type code of texts, which all feature tables bear.
const TEXTS: u32 = 8;
const MAGIC: [u8; 4] = *b"SCDL";
const SCHEMA: [u8; 3] = [0, 1, 0];
const NETWORK_ORDER: u8 = 1;
const MEMORY_MAPPED: u32 = 1;

/// An array or a feature table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) len: u64,
    /// `None`: texts.
    pub(super) scalar: Option<ScalarType>,
    pub(super) files: Vec<String>,
}

/// The header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) arrays: Vec<Entry>,
    pub(super) tables: Vec<Entry>,
}

impl Header {
    /// Reads a header; what is wrong where it is none.
    pub(super) fn parse(bytes: &[u8]) -> Result<Header, String> {
        let mut reader = Reader(bytes);
        let magic = reader.take::<4>()?;
        if magic != MAGIC {
            return Err(format!("expected the mark SCDL, found {magic:?}"));
        }
        let schema = reader.take::<3>()?;
        if schema != SCHEMA {
            return Err(format!("expected schema 0.1.0, found {schema:?}"));
        }
        let order = reader.take::<1>()?[0];
        let storage = reader.u32()?;
        if order != NETWORK_ORDER || storage != MEMORY_MAPPED {
            return Err(format!(
                "byte order {order} and storage {storage} are not known"
            ));
        }
        let mut header = Header::default();
        for _ in 0..reader.u32()? {
            let (name, len, code) = (reader.text()?, reader.u64()?, reader.u32()?);
            let scalar = ScalarType::of_code(code);
            let scalar = scalar.ok_or_else(|| format!("array {name} is of type {code}"))?;
            reader.no_shape(&name)?;
            header.arrays.push(Entry {
                name,
                len,
                scalar: Some(scalar),
                files: Vec::new(),
            });
        }
        for _ in 0..reader.u32()? {
            let (name, len, code) = (reader.text()?, reader.u64()?, reader.u32()?);
            if code != TEXTS {
                return Err(format!("table {name} is of type {code}"));
            }
            let files = (0..reader.u32()?)
                .map(|_| reader.text())
                .collect::<Result<_, _>>()?;
            reader.no_shape(&name)?;
            header.tables.push(Entry {
                name,
                len,
                scalar: None,
                files,
            });
        }
        match reader.0.len() {
            0 => Ok(header),
            more => Err(format!("{more} bytes stand after its end")),
        }
    }

    /// Refuses names that an archive does not have, or twice.
    pub(super) fn check_names(&self) -> Result<(), String> {
        let arrays = ARRAYS.map(|(name, _)| name);
        for (entries, known) in [(&self.arrays, &arrays[..]), (&self.tables, &[VAR, OBS][..])] {
            for name in known {
                let count = entries.iter().filter(|entry| entry.name == *name).count();
                if count != 1 {
                    return Err(format!("expected one entry {name}, found {count}"));
                }
            }
            if let Some(odd) = entries
                .iter()
                .find(|entry| !known.contains(&entry.name.as_str()))
            {
                return Err(format!("{:?} is none of {}", odd.name, known.join(", ")));
            }
        }
        Ok(())
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(SCHEMA);
        bytes.push(NETWORK_ORDER);
        bytes.extend(MEMORY_MAPPED.to_be_bytes());
        let text = |bytes: &mut Vec<u8>, text: &str| {
            bytes.extend((text.len() as u32).to_be_bytes());
            bytes.extend(text.as_bytes());
        };
        for entries in [&self.arrays, &self.tables] {
            bytes.extend((entries.len() as u32).to_be_bytes());
            for entry in entries {
                text(&mut bytes, &entry.name);
                bytes.extend(entry.len.to_be_bytes());
                bytes.extend(entry.scalar.map_or(TEXTS, ScalarType::code).to_be_bytes());
                if entry.scalar.is_none() {
                    bytes.extend((entry.files.len() as u32).to_be_bytes());
                    entry.files.iter().for_each(|file| text(&mut bytes, file));
                }
                bytes.push(0);
            }
        }
        bytes
    }

    /// Length and type of the array `name`.
    pub(super) fn array(&self, name: &str) -> Result<(u64, ScalarType), String> {
        let entry = self.arrays.iter().find(|entry| entry.name == name);
        entry
            .and_then(|entry| Some((entry.len, entry.scalar?)))
            .ok_or_else(|| format!("there is no array {name}"))
    }
}

/// Bytes not read yet.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or("it is cut off")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    fn text(&mut self) -> Result<String, String> {
        let len = self.u32()? as usize;
        let (taken, rest) = self.0.split_at_checked(len).ok_or("it is cut off")?;
        self.0 = rest;
        let text = std::str::from_utf8(taken).map_err(|_| "a name is not UTF-8")?;
        Ok(text.to_owned())
    }

    fn no_shape(&mut self, name: &str) -> Result<(), String> {
        match self.take::<1>()?[0] {
            0 => Ok(()),
            _ => Err(format!(
                "{name} has a shape, which no array of this format has"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(super) fn example() -> Header {
        let array = |name: &str, len, scalar| Entry {
            name: name.to_owned(),
            len,
            scalar: Some(scalar),
            files: Vec::new(),
        };
        Header {
            arrays: vec![
                array("DATA", 7, ScalarType::F32),
                array("ROWPTR", 4, ScalarType::U64),
                array("COLPTR", 7, ScalarType::U32),
            ],
            tables: vec![Entry {
                name: "var_features".to_owned(),
                len: 3,
                scalar: None,
                files: vec!["var_features/labels.npy".to_owned()],
            }],
        }
    }

    #[test]
    fn a_header_reads_back_and_no_part_of_it_does() {
        let bytes = example().to_bytes();
        assert_eq!(Header::parse(&bytes).unwrap(), example());
        for end in 0..bytes.len() {
            assert!(Header::parse(&bytes[..end]).is_err(), "{end} bytes");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(Header::parse(&longer).is_err());
    }

    #[test]
    fn a_flipped_bit_is_refused_or_shows() {
        let (bytes, whole) = (example().to_bytes(), example());
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(found) = Header::parse(&flipped) else {
                continue;
            };
            assert_ne!(found, whole, "bit {bit}");
            // A type of number never becomes another one of the same size.
            for (a, b) in found.arrays.iter().zip(&whole.arrays) {
                let same = a.scalar == b.scalar;
                assert!(same || a.scalar.map(ScalarType::size) != b.scalar.map(ScalarType::size));
            }
        }
    }
}
