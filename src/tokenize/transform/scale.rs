//! `scale:FACTOR`: multiplies every value.

use std::sync::Arc;

use super::{Apply, Kind, Needs, Row, is_positive, number};
use crate::rng::ChaCha8Rng;

pub(super) const KIND: Kind = Kind {
    name: "scale",
    argument: "FACTOR",
    needs: Needs::Values,
    takes: is_positive,
    make: |factor, _| Ok(Arc::new(Scale(number(factor)))),
};

#[derive(Debug)]
struct Scale(f64);

impl Apply for Scale {
    fn apply(&self, row: &mut Row, _: &mut ChaCha8Rng) {
        for value in &mut row.values {
            *value = (f64::from(*value) * self.0) as f32;
        }
    }
}
