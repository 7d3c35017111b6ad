//! The optimizer's moments divided over ranks (`--shard-optimizer`): each rank holds those of its
//! part of the weights and moves that part; then all send one another what they have moved.
//!
//! Every rank has the whole summed gradient, so that a weight moves by the same sums whoever moves
//! it: the run is that of undivided moments, to the bit. On the way there are, besides the gradients,
//! all weights once a step. In a checkpoint the moments stand as if nobody had divided them.

use std::sync::Arc;

use anyhow::Result;
use candle_core::{Error, Tensor};

use crate::dist::{Ranks, Travelling};
use crate::optim::Division;
use crate::parameters::Parameters;

/// The division of a run's moments.
pub(super) struct Shards {
    ranks: Arc<Ranks>,
    division: Division,
    shapes: Vec<Vec<usize>>,
    /// Weights of a rank that are sent at a time.
    at_once: usize,
}

impl Shards {
    /// For the parameters of a run, sent in pieces of about `bucket_bytes`; `None` where there is one
    /// rank.
    pub fn new(ranks: &Arc<Ranks>, parameters: &Parameters, bucket_bytes: usize) -> Option<Self> {
        let world = ranks.world();
        let shapes: Vec<Vec<usize>> = parameters.iter().map(|(_, v)| v.dims().to_vec()).collect();
        let of_rank = bucket_bytes / size_of::<f32>() / world;
        (world > 1).then(|| Self {
            ranks: Arc::clone(ranks),
            division: Division::new(shapes.iter().map(Vec::as_slice), world),
            shapes,
            at_once: of_rank.max(1),
        })
    }

    /// Who moves what.
    pub fn division(&self) -> &Division {
        &self.division
    }

    /// After a step: the weights that the other ranks have moved.
    ///
    /// # Errors
    /// The engine's.
    pub fn exchange(&self, parameters: &Parameters) -> Result<()> {
        let longest = self.division.pieces().map(|piece| piece.len()).max();
        let mut on_the_way = None;
        for round in 0..longest.unwrap_or(0).div_ceil(self.at_once) {
            let own = self.read(parameters, round)?;
            let pending = self.ranks.group().join(&own, self.counts(round))?;
            if let Some((round, pending)) = on_the_way.replace((round, pending)) {
                self.write(parameters, round, &pending.wait()?)?;
            }
        }
        match on_the_way {
            Some((round, pending)) => self.write(parameters, round, &pending.wait()?),
            None => Ok(()),
        }
    }

    /// The places that each rank sends in a round.
    fn places(&self, round: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        self.division.pieces().map(move |piece| {
            let from = (piece.start + round * self.at_once).min(piece.end);
            from..(from + self.at_once).min(piece.end)
        })
    }

    fn counts(&self, round: usize) -> Vec<usize> {
        self.places(round).map(|places| places.len()).collect()
    }

    /// The weights that this rank sends in a round, `[N]`.
    fn read(&self, parameters: &Parameters, round: usize) -> Result<Tensor> {
        let places = self.places(round).nth(self.ranks.rank());
        let mut own = Vec::new();
        for (parameter, weights) in self.division.weights_at(places.unwrap_or_default()) {
            let tensor = parameters.at(parameter).detach().flatten_all()?;
            own.push(tensor.narrow(0, weights.start, weights.len())?);
        }
        match own.is_empty() {
            true => Ok(parameters.at(0).detach().flatten_all()?.narrow(0, 0, 0)?),
            false => Ok(Tensor::cat(&own, 0)?),
        }
    }

    fn write(&self, parameters: &Parameters, round: usize, values: &Tensor) -> Result<()> {
        let mut from = 0;
        for (rank, places) in self.places(round).enumerate() {
            for (parameter, weights) in self.division.weights_at(places) {
                let values = values.narrow(0, from, weights.len())?;
                from += weights.len();
                if rank != self.ranks.rank() {
                    let to = parameters.at(parameter).detach().flatten_all()?;
                    to.slice_set(&values, 0, weights.start)?;
                }
            }
        }
        Ok(())
    }

    /// A moment of a parameter whose rows the ranks have, each its `own`; all ranks call it alike.
    ///
    /// # Errors
    /// The engine's.
    pub fn whole(&self, parameter: usize, own: &Tensor) -> candle_core::Result<Tensor> {
        let shape = self.shapes[parameter].as_slice();
        let width: usize = shape.iter().skip(1).product();
        let rows = |rank| self.division.rows(parameter, rank).len();
        let counts: Vec<usize> = (0..self.ranks.world()).map(|r| rows(r) * width).collect();
        let all = self.ranks.group().join(&own.flatten_all()?, counts);
        let all = all.and_then(Travelling::wait).map_err(Error::wrap)?;
        all.reshape(shape)
    }
}
