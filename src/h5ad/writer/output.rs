//! The growing file.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use super::super::H5adError;
use super::structure::{Element, Message, SUPERBLOCK_BYTES, object_header, superblock};
use super::texts::{Heap, reference};
use crate::file::write_all_at;

/// An HDF5 file under construction. It is no HDF5 file until [`Output::finish`]; under which name
/// it is built, and when it gets its own, is the caller's affair.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    file: File,
    end: u64,
    heap: Heap,
}

/// A group under construction: its attributes and members, in this order.
#[derive(Debug, Default)]
pub struct GroupParts {
    texts: Vec<(String, String)>,
    shape: Option<[u64; 2]>,
    order: Option<Vec<String>>,
    ordered: Option<bool>,
    members: Vec<(String, u64)>,
}

impl GroupParts {
    /// A group of anndata's encoding `kind` in `version`.
    pub fn encoded(kind: &str, version: &str) -> Self {
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Self {
            texts: vec![
                text("encoding-type", kind),
                text("encoding-version", version),
            ],
            ..Self::default()
        }
    }

    /// Adds a text attribute.
    pub fn text(&mut self, name: &str, value: &str) {
        self.texts.push((name.to_owned(), value.to_owned()));
    }

    /// Sets the attribute `shape` of a sparse matrix.
    pub fn shape(&mut self, rows: u64, columns: u64) {
        self.shape = Some([rows, columns]);
    }

    /// Sets the attribute `column-order` of a table.
    pub fn column_order(&mut self, names: Vec<String>) {
        self.order = Some(names);
    }

    /// Sets the attribute `ordered` of a categorical.
    pub fn ordered(&mut self, ordered: bool) {
        self.ordered = Some(ordered);
    }

    /// Adds the member `name`, whose object header lies at `address`.
    pub fn member(&mut self, name: &str, address: u64) {
        self.members.push((name.to_owned(), address));
    }
}

impl Output {
    /// Begins the file `path`; what stood there is cut off.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: &Path) -> Result<Output, H5adError> {
        let options = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .to_owned();
        let file = options.open(path).map_err(|e| write_error(path, e))?;
        Ok(Output {
            path: path.to_owned(),
            file,
            end: SUPERBLOCK_BYTES,
            heap: Heap::default(),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes room for `bytes` bytes at a multiple of `align`, a power of two.
    pub(super) fn allocate(&mut self, bytes: u64, align: u64) -> u64 {
        let address = self.end.next_multiple_of(align);
        self.end = address + bytes;
        address
    }

    /// Writes into room that was taken; several threads may.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), H5adError> {
        write_all_at(&self.file, address, bytes).map_err(|e| write_error(&self.path, e))
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<u64, H5adError> {
        let address = self.allocate(bytes.len() as u64, 8);
        self.write(address, bytes)?;
        Ok(address)
    }

    /// The reference of `text` in a heap.
    pub(super) fn text(&mut self, text: &str) -> Result<[u8; 16], H5adError> {
        if text.is_empty() {
            return Ok(reference(0, 0, 0));
        }
        if let Some(reference) = self.heap.push(text) {
            return Ok(reference);
        }
        let capacity = Heap::capacity_for(text.len());
        let address = self.allocate(capacity, 8);
        let full = std::mem::replace(&mut self.heap, Heap::new(address, capacity));
        self.write_heap(full)?;
        let pushed = self.heap.push(text);
        pushed.ok_or_else(|| self.refuse("a text is too long for a heap"))
    }

    fn write_heap(&self, heap: Heap) -> Result<(), H5adError> {
        match heap.finish() {
            Some((address, bytes)) => self.write(address, &bytes),
            None => Ok(()),
        }
    }

    pub(super) fn text_attribute(&mut self, name: &str, value: &str) -> Result<Message, H5adError> {
        let reference = self.text(value)?;
        Ok(Message::attribute(name, Element::Text, None, &reference))
    }

    /// Writes an object header; refuses a message that is too long for one.
    pub(super) fn object(&mut self, messages: &[Message]) -> Result<u64, H5adError> {
        if messages.iter().any(|m| m.len() > Message::MOST_BYTES) {
            return Err(self.refuse("a table has more than 4000 columns, or a name is too long"));
        }
        self.append(&object_header(messages))
    }

    /// Writes a group and returns its address.
    ///
    /// # Errors
    /// The disk is full; names that are too long.
    pub fn group(&mut self, parts: GroupParts) -> Result<u64, H5adError> {
        use crate::numbers::Kind;
        let mut messages: Vec<Message> = Message::group().into();
        for (name, value) in &parts.texts {
            messages.push(self.text_attribute(name, value)?);
        }
        if let Some(shape) = parts.shape {
            let data: Vec<u8> = shape
                .iter()
                .flat_map(|extent| extent.to_le_bytes())
                .collect();
            let element = Element::Number(Kind::I64);
            messages.push(Message::attribute("shape", element, Some(&[2]), &data));
        }
        if let Some(ordered) = parts.ordered {
            let element = Element::Number(Kind::Bool);
            messages.push(Message::attribute(
                "ordered",
                element,
                None,
                &[u8::from(ordered)],
            ));
        }
        if let Some(order) = parts.order {
            let mut data = Vec::with_capacity(16 * order.len());
            for name in &order {
                data.extend(self.text(name)?);
            }
            // What h5py writes for an empty list.
            let empty = order.is_empty();
            let element = if empty {
                Element::Number(Kind::F64)
            } else {
                Element::Text
            };
            let shape = [order.len() as u64];
            messages.push(Message::attribute(
                "column-order",
                element,
                Some(&shape),
                &data,
            ));
        }
        for (name, address) in &parts.members {
            messages.push(Message::link(name, *address));
        }
        self.object(&messages)
    }

    /// Writes the root group and the superblock, flushes everything to the disk: from here on it
    /// is an HDF5 file.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(mut self, root: GroupParts) -> Result<(), H5adError> {
        let root = self.group(root)?;
        let heap = std::mem::take(&mut self.heap);
        self.write_heap(heap)?;
        let failed = |e| write_error(&self.path, e);
        self.file.set_len(self.end).map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        self.write(0, &superblock(root, self.end))?;
        self.file.sync_all().map_err(failed)
    }

    pub(super) fn refuse(&self, what: &str) -> H5adError {
        H5adError::Write {
            path: self.path.clone(),
            source: what.into(),
        }
    }
}

fn write_error(path: &Path, error: std::io::Error) -> H5adError {
    let source = crate::file::FileError::io("write it", path, error);
    H5adError::Write {
        path: path.to_owned(),
        source: Box::new(source),
    }
}
