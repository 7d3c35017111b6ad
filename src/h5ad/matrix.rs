//! One matrix of the file, whatever its encoding, under the name that a user gives it.

use std::ops::Range;

use super::container::{Container, Node};
use super::dense::Dense;
use super::number::Value;
use super::rows::{Rows, Stop};
use super::sparse::{Sparse, orientation};
use super::{H5adError, MatrixKey, ValuePolicy};
use crate::numbers::Kind;

/// A matrix.
pub(super) enum Matrix {
    /// The file has none under that name; only `X` may be absent.
    Absent {
        available: Vec<String>,
    },
    Sparse {
        key: String,
        sparse: Box<Sparse>,
    },
    Dense {
        key: String,
        dense: Box<Dense>,
    },
}

impl Matrix {
    /// The table that describes the columns of a matrix. The oldest files keep `raw.var` as a
    /// member of the root.
    pub(super) fn var_key(container: &Container, key: &MatrixKey) -> Result<String, H5adError> {
        if *key != MatrixKey::RawX {
            return Ok("var".into());
        }
        let flat = matches!(container.node("raw.var")?, Node::Absent);
        Ok(if flat {
            "raw/var".into()
        } else {
            "raw.var".into()
        })
    }

    /// Opens the matrix `key`; `expected` is the shape that the tables tell.
    pub(super) fn open(
        container: &Container,
        key: &MatrixKey,
        expected: (u64, u64),
    ) -> Result<Matrix, H5adError> {
        let places = match key {
            MatrixKey::X => vec!["X".to_owned()],
            MatrixKey::Layer(name) => vec![format!("layers/{name}")],
            MatrixKey::RawX => vec!["raw/X".to_owned(), "raw.X".to_owned()],
            MatrixKey::Obsm(name) => vec![format!("obsm/{name}")],
        };
        for place in places {
            match container.node(&place)? {
                Node::Absent => {}
                Node::Dataset(_) => {
                    let dense = Box::new(Dense::open(container, &place, expected)?);
                    return Ok(Matrix::Dense { key: place, dense });
                }
                node @ Node::Group(_) => {
                    let attributes = container.attributes(&place, &node)?;
                    let by_column = orientation(&attributes).ok_or_else(|| {
                        let found = attributes.text("encoding-type").unwrap_or("no encoding");
                        let what = format!(
                            "expected a csr_matrix, a csc_matrix or an array, found {found}"
                        );
                        container.invalid(&place, what)
                    })?;
                    let sparse = Sparse::open(container, &place, &attributes, by_column, expected)?;
                    let sparse = Box::new(sparse);
                    return Ok(Matrix::Sparse { key: place, sparse });
                }
            }
        }
        let available = match key {
            MatrixKey::Obsm(_) => Matrix::obsm(container)?,
            _ => Matrix::available(container)?,
        };
        if *key == MatrixKey::X {
            return Ok(Matrix::Absent { available });
        }
        Err(missing(container, &key.to_string(), &available))
    }

    /// The names of the arrays of obsm.
    fn obsm(container: &Container) -> Result<Vec<String>, H5adError> {
        let Node::Group(group) = container.node("obsm")? else {
            return Ok(Vec::new());
        };
        let names = container.members("obsm", &group)?.into_iter();
        Ok(names.map(|name| format!("obsm.{name}")).collect())
    }

    /// The names of the matrices that the file has.
    pub(super) fn available(container: &Container) -> Result<Vec<String>, H5adError> {
        let mut names = Vec::new();
        if !matches!(container.node("X")?, Node::Absent) {
            names.push("X".to_owned());
        }
        if let Node::Group(group) = container.node("layers")? {
            let layers = container.members("layers", &group)?;
            names.extend(layers.into_iter().map(|name| format!("layers.{name}")));
        }
        for raw in ["raw/X", "raw.X"] {
            if !matches!(container.node(raw)?, Node::Absent) {
                names.push("raw.X".to_owned());
                break;
            }
        }
        Ok(names)
    }

    /// The type of its values; `None` where there is no matrix.
    pub(super) fn kind(&self) -> Option<Kind> {
        match self {
            Matrix::Absent { .. } => None,
            Matrix::Sparse { sparse, .. } => Some(sparse.data().number.kind),
            Matrix::Dense { dense, .. } => Some(dense.data().number.kind),
        }
    }

    /// Entries of the whole matrix, zeros included.
    pub(super) fn entries_in_all(&self) -> Option<u64> {
        match self {
            Matrix::Absent { .. } => None,
            Matrix::Sparse { sparse, .. } => Some(sparse.num_entries()),
            Matrix::Dense { dense, .. } => {
                let (rows, columns) = dense.shape();
                rows.checked_mul(columns)
            }
        }
    }

    /// How many entries rows hold in the file, zeros included; `None` where that is not known
    /// without reading them.
    pub(super) fn num_entries(&self, rows: Range<u64>) -> Option<u64> {
        match self {
            Matrix::Sparse { sparse, .. } => sparse.entries_of(rows),
            _ => None,
        }
    }

    /// Rows and columns, `None` where there is no matrix.
    pub(super) fn shape(&self) -> Option<(u64, u64)> {
        match self {
            Matrix::Absent { .. } => None,
            Matrix::Sparse { sparse, .. } => Some(sparse.shape()),
            Matrix::Dense { dense, .. } => Some(dense.shape()),
        }
    }

    /// anndata's name for the encoding.
    pub(super) fn encoding(&self) -> &'static str {
        match self {
            Matrix::Absent { .. } => "none",
            Matrix::Sparse { .. } if self.by_column() => "csc_matrix",
            Matrix::Sparse { .. } => "csr_matrix",
            Matrix::Dense { .. } => "array",
        }
    }

    /// Whether it is compressed by column.
    pub(super) fn by_column(&self) -> bool {
        matches!(self, Matrix::Sparse { sparse, .. } if sparse.by_column())
    }

    /// The matrix's place in the file.
    pub(super) fn key(&self) -> &str {
        match self {
            Matrix::Absent { .. } => "X",
            Matrix::Sparse { key, .. } | Matrix::Dense { key, .. } => key,
        }
    }

    /// The rows of `ranges`, which ascend, are not empty and lie within the matrix.
    pub(super) fn read<V: Value>(
        &self,
        container: &Container,
        ranges: &[Range<u64>],
        policy: ValuePolicy,
        csc_memory_bytes: u64,
    ) -> Result<Rows<V>, Stop> {
        match self {
            Matrix::Absent { available } => Err(Stop::File(missing(container, "X", available))),
            Matrix::Sparse { sparse, .. } => {
                sparse.read(container, ranges, policy, csc_memory_bytes)
            }
            Matrix::Dense { dense, .. } => dense.read(container, ranges, policy),
        }
    }
}

fn missing(container: &Container, name: &str, available: &[String]) -> H5adError {
    let (available, hint) = match available {
        [] => (
            "none".into(),
            "the file holds no expression values; leave it out",
        ),
        names => (
            names.join(", "),
            "choose one of the matrices that the file has",
        ),
    };
    let (path, name) = (container.path().to_owned(), name.to_owned());
    H5adError::Missing {
        path,
        what: "matrix",
        name,
        available,
        hint,
    }
}
