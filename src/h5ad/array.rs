//! Arrays of an open file: their type, shape and storage checked before anything is read, then
//! windows of their bytes.
//!
//! Every size that the file declares is compared with what the file can hold before memory is
//! asked for: an array can be compressed, but not beyond what deflate can do.

use std::ops::Range;
use std::sync::OnceLock;

use hdf5_pure::{ChunkCacheConfig, Dataset, DatasetAccessProperties, Datatype};

use super::H5adError;
use super::chunks::Chunks;
use super::container::Container;
use super::number::number_of;
use crate::numbers::Number;

/// Deflate shrinks at most 1032-fold; anything that claims more is damaged or hostile.
const MOST_COMPRESSION: u64 = 1100;
/// Storage that was never written is read as its fill value; allow that much of it.
const MOST_UNWRITTEN_BYTES: u64 = 64 << 20;
/// Decoded chunks kept per data set, so that reads that follow each other share a chunk.
const CHUNK_CACHE_BYTES: u64 = 16 << 20;
/// The most that a data set with huge chunks may keep.
const MOST_CHUNK_CACHE_BYTES: u64 = 256 << 20;

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
    /// The array of numbers under `key`, with a chunk cache to its measure.
    pub(super) fn array(&self, key: &str) -> Result<Array, H5adError> {
        let plain = self.dataset(key)?;
        let shape = self.shape(key, &plain)?;
        let datatype = plain.datatype().map_err(|e| self.failed(key, e))?;
        let number = number_of(&datatype).ok_or_else(|| {
            self.invalid(
                key,
                format!(
                    "expected numbers, found elements of {}",
                    type_name(&datatype)
                ),
            )
        })?;
        self.check_storage(key, &plain)?;
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
                self.bytes(),
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

    /// Refuses filters that are not decoded, by name; chunks that lie outside of the file; and
    /// arrays that are far larger than what is stored of them.
    pub(super) fn check_storage(&self, key: &str, dataset: &Dataset) -> Result<(), H5adError> {
        for filter in dataset.filter_pipeline() {
            if !matches!(filter.id, 1 | 2 | 3 | 6 | 32000) {
                return Err(H5adError::Filter {
                    path: self.path().to_owned(),
                    key: key.to_owned(),
                    filter: filter_name(filter.id, filter.name.as_deref()),
                });
            }
        }
        // Where the library cannot list the chunks it cannot read them either, and says so.
        let (Ok(Some(chunk)), Ok(chunks)) = (dataset.chunk_shape(), dataset.chunks()) else {
            return Ok(());
        };
        for chunk in &chunks {
            let (start, bytes) = (chunk.address, chunk.storage_size);
            if start
                .checked_add(bytes)
                .is_none_or(|end| end > self.bytes())
            {
                let what = format!(
                    "a chunk of {bytes} bytes lies at byte {start} of a file of {} bytes",
                    self.bytes()
                );
                return Err(self.invalid(key, what));
            }
        }
        let declared = dataset.shape().map_err(|e| self.failed(key, e))?;
        let elements = |extents: &[u64]| extents.iter().map(|n| *n as f64).product::<f64>();
        let element = dataset.element_size().map_err(|e| self.failed(key, e))? as f64;
        let unwritten = elements(&declared) - elements(&chunk) * chunks.len() as f64;
        if unwritten * element > MOST_UNWRITTEN_BYTES as f64 {
            let what = format!(
                "declares a shape of {declared:?}, of which only {} chunks are stored",
                chunks.len()
            );
            return Err(self.invalid(key, what));
        }
        Ok(())
    }

    /// All the texts of a data set of fixed or variable length strings.
    pub(super) fn strings(&self, key: &str, dataset: &Dataset) -> Result<Vec<String>, H5adError> {
        self.shape(key, dataset)?;
        self.check_storage(key, dataset)?;
        dataset.read_string().map_err(|e| self.failed(key, e))
    }

    /// The most that any data set of this file can hold.
    fn most_bytes(&self) -> u64 {
        self.bytes()
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
                    self.bytes()
                ),
            )),
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
    if let Some(number) = number_of(datatype) {
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
