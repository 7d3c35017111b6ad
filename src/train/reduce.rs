//! The gradients of a step summed over all ranks, in buckets, while the backward pass goes on.
//!
//! The first step finds out which parameters get a gradient, and after which stage of the backward
//! pass each is complete; that fixes the [`Layout`], the same on every rank: buckets of about
//! `bucket_bytes`, in the order in which they become complete. From then on a bucket is given to the
//! engine as soon as its last parameter is there, in the last backward pass of a step only: batches
//! that are accumulated are added up on each rank first. A table of which batches touch few rows
//! travels as the rows that any rank touched. Sums, not means, are summed: the number of labels is
//! summed with them, so that cells weigh the same on whichever rank they are.
//!
//! Buckets are tensors where the model computes, and stay there: on a GPU they are packed, summed and
//! taken apart without the host. Numbers that hosts know (labels, touched rows) go by messages, so
//! that no host waits for its GPU; the loss, which only the GPU knows, is summed there.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Result, bail};

use candle_core::{DType, Error, Tensor};

use crate::buffers::Number;
use crate::dist::{DistError, Ranks, Travelling, Wire};
use crate::kernels::cross_entropy::sum_of_losses;
use crate::kernels::rows::scatter;
use crate::parameters::{Gradient, Gradients, RowGradient, Watcher};

/// How gradients travel.
#[derive(Debug, Clone, Copy)]
pub struct ReduceConfig {
    /// Bytes that are summed at a time, as f32.
    pub bucket_bytes: usize,
    /// Their type on the way.
    pub wire: Wire,
}

/// What one rank, or all together, have summed up in a step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Totals {
    /// Loss over all labels.
    pub loss: f64,
    /// What divides it: labels, or their weights.
    pub weight: f64,
    /// Labelled positions.
    pub num_labels: u64,
    /// Cells.
    pub num_cells: u64,
    /// Real tokens.
    pub num_tokens: u64,
    /// Tokens if cells were padded.
    pub num_padded_tokens: u64,
    /// Cells that were skipped, as a phenotype is unknown.
    pub skipped_cells: u64,
    /// Ranks that were asked to end.
    pub interrupted: u64,
    /// Bits of the last gradient norm, which is the same everywhere as long as the weights are.
    pub last_norm: u64,
}

impl Totals {
    fn to_bytes(self) -> Vec<u8> {
        let counts = [
            self.num_labels,
            self.num_cells,
            self.num_tokens,
            self.num_padded_tokens,
            self.skipped_cells,
            self.interrupted,
            self.last_norm,
        ];
        let floats = [self.loss, self.weight].map(f64::to_bits);
        let all = floats.into_iter().chain(counts);
        all.flat_map(u64::to_le_bytes).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let numbers = bytes.chunks_exact(8);
        let mut numbers = numbers.map(|b| b.try_into().map(u64::from_le_bytes).ok());
        let mut next = || numbers.next().flatten();
        Some(Self {
            loss: f64::from_bits(next()?),
            weight: f64::from_bits(next()?),
            num_labels: next()?,
            num_cells: next()?,
            num_tokens: next()?,
            num_padded_tokens: next()?,
            skipped_cells: next()?,
            interrupted: next()?,
            last_norm: next()?,
        })
    }

    fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.weight += other.weight;
        self.num_labels += other.num_labels;
        self.num_cells += other.num_cells;
        self.num_tokens += other.num_tokens;
        self.num_padded_tokens += other.num_padded_tokens;
        self.skipped_cells += other.skipped_cells;
        self.interrupted += other.interrupted;
    }
}

/// Which parameters travel, and how.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    buckets: Vec<Bucket>,
    /// Tables that travel as rows.
    tables: Vec<usize>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Bucket {
    parameters: Vec<usize>,
    num_weights: usize,
    /// The stage after which all of them are complete.
    stage: u32,
}

/// What a rank has of a parameter's gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    None,
    Rows,
    Dense,
}

/// The buckets of the step at hand that are on their way.
#[derive(Default)]
struct Flight(Vec<Travelling>);

/// Sums gradients over ranks.
pub(super) struct Reducer {
    ranks: Arc<Ranks>,
    config: ReduceConfig,
    layout: Option<Rc<Layout>>,
    flight: Rc<RefCell<Flight>>,
}

impl Reducer {
    pub fn new(ranks: Arc<Ranks>, config: ReduceConfig) -> Self {
        Self {
            ranks,
            config,
            layout: None,
            flight: Rc::default(),
        }
    }

    /// Sends buckets on their way during the last backward pass of a step; `None` where there is
    /// nobody to send them to, or nothing is known of the gradients yet.
    pub fn watcher(&self) -> Option<Watcher> {
        let layout = Rc::clone(self.layout.as_ref()?);
        let (ranks, flight) = (Arc::clone(&self.ranks), Rc::clone(&self.flight));
        let wire = self.config.wire;
        Some(Watcher::new(move |gradients, stage| {
            let complete = |bucket: &Bucket| bucket.stage <= stage;
            flight
                .borrow_mut()
                .send(&ranks, &layout, gradients, wire, complete)
        }))
    }

    /// Replaces `gradients` and `own` by their sums over all ranks; gives the sum of `losses`.
    ///
    /// # Errors
    /// The engine's; ranks whose weights have parted.
    pub fn finish(
        &mut self,
        gradients: &mut Gradients,
        mut own: Totals,
        losses: &[Number],
    ) -> Result<(Totals, Number)> {
        let loss = sum_of_losses(losses, gradients.device())?;
        if let Number::Here(loss) = loss {
            own.loss = loss;
        }
        if self.layout.is_none() {
            self.layout = self.learn(gradients)?.map(Rc::new);
        }
        let layout = self.layout.clone();
        let all = |_: &Bucket| true;
        let wire = self.config.wire;
        if let Some(layout) = &layout {
            let mut flight = self.flight.borrow_mut();
            flight.send(&self.ranks, layout, gradients, wire, all)?;
        }
        let totals = self.totals(own)?;
        if let Some(layout) = &layout {
            let pending = std::mem::take(&mut self.flight.borrow_mut().0);
            for (bucket, pending) in layout.buckets.iter().zip(pending) {
                unpack(bucket, &pending.wait()?, gradients)?;
            }
            for &table in &layout.tables {
                self.sum_rows(table, gradients)?;
            }
        }
        let loss = match loss {
            Number::Here(_) => Number::Here(totals.loss),
            Number::There(loss) => {
                let sum = self.ranks.group().sum(loss, Wire::F32)?;
                Number::There(sum.wait()?)
            }
        };
        Ok((totals, loss))
    }

    fn totals(&self, own: Totals) -> Result<Totals> {
        let mut sum = Totals {
            last_norm: own.last_norm,
            ..Totals::default()
        };
        let messages = self.ranks.group().gather(own.to_bytes())?;
        for (rank, message) in messages.iter().enumerate() {
            let Some(theirs) = Totals::from_bytes(message) else {
                bail!("rank {rank}: a message of {} bytes", message.len());
            };
            if theirs.last_norm != own.last_norm {
                bail!(
                    "the weights of ranks {} and {rank} have parted: their last gradient norms are \
                     {} and {}\nhint: the ranks may run different builds or processors whose sums \
                     differ; start them alike and --resume",
                    self.ranks.rank(),
                    f64::from_bits(own.last_norm),
                    f64::from_bits(theirs.last_norm),
                );
            }
            sum.add(&theirs);
        }
        Ok(sum)
    }

    /// What all ranks together have a gradient of; `None` where no rank has any.
    fn learn(&self, gradients: &Gradients) -> Result<Option<Layout>> {
        let own = (0..gradients.len()).flat_map(|index| {
            let kind = match gradients.get(index) {
                None => Kind::None,
                Some(Gradient::Rows(_)) => Kind::Rows,
                Some(Gradient::Dense(_)) => Kind::Dense,
            };
            [kind as u32, gradients.last_touched(index)]
        });
        let own: Vec<u32> = own.collect();
        let of_ranks = self.gather_numbers(&own)?;
        let mut all = vec![(Kind::None, 0); gradients.len()];
        for theirs in of_ranks {
            for ((kind, stage), pair) in all.iter_mut().zip(theirs.chunks_exact(2)) {
                let there = match pair[0] {
                    0 => continue,
                    1 => Kind::Rows,
                    _ => Kind::Dense,
                };
                *kind = (*kind).max(there);
                *stage = (*stage).max(pair[1]);
            }
        }
        let sizes: Vec<usize> = (0..all.len()).map(|i| gradients.num_weights(i)).collect();
        let layout = Layout::new(&all, &sizes, self.config.bucket_bytes / size_of::<f32>());
        let is_empty = layout.buckets.is_empty() && layout.tables.is_empty();
        Ok((!is_empty).then_some(layout))
    }

    fn gather_numbers(&self, own: &[u32]) -> Result<Vec<Vec<u32>>, DistError> {
        let bytes = own.iter().flat_map(|number| number.to_le_bytes()).collect();
        let messages = self.ranks.group().gather(bytes)?;
        let numbers = |message: Vec<u8>| {
            let numbers = message.chunks_exact(4);
            let numbers = numbers.map(|b| b.try_into().map_or(0, u32::from_le_bytes));
            numbers.collect()
        };
        Ok(messages.into_iter().map(numbers).collect())
    }

    fn sum_rows(&self, table: usize, gradients: &mut Gradients) -> Result<()> {
        let (height, width) = gradients.rows_and_width(table);
        let own = match gradients.get(table) {
            None => None,
            Some(Gradient::Rows(own)) => Some(own.clone()),
            // A GPU adds up batches in a whole table.
            Some(Gradient::Dense(values)) => Some(RowGradient {
                rows: (0..height as u32).collect(),
                values: values.reshape((height, width))?,
            }),
        };
        let own = own.filter(|own| !own.rows.is_empty());
        let numbers = own.as_ref().map_or(&[][..], |own| &*own.rows);
        let mut rows: Vec<u32> = self.gather_numbers(numbers)?.concat();
        rows.sort_unstable();
        rows.dedup();
        let count = rows.len();
        let values = match &own {
            // A GPU has no memory of no bytes.
            None => Tensor::zeros((count.max(1), width), DType::F32, gradients.device())?
                .narrow(0, 0, count)?,
            Some(own) => {
                let place = |row: &u32| rows.partition_point(|other| other < row) as u32;
                let places: Vec<u32> = own.rows.iter().map(place).collect();
                scatter(&own.values, &places, count)?
            }
        }; // [R, width]
        let values = self.sum_in_parts(&values.flatten_all()?)?;
        let values = values.reshape((count, width))?;
        let rows = rows.into();
        gradients.set_rows(table, RowGradient { rows, values });
        Ok(())
    }

    /// The sum of `values`, `[N]`, over all ranks, in parts of the size of a bucket.
    fn sum_in_parts(&self, values: &Tensor) -> Result<Tensor> {
        let (count, group) = (values.elem_count(), self.ranks.group());
        let part = (self.config.bucket_bytes / size_of::<f32>()).max(1);
        let starts = (0..count).step_by(part);
        let parts = starts.map(|start| {
            let part = values.narrow(0, start, part.min(count - start))?;
            Ok(group.sum(part, self.config.wire)?)
        });
        let parts = parts.collect::<Result<Vec<_>>>()?.into_iter();
        let sums = parts.map(Travelling::wait).collect::<Result<Vec<_>, _>>()?;
        match sums.is_empty() {
            true => Ok(values.clone()),
            false => Ok(Tensor::cat(&sums, 0)?),
        }
    }
}

impl Layout {
    /// `all` has what there is of each parameter and the stage after which it is complete.
    fn new(all: &[(Kind, u32)], sizes: &[usize], bucket_weights: usize) -> Self {
        let of_kind = |wanted: Kind| {
            let places = all.iter().enumerate();
            let places = places.filter(move |(_, (kind, _))| *kind == wanted);
            places.map(|(index, &(_, stage))| (stage, index))
        };
        let mut dense: Vec<(u32, usize)> = of_kind(Kind::Dense).collect();
        dense.sort_unstable();
        let mut buckets: Vec<Bucket> = Vec::new();
        for (stage, index) in dense {
            let has_room = |bucket: &&mut Bucket| bucket.num_weights < bucket_weights;
            let bucket = match buckets.last_mut().filter(has_room) {
                Some(bucket) => bucket,
                None => {
                    buckets.push(Bucket::default());
                    let last = buckets.len() - 1;
                    &mut buckets[last]
                }
            };
            bucket.parameters.push(index);
            bucket.num_weights += sizes[index];
            bucket.stage = stage;
        }
        Self {
            buckets,
            tables: of_kind(Kind::Rows).map(|(_, index)| index).collect(),
        }
    }
}

impl Flight {
    /// Sends the next buckets as long as they are `complete`.
    fn send(
        &mut self,
        ranks: &Ranks,
        layout: &Layout,
        gradients: &Gradients,
        wire: Wire,
        complete: impl Fn(&Bucket) -> bool,
    ) -> candle_core::Result<()> {
        let rest = layout.buckets.iter().skip(self.0.len());
        for bucket in rest.take_while(|bucket| complete(bucket)) {
            let flat = bucket.parameters.iter().map(|index| gradients.flat(*index));
            let flat = flat.collect::<candle_core::Result<Vec<_>>>()?;
            let values = Tensor::cat(&flat, 0)?;
            self.0
                .push(ranks.group().sum(values, wire).map_err(Error::wrap)?);
        }
        Ok(())
    }
}

/// The parameters' gradients become parts of `sums`.
fn unpack(bucket: &Bucket, sums: &Tensor, gradients: &mut Gradients) -> Result<()> {
    let mut start = 0;
    for &index in &bucket.parameters {
        let len = gradients.num_weights(index);
        gradients.set_dense(index, &sums.narrow(0, start, len)?)?;
        start += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_go_in_the_order_in_which_gradients_become_complete() {
        let all = [
            (Kind::Rows, 3),  // a table
            (Kind::Dense, 2), // block 0
            (Kind::Dense, 2),
            (Kind::Dense, 1), // block 1
            (Kind::None, 0),  // frozen
            (Kind::Dense, 0), // the head
        ];
        let layout = Layout::new(&all, &[100, 6, 2, 5, 9, 4], 8);
        let bucket = |parameters: &[usize], num_weights, stage| Bucket {
            parameters: parameters.to_vec(),
            num_weights,
            stage,
        };
        let expected = [bucket(&[5, 3], 9, 1), bucket(&[1, 2], 8, 2)];
        assert_eq!(layout.buckets, expected);
        assert_eq!(layout.tables, [0]);
    }

    #[test]
    fn totals_survive_the_journey() {
        let totals = Totals {
            loss: f64::NAN,
            weight: 0.1,
            num_labels: 3,
            num_padded_tokens: u64::MAX,
            last_norm: 1.5f64.to_bits(),
            ..Totals::default()
        };
        let there = Totals::from_bytes(&totals.to_bytes());
        assert!(there.is_some_and(|t| t.loss.is_nan() && t.num_padded_tokens == u64::MAX));
        assert_eq!(
            there.map(|t| (t.weight, t.last_norm)),
            Some((0.1, totals.last_norm))
        );
        assert_eq!(Totals::from_bytes(&[1, 2, 3]), None);
    }
}
