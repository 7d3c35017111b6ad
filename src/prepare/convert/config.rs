//! What is to be written, and how.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::h5ad::writer::Storage;
use crate::h5ad::{H5ad, H5adError, Kind, OpenOptions};

/// A conversion.
#[derive(Debug, Clone)]
pub struct ConvertConfig {
    /// The files, in this order.
    pub inputs: Vec<PathBuf>,
    /// The file; `NAME_0.h5ad`, `NAME_1.h5ad` … with [`Self::cells_per_file`].
    pub output: PathBuf,
    /// Which matrix is read, and which column holds the gene ids.
    pub open: OpenOptions,
    /// Cells of each file but the last; `None`: one file.
    pub cells_per_file: Option<u64>,
    /// Seed of the order of the cells; `None`: they keep the order of the inputs.
    pub shuffle: Option<u64>,
    /// How numbers are stored.
    pub storage: Storage,
    /// The type of the values.
    pub dtype: Dtype,
    /// Which genes, where the files differ.
    pub genes: GeneChoice,
    /// The graph of cells (`obsp.<name>`) whose edges become neighbours: archives only.
    pub neighbors: Option<String>,
    /// Memory for cells under way, in bytes.
    pub memory_bytes: u64,
    /// Whether finished files of a conversion that was killed are taken as they are.
    pub resume: bool,
}

impl ConvertConfig {
    /// The inputs; matrices by column may take a quarter of the memory.
    pub(super) fn open_inputs(&self) -> Result<Vec<H5ad>, H5adError> {
        let open = OpenOptions {
            csc_memory_bytes: self.memory_bytes / 4,
            ..self.open.clone()
        };
        let files = self.inputs.iter().map(|path| H5ad::open(path, &open));
        files.collect()
    }
}

/// The type of the values written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dtype {
    /// That of the inputs; one that holds all of them where they differ.
    #[default]
    Keep,
    /// The narrowest that holds every value: found in a pass of its own.
    Narrowest,
    /// This one.
    As(Kind),
}

/// The name of a type that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is none of {}", expected.join(", "))]
pub struct UnknownName {
    given: String,
    expected: Vec<&'static str>,
}

const KINDS: [Kind; 12] = [
    Kind::Bool,
    Kind::I8,
    Kind::I16,
    Kind::I32,
    Kind::I64,
    Kind::U8,
    Kind::U16,
    Kind::U32,
    Kind::U64,
    Kind::F16,
    Kind::F32,
    Kind::F64,
];

impl FromStr for Dtype {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let kind = KINDS.into_iter().find(|kind| kind.name() == text);
        match (text, kind) {
            ("keep", _) => Ok(Self::Keep),
            ("narrowest", _) => Ok(Self::Narrowest),
            (_, Some(kind)) => Ok(Self::As(kind)),
            _ => Err(UnknownName {
                given: text.to_owned(),
                expected: ["keep", "narrowest"]
                    .into_iter()
                    .chain(KINDS.iter().map(|kind| kind.name()))
                    .collect(),
            }),
        }
    }
}

/// The narrowest type that holds whatever two types hold, up to integers of 2^53.
pub(super) fn common(one: Kind, other: Kind) -> Kind {
    let holds = |wide: Kind, narrow: Kind| {
        let (w, n) = (range(wide), range(narrow));
        wide.is_float() >= narrow.is_float() && w.0 >= n.0 && w.1 >= n.1
    };
    // From narrow to wide.
    let order = [
        Kind::Bool,
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::F16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::U64,
        Kind::I64,
    ];
    let fits = |kind: &Kind| holds(*kind, one) && holds(*kind, other);
    order.into_iter().find(fits).unwrap_or(Kind::F64)
}

/// Bits of magnitude that a type holds exactly, and the same for negative numbers.
fn range(kind: Kind) -> (u32, u32) {
    match kind {
        Kind::Bool => (1, 0),
        Kind::U8 => (8, 0),
        Kind::U16 => (16, 0),
        Kind::U32 => (32, 0),
        Kind::U64 => (64, 0),
        Kind::I8 => (7, 7),
        Kind::I16 => (15, 15),
        Kind::I32 => (31, 31),
        Kind::I64 => (63, 63),
        Kind::F16 => (11, 11),
        Kind::F32 => (24, 24),
        Kind::F64 => (53, 53),
    }
}

/// Which genes are written where the files have different ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GeneChoice {
    /// None: different genes are an error.
    #[default]
    Same,
    /// Those of any file; 0 in cells of a file that lacks them.
    Union,
    /// Those of every file.
    Intersection,
    /// Of each file its own: only archives can hold that.
    Ragged,
}

impl FromStr for GeneChoice {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text {
            "same" => Ok(Self::Same),
            "union" => Ok(Self::Union),
            "intersection" => Ok(Self::Intersection),
            "ragged" => Ok(Self::Ragged),
            _ => Err(UnknownName {
                given: text.to_owned(),
                expected: vec!["same", "union", "intersection", "ragged"],
            }),
        }
    }
}

/// `gzip`, `gzip:LEVEL` or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression(pub Option<u32>);

impl FromStr for Compression {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let level = text
            .strip_prefix("gzip:")
            .and_then(|level| level.parse().ok());
        match (text, level) {
            ("none", _) => Ok(Self(None)),
            ("gzip", _) => Ok(Self(Some(4))),
            (_, Some(level @ 1..=9)) => Ok(Self(Some(level))),
            _ => Err(UnknownName {
                given: text.to_owned(),
                expected: vec!["gzip", "gzip:1", "… gzip:9", "none"],
            }),
        }
    }
}

/// A number of bytes: `300MB`, `1GiB`, `1000000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySize(pub u64);

impl FromStr for MemorySize {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text.get(digits.len()..).unwrap_or_default() {
            "" | "B" => Some(1),
            "MB" => Some(1_000_000),
            "GB" => Some(1_000_000_000),
            "MiB" | "M" => Some(1 << 20),
            "GiB" | "G" => Some(1 << 30),
            _ => None,
        };
        let bytes = unit.zip(digits.parse::<u64>().ok());
        let bytes = bytes.and_then(|(unit, count)| count.checked_mul(unit));
        bytes.map(Self).ok_or_else(|| UnknownName {
            given: text.to_owned(),
            expected: vec!["a number of bytes such as 300MB", "1GiB", "1000000000"],
        })
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_common_type_holds_both() {
        for (one, other, expected) in [
            (Kind::F32, Kind::F32, Kind::F32),
            (Kind::U8, Kind::U16, Kind::U16),
            (Kind::U8, Kind::I8, Kind::I16),
            (Kind::I32, Kind::F32, Kind::F64),
            (Kind::U16, Kind::F32, Kind::F32),
            (Kind::U8, Kind::F16, Kind::F16),
            (Kind::U64, Kind::I8, Kind::F64),
            (Kind::I64, Kind::I32, Kind::I64),
            (Kind::F64, Kind::I64, Kind::F64),
        ] {
            assert_eq!(common(one, other), expected, "{one:?} {other:?}");
            assert_eq!(common(other, one), expected, "{other:?} {one:?}");
        }
    }

    #[test]
    fn names_are_read_and_others_refused() {
        assert_eq!("uint16".parse::<Dtype>().unwrap(), Dtype::As(Kind::U16));
        assert!(
            "int"
                .parse::<Dtype>()
                .unwrap_err()
                .to_string()
                .contains("int32")
        );
        assert_eq!("gzip:9".parse::<Compression>().unwrap().0, Some(9));
        assert!("gzip:10".parse::<Compression>().is_err());
        assert_eq!("300MB".parse::<MemorySize>().unwrap().0, 300_000_000);
        assert!("1 TB".parse::<MemorySize>().is_err());
    }
}
