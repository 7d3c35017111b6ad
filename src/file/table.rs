//! Tables as text: comma-separated, or tab-separated where the file is called `.tsv` or `.txt`.
//!
//! Fields that hold the separator, quotes or line breaks are quoted, as every spreadsheet and
//! pandas reads them. A table is written row by row, so that it may be larger than memory, and
//! appears under its name when it is whole.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use super::{FileError, StagedFile, create_parent};

/// A table being written.
pub struct TableWriter {
    rows: csv::Writer<BufWriter<File>>,
    staged: StagedFile,
    path: PathBuf,
}

impl TableWriter {
    /// Begins a table with the column names `header`; its parents are created. Nothing stands under `path` before
    /// [`TableWriter::finish`].
    ///
    /// # Errors
    /// The folder cannot be created or written to.
    pub fn new(path: &Path, header: &[impl AsRef<[u8]>]) -> Result<Self, FileError> {
        create_parent(path)?;
        let staged = StagedFile::new(path)?;
        let file = OpenOptions::new().write(true).open(staged.path());
        let file = file.map_err(|e| FileError::io("write it", path, e))?;
        let rows = csv::WriterBuilder::new()
            .delimiter(separator(path))
            .from_writer(BufWriter::new(file));
        let path = path.to_owned();
        let mut table = Self { rows, staged, path };
        table.row(header)?;
        Ok(table)
    }

    /// Adds a row.
    ///
    /// # Errors
    /// The disk is full.
    pub fn row<T: AsRef<[u8]>>(
        &mut self,
        fields: impl IntoIterator<Item = T>,
    ) -> Result<(), FileError> {
        let written = self.rows.write_record(fields);
        written.map_err(|e| FileError::io("write it", &self.path, io::Error::from(e)))
    }

    /// Flushes the table to the disk and gives it its name.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(mut self) -> Result<(), FileError> {
        let flushed = self.rows.flush();
        flushed.map_err(|e| FileError::io("write it", &self.path, e))?;
        drop(self.rows);
        self.staged.commit()
    }
}

/// The rows of a table, the first one included; blank lines are left out.
///
/// # Errors
/// Absent, unreadable, not UTF-8.
pub fn read_table(path: &Path) -> Result<Vec<Vec<String>>, FileError> {
    let text = super::read_string(path)?;
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator(path))
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut rows = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|e| FileError::io("read it", path, io::Error::from(e)))?;
        rows.push(row.iter().map(|field| field.trim().to_owned()).collect());
    }
    Ok(rows)
}

fn separator(path: &Path) -> u8 {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    match ending.to_ascii_lowercase().as_str() {
        "tsv" | "tab" | "txt" => b'\t',
        _ => b',',
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read_and_appears_whole() {
        let dir = tempfile::tempdir().unwrap();
        for (name, first) in [("a.csv", "gene,\"a,b\""), ("a.tsv", "gene\ta,b")] {
            let path = dir.path().join(name);
            let mut table = TableWriter::new(&path, &["gene", "a,b"]).unwrap();
            table.row(["HLA-A", "1 \"x\""]).unwrap();
            assert!(!path.exists());
            table.finish().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().next(), Some(first));
            let rows = read_table(&path).unwrap();
            assert_eq!(rows, [["gene", "a,b"], ["HLA-A", "1 \"x\""]]);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_table_that_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        let mut table = TableWriter::new(&path, &["gene"]).unwrap();
        table.row(["A"]).unwrap();
        drop(table);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
