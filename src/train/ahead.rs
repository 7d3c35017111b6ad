//! Batches made ready for the model ahead of the steps that take them, by a thread of their own.
//!
//! The thread asks the loader for the next batch, cuts it into the parts that are computed at once,
//! finds what follows from their tokens alone (the order in which gradients of embeddings are summed)
//! and sends all of it to the device ([`crate::kernels::lists`]). One batch waits for the loop, another
//! may be in the making. Batches come in the loader's order with the place after each, so that what is
//! saved is where the loop is, not where the thread is.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result};
use candle_core::Device;

use crate::cell::PackedBatch;
use crate::kernels::lists::{Lists, OnTheWay, Uploader};
use crate::loader::{Loader, LoaderState};

/// Batches that wait for the loop.
const WAITING: usize = 1;

/// How batches are made ready.
#[derive(Debug, Clone)]
pub struct Preparation {
    /// Where the model computes.
    pub device: Device,
    /// The token of padding.
    pub pad: u32,
    /// Most tokens that are computed at once, but for a cell that has more; `None`: whole batches.
    pub tokens_per_batch: Option<usize>,
}

impl Preparation {
    /// What of `batch` is computed at once, and after what.
    fn parts(&self, batch: &PackedBatch, uploader: &mut Uploader) -> Result<Vec<OnTheWay>> {
        let mut send = |part: &PackedBatch| uploader.send(Lists::new(part).sorted(self.pad));
        let Some(most_tokens) = self.tokens_per_batch else {
            return Ok(vec![send(batch)?]);
        };
        let runs = batch.runs(most_tokens).into_iter();
        let parts = runs.map(|cells| Ok(send(&batch.part(cells))?));
        parts.collect()
    }
}

/// A batch, and what of it is computed at once.
#[derive(Debug)]
pub struct Ready {
    /// The whole batch.
    pub batch: PackedBatch,
    /// Its parts; taken by the step.
    pub parts: Vec<OnTheWay>,
    /// The loader's place after it.
    place: Place,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    position: u64,
    batches_left: u64,
    /// Cells that were skipped on the way.
    num_skipped: u64,
}

/// `None`: the end of an epoch.
type Next = Result<Option<Ready>>;

/// The loader of a run, in a thread of its own. The thread ends when this is dropped.
pub struct Ahead {
    /// Both are there until the thread is to end.
    ways: Option<(Receiver<Next>, Sender<u64>)>,
    thread: Option<JoinHandle<()>>,
    /// The place after the last batch that was handed over.
    state: LoaderState,
    place: Place,
    num_cells: u64,
    has_ended: bool,
}

impl Ahead {
    /// Begins to read where `loader` stands.
    ///
    /// # Errors
    /// There is no thread to be had, or the device fails.
    pub fn new(loader: Loader, how: Preparation) -> Result<Self> {
        let (to_loop, batches) = sync_channel(WAITING);
        let (epochs, to_thread) = channel();
        let (state, num_cells) = (loader.state(), loader.sampler().len());
        let uploader = Uploader::new(&how.device)?;
        let thread = Builder::new()
            .name("ahead".to_owned())
            .spawn(move || serve(loader, &how, uploader, &to_loop, &to_thread))
            .context("no thread to read ahead with")?;
        Ok(Self {
            ways: Some((batches, epochs)),
            thread: Some(thread),
            state,
            place: Place::default(),
            num_cells,
            has_ended: false,
        })
    }

    /// The next batch; `None` at the end of the epoch, until [`Ahead::start_epoch`].
    ///
    /// # Errors
    /// The loader's, after the batches before it; or the device fails.
    pub fn next_batch(&mut self) -> Next {
        if self.has_ended {
            return Ok(None);
        }
        let next = self
            .ways
            .as_ref()
            .and_then(|(batches, _)| batches.recv().ok());
        let next = next.context("the thread that reads ahead has ended")??;
        match &next {
            None => self.has_ended = true,
            Some(ready) => {
                let num_skipped = self.place.num_skipped + ready.place.num_skipped;
                self.place = Place {
                    num_skipped,
                    ..ready.place
                };
                self.state.position = ready.place.position;
            }
        }
        Ok(next)
    }

    /// Goes on with `epoch` after the end of another.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn start_epoch(&mut self, epoch: u64) -> Result<()> {
        let sent = self.ways.as_ref().map(|(_, epochs)| epochs.send(epoch));
        sent.and_then(Result::ok)
            .context("the thread that reads ahead has ended")?;
        (self.state.epoch, self.state.position) = (epoch, 0);
        self.has_ended = false;
        Ok(())
    }

    /// The loader's place after the last batch that was handed over.
    pub fn state(&self) -> LoaderState {
        self.state.clone()
    }

    /// Batches of the epoch after the last one that was handed over.
    pub fn batches_left(&self) -> u64 {
        self.place.batches_left
    }

    /// How many cells the tokenizer skipped in the batches since this was asked last.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.place.num_skipped)
    }

    /// Cells of an epoch over all ranks.
    pub fn num_cells(&self) -> u64 {
        self.num_cells
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.ways = None;
        if let Some(thread) = self.thread.take() {
            // There is nobody left to tell of a panic.
            let _ = thread.join();
        }
    }
}

/// The life of the thread.
fn serve(
    mut loader: Loader,
    how: &Preparation,
    mut uploader: Uploader,
    to_loop: &SyncSender<Next>,
    epochs: &Receiver<u64>,
) {
    loop {
        let next = ready(&mut loader, how, &mut uploader);
        let (has_failed, has_ended) = (next.is_err(), matches!(next, Ok(None)));
        if to_loop.send(next).is_err() || has_failed {
            return;
        }
        if has_ended {
            match epochs.recv() {
                Ok(epoch) => loader.set_epoch(epoch),
                Err(_) => return,
            }
        }
    }
}

fn ready(loader: &mut Loader, how: &Preparation, uploader: &mut Uploader) -> Next {
    let Some(batch) = loader.next_batch()? else {
        return Ok(None);
    };
    let parts = how.parts(&batch, uploader)?;
    let place = Place {
        position: loader.state().position,
        batches_left: loader.batches_left(),
        num_skipped: loader.take_skipped(),
    };
    Ok(Some(Ready {
        batch,
        parts,
        place,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use crate::cell::{CellSource, CsrBlock};
    use crate::loader::{DataSet, LoaderConfig, PlainCollator, Sampler, SamplerConfig, Selection};
    use crate::store::MemorySource;
    use crate::tokenize::{TokenizeConfig, Tokenizer};
    use crate::vocab::{GeneVocab, PhenotypeVocab, Repeats, Vocabulary};

    /// 11 cells of 0 to 10 genes in batches of 3.
    fn loader(num_workers: usize) -> Loader {
        let genes: Vec<String> = (0..12).map(|gene| format!("G{gene}")).collect();
        let offsets: Vec<usize> = (0..12).map(|cell| cell * (cell.max(1) - 1) / 2).collect();
        let columns: Vec<u32> = (0..11).flat_map(|cell| 0..cell).collect();
        let values = vec![1.0; columns.len()];
        let matrix = CsrBlock::new((11, 12), offsets, columns, values);
        let cells = MemorySource::new("cells", matrix, genes.clone(), BTreeMap::new()).unwrap();
        let phenotypes = PhenotypeVocab::new(BTreeMap::new(), Repeats::Refused).unwrap();
        let genes = GeneVocab::new(genes, None).unwrap();
        let vocabulary = Arc::new(Vocabulary::new(phenotypes, genes, 1));
        let tokenizer = Tokenizer::new(vocabulary, TokenizeConfig::default()).unwrap();
        let bound = Arc::new(tokenizer.bind(&cells).unwrap());
        let cells: Arc<dyn CellSource> = Arc::new(cells);
        let data = Arc::new(DataSet::new(vec![(cells, bound)]));
        let sampler = Sampler::new(SamplerConfig::default(), Selection::All, 11).unwrap();
        let config = LoaderConfig {
            num_workers,
            batch_cells: 3,
            ..LoaderConfig::default()
        };
        Loader::new(data, sampler, Arc::new(PlainCollator), config).unwrap()
    }

    fn ahead(loader: Loader, tokens_per_batch: Option<usize>) -> Ahead {
        let how = Preparation {
            device: Device::Cpu,
            pad: 0,
            tokens_per_batch,
        };
        Ahead::new(loader, how).unwrap()
    }

    #[test]
    fn batches_and_places_are_those_of_the_loader() {
        for num_workers in [0, 2] {
            let mut plain = loader(num_workers);
            let mut ahead = ahead(loader(num_workers), None);
            assert_eq!(ahead.num_cells(), 11);
            for epoch in 0..3 {
                while let Some(expected) = plain.next_batch().unwrap() {
                    let mut found = ahead.next_batch().unwrap().unwrap();
                    assert_eq!(found.batch, expected);
                    let lists = found.parts.pop().unwrap().take().unwrap();
                    assert_eq!(*lists.ids, *expected.input_ids);
                    assert!(found.parts.is_empty());
                    assert_eq!(ahead.state(), plain.state());
                    assert_eq!(ahead.batches_left(), plain.batches_left());
                }
                // As often as it is asked.
                assert!(ahead.next_batch().unwrap().is_none());
                assert!(ahead.next_batch().unwrap().is_none());
                plain.set_epoch(epoch + 1);
                ahead.start_epoch(epoch + 1).unwrap();
                assert_eq!(ahead.state(), plain.state());
            }
        }
    }

    #[test]
    fn parts_hold_whole_cells_and_a_run_goes_on_in_the_midst_of_an_epoch() {
        let mut plain = loader(1);
        plain.next_batch().unwrap();
        let mut again = loader(1);
        again.resume(&plain.state()).unwrap();
        let mut ahead = ahead(again, Some(10));
        let expected = plain.next_batch().unwrap().unwrap();
        let found = ahead.next_batch().unwrap().unwrap();
        let parts = found.parts.into_iter().map(|part| part.take().unwrap());
        let parts: Vec<Lists> = parts.collect();
        assert!(parts.len() > 1 && found.batch == expected);
        let ids = parts.iter().flat_map(|part| part.ids.to_vec());
        assert_eq!(ids.collect::<Vec<u32>>(), expected.input_ids);
        assert!(
            parts
                .iter()
                .all(|part| part.starts.ends_with(&[part.num_tokens() as u32]))
        );
    }
}
