//! `filter_genes:FILE`: keeps the genes that stand in the first column of a table; all others are
//! as if not expressed.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::gene_table::GeneTable;
use super::{Apply, Kind, Needs, Row};
use crate::rng::ChaCha8Rng;
use crate::vocab::canonical_gene_id;

pub(super) const KIND: Kind = Kind {
    name: "filter_genes",
    argument: "FILE",
    needs: Needs::Table,
    takes: |path| !path.is_empty(),
    make: |path, gene_ids| {
        let table = GeneTable::read(Path::new(path))?;
        let known: HashSet<&str> = table.ids().collect();
        let is_known = |id: &String| known.contains(canonical_gene_id(id));
        Ok(Arc::new(FilterGenes(
            gene_ids.iter().map(is_known).collect(),
        )))
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
