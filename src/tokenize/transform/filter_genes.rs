//! `filter_genes:FILE`: keeps the genes that stand in a table; all others are as if not expressed.

use std::path::Path;
use std::sync::Arc;

use super::{Apply, Kind, Needs, Row};
use crate::rng::ChaCha8Rng;
use crate::vocab::GeneTable;

pub(super) const KIND: Kind = Kind {
    name: "filter_genes",
    argument: "FILE",
    needs: Needs::Table,
    takes: |path| !path.is_empty(),
    make: |path, gene_ids| {
        let table = GeneTable::load(Path::new(path))?;
        Ok(Arc::new(FilterGenes(table.holds(gene_ids)?)))
    },
};

/// Whether each column is kept.
#[derive(Debug)]
struct FilterGenes(Vec<bool>);

impl Apply for FilterGenes {
    fn apply(&self, row: &mut Row, _: &mut ChaCha8Rng) {
        row.retain(|column, _| self.0.get(column as usize) == Some(&true));
    }
}
