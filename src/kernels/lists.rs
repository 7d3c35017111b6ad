//! What kernels read of a batch besides tensors: lists of numbers, and what follows from them alone.
//!
//! [`Numbers`] lie here, and on a GPU where they were sent to one; a kernel that runs there takes those,
//! or sends them itself where nobody has. [`Lists`] are all of a batch's. An [`Uploader`] sends them all
//! in one copy from pinned memory, in a stream of its own and by whichever thread has it, so that a
//! thread that reads ahead takes this work off the one that trains. What it has sent is
//! [`OnTheWay`]: the stream of the step waits for it, on the device, when it is taken over. Memory on the
//! device is given back when the last [`Numbers`] of a batch are dropped and the work has been done that
//! the device was given until then. On the CPU there is nothing to send and nothing to wait for.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use candle_core::{Device, Result};

use super::attention::Cells;
#[cfg(feature = "cuda")]
use super::cuda;
use super::embedding::Orders;
use crate::cell::PackedBatch;

/// Numbers of a batch; a copy is another handle on them.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    here: Arc<Vec<u32>>,
    /// Where they lie on a GPU.
    #[cfg(feature = "cuda")]
    pub(super) there: Option<cuda::There>,
}

impl Deref for Numbers {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.here
    }
}

impl From<Vec<u32>> for Numbers {
    fn from(numbers: Vec<u32>) -> Self {
        Self {
            here: Arc::new(numbers),
            #[cfg(feature = "cuda")]
            there: None,
        }
    }
}

impl From<&[u32]> for Numbers {
    fn from(numbers: &[u32]) -> Self {
        numbers.to_vec().into()
    }
}

impl<const N: usize> From<&[u32; N]> for Numbers {
    fn from(numbers: &[u32; N]) -> Self {
        numbers.to_vec().into()
    }
}

impl From<&Vec<u32>> for Numbers {
    fn from(numbers: &Vec<u32>) -> Self {
        numbers.clone().into()
    }
}

impl From<&Numbers> for Numbers {
    fn from(numbers: &Numbers) -> Self {
        numbers.clone()
    }
}

impl FromIterator<u32> for Numbers {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        numbers.into_iter().collect::<Vec<u32>>().into()
    }
}

/// The lists of a packed batch.
#[derive(Debug, Clone)]
pub struct Lists {
    /// Token ids, `[T]`.
    pub ids: Numbers,
    /// Token type ids, `[T]`.
    pub type_ids: Numbers,
    /// Start of each cell, `[B + 1]`; first 0, last T.
    pub starts: Numbers,
    /// The first token of each cell, `[B]`.
    pub firsts: Numbers,
    /// The labelled positions, `[N]`, ascending.
    pub positions: Numbers,
    /// What stands there, or is the class of each cell, `[N]`.
    pub labels: Numbers,
    orders: Option<Orders>,
    /// The tiles of attention; on a GPU.
    tiles: Option<Numbers>,
}

impl Lists {
    /// The lists of `batch`.
    pub fn new(batch: &PackedBatch) -> Self {
        let starts = &batch.cu_seqlens;
        Self {
            ids: (&batch.input_ids).into(),
            type_ids: (&batch.token_type_ids).into(),
            starts: starts.into(),
            firsts: starts[..batch.num_cells()].into(),
            positions: batch.labels.iter().map(|label| label.position).collect(),
            labels: batch.labels.iter().map(|label| label.token).collect(),
            orders: None,
            tiles: None,
        }
    }

    /// The same with the order that the gradients of embeddings are summed in, which leaves out
    /// `pad`; without it, the way back finds it.
    #[must_use]
    pub fn sorted(self, pad: u32) -> Self {
        let orders = Orders::new(&self.ids, &self.type_ids, pad);
        Self {
            orders: Some(orders),
            ..self
        }
    }

    /// The same on `device` as well, in its own stream.
    ///
    /// # Errors
    /// The device fails.
    pub fn on(self, device: &Device) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if device.is_cuda() {
            let mut lists = self.tiled();
            cuda::send_in_order(device, lists.all())?;
            return Ok(lists);
        }
        let _ = device;
        Ok(self)
    }

    /// Number of tokens T.
    pub fn num_tokens(&self) -> usize {
        self.ids.len()
    }

    /// Where cells begin, as attention is told.
    pub fn cells(&self) -> Cells<'_> {
        Cells {
            starts: &self.starts,
            tiles: self.tiles.as_ref(),
        }
    }

    /// In what order the gradients of embeddings are summed, where padding is `pad`.
    pub fn orders(&self, pad: u32) -> Cow<'_, Orders> {
        match &self.orders {
            Some(orders) => Cow::Borrowed(orders),
            None => Cow::Owned(Orders::new(&self.ids, &self.type_ids, pad)),
        }
    }

    #[cfg(feature = "cuda")]
    fn tiled(mut self) -> Self {
        self.tiles = Some(cuda::tiles(&self.starts).into());
        self.orders = self.orders.map(Orders::cut);
        self
    }

    /// Every list there is.
    #[cfg(feature = "cuda")]
    fn all(&mut self) -> Vec<&mut Numbers> {
        let mut all = vec![
            &mut self.ids,
            &mut self.type_ids,
            &mut self.starts,
            &mut self.firsts,
            &mut self.positions,
            &mut self.labels,
        ];
        all.extend(&mut self.tiles);
        all.extend(self.orders.iter_mut().flat_map(Orders::all));
        all
    }
}

/// Sends lists to a device ahead of their use.
#[derive(Debug)]
pub struct Uploader {
    #[cfg(feature = "cuda")]
    gpu: Option<cuda::Uploader>,
}

impl Uploader {
    /// For lists that `device` is to read.
    ///
    /// # Errors
    /// The device fails.
    pub fn new(device: &Device) -> Result<Self> {
        let _ = device;
        Ok(Self {
            #[cfg(feature = "cuda")]
            gpu: device
                .is_cuda()
                .then(|| cuda::Uploader::new(device))
                .transpose()?,
        })
    }

    /// Sends `lists`. The caller may wait for an earlier copy, whose pinned memory is used again; the
    /// thread that trains never does.
    ///
    /// # Errors
    /// The device fails.
    pub fn send(&mut self, lists: Lists) -> Result<OnTheWay> {
        #[cfg(feature = "cuda")]
        if let Some(gpu) = &mut self.gpu {
            let mut lists = lists.tiled();
            let arrival = gpu.send(lists.all())?;
            return Ok(OnTheWay {
                lists,
                arrival: Some(arrival),
            });
        }
        Ok(OnTheWay {
            lists,
            #[cfg(feature = "cuda")]
            arrival: None,
        })
    }
}

/// Lists that may not have arrived on their device.
#[derive(Debug)]
pub struct OnTheWay {
    lists: Lists,
    #[cfg(feature = "cuda")]
    arrival: Option<cuda::Arrival>,
}

impl OnTheWay {
    /// The lists, for work that the device is given from now on; the host does not wait.
    ///
    /// # Errors
    /// The device fails.
    pub fn take(self) -> Result<Lists> {
        #[cfg(feature = "cuda")]
        if let Some(arrival) = &self.arrival {
            arrival.wait()?;
        }
        Ok(self.lists)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cell::Label;

    #[test]
    fn lists_are_those_of_the_batch_sent_or_not() {
        let label = |position, token| Label { position, token };
        let batch = PackedBatch {
            input_ids: vec![7, 0, 7, 3],
            token_type_ids: vec![1, 2, 1, 1],
            cu_seqlens: vec![0, 3, 4],
            labels: vec![label(1, 9), label(3, 5)],
            cells: vec![4, 6],
        };
        let mut uploader = Uploader::new(&Device::Cpu).unwrap();
        let sent = uploader.send(Lists::new(&batch).sorted(0)).unwrap();
        let lists = sent.take().unwrap().on(&Device::Cpu).unwrap();
        assert_eq!((lists.num_tokens(), &*lists.ids), (4, &[7, 0, 7, 3][..]));
        assert_eq!(
            [&lists.type_ids, &lists.starts].map(|numbers| numbers.to_vec()),
            [vec![1, 2, 1, 1], vec![0, 3, 4]]
        );
        let rest = [&lists.firsts, &lists.positions, &lists.labels];
        assert_eq!(
            rest.map(|numbers| numbers.to_vec()),
            [[0, 3], [1, 3], [9, 5]]
        );
        let late = Lists::new(&batch);
        for lists in [&lists, &late] {
            let orders = lists.orders(0);
            assert_eq!(&*orders.words.rows, &[3, 7], "0 is padding");
            assert_eq!(&*orders.types.rows, &[1, 2]);
        }
    }
}
