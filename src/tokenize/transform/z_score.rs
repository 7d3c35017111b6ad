//! `z_score:FILE`: (x − mean) / standard deviation of each gene, from the columns `mean_counts` and
//! `variance` of a table such as `gene-bert genes stats` writes (with the same steps before, for its
//! `--transform`). Also genes that are not expressed get a value, so the row becomes dense. A gene
//! that does not vary becomes 0. As scanpy's `scale`; `clip:10` after it is its `max_value`.

use std::path::Path;
use std::sync::Arc;

use super::{Apply, Kind, Needs, Row};
use crate::rng::ChaCha8Rng;
use crate::vocab::GeneTable;

pub(super) const KIND: Kind = Kind {
    name: "z_score",
    argument: "FILE",
    needs: Needs::Table,
    takes: |path| !path.is_empty(),
    make: |path, gene_ids| {
        let table = GeneTable::load(Path::new(path))?;
        let means = table.column("mean_counts", gene_ids)?;
        let variances = table.column("variance", gene_ids)?;
        let known = |(mean, variance): (Option<f64>, Option<f64>)| Some((mean?, variance?.sqrt()));
        let figures = means.into_iter().zip(variances).map(known);
        Ok(Arc::new(ZScore(figures.collect())))
    },
};

/// Mean and standard deviation of each column.
#[derive(Debug)]
struct ZScore(Vec<Option<(f64, f64)>>);

impl Apply for ZScore {
    fn apply(&self, row: &mut Row, _: &mut ChaCha8Rng) {
        let mut values = row.dense(self.0.len());
        for (value, figures) in values.iter_mut().zip(&self.0) {
            *value = match figures {
                Some((mean, deviation)) if *deviation > 0.0 => {
                    ((f64::from(*value) - mean) / deviation) as f32
                }
                _ => 0.0,
            };
        }
        row.columns = (0..values.len() as u32).collect();
        row.values = values;
    }
}
