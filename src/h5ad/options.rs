//! How a file is to be read: which matrix, which gene ids, which values are allowed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::GeneMap;

/// Which matrix of the file is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MatrixKey {
    /// `X`, with the genes of `var`.
    #[default]
    X,
    /// `layers.<name>`, with the genes of `var`.
    Layer(String),
    /// `raw.X`, with the genes of `raw.var`.
    RawX,
    /// `obsm.<name>`, an array whose columns have numbers for names.
    Obsm(String),
}

impl fmt::Display for MatrixKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MatrixKey::X => f.write_str("X"),
            MatrixKey::Layer(name) => write!(f, "layers.{name}"),
            MatrixKey::RawX => f.write_str("raw.X"),
            MatrixKey::Obsm(name) => write!(f, "obsm.{name}"),
        }
    }
}

/// The error of a matrix name that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no matrix; expected X, layers.<name>, raw.X or obsm.<name>")]
pub struct UnknownMatrix(String);

impl FromStr for MatrixKey {
    type Err = UnknownMatrix;

    fn from_str(text: &str) -> Result<Self, UnknownMatrix> {
        let within = |group: &str| {
            let rest = text.strip_prefix(group)?;
            let name = rest.strip_prefix('.').or_else(|| rest.strip_prefix('/'))?;
            (!name.is_empty()).then(|| name.to_owned())
        };
        match text {
            "X" => Ok(MatrixKey::X),
            "raw.X" | "raw/X" => Ok(MatrixKey::RawX),
            _ => None
                .or_else(|| within("layers").map(MatrixKey::Layer))
                .or_else(|| within("obsm").map(MatrixKey::Obsm))
                .ok_or_else(|| UnknownMatrix(text.to_owned())),
        }
    }
}

impl TryFrom<String> for MatrixKey {
    type Error = UnknownMatrix;

    fn try_from(text: String) -> Result<Self, UnknownMatrix> {
        text.parse()
    }
}

impl From<MatrixKey> for String {
    fn from(key: MatrixKey) -> String {
        key.to_string()
    }
}

/// Which values a read lets through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValuePolicy {
    /// Finite and not negative; anything else is an error that names file, row and gene.
    #[default]
    NonNegative,
    /// Whatever the file holds.
    Any,
}

/// How [`super::H5ad::open`] reads a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOptions {
    /// The matrix.
    pub matrix: MatrixKey,
    /// The column of `var` (or `raw.var`) that holds the gene ids; its index where `None`.
    pub gene_id_column: Option<String>,
    /// Other names for the gene ids.
    pub gene_map: Option<GeneMap>,
    /// Which values are let through.
    pub values: ValuePolicy,
    /// How much memory, in bytes, a column-compressed matrix may take to be held by rows. A
    /// larger one is scanned whole at every read.
    pub csc_memory_bytes: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            matrix: MatrixKey::X,
            gene_id_column: None,
            gene_map: None,
            values: ValuePolicy::NonNegative,
            csc_memory_bytes: 256 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn matrix_names_read_back_as_written() {
        for key in [
            MatrixKey::X,
            MatrixKey::RawX,
            MatrixKey::Layer("counts.v2".into()),
            MatrixKey::Obsm("X_pca".into()),
        ] {
            assert_eq!(key.to_string().parse::<MatrixKey>().unwrap(), key);
        }
        for bad in ["", "x", "layers.", "raw", "obs", "obsm."] {
            assert!(bad.parse::<MatrixKey>().is_err(), "{bad}");
        }
    }
}
