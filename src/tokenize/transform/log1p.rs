//! `log1p`: ln(1 + x), as scanpy's `log1p`.

use std::sync::Arc;

use super::{Apply, Kind, Needs, Row};
use crate::rng::ChaCha8Rng;

pub(super) const KIND: Kind = Kind {
    name: "log1p",
    argument: "",
    needs: Needs::Values,
    takes: str::is_empty,
    make: |_, _| Ok(Arc::new(Log1p)),
};

#[derive(Debug)]
struct Log1p;

impl Apply for Log1p {
    fn apply(&self, row: &mut Row, _: &mut ChaCha8Rng) {
        row.values
            .iter_mut()
            .for_each(|value| *value = value.ln_1p());
    }
}
