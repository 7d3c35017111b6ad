//! What holds for every split, on cells in memory.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::cell::{CsrBlock, Labels};
use crate::store::MemorySource;

/// A file of `num_cells` cells of some of 20 donors and 3 types; every 17th has no donor.
fn file(name: &str, num_cells: usize, shift: usize) -> MemorySource {
    let matrix = CsrBlock::zero((num_cells, 0));
    let donors = 0..num_cells;
    let donor = |i: usize| {
        if i % 17 == 16 {
            -1
        } else {
            ((i * 13 / 3 + i * i / 50 + shift) % 20) as i32
        }
    };
    let column = |values: Vec<String>, codes: Vec<i32>| Labels {
        categories: values,
        codes,
    };
    let labels = BTreeMap::from([
        (
            "donor_id".to_owned(),
            column(
                (0..20).map(|d| format!("d{d}")).collect(),
                donors.map(donor).collect(),
            ),
        ),
        (
            "cell_type".to_owned(),
            column(
                ["a", "b", "c"].map(str::to_owned).to_vec(),
                (0..num_cells)
                    .map(|i| [0, 0, 0, 1, 1, 2, 0, 1, 0, 0][i % 10])
                    .collect(),
            ),
        ),
        (
            "set".to_owned(),
            column(
                ["Train", "validation", "test"].map(str::to_owned).to_vec(),
                (0..num_cells).map(|i| (i % 3) as i32).collect(),
            ),
        ),
    ]);
    MemorySource::new(name, matrix, Vec::new(), labels).unwrap()
}

fn files() -> Vec<MemorySource> {
    let sizes = [
        ("a/x", 400),
        ("empty", 0),
        ("b/x", 1),
        ("y", 777),
        ("z", 23),
    ];
    let make = |(i, (name, size)): (usize, &(&str, usize))| file(name, *size, i * 7);
    sizes.iter().enumerate().map(make).collect()
}

fn sources(files: &[MemorySource]) -> Vec<&dyn CellSource> {
    files.iter().map(|file| file as &dyn CellSource).collect()
}

fn config(by: By) -> SplitConfig {
    SplitConfig {
        by,
        stratify_by: Some("cell_type".to_owned()),
        val: Held::Share(0.1),
        test: Held::Share(0.2),
        folds: None,
        seed: 5,
    }
}

fn all_by() -> [By; 4] {
    let donor = By::Column("donor_id".to_owned());
    [
        By::Cells,
        By::Files,
        donor,
        By::PartColumn("set".to_owned()),
    ]
}

fn num_in(parts: &[Option<Part>], part: Part) -> usize {
    cells_of(parts, part).len()
}

#[test]
fn every_cell_is_in_one_part_whichever_files_are_read() {
    let files = files();
    let sources = sources(&files);
    for by in all_by() {
        let split = config(by.clone()).make(&sources).unwrap();
        assert_eq!(split, config(by.clone()).make(&sources).unwrap(), "{by:?}");
        let parts = split.parts(0, &sources).unwrap();
        assert_eq!(parts.len(), 1201);
        let without = parts.iter().filter(|part| part.is_none()).count();
        let expected = if matches!(by, By::Column(_)) {
            400 / 17 + 777 / 17 + 23 / 17
        } else {
            0
        };
        assert_eq!(without, expected, "{by:?}");
        for part in Part::ALL {
            assert_eq!(split.num_cells(0, part), num_in(&parts, part) as u64);
        }
        // In another order, and one by one.
        let turned: Vec<&dyn CellSource> = sources.iter().rev().copied().collect();
        let mut expected = Vec::new();
        for (source, end) in turned.iter().zip([1201, 1178, 401, 400, 400]) {
            let of = &parts[end - source.num_cells() as usize..end];
            assert_eq!(split.parts(0, &[*source]).unwrap(), of, "{by:?}");
            expected.extend_from_slice(of);
        }
        assert_eq!(split.parts(0, &turned).unwrap(), expected);
    }
}

#[test]
fn groups_never_straddle_and_parts_have_their_shares() {
    let files = files();
    let sources = sources(&files);
    let donors: Vec<Option<String>> = files
        .iter()
        .flat_map(|file| {
            let labels = file.labels("donor_id").unwrap();
            (0..labels.codes.len()).map(move |row| labels.value(row).map(str::to_owned))
        })
        .collect();
    for seed in 0..30 {
        let config = SplitConfig {
            seed,
            ..config(By::Column("donor_id".to_owned()))
        };
        let split = config.make(&sources).unwrap();
        let parts = split.parts(0, &sources).unwrap();
        let pairs: BTreeSet<_> = donors
            .iter()
            .zip(&parts)
            .filter(|(d, _)| d.is_some())
            .collect();
        assert_eq!(pairs.len(), 20, "a donor is in two parts");
        for (part, share) in Part::ALL.into_iter().zip([0.7, 0.1, 0.2]) {
            let found = num_in(&parts, part) as f64 / (1201.0 - 69.0);
            assert!((found - share).abs() < 0.05, "seed {seed}, {part}: {found}");
        }
        assert_eq!(
            shared_donors(&sources, &parts).unwrap().unwrap().num_shared,
            0
        );
    }
}

#[test]
fn drawn_cells_are_exactly_so_many_and_of_all_types() {
    let files = files();
    let sources = sources(&files);
    let of_type = |parts: &[Option<Part>], part: Part, code: i32| {
        let codes = files
            .iter()
            .flat_map(|file| file.labels("cell_type").unwrap().codes);
        let both = codes
            .zip(parts)
            .filter(|(c, p)| *c == code && **p == Some(part));
        both.count() as f64
    };
    for seed in 0..30 {
        let shares = SplitConfig {
            seed,
            ..config(By::Cells)
        };
        let parts = shares.make(&sources).unwrap().parts(0, &sources).unwrap();
        assert_eq!(num_in(&parts, Part::Test), 240);
        assert_eq!(num_in(&parts, Part::Val), 120);
        for (code, share) in [(0, 0.6), (1, 0.3), (2, 0.1)] {
            assert!((of_type(&parts, Part::Test, code) - 240.0 * share).abs() < 6.0);
            assert!((of_type(&parts, Part::Val, code) - 120.0 * share).abs() < 8.0);
        }
        let shared = shared_donors(&sources, &parts).unwrap().unwrap();
        assert_eq!((shared.column, shared.num_donors), ("donor_id", 20));
        assert!(shared.num_shared > 10);
        let numbers = SplitConfig {
            val: Held::Cells(17),
            test: Held::Cells(1),
            ..shares
        };
        let parts = numbers.make(&sources).unwrap().parts(0, &sources).unwrap();
        assert_eq!(
            (num_in(&parts, Part::Val), num_in(&parts, Part::Test)),
            (17, 1)
        );
    }
}

#[test]
fn in_cross_validation_each_cell_tests_once() {
    let files = files();
    let sources = sources(&files);
    for (by, num_cells) in [(By::Cells, 1201), (By::Column("donor_id".to_owned()), 1132)] {
        let config = SplitConfig {
            folds: Some(5),
            ..config(by)
        };
        let split = config.make(&sources).unwrap();
        assert_eq!(split.num_folds(), 5);
        let mut tested = Vec::new();
        for fold in 0..5 {
            let parts = split.parts(fold, &sources).unwrap();
            let (test, val) = (num_in(&parts, Part::Test), num_in(&parts, Part::Val));
            assert!((180..290).contains(&test), "fold {fold}: {test} test");
            assert!((80..160).contains(&val), "fold {fold}: {val} validate");
            tested.extend(cells_of(&parts, Part::Test));
        }
        tested.sort_unstable();
        tested.dedup();
        assert_eq!(tested.len(), num_cells);
        let error = split.parts(5, &sources).unwrap_err().to_string();
        assert!(error.contains("below 5"), "{error}");
    }
}

#[test]
fn named_groups_are_held_out() {
    let files = files();
    let sources = sources(&files);
    let named = |by, val: &[&str], test: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        SplitConfig {
            val: Held::Groups(owned(val)),
            test: Held::Groups(owned(test)),
            ..config(by)
        }
        .make(&sources)
    };
    let split = named(By::Files, &["b/x"], &["z", "empty"]).unwrap();
    assert_eq!(
        Part::ALL.map(|part| split.num_cells(0, part)),
        [1177, 1, 23]
    );
    let donor = || By::Column("donor_id".to_owned());
    let split = named(donor(), &[], &["d3", "d4"]).unwrap();
    let Rule::Groups { folds, .. } = &split.rule else {
        unreachable!()
    };
    assert_eq!(
        (folds[0].val.len(), folds[0].test.join(" ")),
        (0, "d3 d4".to_owned())
    );
    for (by, val, test, part) in [
        (donor(), &["d1"], &["d99"], "\"d99\" is not among"),
        (donor(), &["d1"], &["d1"], "in one part only"),
        (By::Files, &["x"], &["z"], "a/x"),
    ] {
        let error = named(by, val, test).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_cannot_be_split_is_refused() {
    let files = files();
    let sources = sources(&files);
    let base = || config(By::Column("donor_id".to_owned()));
    for (config, part) in [
        (
            SplitConfig {
                val: Held::Share(0.9),
                ..base()
            },
            "leave cells to train on",
        ),
        (
            SplitConfig {
                val: Held::Share(f64::NAN),
                ..base()
            },
            "`val`",
        ),
        (
            SplitConfig {
                test: Held::Cells(1201),
                ..base()
            },
            "fewer than all 1201",
        ),
        (
            SplitConfig {
                folds: Some(1),
                ..base()
            },
            "`folds`",
        ),
        (
            SplitConfig {
                folds: Some(21),
                ..base()
            },
            "20 values of obs column `donor_id`",
        ),
        (
            SplitConfig {
                by: By::PartColumn("donor_id".to_owned()),
                ..base()
            },
            "is no part",
        ),
        (
            SplitConfig {
                stratify_by: Some("colour".to_owned()),
                ..base()
            },
            "obs column",
        ),
    ] {
        let error = config.make(&sources).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let error = base().make(&sources[1..2]).unwrap_err().to_string();
    assert!(error.contains("0 cells"), "{error}");
}

#[test]
fn a_split_on_disk_is_the_same_and_knows_its_files() {
    let files = files();
    let sources = sources(&files);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("split.json");
    for by in all_by() {
        let split = config(by).make(&sources).unwrap();
        split.save(&path).unwrap();
        assert_eq!(Split::load(&path).unwrap(), split);
        let choice = FoldChoice::load(&path, None).unwrap();
        let parts = choice.parts(&sources).unwrap();
        let chosen = PartChoice {
            fold: choice,
            part: Part::Val,
        };
        let Selection::Rows(rows) = chosen.cells(&sources).unwrap() else {
            unreachable!()
        };
        assert_eq!(*rows, *cells_of(&parts, Part::Val));
        for (other, part) in [
            (file("y", 778, 21), "expected 777, found 778"),
            (
                file("new", 50, 0),
                "made without this file, from a/x, empty, b/x",
            ),
        ] {
            let error = split.parts(0, &[&other]).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("hint: "), "{error}");
        }
        // Renamed, it is known by its cells.
        assert!(split.parts(0, &[&file("renamed", 777, 21)]).is_ok());
    }
    // The column that the split goes by has changed, the cells have not.
    let split = config(By::Column("donor_id".to_owned()))
        .make(&sources)
        .unwrap();
    let error = split
        .parts(0, &[&file("y", 777, 20)])
        .unwrap_err()
        .to_string();
    assert!(error.contains("obs column `donor_id`"), "{error}");
    assert!(FoldChoice::load(&path, Some(1)).is_err());
}

#[test]
fn files_that_are_no_split_are_refused() {
    let files = files();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("split.json");
    let split = config(By::Column("donor_id".to_owned()))
        .make(&sources(&files))
        .unwrap();
    split.save(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let first = |split: &Split| {
        let Rule::Groups { folds, .. } = &split.rule else {
            unreachable!()
        };
        format!("{:?}", folds[0].train[0])
    };
    let donor = first(&split);
    for (from, to, part) in [
        ("gene-bert split 1", "gene-bert split 2", "expected format"),
        (
            "\"num_cells\": 400",
            "\"num_cells\": 401",
            "have not 401 cells together",
        ),
        (
            "\"val\": [",
            &format!("\"val\": [{donor}, "),
            "stands in it twice",
        ),
        (
            "\"kind\": \"groups\"",
            "\"kind\": \"rows\"",
            "not the expected JSON",
        ),
        ("\"rule\"", "\"rules\"", "not the expected JSON"),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = Split::load(&path).unwrap_err().to_string();
        assert!(
            error.contains(part) && error.contains("split.json"),
            "{error}"
        );
    }
    assert!(Split::load(&dir.path().join("absent.json")).is_err());
}
