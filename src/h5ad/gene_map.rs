//! Other names for the genes of files: a table of `gene` and `mapped_to`.
//!
//! Files of one study name genes by symbols, those of another by Ensembl ids. A map that is given
//! when files are opened makes them agree: each gene id that the map knows, with or without its
//! version suffix, is replaced; the others stay. Nothing else of a file changes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::H5adError;
use crate::cell::canonical_gene_id;
use crate::file::read_table;

/// The columns that a map has.
pub const GENE_MAP_COLUMNS: [&str; 2] = ["gene", "mapped_to"];

/// A map in a file, read when it is first needed.
#[derive(Debug, Clone)]
pub struct GeneMap {
    path: PathBuf,
    names: Arc<OnceLock<HashMap<String, String>>>,
}

impl PartialEq for GeneMap {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for GeneMap {}

impl GeneMap {
    /// The map in the file `path`: comma-separated, or tab-separated where it ends in .tsv or .txt.
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            names: Arc::default(),
        }
    }

    /// Replaces the ids that the map knows.
    ///
    /// # Errors
    /// The map is absent, unreadable, lacks a column, or maps a gene to two.
    pub fn apply(&self, ids: &mut [String]) -> Result<(), H5adError> {
        let names = match self.names.get() {
            Some(names) => names,
            None => {
                let read = self.read()?;
                self.names.get_or_init(|| read)
            }
        };
        for id in ids {
            if let Some(name) = names
                .get(id.as_str())
                .or_else(|| names.get(canonical_gene_id(id)))
            {
                id.clone_from(name);
            }
        }
        Ok(())
    }

    fn read(&self) -> Result<HashMap<String, String>, H5adError> {
        let wrong = |what: String| H5adError::GeneMap {
            path: self.path.clone(),
            what,
        };
        let rows = read_table(&self.path)?;
        let header = rows.first().map_or(&[][..], Vec::as_slice);
        let place = |name: &str| {
            let place = header.iter().position(|column| column == name);
            place.ok_or_else(|| wrong(format!("its first line has no column `{name}`")))
        };
        let [gene, mapped] = GENE_MAP_COLUMNS;
        let (gene, mapped) = (place(gene)?, place(mapped)?);
        let mut names = HashMap::new();
        for (line, row) in (2..).zip(rows.iter().skip(1)) {
            let field = |at: usize| row.get(at).map_or("", String::as_str);
            let (from, to) = (field(gene), field(mapped));
            if from.is_empty() {
                return Err(wrong(format!("line {line} names no gene")));
            }
            if to.is_empty() {
                continue;
            }
            if let Some(other) = names
                .insert(from.to_owned(), to.to_owned())
                .filter(|n| n != to)
            {
                return Err(wrong(format!(
                    "line {line} maps {from} to {to}, an earlier one to {other}"
                )));
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn applied(table: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map.csv");
        std::fs::write(&path, table).unwrap();
        let mut ids: Vec<String> = ["A", "ENSG00000000001.3", "C"].map(str::to_owned).into();
        let map = GeneMap::at(&path);
        map.apply(&mut ids).map_err(|e| e.to_string())?;
        Ok(ids)
    }

    #[test]
    fn ids_that_the_map_knows_are_replaced() {
        let table = "status,gene,mapped_to\nx,A,B\nx,ENSG00000000001,ONE\nx,C,\n";
        assert_eq!(applied(table).unwrap(), ["B", "ONE", "C"]);
    }

    #[test]
    fn a_table_that_is_no_map_is_refused() {
        for (table, cause) in [
            ("gene,other\nA,B\n", "`mapped_to`"),
            ("", "`gene`"),
            ("gene,mapped_to\n,B\n", "line 2 names no gene"),
            ("gene,mapped_to\nA,B\nA,C\n", "line 3 maps A to C"),
        ] {
            let error = applied(table).unwrap_err();
            assert!(error.contains(cause) && error.contains("hint: "), "{error}");
        }
        let absent = GeneMap::at(Path::new("no/map.csv"))
            .apply(&mut [])
            .unwrap_err();
        assert!(absent.to_string().contains("no/map.csv"), "{absent}");
    }
}
