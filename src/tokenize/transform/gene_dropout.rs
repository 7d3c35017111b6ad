//! `gene_dropout:P`: takes each gene out of the cell with this probability; the others stay as they
//! are.

use std::sync::Arc;

use rand::Rng;

use super::{Apply, Kind, Needs, Row, is_probability, number};
use crate::rng::ChaCha8Rng;

pub(super) const KIND: Kind = Kind {
    name: "gene_dropout",
    argument: "P",
    needs: Needs::Draws,
    takes: is_probability,
    make: |probability, _| Ok(Arc::new(GeneDropout(number(probability)))),
};

#[derive(Debug)]
struct GeneDropout(f64);

impl Apply for GeneDropout {
    fn apply(&self, row: &mut Row, rng: &mut ChaCha8Rng) {
        row.retain(|_, _| !rng.random_bool(self.0));
    }
}
