//! An archive that is written, block of rows by block of rows.
//!
//! Rows go to the arrays as they come, and their lengths to a file of its own, of which the row
//! pointer is made at the end. What was [marked](ScdlWriter::mark) is found again in the same
//! folder: a conversion that was killed goes on there.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::ScdlError;
use super::features::{Block, Feature, file_names, write_blocks};
use super::header::{Entry, Header, ScalarType};
use super::neighbors::NeighborWriter;
use super::{ARRAYS, CELL_NAMES, GENE_IDS, HEADER, OBS, VAR, VERSION};
use crate::file::{write_atomic, write_synced};

const BUFFER_BYTES: usize = 4 << 20;
/// The lengths of rows, and how far all files are to be believed, until the archive is whole.
const LENGTHS: &str = "lengths.unfinished";
const MARK: &str = "mark.unfinished";

/// An archive under construction in a folder; when that gets its name is the caller's affair.
#[derive(Debug)]
pub struct ScdlWriter {
    folder: PathBuf,
    values: BufWriter<File>,
    columns: BufWriter<File>,
    lengths: BufWriter<File>,
    scalar: ScalarType,
    column_scalar: ScalarType,
    mark: Mark,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    rows: u64,
    entries: u64,
    note: u64,
}

/// A run of rows that come from `label` and share their genes, or the table of whose cells is read
/// together: names (of genes, or of the cells) and what else is told of them.
#[derive(Debug, Clone, PartialEq)]
pub struct ScdlTable {
    /// Where the rows come from.
    pub label: String,
    /// Cells.
    pub num_rows: u64,
    /// Gene ids, or the names of the cells.
    pub names: Vec<String>,
    /// Further columns, as long as the names.
    pub columns: Vec<(String, Feature)>,
}

impl ScdlWriter {
    /// Begins an archive in `folder`, of values of `scalar` and at most `most_genes` genes in a
    /// row; goes on after the last mark where there is one.
    ///
    /// # Errors
    /// The folder cannot be written; what is marked is not there.
    pub fn open(folder: &Path, scalar: ScalarType, most_genes: usize) -> Result<Self, ScdlError> {
        let column_scalar = ScalarType::narrowest(most_genes.saturating_sub(1) as u64);
        let mark = read_mark(folder)?;
        let open = |name: &str, bytes: u64| -> Result<BufWriter<File>, ScdlError> {
            let path = folder.join(name);
            let file = cut_off(&path, bytes).map_err(ScdlError::io("write it", &path))?;
            Ok(BufWriter::with_capacity(BUFFER_BYTES, file))
        };
        Ok(Self {
            folder: folder.to_owned(),
            values: open(ARRAYS[0].1, mark.entries * scalar.size() as u64)?,
            columns: open(ARRAYS[2].1, mark.entries * column_scalar.size() as u64)?,
            lengths: open(LENGTHS, mark.rows * 4)?,
            scalar,
            column_scalar,
            mark,
        })
    }

    /// Whether anything in `folder` is marked, so that another writer can go on with it.
    pub fn is_begun(folder: &Path) -> bool {
        folder.join(MARK).is_file()
    }

    /// Rows so far.
    pub fn num_rows(&self) -> u64 {
        self.mark.rows
    }

    /// What stood beside the last mark.
    pub fn note(&self) -> u64 {
        self.mark.note
    }

    /// Appends rows of `lengths` entries each: `columns` as bytes of `i32`, `values` as bytes of
    /// the archive's type, both little-endian.
    ///
    /// # Errors
    /// The disk is full.
    pub fn push(
        &mut self,
        lengths: &[u32],
        columns: &[u8],
        values: &[u8],
    ) -> Result<(), ScdlError> {
        let failed = ScdlError::io("write to it", &self.folder);
        self.write(lengths, columns, values).map_err(failed)?;
        self.mark.rows += lengths.len() as u64;
        self.mark.entries += lengths.iter().map(|len| u64::from(*len)).sum::<u64>();
        Ok(())
    }

    fn write(&mut self, lengths: &[u32], columns: &[u8], values: &[u8]) -> std::io::Result<()> {
        match self.column_scalar.size() {
            4 => self.columns.write_all(columns)?,
            size => {
                let wide = columns.as_chunks::<4>().0.iter();
                let narrow = wide.flat_map(|column| column.iter().take(size).copied());
                self.columns.write_all(&narrow.collect::<Vec<u8>>())?;
            }
        }
        let lengths: Vec<u8> = lengths.iter().flat_map(|len| len.to_le_bytes()).collect();
        self.lengths.write_all(&lengths)?;
        self.values.write_all(values)
    }

    /// Everything so far is on the disk, and found again by [`Self::open`]; `note` with it.
    ///
    /// # Errors
    /// The disk is full.
    pub fn mark(&mut self, note: u64) -> Result<(), ScdlError> {
        self.sync()?;
        self.mark.note = note;
        let text = serde_json::to_vec(&self.mark).unwrap_or_default();
        Ok(write_atomic(&self.folder.join(MARK), &text)?)
    }

    fn sync(&mut self) -> Result<(), ScdlError> {
        let arrays = [
            (&mut self.values, ARRAYS[0].1),
            (&mut self.columns, ARRAYS[2].1),
            (&mut self.lengths, LENGTHS),
        ];
        for (writer, name) in arrays {
            let synced = writer.flush().and_then(|()| writer.get_ref().sync_data());
            synced.map_err(ScdlError::io("write it", &self.folder.join(name)))?;
        }
        Ok(())
    }

    /// Begins the neighbours of all rows.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn neighbors(&self) -> Result<NeighborWriter, ScdlError> {
        NeighborWriter::new(&self.folder, self.mark.rows)
    }

    /// Writes what is left: `var` and `obs` tell of the genes and of the cells of all rows.
    ///
    /// # Errors
    /// The disk is full; rows that belong to no table, or no value at all.
    pub fn finish(mut self, var: Vec<ScdlTable>, obs: Vec<ScdlTable>) -> Result<(), ScdlError> {
        let (num_rows, num_values) = (self.mark.rows, self.mark.entries);
        let rows_of = |tables: &[ScdlTable]| tables.iter().map(|t| t.num_rows).sum::<u64>();
        let told = (rows_of(&var), rows_of(&obs));
        if told != (num_rows, num_rows) || num_values == 0 {
            let what = format!(
                "{num_rows} rows with {num_values} values, {told:?} of them in tables\n\
                 hint: an archive needs at least one value"
            );
            return Err(ScdlError::invalid(&self.folder, what));
        }
        self.sync()?;
        let start_scalar = self.write_pointer()?;
        let array = |name: &str, len, scalar| Entry {
            name: name.to_owned(),
            len,
            scalar: Some(scalar),
            files: Vec::new(),
        };
        let mut header = Header {
            arrays: vec![
                array(ARRAYS[0].0, num_values, self.scalar),
                array(ARRAYS[1].0, num_rows + 1, start_scalar),
                array(ARRAYS[2].0, num_values, self.column_scalar),
            ],
            tables: Vec::new(),
        };
        for (name, index, tables) in [(VAR, GENE_IDS, var), (OBS, CELL_NAMES, obs)] {
            let blocks: Vec<Block> = tables.into_iter().map(|t| t.block(index)).collect();
            write_blocks(&self.folder.join(name), &blocks, VERSION)?;
            header.tables.push(Entry {
                name: name.to_owned(),
                len: num_rows,
                scalar: None,
                files: file_names(name, blocks.len()),
            });
        }
        let about = [
            ("metadata.json", format!("{{\"num_rows\": {num_rows}}}")),
            ("version.json", format!("\"{VERSION}\"")),
        ];
        for (name, text) in about {
            write_synced(&self.folder.join(name), text.as_bytes())?;
        }
        for name in [LENGTHS, MARK] {
            remove(&self.folder.join(name))?;
        }
        Ok(write_synced(&self.folder.join(HEADER), &header.to_bytes())?)
    }

    /// Makes the row pointer of the lengths; its type.
    fn write_pointer(&self) -> Result<ScalarType, ScdlError> {
        let scalar = ScalarType::narrowest(self.mark.entries);
        let (from, to) = (self.folder.join(LENGTHS), self.folder.join(ARRAYS[1].1));
        let lengths = File::open(&from).map_err(ScdlError::io("read it", &from))?;
        let pointer = File::create(&to).map_err(ScdlError::io("create it", &to))?;
        let written = point(lengths, pointer, scalar.size());
        written.map_err(ScdlError::io("write it", &to))?;
        Ok(scalar)
    }
}

/// The ends of runs of these `lengths` (4 bytes each), after a 0, in numbers of `size` bytes.
fn point(lengths: File, pointer: File, size: usize) -> std::io::Result<()> {
    let mut lengths = BufReader::with_capacity(BUFFER_BYTES, lengths);
    let mut pointer = BufWriter::with_capacity(BUFFER_BYTES, pointer);
    let (mut end, mut len) = (0u64, [0u8; 4]);
    pointer.write_all(&end.to_le_bytes()[..size])?;
    loop {
        match lengths.read_exact(&mut len) {
            Ok(()) => end += u64::from(u32::from_le_bytes(len)),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => break,
            Err(e) => return Err(e),
        }
        pointer.write_all(&end.to_le_bytes()[..size])?;
    }
    pointer.flush()?;
    pointer.get_ref().sync_all()
}

/// The file `path` with its first `bytes` bytes, to be gone on with.
fn cut_off(path: &Path, bytes: u64) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    if file.metadata()?.len() < bytes {
        let what = format!("expected at least {bytes} bytes that were written before");
        return Err(std::io::Error::new(ErrorKind::UnexpectedEof, what));
    }
    file.set_len(bytes)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

/// The mark in `folder`; that of an empty archive where there is none.
fn read_mark(folder: &Path) -> Result<Mark, ScdlError> {
    let path = folder.join(MARK);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| ScdlError::invalid(&path, format!("{e}\nhint: begin without --resume"))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Mark::default()),
        Err(e) => Err(ScdlError::io("read it", &path)(e)),
    }
}

fn remove(path: &Path) -> Result<(), ScdlError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(ScdlError::io("remove it", path)(e)),
        _ => Ok(()),
    }
}

impl ScdlTable {
    /// As it is stored, the names in the column `index`.
    fn block(mut self, index: &str) -> Block {
        self.columns.retain(|(column, _)| column != index);
        let names = Feature::Texts(self.names.into_iter().map(Some).collect());
        self.columns.insert(0, (index.to_owned(), names));
        Block {
            columns: self.columns,
            num_rows: self.num_rows,
            label: self.label,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cell::CellSource;
    use crate::store::{ScdlArchive, ScdlOptions};

    /// As if rows of zeros had come: holes in the files.
    fn skip(writer: &mut ScdlWriter, rows: u64, len: u32) {
        let lengths: Vec<u8> = (0..rows).flat_map(|_| len.to_le_bytes()).collect();
        writer.lengths.write_all(&lengths).unwrap();
        let entries = rows * u64::from(len);
        let (value, column) = (writer.scalar.size(), writer.column_scalar.size());
        for (array, size) in [(&mut writer.values, value), (&mut writer.columns, column)] {
            array.flush().unwrap();
            let file = array.get_mut();
            let end = file.metadata().unwrap().len() + entries * size as u64;
            file.set_len(end).unwrap();
            file.seek(SeekFrom::End(0)).unwrap();
        }
        writer.mark.rows += rows;
        writer.mark.entries += entries;
    }

    #[test]
    fn more_values_than_32_bits_can_count() {
        let len = 1u32 << 20;
        for (rows, scalar) in [(3 << 10, ScalarType::U32), (5 << 10, ScalarType::U64)] {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = ScdlWriter::open(dir.path(), ScalarType::U16, 10).unwrap();
            let push = |writer: &mut ScdlWriter, column: u32, value: u16| {
                let (column, value) = (column.to_le_bytes(), value.to_le_bytes());
                writer.push(&[1], &column, &value).unwrap();
            };
            push(&mut writer, 3, 300);
            skip(&mut writer, rows, len);
            push(&mut writer, 9, 400);
            let table = |names: u64| ScdlTable {
                label: "large".to_owned(),
                num_rows: rows + 2,
                names: (0..names).map(|n| n.to_string()).collect(),
                columns: Vec::new(),
            };
            writer
                .finish(vec![table(10)], vec![table(rows + 2)])
                .unwrap();
            let archive = ScdlArchive::open(dir.path(), &ScdlOptions::default()).unwrap();
            let pointer = std::fs::metadata(dir.path().join(ARRAYS[1].1))
                .unwrap()
                .len();
            assert_eq!(pointer, (rows + 3) * scalar.size() as u64);
            let read = archive[0].read_ranges(&[0..1, rows + 1..rows + 2]).unwrap();
            assert_eq!(
                (read.indices(), read.data()),
                (&[3, 9][..], &[300.0, 400.0][..])
            );
            assert_eq!(archive[0].read_ranges(&[7..8]).unwrap().nnz(), 0);
        }
    }
}
