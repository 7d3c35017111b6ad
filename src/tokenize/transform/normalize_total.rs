//! `normalize_total:TARGET`: scales a cell so that its values sum to the target, as scanpy's
//! `normalize_total`. A cell whose sum is 0 stays as it is. The sum is over every column of the
//! source, so that it does not depend on the vocabulary.

use std::sync::Arc;

use super::{Apply, Kind, Needs, Row, is_positive, number};
use crate::rng::ChaCha8Rng;

pub(super) const KIND: Kind = Kind {
    name: "normalize_total",
    argument: "TARGET",
    needs: Needs::Values,
    takes: is_positive,
    make: |target, _| Ok(Arc::new(NormalizeTotal(number(target)))),
};

#[derive(Debug)]
struct NormalizeTotal(f64);

impl Apply for NormalizeTotal {
    fn apply(&self, row: &mut Row, _: &mut ChaCha8Rng) {
        let total: f64 = row.values.iter().map(|&value| f64::from(value)).sum();
        if total > 0.0 {
            let scale = self.0 / total;
            for value in &mut row.values {
                *value = (f64::from(*value) * scale) as f32;
            }
        }
    }
}
