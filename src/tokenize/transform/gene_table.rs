//! Tables of genes: one line for each, its id in the first column.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::file::read_table;
use crate::tokenize::TokenizeError;
use crate::vocab::canonical_gene_id;

/// A table with a header, or a plain list of ids.
pub(super) struct GeneTable {
    path: PathBuf,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl GeneTable {
    /// Reads a table. A first line that begins with `gene` is its header.
    pub(super) fn read(path: &Path) -> Result<Self, TokenizeError> {
        let mut rows = read_table(path).map_err(|e| TokenizeError::Source(Box::new(e)))?;
        let is_header = |row: &Vec<String>| row.first().is_some_and(|name| name == "gene");
        let header = if rows.first().is_some_and(is_header) {
            rows.remove(0)
        } else {
            Vec::new()
        };
        let path = path.to_owned();
        let table = Self { path, header, rows };
        if table.rows.is_empty() {
            return Err(table.error("it names no gene".to_owned()));
        }
        Ok(table)
    }

    fn error(&self, what: String) -> TokenizeError {
        TokenizeError::GeneTable {
            path: self.path.clone(),
            what,
        }
    }

    /// The ids, without versions.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.rows
            .iter()
            .filter_map(|row| Some(canonical_gene_id(row.first()?)))
    }

    /// The number of each gene of `gene_ids` in column `name`; `None` where the field is empty.
    pub(super) fn column(
        &self,
        name: &str,
        gene_ids: &[String],
    ) -> Result<Vec<Option<f64>>, TokenizeError> {
        let place = self.header.iter().position(|column| column == name);
        let place = place.ok_or_else(|| {
            let found = self.header.join(", ");
            self.error(format!(
                "expected a column {name} beside gene, found {found:?}"
            ))
        })?;
        let mut numbers = HashMap::new();
        for (id, row) in self.ids().zip(&self.rows) {
            let field = row.get(place).map_or("", String::as_str);
            let number = match field {
                "" => None,
                field => Some(field.parse().map_err(|_| {
                    self.error(format!("gene {id}: {name} is {field:?}, expected a number"))
                })?),
            };
            numbers.insert(id, number);
        }
        let of = |id: &String| {
            let number = numbers.get(canonical_gene_id(id)).copied();
            number.ok_or_else(|| self.error(format!("it lacks gene {id} of the cells")))
        };
        gene_ids.iter().map(of).collect()
    }
}
