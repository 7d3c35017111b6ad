//! One open HDF5 file: objects and attributes by key, errors that name file and key.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hdf5_pure::{
    AttrValue, Dataset, Error, File, FileAccessProperties, FormatError, Group, MetadataCacheConfig,
};

use super::H5adError;
use super::array::filter_name;
use super::diagnose;

/// An open file.
pub(super) struct Container {
    path: PathBuf,
    pub(super) file: File,
    /// The same file, for positioned reads of chunks.
    pub(super) raw: Arc<std::fs::File>,
    bytes: u64,
}

/// What stands under a key.
pub(super) enum Node {
    Absent,
    Group(Group),
    Dataset(Dataset),
}

/// The attributes of an object.
pub(super) struct Attributes(HashMap<String, AttrValue>);

impl Attributes {
    /// An attribute as text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name)?;
        value.as_str().or_else(|| match value.as_strings() {
            Some([one]) => Some(one.as_str()),
            _ => None,
        })
    }

    /// An attribute as a list of texts.
    pub(super) fn texts(&self, name: &str) -> Option<Vec<String>> {
        let value = self.0.get(name)?;
        let list = value.as_strings().map(<[String]>::to_vec);
        list.or_else(|| value.as_str().map(|one| vec![one.to_owned()]))
    }

    /// An attribute as yes or no: no where there is none.
    pub(super) fn flag(&self, name: &str) -> bool {
        let number = self.0.get(name).and_then(AttrValue::to_i64s);
        number.is_some_and(|numbers| numbers.first().is_some_and(|number| *number != 0))
    }

    /// An attribute as a list of sizes.
    pub(super) fn sizes(&self, name: &str) -> Option<Vec<u64>> {
        let value = self.0.get(name)?;
        value.to_u64s().or_else(|| {
            let signed = value.to_i64s()?;
            signed
                .into_iter()
                .map(|size| u64::try_from(size).ok())
                .collect()
        })
    }
}

impl Container {
    /// Opens a file without reading more than its first structures.
    pub(super) fn open(path: &Path) -> Result<Container, H5adError> {
        let io = |source| H5adError::Io {
            path: path.to_owned(),
            source,
        };
        let raw = Arc::new(std::fs::File::open(path).map_err(io)?);
        let bytes = raw.metadata().map_err(io)?.len();
        diagnose::before_open(path, bytes)?;
        let properties = FileAccessProperties::new()
            .with_metadata_cache(MetadataCacheConfig::new(8 << 20).with_max_entry_bytes(64 << 10));
        let file = File::open_streaming_with_options(path, properties)
            .map_err(|error| diagnose::on_failure(path, error))?;
        Ok(Container {
            path: path.to_owned(),
            file,
            raw,
            bytes,
        })
    }

    /// Size of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The width of an address and the offset of the HDF5 part in the file.
    pub(super) fn addressing(&self) -> (u8, u64) {
        let superblock = self.file.superblock();
        (superblock.offset_size, superblock.base_address.get())
    }

    pub(super) fn root_attributes(&self) -> Result<Attributes, H5adError> {
        self.file
            .root()
            .attrs()
            .map(Attributes)
            .map_err(|e| self.failed("/", e))
    }

    pub(super) fn attributes(&self, key: &str, node: &Node) -> Result<Attributes, H5adError> {
        match node {
            Node::Absent => Ok(Attributes(HashMap::new())),
            Node::Group(group) => group
                .attrs()
                .map(Attributes)
                .map_err(|e| self.failed(key, e)),
            Node::Dataset(data) => data
                .attrs()
                .map(Attributes)
                .map_err(|e| self.failed(key, e)),
        }
    }

    /// What stands under `key`, parts separated by `/`.
    pub(super) fn node(&self, key: &str) -> Result<Node, H5adError> {
        match self.file.dataset(key) {
            Ok(dataset) => return Ok(Node::Dataset(dataset)),
            Err(Error::NotADataset(_)) => {}
            Err(Error::NotAGroup(_) | Error::Format(FormatError::PathNotFound(_))) => {
                return Ok(Node::Absent);
            }
            Err(error) => return Err(self.failed(key, error)),
        }
        match self.file.group(key) {
            Ok(group) => Ok(Node::Group(group)),
            Err(error) => Err(self.failed(key, error)),
        }
    }

    /// The members of a group: data sets and groups, sorted.
    pub(super) fn members(&self, key: &str, group: &Group) -> Result<Vec<String>, H5adError> {
        let mut names = group.datasets().map_err(|e| self.failed(key, e))?;
        names.extend(group.groups().map_err(|e| self.failed(key, e))?);
        names.sort();
        Ok(names)
    }

    /// The data set under `key`, refused where there is none.
    pub(super) fn dataset(&self, key: &str) -> Result<Dataset, H5adError> {
        match self.node(key)? {
            Node::Dataset(dataset) => Ok(dataset),
            Node::Group(_) => Err(self.invalid(key, "expected a data set, found a group")),
            Node::Absent => Err(self.invalid(key, "expected a data set, found nothing")),
        }
    }

    /// An error below `key`.
    pub(super) fn failed(&self, key: &str, error: Error) -> H5adError {
        if let Error::Format(FormatError::UnsupportedFilter(id)) = error {
            return H5adError::Filter {
                path: self.path.clone(),
                key: key.to_owned(),
                filter: filter_name(id, None),
            };
        }
        H5adError::Hdf5 {
            path: self.path.clone(),
            key: key.to_owned(),
            source: Box::new(error),
        }
    }

    /// Something other than expected under `key`.
    pub(super) fn invalid(&self, key: &str, what: impl Into<String>) -> H5adError {
        H5adError::Invalid {
            path: self.path.clone(),
            key: key.to_owned(),
            what: what.into(),
        }
    }
}
