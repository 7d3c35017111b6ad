//! Genes that tell how well a cell was prepared: mitochondrial, ribosomal, haemoglobin.
//!
//! They are told by their symbols, which are in the index of var or in a column beside it; the
//! mitochondrial ones of man and mouse by their Ensembl ids too.

use super::{GenesError, PrepareError};
use crate::cell::CellSource;
use crate::h5ad::{H5ad, VarColumn};
use crate::vocab::canonical_gene_id;

/// Names of the sets, in the order of the bits of [`Members`]: those that scanpy's tutorials use.
pub(super) const NAMES: [&str; 3] = ["mt", "ribo", "hb"];

/// What a column of symbols may be called, where none is named.
pub(super) const SYMBOL_COLUMNS: [&str; 8] = [
    "feature_name",
    "gene_symbols",
    "gene_symbol",
    "gene_name",
    "gene_names",
    "gene_short_name",
    "symbol",
    "name",
];

/// Numbers of the 13 mitochondrial genes of man that make proteins, after `ENSG00000`.
const HUMAN: [u32; 13] = [
    198888, 198763, 198804, 198712, 228253, 198899, 198938, 198840, 212907, 198886, 198786, 198695,
    198727,
];
/// The same of the mouse, after `ENSMUSG000000`.
const MOUSE: [u32; 13] = [
    64341, 64345, 64351, 64354, 64356, 64357, 64358, 64360, 65947, 64363, 64367, 64368, 64370,
];

/// Which columns of the matrix are in each set.
#[derive(Debug, Clone)]
pub(super) struct Members {
    /// One bit for each of [`NAMES`], for each column.
    sets: Vec<u8>,
}

impl Members {
    /// Of a file's genes; symbols are in its column `symbols`, or in the first that sounds like
    /// it, or in the index.
    ///
    /// # Errors
    /// No such column, or one of numbers where it was named; unreadable data.
    pub(super) fn of(file: &H5ad, symbols: Option<&str>) -> Result<Self, PrepareError> {
        let column = match symbols {
            Some(name) => Some(name),
            None => {
                let names = file.var_column_names();
                let is_there = |name: &&&str| names.iter().any(|n| n == **name);
                SYMBOL_COLUMNS.iter().find(is_there).copied()
            }
        };
        let symbols = match column {
            Some(name) => match file.var_column(name)? {
                VarColumn::Texts(texts) => texts,
                VarColumn::Numbers(_) if symbols.is_some() => {
                    return Err(GenesError::NumericSymbols {
                        path: file.path().to_owned(),
                        column: name.to_owned(),
                        columns: file.var_column_names().join(", "),
                    }
                    .into());
                }
                VarColumn::Numbers(_) => Vec::new(),
            },
            None => Vec::new(),
        };
        let of = |(column, id): (usize, &String)| {
            let symbol = symbols.get(column).and_then(Option::as_deref);
            sets_of(id) | symbol.map_or(0, sets_of)
        };
        Ok(Self {
            sets: file.gene_ids().iter().enumerate().map(of).collect(),
        })
    }

    /// Whether any gene is in the set.
    pub(super) fn has(&self, set: usize) -> bool {
        self.sets.iter().any(|bits| bits >> set & 1 == 1)
    }

    /// Whether a column is in the set.
    pub(super) fn is_in(&self, column: u32, set: usize) -> bool {
        let bits = self.sets.get(column as usize);
        bits.is_some_and(|bits| bits >> set & 1 == 1)
    }
}

/// The sets of a gene, by its symbol or Ensembl id.
fn sets_of(id: &str) -> u8 {
    let upper = id.to_ascii_uppercase();
    let numbered = |prefix: &str, numbers: &[u32]| {
        let number = canonical_gene_id(id).strip_prefix(prefix);
        number
            .and_then(|n| n.parse().ok())
            .is_some_and(|n| numbers.contains(&n))
    };
    let mitochondrial = upper.starts_with("MT-")
        || numbered("ENSG00000", &HUMAN)
        || numbered("ENSMUSG000000", &MOUSE);
    let ribosomal = upper.starts_with("RPS") || upper.starts_with("RPL");
    let after = upper
        .strip_prefix("HB")
        .and_then(|rest| rest.chars().next());
    let haemoglobin = after.is_some_and(|sign| sign != 'P');
    u8::from(mitochondrial) | u8::from(ribosomal) << 1 | u8::from(haemoglobin) << 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn genes_are_told_by_symbol_or_id() {
        for (id, expected) in [
            ("MT-CO1", 1),
            ("mt-Co1", 1),
            ("ENSG00000198804", 1),
            ("ENSG00000198804.2", 1),
            ("ENSMUSG00000064370", 1),
            ("ENSG00000064370", 0),
            ("MTOR", 0),
            ("RPS6", 2),
            ("Rpl7", 2),
            ("HBA1", 4),
            ("HBP1", 0),
            ("HB", 0),
            ("TP53", 0),
        ] {
            assert_eq!(sets_of(id), expected, "{id}");
        }
    }
}
