//! `thin:SHARE`: keeps each molecule with this probability: every count is a binomial draw, as if
//! the cell had been sequenced less deeply. Values are rounded to counts first; none is negative.

use std::sync::Arc;

use rand::distr::Distribution;
use rand_distr::Binomial;

use super::{Apply, Kind, Needs, Row, is_probability, number};
use crate::rng::ChaCha8Rng;

pub(super) const KIND: Kind = Kind {
    name: "thin",
    argument: "SHARE",
    needs: Needs::Draws,
    takes: is_probability,
    make: |share, _| Ok(Arc::new(Thin(number(share)))),
};

#[derive(Debug)]
struct Thin(f64);

impl Apply for Thin {
    fn apply(&self, row: &mut Row, rng: &mut ChaCha8Rng) {
        for value in &mut row.values {
            let count = value.round().max(0.0) as u64;
            // A share from 0 to 1 always makes a distribution.
            let kept = Binomial::new(count, self.0).map_or(0, |counts| counts.sample(rng));
            *value = kept as f32;
        }
        row.retain(|_, value| value != 0.0);
    }
}
