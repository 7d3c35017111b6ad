//! `scale_genes:FILE`: divides the values of each gene by its `nonzero_median` in a table such as
//! `gene-bert genes stats` writes. A gene without one (never expressed) stays as it is.

use std::path::Path;
use std::sync::Arc;

use super::{Apply, Kind, Needs, Row};
use crate::rng::ChaCha8Rng;
use crate::vocab::GeneTable;

pub(super) const KIND: Kind = Kind {
    name: "scale_genes",
    argument: "FILE",
    needs: Needs::Table,
    takes: |path| !path.is_empty(),
    make: |path, gene_ids| {
        let table = GeneTable::load(Path::new(path))?;
        let medians = table.column("nonzero_median", gene_ids)?;
        Ok(Arc::new(ScaleGenes(medians)))
    },
};

/// The median of each column.
#[derive(Debug)]
struct ScaleGenes(Vec<Option<f64>>);

impl Apply for ScaleGenes {
    fn apply(&self, row: &mut Row, _: &mut ChaCha8Rng) {
        for (column, value) in row.columns.iter().zip(&mut row.values) {
            let median = self.0.get(*column as usize).copied().flatten();
            if let Some(median) = median.filter(|median| *median > 0.0) {
                *value = (f64::from(*value) / median) as f32;
            }
        }
    }
}
