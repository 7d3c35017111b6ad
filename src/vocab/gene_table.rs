//! Tables of genes: one line for each gene, which stands once, in a column that the header names or
//! in the first; written by `gene-bert genes`, by hand or by another program.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::VocabError;
use super::canonical_gene_id;
use crate::file::read_table;

/// What the column of gene ids may be called.
const GENE_COLUMNS: [&str; 4] = ["gene", "gene_id", "gene_name", "index"];

/// Genes in the order of their lines, and what stands beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneTable {
    path: PathBuf,
    /// Empty where the first line names no column of genes.
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    genes: Vec<String>,
}

impl GeneTable {
    /// Reads a table. Its first line is a header where a field is `gene`, `gene_id`, `gene_name`
    /// or `index`, or where the first field is empty, as pandas leaves the name of an index.
    ///
    /// # Errors
    /// Absent, unreadable, no gene in it, a line without a gene, or a gene twice.
    pub fn load(path: &Path) -> Result<Self, VocabError> {
        let mut rows = read_table(path)?;
        let mut table = Self {
            path: path.to_owned(),
            header: Vec::new(),
            rows: Vec::new(),
            genes: Vec::new(),
        };
        let column = rows.first().and_then(|line| gene_column(line));
        if column.is_some() {
            table.header = rows.remove(0);
        }
        let mut seen = HashSet::new();
        for (line, row) in rows.iter().enumerate() {
            let id = row.get(column.unwrap_or(0)).map_or("", String::as_str);
            if id.is_empty() {
                let line = line + 1 + usize::from(column.is_some());
                return Err(table.wrong(format!("row {line} names no gene")));
            }
            if !seen.insert(canonical_gene_id(id)) {
                return Err(table.wrong(format!("gene {id} stands in it twice")));
            }
            table.genes.push(canonical_gene_id(id).to_owned());
        }
        if table.genes.is_empty() {
            return Err(table.wrong("there is no gene in it".to_owned()));
        }
        table.rows = rows;
        Ok(table)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ids, without versions.
    pub fn genes(&self) -> &[String] {
        &self.genes
    }

    /// Whether each of `gene_ids` stands in the table.
    ///
    /// # Errors
    /// None does.
    pub fn holds(&self, gene_ids: &[String]) -> Result<Vec<bool>, VocabError> {
        let known: HashSet<&str> = self.genes.iter().map(String::as_str).collect();
        let is_known = |id: &String| known.contains(canonical_gene_id(id));
        let held: Vec<bool> = gene_ids.iter().map(is_known).collect();
        if !held.contains(&true) {
            return Err(self.no_match(gene_ids));
        }
        Ok(held)
    }

    /// The number of each gene of `gene_ids` in column `name`; `None` where the field is empty.
    ///
    /// # Errors
    /// No such column, no number, or no line for a gene.
    pub fn column(&self, name: &str, gene_ids: &[String]) -> Result<Vec<Option<f64>>, VocabError> {
        let place = self.header.iter().position(|column| column == name);
        let place = place.ok_or_else(|| {
            let found = self.header.join(", ");
            self.wrong(format!(
                "expected a column {name} beside gene, found {found:?}"
            ))
        })?;
        let mut numbers = HashMap::new();
        for (id, row) in self.genes.iter().zip(&self.rows) {
            let field = row.get(place).map_or("", String::as_str);
            let number = match field {
                "" => None,
                field => Some(field.parse().map_err(|_| {
                    self.wrong(format!("gene {id}: {name} is {field:?}, expected a number"))
                })?),
            };
            numbers.insert(id.as_str(), number);
        }
        let of = |id: &String| {
            let number = numbers.get(canonical_gene_id(id)).copied();
            number.ok_or_else(|| self.wrong(format!("it lacks gene {id} of the cells")))
        };
        gene_ids.iter().map(of).collect()
    }

    /// That none of `gene_ids`, those of the cells, stands in the table.
    pub fn no_match(&self, gene_ids: &[String]) -> VocabError {
        let some = |ids: &[String]| ids.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        self.wrong(format!(
            "none of its {} genes ({}, …) is one of the {} genes of the cells ({}, …)",
            self.genes.len(),
            some(&self.genes),
            gene_ids.len(),
            some(gene_ids)
        ))
    }

    fn wrong(&self, what: String) -> VocabError {
        VocabError::GeneTable {
            path: self.path.clone(),
            what,
        }
    }
}

/// Where the genes stand, if the line is a header.
fn gene_column(line: &[String]) -> Option<usize> {
    let named = |name: &&str| line.iter().position(|field| field == name);
    let unnamed = line.len() > 1 && line[0].is_empty();
    GENE_COLUMNS.iter().find_map(named).or(unnamed.then_some(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn load(name: &str, text: &str) -> Result<GeneTable, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        GeneTable::load(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn tables_and_plain_lists_are_read() {
        for (name, text) in [
            ("a.csv", "gene,means\nENSG00000000003.7,1\nB,2\n"),
            ("a.csv", "means,gene\n1,ENSG00000000003\n2,B\n"),
            ("a.csv", ",means\nENSG00000000003,1\nB,2\n"),
            ("a.csv", "ENSG00000000003,1\nB,2\n"),
            ("a.tsv", "gene_id\tx\nENSG00000000003\t1\nB\t2\n"),
            ("a.txt", "\u{feff}ENSG00000000003\r\n\r\nB\r\n"),
        ] {
            let table = load(name, text).unwrap();
            assert_eq!(table.genes(), ["ENSG00000000003", "B"], "{text}");
        }
    }

    #[test]
    fn tables_that_say_nothing_or_two_things_are_refused() {
        for (text, part) in [
            ("", "no gene"),
            ("gene\n", "no gene"),
            ("A\nB\nA\n", "A stands in it twice"),
            ("gene,x\nA,1\n,2\n", "row 3 names no gene"),
        ] {
            let error = load("r.csv", text).unwrap_err();
            assert!(error.contains(part) && error.contains("r.csv"), "{error}");
            assert!(error.contains("hint: "), "{error}");
        }
    }

    #[test]
    fn columns_are_looked_up_by_gene() {
        let table = load("t.csv", "x,gene\n2,B\n,A.1\n").unwrap();
        let ids = ["A.1", "B"].map(String::from);
        assert_eq!(table.column("x", &ids).unwrap(), [None, Some(2.0)]);
        assert_eq!(
            table.holds(&["B", "C"].map(String::from)).unwrap(),
            [true, false]
        );
        let error = table.holds(&["C".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("none of its 2 genes (B, A.1, …)"), "{error}");
    }
}
