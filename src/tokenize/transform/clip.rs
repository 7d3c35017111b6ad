//! `clip:MAX`: values beyond MAX become MAX, those below −MAX become −MAX.

use std::sync::Arc;

use super::{Apply, Kind, Needs, Row, is_positive, number};
use crate::rng::ChaCha8Rng;

pub(super) const KIND: Kind = Kind {
    name: "clip",
    argument: "MAX",
    needs: Needs::Values,
    takes: is_positive,
    make: |most, _| Ok(Arc::new(Clip(number(most) as f32))),
};

#[derive(Debug)]
struct Clip(f32);

impl Apply for Clip {
    fn apply(&self, row: &mut Row, _: &mut ChaCha8Rng) {
        let most = self.0;
        row.values
            .iter_mut()
            .for_each(|value| *value = value.clamp(-most, most));
    }
}
