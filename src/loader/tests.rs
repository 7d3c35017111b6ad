//! The properties that the whole room promises, on sources in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::cell::{CellSource, CsrBlock, Labels, PackedBatch, SourceError};

pub(super) const NUM_GENES: u32 = 30;

/// Cells in memory; some rows may fail (once each time they are named) or panic.
struct Cells {
    path: PathBuf,
    num_cells: u64,
    genes: Vec<String>,
    fail: Mutex<VecDeque<u64>>,
    panic: Option<u64>,
    rows_read: AtomicU64,
}

impl Cells {
    fn new(name: &str, num_cells: u64) -> Self {
        Self {
            path: PathBuf::from(format!("/data/{name}")),
            num_cells,
            genes: (0..NUM_GENES).map(|g| format!("G{g}")).collect(),
            fail: Mutex::default(),
            panic: None,
            rows_read: AtomicU64::new(0),
        }
    }
}

impl CellSource for Cells {
    fn path(&self) -> &Path {
        &self.path
    }
    fn num_cells(&self) -> u64 {
        self.num_cells
    }
    fn gene_ids(&self) -> &[String] {
        &self.genes
    }
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<CsrBlock, SourceError> {
        assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        let mut fail = self.fail.lock().unwrap();
        if fail
            .front()
            .is_some_and(|row| ranges.iter().any(|range| range.contains(row)))
        {
            return Err(format!("row {} is torn", fail.pop_front().unwrap()).into());
        }
        drop(fail);
        let (mut offsets, mut columns) = (vec![0], Vec::new());
        for row in ranges.iter().cloned().flatten() {
            assert!(
                row < self.num_cells && self.panic != Some(row),
                "row {row} exploded"
            );
            columns.extend((0..NUM_GENES).filter(|g| (u64::from(*g) + row) % 3 != 0));
            offsets.push(columns.len());
        }
        let num_rows = offsets.len() - 1;
        self.rows_read.fetch_add(num_rows as u64, Ordering::SeqCst);
        let values = vec![1.0; columns.len()];
        Ok(CsrBlock::new(
            (num_rows, NUM_GENES as usize),
            offsets,
            columns,
            values,
        ))
    }
    fn obs_columns(&self) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }
    fn labels(&self, column: &str) -> Result<Labels, SourceError> {
        Err(format!("no column {column}").into())
    }
    fn cell_names(&self) -> Result<Vec<String>, SourceError> {
        Ok((0..self.num_cells).map(|row| row.to_string()).collect())
    }
}

fn data_set(sources: Vec<Cells>) -> Arc<DataSet> {
    let tokenizer = fixture::tokenizer(NUM_GENES);
    let bind = |cells: Cells| {
        let bound = Arc::new(tokenizer.bind(&cells).unwrap());
        (Arc::new(cells) as Arc<dyn CellSource>, bound)
    };
    Arc::new(DataSet::new(sources.into_iter().map(bind).collect()))
}

pub(super) fn sizes(sizes: &[u64]) -> Arc<DataSet> {
    let name = |n| format!("cells_{n}.h5ad");
    data_set(
        sizes
            .iter()
            .enumerate()
            .map(|(n, &size)| Cells::new(&name(n), size))
            .collect(),
    )
}

/// Few cells per block and buffer, so that small data sets have many of them.
fn plan(data: &DataSet, rank: usize, world_size: usize) -> Sampler {
    let config = SamplerConfig {
        seed: 5,
        block_cells: 3,
        buffer_cells: 10,
        rank,
        world_size,
        ..SamplerConfig::default()
    };
    Sampler::new(config, Selection::All, data.len()).unwrap()
}

pub(super) fn masks() -> Arc<dyn Collator> {
    let config = MlmConfig {
        gene_mask_prob: 0.3,
        ..MlmConfig::default()
    };
    Arc::new(MlmCollator::training(&fixture::vocabulary(NUM_GENES, 1), &config, 5, None).unwrap())
}

pub(super) fn loader(
    data: &Arc<DataSet>,
    sampler: Sampler,
    workers: usize,
    batch_cells: usize,
) -> Loader {
    let config = LoaderConfig {
        num_workers: workers,
        batch_cells,
        ..LoaderConfig::default()
    };
    Loader::new(Arc::clone(data), sampler, masks(), config).unwrap()
}

pub(super) fn rest(loader: &mut Loader) -> Vec<PackedBatch> {
    std::iter::from_fn(|| loader.next_batch().unwrap()).collect()
}

pub(super) fn epoch(loader: &mut Loader, epoch: u64) -> Vec<PackedBatch> {
    loader.set_epoch(epoch);
    rest(loader)
}

pub(super) fn ids(batches: &[PackedBatch]) -> Vec<u64> {
    batches
        .iter()
        .flat_map(|batch| batch.cells.iter().copied())
        .collect()
}

#[test]
fn cells_are_numbered_over_all_sources() {
    let data = sizes(&[0, 3, 0, 2, 0]);
    let places: Vec<_> = (0..6).map(|cell| data.locate(cell)).collect();
    let expected = [
        Some((1, 0)),
        Some((1, 1)),
        Some((1, 2)),
        Some((3, 0)),
        Some((3, 1)),
        None,
    ];
    assert_eq!(places, expected);
    assert_eq!(
        (data.len(), data.cells_of(3), data.cells_of(9)),
        (5, 3..5, 5..5)
    );
    assert!(sizes(&[0, 0]).is_empty());
    assert_eq!(sizes(&[]).locate(0), None);
}

#[test]
fn every_cell_once_over_ranks_and_the_same_order_for_any_number_of_them() {
    for files in [&[][..], &[0], &[1], &[5, 0, 7], &[23], &[11, 11, 11]] {
        let data = sizes(files);
        for (world, batch) in [(1, 1), (1, 4), (2, 3), (3, 2), (4, 5), (5, 40)] {
            for number in 0..2 {
                let single = epoch(
                    &mut loader(&data, plan(&data, 0, 1), 0, world * batch),
                    number,
                );
                let ranks: Vec<_> = (0..world)
                    .map(|rank| {
                        epoch(
                            &mut loader(&data, plan(&data, rank, world), 1, batch),
                            number,
                        )
                    })
                    .collect();
                assert!(ranks.iter().all(|batches| batches.len() == single.len()));
                for (i, global) in single.iter().enumerate() {
                    let parts = ranks.iter().flat_map(|batches| batches[i].cells.clone());
                    assert_eq!(parts.collect::<Vec<_>>(), global.cells);
                }
                let mut seen = ids(&single);
                seen.sort_unstable();
                assert_eq!(seen, (0..data.len()).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn batches_do_not_depend_on_the_number_of_threads() {
    let data = sizes(&[40, 0, 300, 9]);
    for number in 0..2 {
        let expected = epoch(&mut loader(&data, plan(&data, 0, 1), 0, 7), number);
        assert!(expected.iter().any(|batch| !batch.labels.is_empty()));
        for workers in [1, 4] {
            assert_eq!(
                epoch(&mut loader(&data, plan(&data, 0, 1), workers, 7), number),
                expected
            );
        }
    }
}

#[test]
fn a_fetch_that_several_threads_share_is_put_together_in_order() {
    let data = sizes(&[1500, 1300]);
    let sampler = || {
        let config = SamplerConfig {
            block_cells: 7,
            buffer_cells: 1000,
            ..SamplerConfig::default()
        };
        Sampler::new(config, Selection::All, data.len()).unwrap()
    };
    let expected = rest(&mut loader(&data, sampler(), 0, 64));
    for workers in [1, 4] {
        assert_eq!(rest(&mut loader(&data, sampler(), workers, 64)), expected);
    }
}

#[test]
fn a_resumed_epoch_goes_on_as_if_never_interrupted() {
    let data = sizes(&[17, 20]);
    let whole = epoch(&mut loader(&data, plan(&data, 0, 1), 0, 4), 3);
    let mut running = loader(&data, plan(&data, 0, 1), 2, 4);
    running.set_epoch(3);
    for done in 0..=whole.len() {
        let text = serde_json::to_string(&running.state()).unwrap();
        let saved: LoaderState = serde_json::from_str(&text).unwrap();
        for workers in [0, 3] {
            let mut resumed = loader(&data, plan(&data, 0, 1), workers, 4);
            resumed.resume(&saved).unwrap();
            assert_eq!(rest(&mut resumed), whole[done..]);
            assert_eq!(resumed.state().position, data.len());
        }
        // Another number of ranks: the same cells in the same order over all of them.
        let ranks: Vec<Vec<PackedBatch>> = (0..3)
            .map(|rank| {
                let mut resumed = loader(&data, plan(&data, rank, 3), 1, 2);
                resumed.resume(&saved).unwrap();
                rest(&mut resumed)
            })
            .collect();
        let order: Vec<u64> = (0..ranks[0].len())
            .flat_map(|i| {
                ranks
                    .iter()
                    .flat_map(move |batches| batches[i].cells.clone())
            })
            .collect();
        assert_eq!(order, ids(&whole[done..]));
        running.next_batch().unwrap();
    }
}

#[test]
fn a_place_in_other_data_is_refused_by_name() {
    let data = sizes(&[17, 20]);
    let saved = loader(&data, plan(&data, 0, 1), 0, 4).state();
    let refusal = |data: &Arc<DataSet>, sampler: Sampler| {
        loader(data, sampler, 0, 4)
            .resume(&saved)
            .unwrap_err()
            .to_string()
    };
    let longer = sizes(&[17, 21]);
    assert!(
        refusal(&longer, plan(&longer, 0, 1))
            .contains("the number of cells of cells_1.h5ad was 20, now it is 21")
    );
    let more = sizes(&[17, 20, 0]);
    assert!(refusal(&more, plan(&more, 0, 1)).contains("the number of files"));
    let renamed = data_set(vec![Cells::new("b", 17), Cells::new("a", 20)]);
    assert!(
        refusal(&renamed, plan(&renamed, 0, 1)).contains("file 0 was cells_0.h5ad, now it is b")
    );
    let config = plan(&data, 0, 1).config().clone();
    let some = Selection::Rows((0..37).filter(|i| *i != 4).collect());
    let sampler = Sampler::new(config.clone(), some, 37).unwrap();
    assert!(refusal(&data, sampler).contains("the number of selected cells was 37, now it is 36"));
    let sampler = Sampler::new(SamplerConfig { seed: 6, ..config }, Selection::All, 37).unwrap();
    let text = refusal(&data, sampler);
    assert!(text.contains("`seed` was 5, now it is 6") && text.contains("hint:"));
}

fn until_error(loader: &mut Loader) -> (Vec<PackedBatch>, LoaderError) {
    let mut batches = Vec::new();
    loop {
        match loader.next_batch() {
            Ok(batch) => batches.push(batch.expect("an error before the end")),
            Err(error) => return (batches, error),
        }
    }
}

#[test]
fn an_unreadable_row_comes_up_in_its_place_and_can_be_tried_again() {
    let whole = epoch(
        &mut loader(&sizes(&[60]), plan(&sizes(&[60]), 0, 1), 0, 4),
        0,
    );
    let mut before = Vec::new();
    for workers in [0, 1, 4] {
        let cells = Cells::new("cells_0.h5ad", 60);
        cells.fail.lock().unwrap().push_back(33);
        let data = data_set(vec![cells]);
        let mut loader = loader(&data, plan(&data, 0, 1), workers, 4);
        let (mut batches, error) = until_error(&mut loader);
        assert!(matches!(&error, LoaderError::Read { path, .. } if path.ends_with("cells_0.h5ad")));
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(cause, "row 33 is torn");
        before.push(batches.len());
        batches.extend(rest(&mut loader));
        assert_eq!(batches, whole);
    }
    assert!(before.iter().all(|n| *n == before[0]));
}

#[test]
fn a_panic_in_a_reader_becomes_an_error() {
    for workers in [0, 1, 4] {
        let cells = Cells {
            panic: Some(40),
            ..Cells::new("cells_0.h5ad", 60)
        };
        let data = data_set(vec![cells]);
        let (_, error) = until_error(&mut loader(&data, plan(&data, 0, 1), workers, 4));
        let text = error.to_string();
        assert!(
            text.contains("cells_0.h5ad") && text.contains("row 40 exploded"),
            "{text}"
        );
    }
}

#[test]
fn reading_ahead_is_bounded_by_fetches_and_by_bytes() {
    for (read_ahead, read_ahead_bytes, most) in [(2, 1 << 30, 30), (50, 1, 20), (50, 1 << 30, 100)]
    {
        let cells = Arc::new(Cells::new("cells_0.h5ad", 100));
        let bound = Arc::new(fixture::tokenizer(NUM_GENES).bind(cells.as_ref()).unwrap());
        let data = Arc::new(DataSet::new(vec![(
            cells.clone() as Arc<dyn CellSource>,
            bound,
        )]));
        let config = LoaderConfig {
            num_workers: 1,
            batch_cells: 2,
            read_ahead,
            read_ahead_bytes,
            ..LoaderConfig::default()
        };
        let sampler = plan(&data, 0, 1);
        let mut loader = Loader::new(Arc::clone(&data), sampler, masks(), config).unwrap();
        loader.next_batch().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        let rows_read = cells.rows_read.load(Ordering::SeqCst);
        assert!(
            rows_read <= most && rows_read + 10 >= most,
            "{rows_read} of {most}"
        );
        drop(loader);
        assert_eq!(Arc::strong_count(&data), 1, "all threads are gone");
    }
}

#[test]
fn genes_are_counted_over_an_even_share_of_the_cells() {
    let data = sizes(&[30, 60]);
    let all = data
        .expressed_counts(&Selection::All, 1000, NUM_GENES as usize)
        .unwrap();
    assert!(all.iter().all(|count| *count == 60.0), "{all:?}");
    let some = Selection::Rows((0..30).map(|i| 3 * i).collect());
    let counts = data
        .expressed_counts(&some, 10, NUM_GENES as usize)
        .unwrap();
    let expected = |gene: usize| if gene.is_multiple_of(3) { 0.0 } else { 10.0 };
    assert!(
        counts
            .iter()
            .enumerate()
            .all(|(gene, count)| *count == expected(gene))
    );
}

#[test]
fn throughput_counts_every_cell_and_value() {
    let tokenizer = fixture::tokenizer(NUM_GENES);
    let cells = Cells::new("cells_0.h5ad", 90);
    let bound = Arc::new(tokenizer.bind(&cells).unwrap());
    let sources = [(Arc::new(cells) as Arc<dyn CellSource>, bound)];
    let sampler = Sampler::new(SamplerConfig::default(), Selection::All, 90).unwrap();
    for threads in [1, 2] {
        let measurement = throughput::Measurement {
            sources: &sources,
            sampler: &sampler,
            measured: throughput::Measured::Tokens(masks()),
            column: None,
            num_passes: 2,
            sums: false,
            read_ahead_bytes: 1 << 20,
        };
        let pass = measurement.run(threads).unwrap().unwrap();
        assert_eq!(
            (pass.num_threads, pass.cells, pass.non_zeros),
            (threads, 90, 90 * 20)
        );
        assert_eq!(pass.tokens, 90 * 22);
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let data = sizes(&[5]);
    for config in [
        LoaderConfig {
            batch_cells: 0,
            ..LoaderConfig::default()
        },
        LoaderConfig {
            read_ahead: 0,
            ..LoaderConfig::default()
        },
    ] {
        assert!(Loader::new(Arc::clone(&data), plan(&data, 0, 1), masks(), config).is_err());
    }
    let other = plan(&sizes(&[6]), 0, 1);
    let config = LoaderConfig::default();
    assert!(Loader::new(Arc::clone(&data), other, masks(), config).is_err());
}
