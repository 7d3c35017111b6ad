//! Tables of the oldest anndata (< 0.7): one array of compound elements, one member per column.
//!
//! Texts are fixed in length, or references into the file's global heap, whose collections are
//! read here: `GCOL`, version 1, 3 reserved bytes, size, then objects of {index u16, references
//! u16, 4 reserved bytes, size, data padded to 8 bytes}.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use hdf5_pure::{CompoundMember, Dataset, Datatype};

use super::H5adError;
use super::array::type_name;
use super::column::Column;
use super::container::Container;
use super::number::number_of;
use super::table::numbers;

/// The heap collections of a file are small; a larger one is damage.
const MOST_COLLECTION_BYTES: u64 = 1 << 30;

/// A compound array.
pub(super) struct Compound {
    key: String,
    dataset: Dataset,
    members: Vec<CompoundMember>,
    stride: usize,
    rows: u64,
}

impl Compound {
    pub(super) fn open(
        container: &Container,
        key: &str,
        dataset: &Dataset,
    ) -> Result<Compound, H5adError> {
        let shape = container.shape(key, dataset)?;
        let datatype = dataset.datatype().map_err(|e| container.failed(key, e))?;
        container.check_storage(key, dataset)?;
        match (datatype, shape.as_slice()) {
            (Datatype::Compound { size, members }, [rows]) => Ok(Compound {
                key: key.to_owned(),
                dataset: dataset.clone(),
                members,
                stride: size as usize,
                rows: *rows,
            }),
            (other, _) => {
                let what = format!(
                    "expected a table (a group, or compound elements of one dimension), found \
                     {} of shape {shape:?}",
                    type_name(&other)
                );
                Err(container.invalid(key, what))
            }
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.rows
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| member.name.clone())
            .collect()
    }

    /// One member of every element.
    pub(super) fn column(&self, container: &Container, name: &str) -> Result<Column, H5adError> {
        let key = format!("{}/{name}", self.key);
        let member = self.members.iter().find(|member| member.name == name);
        let member = member.ok_or_else(|| container.invalid(&key, "there is no such column"))?;
        let at = member.byte_offset as usize;
        let width = member.datatype.type_size() as usize;
        if width == 0 || at.checked_add(width).is_none_or(|end| end > self.stride) {
            return Err(container.invalid(&key, "the column lies outside of its element"));
        }
        let raw = self
            .dataset
            .read_raw()
            .map_err(|e| container.failed(&self.key, e))?;
        let fields = raw
            .chunks_exact(self.stride)
            .filter_map(|row| row.get(at..at + width));
        match &member.datatype {
            Datatype::String { .. } => {
                let texts = fields.map(|field| Some(fixed_text(field)));
                Ok(Column::Texts(texts.collect()))
            }
            Datatype::VariableLength {
                is_string: true, ..
            } => {
                let fields: Vec<&[u8]> = fields.collect();
                heap_texts(container, &key, &fields).map(Column::Texts)
            }
            other => match number_of(other) {
                Some(number) => Ok(numbers(number, &fields.collect::<Vec<_>>().concat())),
                None => {
                    let what = format!("expected numbers or text, found {}", type_name(other));
                    Err(container.invalid(&key, what))
                }
            },
        }
    }
}

/// A text that fills its field or ends at the first zero byte.
fn fixed_text(field: &[u8]) -> String {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// Texts behind references of {length u32, collection address, object index u32}.
fn heap_texts(
    container: &Container,
    key: &str,
    fields: &[&[u8]],
) -> Result<Vec<Option<String>>, H5adError> {
    let (width, base) = container.addressing();
    let width = usize::from(width);
    let mut heap = Heap {
        container,
        key,
        width,
        base,
        collections: HashMap::new(),
    };
    let mut texts = Vec::with_capacity(fields.len());
    for field in fields {
        let length = little_endian(field, 0, 4);
        let address = little_endian(field, 4, width);
        let object = little_endian(field, 4 + width, 4);
        let (Some(length), Some(address), Some(object)) = (length, address, object) else {
            return Err(container.invalid(key, "a reference to text is cut short"));
        };
        if length == 0 || address == 0 {
            texts.push(Some(String::new()));
            continue;
        }
        texts.push(Some(heap.text(address, object, length)?));
    }
    Ok(texts)
}

struct Heap<'a> {
    container: &'a Container,
    key: &'a str,
    width: usize,
    base: u64,
    /// Objects of the collections read so far, by address.
    collections: HashMap<u64, HashMap<u64, Vec<u8>>>,
}

impl Heap<'_> {
    fn text(&mut self, address: u64, object: u64, length: u64) -> Result<String, H5adError> {
        if !self.collections.contains_key(&address) {
            let objects = self.read(address)?;
            self.collections.insert(address, objects);
        }
        let bytes = self
            .collections
            .get(&address)
            .and_then(|objects| objects.get(&object));
        let text = bytes.and_then(|bytes| bytes.get(..usize::try_from(length).ok()?));
        let text = text.ok_or_else(|| {
            let what = format!("text {object} of the heap at {address} is missing");
            self.container.invalid(self.key, what)
        })?;
        let end = text
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(text.len());
        Ok(String::from_utf8_lossy(&text[..end]).into_owned())
    }

    fn read(&self, address: u64) -> Result<HashMap<u64, Vec<u8>>, H5adError> {
        let path = self.container.path();
        let io = |source| H5adError::Io {
            path: path.to_owned(),
            source,
        };
        let damaged = || {
            self.container
                .invalid(self.key, format!("the heap at {address} is damaged"))
        };
        let mut file = File::open(path).map_err(io)?;
        let start = self.base.checked_add(address).ok_or_else(damaged)?;
        file.seek(SeekFrom::Start(start)).map_err(io)?;
        let mut head = Vec::new();
        file.by_ref()
            .take(8 + self.width as u64)
            .read_to_end(&mut head)
            .map_err(io)?;
        let size = little_endian(&head, 8, self.width).ok_or_else(damaged)?;
        if !head.starts_with(b"GCOL") || size > MOST_COLLECTION_BYTES {
            return Err(damaged());
        }
        let mut body = Vec::new();
        let rest = size.saturating_sub(head.len() as u64);
        file.take(rest).read_to_end(&mut body).map_err(io)?;
        Ok(self.objects(&body))
    }

    fn objects(&self, body: &[u8]) -> HashMap<u64, Vec<u8>> {
        let mut objects = HashMap::new();
        let mut at = 0usize;
        while let (Some(index), Some(size)) = (
            little_endian(body, at, 2),
            little_endian(body, at + 8, self.width),
        ) {
            let start = at + 8 + self.width;
            let Some(end) = usize::try_from(size)
                .ok()
                .and_then(|size| start.checked_add(size))
            else {
                break;
            };
            // Object 0 is the free space at the end.
            let (true, Some(data)) = (index != 0, body.get(start..end)) else {
                break;
            };
            objects.insert(index, data.to_vec());
            at = start + (end - start).next_multiple_of(8);
        }
        objects
    }
}

fn little_endian(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    let mut value = [0u8; 8];
    value.get_mut(..width)?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(value))
}
