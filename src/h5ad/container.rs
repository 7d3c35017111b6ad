//! One open HDF5 file: objects by key, windows of raw bytes, errors that name file and key.
//!
//! Every size that the file declares is compared with the size of the file before memory is asked
//! for: an array can be compressed, but not a thousandfold beyond what deflate can do.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use hdf5_pure::{
    AttrValue, ChunkCacheConfig, Dataset, DatasetAccessProperties, Datatype, Error, File,
    FileAccessProperties, FormatError, Group, MetadataCacheConfig,
};

use super::H5adError;
use super::chunks::Chunks;
use super::diagnose;
use super::number::Number;

/// Deflate shrinks at most 1032-fold; anything that claims more is damaged or hostile.
const MOST_COMPRESSION: u64 = 1100;
/// Storage that was never written is read as its fill value; allow that much of it.
const MOST_UNWRITTEN_BYTES: u64 = 1 << 30;
/// Decoded chunks kept per data set, so that reads that follow each other share a chunk.
const CHUNK_CACHE_BYTES: u64 = 16 << 20;
/// The most that a data set with huge chunks may keep.
const MOST_CHUNK_CACHE_BYTES: u64 = 256 << 20;

/// An open file.
pub(super) struct Container {
    path: PathBuf,
    file: File,
    /// The same file, for positioned reads of chunks.
    raw: Arc<std::fs::File>,
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

/// An array of numbers, checked: its type is read, its shape fits the file, its filters decode.
pub(super) struct Array {
    pub(super) dataset: Dataset,
    pub(super) key: String,
    pub(super) number: Number,
    pub(super) shape: Vec<u64>,
    /// Extent of a chunk, empty where the array is not chunked.
    pub(super) chunks: Vec<u64>,
    /// What is read past the library, once it has been looked for.
    direct: OnceLock<Option<Chunks>>,
}

impl Array {
    /// The filters, in the order of writing; empty where there are none.
    pub(super) fn compression(&self) -> String {
        let filters = self.dataset.filter_pipeline();
        let names = filters.iter().map(|f| match (f.id, f.client_data.first()) {
            (1, Some(level)) => format!("gzip-{level}"),
            _ => filter_name(f.id, f.name.as_deref()),
        });
        names.collect::<Vec<_>>().join("+")
    }

    /// Rows of the first axis, 1 for a scalar.
    pub(super) fn len(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
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

    /// The most that any data set of this file can hold.
    fn most_bytes(&self) -> u64 {
        self.bytes
            .saturating_mul(MOST_COMPRESSION)
            .max(MOST_UNWRITTEN_BYTES)
    }

    /// The shape of a data set, refused where the file is too small to hold it.
    pub(super) fn shape(&self, key: &str, dataset: &Dataset) -> Result<Vec<u64>, H5adError> {
        let shape = dataset.shape().map_err(|e| self.failed(key, e))?;
        let element = dataset.element_size().map_err(|e| self.failed(key, e))?;
        let bytes = shape
            .iter()
            .try_fold(element, |bytes, extent| bytes.checked_mul(*extent));
        match bytes {
            Some(bytes) if bytes <= self.most_bytes() => Ok(shape),
            _ => Err(self.invalid(
                key,
                format!(
                    "declares a shape of {shape:?} with {element} bytes each, which a file of \
                     {} bytes cannot hold",
                    self.bytes
                ),
            )),
        }
    }

    /// The array of numbers under `key`, with a chunk cache to its measure.
    pub(super) fn array(&self, key: &str) -> Result<Array, H5adError> {
        let plain = self.dataset(key)?;
        let shape = self.shape(key, &plain)?;
        let datatype = plain.datatype().map_err(|e| self.failed(key, e))?;
        let number = Number::of(&datatype).ok_or_else(|| {
            self.invalid(
                key,
                format!(
                    "expected numbers, found elements of {}",
                    type_name(&datatype)
                ),
            )
        })?;
        self.check_filters(key, &plain)?;
        let chunks = plain
            .chunk_shape()
            .map_err(|e| self.failed(key, e))?
            .unwrap_or_default();
        let chunk_bytes = chunks
            .iter()
            .try_fold(number.size() as u64, |bytes, extent| {
                bytes.checked_mul(*extent)
            });
        let Some(chunk_bytes) = chunk_bytes.filter(|_| chunks.iter().all(|extent| *extent > 0))
        else {
            return Err(self.invalid(key, format!("chunks of shape {chunks:?}")));
        };
        if chunk_bytes > self.most_bytes() {
            let what = format!("a chunk of {chunk_bytes} bytes, which the file cannot hold");
            return Err(self.invalid(key, what));
        }
        let cache = (4 * chunk_bytes.min(MOST_CHUNK_CACHE_BYTES))
            .clamp(CHUNK_CACHE_BYTES, MOST_CHUNK_CACHE_BYTES);
        let config = ChunkCacheConfig::new()
            .with_max_bytes(cache as usize)
            .with_max_slots(64);
        let access = DatasetAccessProperties::new().with_chunk_cache(config);
        let dataset = self
            .file
            .dataset_with_options(key, access)
            .map_err(|e| self.failed(key, e))?;
        Ok(Array {
            dataset,
            key: key.to_owned(),
            number,
            shape,
            chunks,
            direct: OnceLock::new(),
        })
    }

    /// Hands the raw bytes of the elements `window` of a one-dimensional array to `each`, in one
    /// piece or several, which appends them to `out`.
    pub(super) fn read_elements<T>(
        &self,
        array: &Array,
        window: &Range<u64>,
        out: &mut Vec<T>,
        each: impl Fn(&[u8], &mut Vec<T>),
    ) -> Result<(), H5adError> {
        let direct = array.direct.get_or_init(|| {
            let element_bytes = array.number.size();
            Chunks::of(
                &array.dataset,
                array.len(),
                element_bytes,
                &self.raw,
                self.bytes,
            )
        });
        if window.is_empty() {
            return Ok(());
        }
        let before = out.len();
        if let Some(chunks) = direct
            && chunks.read(window, |bytes| each(bytes, out)).is_some()
        {
            return Ok(());
        }
        out.truncate(before);
        each(
            &self.raw_rows(array, window.start, window.end - window.start)?,
            out,
        );
        Ok(())
    }

    /// The raw bytes of `rows` rows from `start`, refused where the file holds fewer.
    pub(super) fn raw_rows(
        &self,
        array: &Array,
        start: u64,
        rows: u64,
    ) -> Result<Vec<u8>, H5adError> {
        let raw = array
            .dataset
            .read_raw_rows(start, rows)
            .map_err(|e| self.failed(&array.key, e))?;
        let row: u64 = array.shape.iter().skip(1).product::<u64>() * array.number.size() as u64;
        if Some(raw.len() as u64) != rows.checked_mul(row) {
            return Err(self.invalid(
                &array.key,
                format!(
                    "rows {start}..{} hold {} bytes of {row} a row",
                    start + rows,
                    raw.len()
                ),
            ));
        }
        Ok(raw)
    }

    /// Refuses filters that are not decoded, by name.
    pub(super) fn check_filters(&self, key: &str, dataset: &Dataset) -> Result<(), H5adError> {
        for filter in dataset.filter_pipeline() {
            if !matches!(filter.id, 1 | 2 | 3 | 6 | 32000) {
                return Err(H5adError::Filter {
                    path: self.path.clone(),
                    key: key.to_owned(),
                    filter: filter_name(filter.id, filter.name.as_deref()),
                });
            }
        }
        Ok(())
    }

    /// All the texts of a data set of fixed or variable length strings.
    pub(super) fn strings(&self, key: &str, dataset: &Dataset) -> Result<Vec<String>, H5adError> {
        self.shape(key, dataset)?;
        self.check_filters(key, dataset)?;
        dataset.read_string().map_err(|e| self.failed(key, e))
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

/// The name of an HDF5 filter.
pub(super) fn filter_name(id: u16, stored: Option<&str>) -> String {
    let known = match id {
        1 => "gzip",
        2 => "shuffle",
        3 => "fletcher32",
        4 => "szip",
        5 => "nbit",
        6 => "scaleoffset",
        307 => "bzip2",
        32000 => "lzf",
        32001 => "blosc",
        32004 => "lz4",
        32008 => "bitshuffle",
        32013 => "zfp",
        32015 => "zstd",
        32026 => "blosc2",
        _ => return stored.map_or_else(|| id.to_string(), |name| format!("{name} ({id})")),
    };
    known.to_owned()
}

/// A short name for an element type.
pub(super) fn type_name(datatype: &Datatype) -> String {
    if let Some(number) = Number::of(datatype) {
        return number.kind.name().to_owned();
    }
    match datatype {
        Datatype::String { .. }
        | Datatype::VariableLength {
            is_string: true, ..
        } => "text".into(),
        Datatype::Compound { .. } => "compound type".into(),
        Datatype::Reference { .. } => "references".into(),
        Datatype::Enumeration { .. } => "an enumeration".into(),
        other => format!(
            "a type of {} bytes that is not supported",
            other.type_size()
        ),
    }
}
