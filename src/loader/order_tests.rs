//! What every order promises, over files × selections × ranks × threads × epochs × remainders.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::tests::{epoch, ids, loader, rest, sizes};
use super::*;
use crate::cell::PackedBatch;

const SHUFFLES: [Shuffle; 5] = [
    Shuffle::Sequential,
    Shuffle::Block,
    Shuffle::Full,
    Shuffle::Weighted,
    Shuffle::Grouped,
];
const REMAINDERS: [Remainder; 3] = [Remainder::Pad, Remainder::Drop, Remainder::Repeat];

/// One order of some cells of one data set, for any number of ranks and threads.
struct Case {
    data: Arc<DataSet>,
    cells: Selection,
    shuffle: Shuffle,
    remainder: Remainder,
}

fn group(cell: u64) -> u32 {
    (cell % 7 / 3) as u32
}

impl Case {
    fn loader(&self, rank: usize, world_size: usize, threads: usize, batch: usize) -> Loader {
        let config = SamplerConfig {
            seed: 5,
            shuffle: self.shuffle,
            block_cells: 3,
            buffer_cells: 10,
            group_cells: batch,
            remainder: self.remainder,
            rank,
            world_size,
        };
        let selected = self.cells.cells(self.data.len());
        let groups: Vec<_> = selected.map(|cell| Some(group(cell))).collect();
        let basis = match self.shuffle {
            Shuffle::Weighted => Weights::balanced(&groups).map_or(Basis::None, Basis::Weights),
            Shuffle::Grouped => Basis::Groups(Groups::new(&groups)),
            _ => Basis::None,
        };
        let sampler = Sampler::by(basis, config, self.cells.clone(), self.data.len()).unwrap();
        loader(&self.data, sampler, threads, batch)
    }

    /// The batches of `number` on every rank, step by step: [step][rank].
    fn steps(&self, world: usize, threads: usize, batch: usize, number: u64) -> Steps {
        let ranks =
            (0..world).map(|rank| epoch(&mut self.loader(rank, world, threads, batch), number));
        by_step(ranks.collect())
    }
}

type Steps = Vec<Vec<PackedBatch>>;

fn by_step(ranks: Vec<Vec<PackedBatch>>) -> Steps {
    assert!(
        ranks.iter().all(|batches| batches.len() == ranks[0].len()),
        "equal steps"
    );
    let mut steps: Steps = ranks[0].iter().map(|_| Vec::new()).collect();
    for batches in ranks {
        steps
            .iter_mut()
            .zip(batches)
            .for_each(|(step, batch)| step.push(batch));
    }
    steps
}

/// A cell, its tokens, and the place and token of each label.
type Content = (u64, Vec<u32>, Vec<(u32, u32)>);

/// All cells in order, whatever the batches: what the model sees.
fn contents(steps: &[Vec<PackedBatch>]) -> Vec<Content> {
    let of_batch = |batch: &PackedBatch| {
        let cell = |n: usize| {
            let (start, end) = (batch.cu_seqlens[n], batch.cu_seqlens[n + 1]);
            let labels = batch
                .labels
                .iter()
                .filter(|l| (start..end).contains(&l.position));
            let labels = labels.map(|l| (l.position - start, l.token)).collect();
            let tokens = batch.input_ids[start as usize..end as usize].to_vec();
            (batch.cells[n], tokens, labels)
        };
        (0..batch.num_cells()).map(cell).collect::<Vec<_>>()
    };
    steps.iter().flatten().flat_map(of_batch).collect()
}

fn order(steps: &Steps) -> Vec<u64> {
    steps.iter().flat_map(|step| ids(step)).collect()
}

/// All orders of all cells of the files, and of those of a part of them.
fn cases(files: &[u64]) -> impl Iterator<Item = Case> {
    let data = sizes(files);
    let part = (0..data.len()).filter(|cell| cell % 5 < 3).collect();
    let cases = [Selection::All, Selection::Rows(part)].map(|cells| {
        SHUFFLES.map(|shuffle| {
            REMAINDERS.map(|remainder| Case {
                data: Arc::clone(&data),
                cells: cells.clone(),
                shuffle,
                remainder,
            })
        })
    });
    // Nothing can be drawn where there is no cell.
    let fits =
        |case: &Case| case.cells.len(case.data.len()) > 0 || case.shuffle != Shuffle::Weighted;
    cases.into_iter().flatten().flatten().filter(fits)
}

/// How often each cell occurs, against what the order promises.
fn check_counts(case: &Case, steps: &Steps, batch: usize) {
    let mut counts = vec![0; case.data.len() as usize];
    order(steps)
        .iter()
        .for_each(|&cell| counts[cell as usize] += 1);
    let full = steps.iter().flatten().all(|b| b.num_cells() == batch);
    let label = (case.shuffle, case.remainder);
    assert!(full || case.remainder == Remainder::Pad, "{label:?}");
    if case.shuffle == Shuffle::Weighted {
        return;
    }
    let fine = |n: u32| match case.remainder {
        Remainder::Pad => n == 1,
        Remainder::Drop => n <= 1,
        Remainder::Repeat => n >= 1,
    };
    let selected = case.cells.cells(case.data.len());
    let mut counts_of = selected.map(|cell| std::mem::take(&mut counts[cell as usize]));
    assert!(counts_of.all(fine), "{label:?}");
    assert!(counts.iter().all(|n| *n == 0), "{label:?}: other cells");
}

#[test]
fn every_cell_as_promised_for_any_ranks_threads_and_epochs() {
    for files in [&[][..], &[0], &[1], &[5, 0, 7], &[23], &[11, 11, 11]] {
        for case in cases(files) {
            for (world, batch) in [(1, 4), (2, 3), (3, 2), (4, 5), (5, 40)] {
                for number in 0..2 {
                    let steps = case.steps(world, 0, batch, number);
                    check_counts(&case, &steps, batch);
                    assert_eq!(steps, case.steps(world, 3, batch, number));
                    let grouped = case.shuffle == Shuffle::Grouped;
                    let alone = if grouped { batch } else { world * batch };
                    let (order, alone) = (order(&steps), order_of(&case, alone, number));
                    // Whole batches of one group are dropped, or repeated, until ranks have equally
                    // many.
                    let common = if grouped {
                        order.len().min(alone.len())
                    } else {
                        alone.len()
                    };
                    assert_eq!(order[..common], alone[..common]);
                    assert!(case.remainder != Remainder::Pad || order.len() == alone.len());
                }
            }
        }
    }
}

fn order_of(case: &Case, batch: usize, number: u64) -> Vec<u64> {
    order(&case.steps(1, 0, batch, number))
}

#[test]
fn batches_of_a_group_hold_no_other() {
    for remainder in REMAINDERS {
        let (data, shuffle) = (sizes(&[30, 31]), Shuffle::Grouped);
        let case = Case {
            data,
            cells: Selection::All,
            shuffle,
            remainder,
        };
        for (world, batch) in [(1, 4), (3, 4), (4, 7)] {
            for batch in case.steps(world, 1, batch, 0).iter().flatten() {
                let mut groups = batch.cells.iter().map(|cell| group(*cell));
                let first = groups.next();
                assert!(groups.all(|group| Some(group) == first));
            }
        }
    }
}

/// Resumed after every step, with the same and other ranks, threads and batches.
#[test]
fn the_rest_of_an_epoch_is_the_same_after_any_step() {
    for case in cases(&[17, 0, 20]) {
        let whole = case.steps(2, 1, 3, 3);
        let mut running = case.loader(0, 2, 2, 3);
        running.set_epoch(3);
        for done in 0..=whole.len() {
            let text = serde_json::to_string(&running.state()).unwrap();
            let saved: LoaderState = serde_json::from_str(&text).unwrap();
            let resumed = |rank, world, threads, batch| {
                let mut resumed = case.loader(rank, world, threads, batch);
                resumed.resume(&saved).unwrap();
                rest(&mut resumed)
            };
            for threads in [0, 3] {
                let ranks = (0..2).map(|rank| resumed(rank, 2, threads, 3)).collect();
                assert_eq!(by_step(ranks), whole[done..], "{:?} {done}", case.shuffle);
            }
            // A batch of one group keeps its size; others may be of any.
            let grouped = case.shuffle == Shuffle::Grouped;
            for (world, batch) in [(1, 3), (3, if grouped { 3 } else { 2 })] {
                let ranks = (0..world).map(|rank| resumed(rank, world, 2, batch));
                let now = contents(&by_step(ranks.collect()));
                let before = contents(&whole[done..]);
                let common = now.len().min(before.len());
                assert_eq!(now[..common], before[..common]);
                if case.remainder == Remainder::Pad {
                    assert_eq!(now.len(), before.len());
                }
            }
            running.next_batch().unwrap();
        }
    }
}

#[test]
fn a_cell_that_occurs_again_has_other_masks() {
    let case = |shuffle, remainder| {
        let data = sizes(&[7]);
        let case = Case {
            data,
            cells: Selection::All,
            shuffle,
            remainder,
        };
        case.steps(1, 0, 40, 0).remove(0).remove(0)
    };
    for batch in [
        case(Shuffle::Full, Remainder::Repeat),
        case(Shuffle::Grouped, Remainder::Repeat),
        case(Shuffle::Weighted, Remainder::Repeat),
    ] {
        assert_eq!(batch.num_cells(), 40);
        let inputs = |n: usize| {
            let tokens = batch.cu_seqlens[n] as usize..batch.cu_seqlens[n + 1] as usize;
            batch.input_ids[tokens].to_vec()
        };
        let again = |n: usize| (n + 1..40).find(|m| batch.cells[*m] == batch.cells[n]);
        let pairs: Vec<_> = (0..40).filter_map(|n| Some((n, again(n)?))).collect();
        let same = pairs
            .iter()
            .filter(|(n, m)| inputs(*n) == inputs(*m))
            .count();
        assert!(
            pairs.len() > 30 && same * 10 < pairs.len(),
            "{same} of {}",
            pairs.len()
        );
    }
}

#[test]
fn an_order_needs_what_it_goes_by() {
    let config = |shuffle| SamplerConfig {
        shuffle,
        ..SamplerConfig::default()
    };
    let groups = || Basis::Groups(Groups::new(&[Some(0); 4]));
    let by = |basis, shuffle| Sampler::by(basis, config(shuffle), Selection::All, 5);
    let refused = [
        by(Basis::None, Shuffle::Weighted),
        by(Basis::None, Shuffle::Grouped),
        by(groups(), Shuffle::Weighted),
        by(groups(), Shuffle::Grouped),
    ];
    for refused in refused {
        assert!(refused.unwrap_err().to_string().contains("`shuffle`"));
    }
    let data = sizes(&[4]);
    let sampler = Sampler::by(groups(), config(Shuffle::Grouped), Selection::All, 4).unwrap();
    let settings = LoaderConfig::default();
    let collator = Arc::new(PlainCollator);
    let loader = |batch_cells| {
        let settings = LoaderConfig {
            batch_cells,
            ..settings.clone()
        };
        Loader::new(
            Arc::clone(&data),
            sampler.clone(),
            collator.clone(),
            settings,
        )
    };
    assert!(loader(32).is_ok());
    assert!(
        loader(31)
            .err()
            .unwrap()
            .to_string()
            .contains("group_cells")
    );
}
