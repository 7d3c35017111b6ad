//! Embeddings written while they are computed: CSV, NumPy's `.npy`, Parquet.
//!
//! A file grows batch by batch and appears whole or not at all; what is held of it is a batch, or a
//! row group of Parquet. CSV and Parquet have the columns `cell`, `embedding_0`, `embedding_1`, …;
//! numbers of CSV read back as the same f32. `.npy` is format 1.0, C order, little-endian f32,
//! shape (cells, hidden size). The order of the cells is that of the file's rows.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use parquet::basic::{LogicalType, Repetition, Type as PhysicalType};
use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use crate::file::{FileError, StagedFile, TableWriter};
use crate::infer::embed::Sink;

/// Numbers in a row group of Parquet: 16 MiB of them.
const GROUP_NUMBERS: usize = 4 << 20;

/// Names of the columns: `first`, then one for each number.
pub(super) fn header(first: &[&str], width: usize) -> Vec<String> {
    let numbers = (0..width).map(|number| format!("embedding_{number}"));
    first
        .iter()
        .map(|&name| name.to_owned())
        .chain(numbers)
        .collect()
}

/// A CSV file.
pub struct Csv {
    table: TableWriter,
    names: std::vec::IntoIter<String>,
    width: usize,
}

impl Csv {
    /// Begins the file.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn new(path: &Path, cell_names: Vec<String>, width: usize) -> Result<Self> {
        Ok(Self {
            table: TableWriter::new(path, &header(&["cell"], width))?,
            names: cell_names.into_iter(),
            width,
        })
    }
}

impl Sink for Csv {
    type Done = ();

    fn add(&mut self, values: Vec<f32>) -> Result<()> {
        for (row, name) in values.chunks_exact(self.width.max(1)).zip(&mut self.names) {
            let numbers = row.iter().map(f32::to_string);
            self.table.row(std::iter::once(name).chain(numbers))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        Ok(self.table.finish()?)
    }
}

/// A file that is not yet under its name.
struct Growing {
    staged: StagedFile,
    bytes: BufWriter<File>,
    path: PathBuf,
}

impl Growing {
    fn new(path: &Path) -> Result<Self, FileError> {
        let staged = StagedFile::new(path)?;
        let file = OpenOptions::new().write(true).open(staged.path());
        Ok(Self {
            bytes: BufWriter::new(file.map_err(|e| FileError::io("write it", path, e))?),
            staged,
            path: path.to_owned(),
        })
    }
}

/// A `.npy` file.
pub struct Npy(Growing);

impl Npy {
    /// Begins the file for this many cells.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn new(path: &Path, num_cells: usize, width: usize) -> Result<Self> {
        let mut file = Self(Growing::new(path)?);
        file.write(&npy_header(num_cells, width))?;
        Ok(file)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let written = self.0.bytes.write_all(bytes);
        written.map_err(|e| FileError::io("write it", &self.0.path, e))
    }
}

impl Sink for Npy {
    type Done = ();

    fn add(&mut self, values: Vec<f32>) -> Result<()> {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        Ok(self.write(&bytes)?)
    }

    fn finish(mut self) -> Result<()> {
        let flushed = self.0.bytes.flush();
        flushed.map_err(|e| FileError::io("write it", &self.0.path, e))?;
        drop(self.0.bytes);
        Ok(self.0.staged.commit()?)
    }
}

/// Magic, version 1.0, length of the text, the text padded so that the data begin at a multiple of
/// 64 (NEP 1).
fn npy_header(num_rows: usize, width: usize) -> Vec<u8> {
    let text =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({num_rows}, {width}), }}");
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.resize(10 + length - 1, b' ');
    bytes.push(b'\n');
    bytes
}

/// A Parquet file, not compressed.
pub struct Parquet {
    file: SerializedFileWriter<BufWriter<File>>,
    staged: StagedFile,
    path: PathBuf,
    names: std::vec::IntoIter<String>,
    width: usize,
    /// Numbers of cells that are in no row group yet.
    waiting: Vec<f32>,
}

impl Parquet {
    /// Begins the file.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn new(path: &Path, cell_names: Vec<String>, width: usize) -> Result<Self> {
        let Growing {
            staged,
            bytes,
            path,
        } = Growing::new(path)?;
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_created_by(concat!("gene-bert ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let begun = schema(width)
            .and_then(|schema| SerializedFileWriter::new(bytes, schema, Arc::new(properties)));
        Ok(Self {
            file: begun.with_context(|| cannot(&path))?,
            staged,
            path,
            names: cell_names.into_iter(),
            width,
            waiting: Vec::new(),
        })
    }

    /// Writes the cells that wait as a row group: column by column.
    fn flush(&mut self) -> parquet::errors::Result<()> {
        let num_cells = self.waiting.len() / self.width.max(1);
        if num_cells == 0 {
            return Ok(());
        }
        let names: Vec<ByteArray> = (&mut self.names)
            .take(num_cells)
            .map(|name| ByteArray::from(name.into_bytes()))
            .collect();
        let mut group = self.file.next_row_group()?;
        if let Some(mut column) = group.next_column()? {
            let values = column.typed::<ByteArrayType>();
            values.write_batch(&names, None, None)?;
            column.close()?;
        }
        for number in 0..self.width {
            if let Some(mut column) = group.next_column()? {
                let values = self.waiting.iter().skip(number).step_by(self.width);
                let values: Vec<f32> = values.copied().collect();
                column
                    .typed::<FloatType>()
                    .write_batch(&values, None, None)?;
                column.close()?;
            }
        }
        group.close()?;
        self.waiting.clear();
        Ok(())
    }
}

fn cannot(path: &Path) -> String {
    format!("{}: cannot be written as Parquet", path.display())
}

fn schema(width: usize) -> parquet::errors::Result<Arc<Type>> {
    let mut columns = Vec::new();
    for name in header(&["cell"], width) {
        let (kind, logical) = match name.as_str() {
            "cell" => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
            _ => (PhysicalType::FLOAT, None),
        };
        let column = Type::primitive_type_builder(&name, kind)
            .with_repetition(Repetition::REQUIRED)
            .with_logical_type(logical);
        columns.push(Arc::new(column.build()?));
    }
    let schema = Type::group_type_builder("schema").with_fields(columns);
    Ok(Arc::new(schema.build()?))
}

impl Sink for Parquet {
    type Done = ();

    fn add(&mut self, values: Vec<f32>) -> Result<()> {
        self.waiting.extend(values);
        if self.waiting.len() >= GROUP_NUMBERS {
            self.flush().with_context(|| cannot(&self.path))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        let flushed = self.flush().and_then(|()| self.file.finish().map(drop));
        flushed.with_context(|| cannot(&self.path))?;
        drop(self.file);
        Ok(self.staged.commit()?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;

    use super::*;

    #[test]
    fn numpy_headers_are_aligned_and_say_the_shape() {
        let header = npy_header(2638, 64);
        assert_eq!(header.len() % 64, 0);
        assert!(String::from_utf8_lossy(&header).contains("(2638, 64)"));
        assert_eq!(header.last(), Some(&b'\n'));
    }

    #[test]
    fn parquet_reads_back_over_several_row_groups() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.parquet");
        let names = (0..5).map(|cell| format!("cell{cell}")).collect();
        let mut file = Parquet::new(&path, names, 2).unwrap();
        file.add(vec![0.5, 1.0, 1.5, 2.0]).unwrap();
        file.flush().unwrap();
        file.add(vec![-1.0, 3.0]).unwrap();
        file.add(vec![4.0, 5.0, 6.0, f32::MIN_POSITIVE]).unwrap();
        assert!(!path.exists());
        file.finish().unwrap();
        let file = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
        assert_eq!(file.metadata().num_row_groups(), 2);
        let rows: Vec<(String, f32, f32)> = file
            .get_row_iter(None)
            .unwrap()
            .map(Result::unwrap)
            .map(|row| {
                let number = |at| row.get_float(at).unwrap();
                (row.get_string(0).unwrap().clone(), number(1), number(2))
            })
            .collect();
        let row = |cell: usize, a, b| (format!("cell{cell}"), a, b);
        let expected = [
            row(0, 0.5, 1.0),
            row(1, 1.5, 2.0),
            row(2, -1.0, 3.0),
            row(3, 4.0, 5.0),
            row(4, 6.0, f32::MIN_POSITIVE),
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e");
        let names = vec!["a".to_owned()];
        drop(Npy::new(&path, 1, 2).unwrap());
        drop(Parquet::new(&path, names.clone(), 2).unwrap());
        drop(Csv::new(&path, names, 2).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
