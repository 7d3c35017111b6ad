//! The groups `obs` and `var`: an index and columns, each in anndata's encoding.
//!
//! | column | encoding |
//! |---|---|
//! | categories | `categorical`: categories, codes of the narrowest signed type |
//! | texts | `string-array`; `nullable-string-array` where one is missing |
//! | integers, booleans | `array`; `nullable-integer`, `nullable-boolean` where one is missing |
//! | floats | `array` of 32 or 64 bits, NaN where missing |

use super::super::H5adError;
use super::super::column::Column;
use super::array::{ArrayWriter, Storage, write_texts};
use super::output::{GroupParts, Output};
use crate::numbers::Kind;

const CHUNK_LEN: u32 = 32 << 10;
const GZIP_LEVEL: u32 = 4;

/// A table under construction.
#[derive(Debug)]
pub struct TableWriter {
    index_name: String,
    order: Vec<String>,
    members: Vec<(String, u64)>,
    storage: Storage,
}

/// The parts of a table, finished.
pub type TableParts = GroupParts;

impl TableWriter {
    /// Begins a table with the index `names`, called `index_name` where that is not empty.
    ///
    /// # Errors
    /// The disk is full.
    pub fn new<'a>(
        output: &mut Output,
        index_name: &str,
        names: impl Iterator<Item = &'a str>,
        compressed: bool,
    ) -> Result<Self, H5adError> {
        let index_name = if index_name.is_empty() {
            "_index"
        } else {
            index_name
        };
        let address = write_texts(output, names)?;
        let storage = match compressed {
            true => Storage::Chunked {
                len: CHUNK_LEN,
                gzip: Some(GZIP_LEVEL),
            },
            false => Storage::Contiguous,
        };
        Ok(Self {
            index_name: index_name.to_owned(),
            order: Vec::new(),
            members: vec![(index_name.to_owned(), address)],
            storage,
        })
    }

    /// Adds a column; `ordered`: whether its categories have an order.
    pub(in super::super) fn column(
        &mut self,
        output: &mut Output,
        name: &str,
        column: &Column,
        ordered: bool,
    ) -> Result<(), H5adError> {
        let address = self.write(output, column, ordered)?;
        self.order.push(name.to_owned());
        self.members.push((name.to_owned(), address));
        Ok(())
    }

    fn write(&self, output: &mut Output, column: &Column, ordered: bool) -> Result<u64, H5adError> {
        match column {
            Column::Categories { categories, codes } => {
                let mut parts = GroupParts::encoded("categorical", "0.2.0");
                parts.ordered(ordered);
                let texts = write_texts(output, categories.iter().map(String::as_str))?;
                let codes = self.codes(output, codes, categories.len())?;
                parts.member("categories", texts);
                parts.member("codes", codes);
                output.group(parts)
            }
            Column::Texts(values) => {
                let texts = values
                    .iter()
                    .map(|value| value.as_deref().unwrap_or_default());
                let address = write_texts(output, texts)?;
                let mask = values.iter().map(Option::is_none);
                self.masked(output, address, "nullable-string-array", mask)
            }
            Column::Integers(values) => {
                let numbers = values.iter().map(|value| value.unwrap_or(1));
                let bytes: Vec<u8> = numbers.flat_map(i64::to_le_bytes).collect();
                let address = self.array(output, Kind::I64, &bytes)?;
                let mask = values.iter().map(Option::is_none);
                self.masked(output, address, "nullable-integer", mask)
            }
            Column::Booleans(values) => {
                let bytes: Vec<u8> = values.iter().map(|v| u8::from(*v == Some(true))).collect();
                let address = self.array(output, Kind::Bool, &bytes)?;
                let mask = values.iter().map(Option::is_none);
                self.masked(output, address, "nullable-boolean", mask)
            }
            Column::Floats { values, single } => {
                let bytes: Vec<u8> = match single {
                    true => values
                        .iter()
                        .flat_map(|v| (*v as f32).to_le_bytes())
                        .collect(),
                    false => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                };
                let kind = if *single { Kind::F32 } else { Kind::F64 };
                self.array(output, kind, &bytes)
            }
        }
    }

    fn codes(
        &self,
        output: &mut Output,
        codes: &[i32],
        num_categories: usize,
    ) -> Result<u64, H5adError> {
        let narrow = |size: usize| {
            codes
                .iter()
                .flat_map(move |c| c.to_le_bytes().into_iter().take(size))
        };
        let (kind, size) = match num_categories {
            0..=127 => (Kind::I8, 1),
            128..=32_767 => (Kind::I16, 2),
            _ => (Kind::I32, 4),
        };
        self.array(output, kind, &narrow(size).collect::<Vec<u8>>())
    }

    /// `values` as they are where nothing is missing, else a group of values and mask.
    fn masked(
        &self,
        output: &mut Output,
        values: u64,
        encoding: &str,
        missing: impl Iterator<Item = bool>,
    ) -> Result<u64, H5adError> {
        let mask: Vec<u8> = missing.map(u8::from).collect();
        if mask.iter().all(|missing| *missing == 0) {
            return Ok(values);
        }
        let mut parts = GroupParts::encoded(encoding, "0.1.0");
        if encoding == "nullable-string-array" {
            parts.text("na-value", "NA");
        }
        parts.member("values", values);
        parts.member("mask", self.array(output, Kind::Bool, &mask)?);
        output.group(parts)
    }

    fn array(&self, output: &mut Output, kind: Kind, bytes: &[u8]) -> Result<u64, H5adError> {
        let most = (bytes.len() / kind.size()) as u64;
        let mut array = ArrayWriter::new(output, kind, self.storage, most);
        array.push(output, bytes)?;
        array.finish(output, Some("array"))
    }

    /// Writes the group and returns its address.
    ///
    /// # Errors
    /// The disk is full; more columns than a table can have.
    pub fn finish(self, output: &mut Output) -> Result<u64, H5adError> {
        let mut parts = TableParts::encoded("dataframe", "0.2.0");
        parts.text("_index", &self.index_name);
        parts.column_order(self.order);
        for (name, address) in self.members {
            parts.member(&name, address);
        }
        output.group(parts)
    }
}
