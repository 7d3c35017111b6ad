//! `gene-bert split` and the commands that go by a split, on real cells.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use gene_bert::cell::CellSource;
use gene_bert::h5ad::{H5ad, OpenOptions};
use gene_bert::loader::split::{FoldChoice, Part, Split, cells_of};
use gene_bert::prepare::simulate::simulate;

use crate::command::{self, done, gene_bert, text};
use crate::shared::shared_dir;

/// Must be refused with these words and a remedy.
fn refused(folder: &Path, line: &str, words: &[&str]) {
    let text = command::refused(folder, line, words);
    let remedies = ["hint: ", "Usage", "expected"];
    assert!(remedies.iter().any(|word| text.contains(word)), "{text}");
}

fn open(path: &Path) -> H5ad {
    H5ad::open(path, &OpenOptions::default()).unwrap()
}

fn parts(split: &Path, fold: usize, file: &H5ad) -> Vec<Option<Part>> {
    let choice = FoldChoice::load(split, Some(fold)).unwrap();
    choice.parts(&[file]).unwrap()
}

#[test]
fn groups_of_real_cells_stay_whole() {
    let Some(pool) = shared_dir("data/throughput/pool_real_human_cells.h5ad") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let line = format!(
        "split {} --by source --stratify-by label --val 0.15 --test 0.2 --output split.json",
        pool.display()
    );
    let said = done(dir.path(), &line);
    assert!(said.contains("test") && !said.contains("warning"), "{said}");
    let file = open(&pool);
    let of = parts(&dir.path().join("split.json"), 0, &file);
    let labels = file.labels("source").unwrap();
    let mut parts_of: BTreeMap<&str, BTreeSet<Option<Part>>> = BTreeMap::new();
    for (row, part) in of.iter().enumerate() {
        let source = labels.value(row).unwrap();
        parts_of.entry(source).or_default().insert(*part);
    }
    assert_eq!(parts_of.len(), 11);
    assert!(
        parts_of.values().all(|parts| parts.len() == 1),
        "{parts_of:?}"
    );
    assert!(
        Part::ALL
            .iter()
            .all(|part| !cells_of(&of, *part).is_empty())
    );
    let small = fs::metadata(dir.path().join("split.json")).unwrap().len();
    assert!(small < 10_000, "{small} bytes");
    let again = line.replace("split.json", "again.json");
    done(dir.path(), &again);
    let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
    assert!(read("split.json") == read("again.json"));
    refused(dir.path(), &line, &["split.json: exists already"]);
}

#[test]
fn folds_of_real_cells_have_all_classes() {
    let Some(pbmc) = shared_dir("data/accuracy/mudan_sortedPBMC_2140x8863_counts.h5ad") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let line = format!(
        "split {} --stratify-by sorted_population --folds 5 --output folds.json",
        pbmc.display()
    );
    let said = done(dir.path(), &line);
    assert!(
        said.contains("fold 4") && said.contains("no obs column tells"),
        "{said}"
    );
    let (file, split) = (open(&pbmc), dir.path().join("folds.json"));
    let labels = file.labels("sorted_population").unwrap();
    let mut tested = Vec::new();
    for fold in 0..5 {
        let of = parts(&split, fold, &file);
        let test = cells_of(&of, Part::Test);
        for code in 0..9 {
            let all = labels.codes.iter().filter(|c| **c == code).count();
            let here = test
                .iter()
                .filter(|row| labels.codes[**row as usize] == code)
                .count();
            assert!(
                (here as f64 - all as f64 / 5.0).abs() <= 1.0,
                "{code}: {here} of {all}"
            );
        }
        assert_eq!(cells_of(&of, Part::Val).len(), 214);
        tested.extend(test);
    }
    tested.sort_unstable();
    assert!(tested.into_iter().eq(0..2140));
}

#[test]
fn held_out_means_the_same_to_every_command() {
    let Some(pbmc) = shared_dir("data/accuracy/mudan_sortedPBMC_2140x8863_counts.h5ad") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (here, pbmc) = (dir.path(), pbmc.display());
    done(
        here,
        &format!("split {pbmc} --val 100 --test 37 --seed 3 --output split.json"),
    );
    let split = here.join("split.json");
    let said = done(
        here,
        &format!(
            "cls --train_data_paths {pbmc} --split_file split.json --model_arch quickstart \
             --phenotype_category sorted_population --num_hidden_layers 1 --bin_edges 0.5 \
             --max_length 32 --max_steps 2 --output_dir run"
        ),
    );
    assert!(said.contains("2003 to train on, 100 held out"), "{said}");
    assert!(said.contains("37 cells are left alone"), "{said}");
    let line = format!("predict {pbmc} --checkpoint run --split-file split.json --part test");
    done(here, &format!("{line} --output test.csv"));
    let table = fs::read_to_string(here.join("test.csv")).unwrap();
    let names: Vec<&str> = table
        .lines()
        .skip(1)
        .map(|l| l.split(',').next().unwrap())
        .collect();
    let file = open(Path::new(&pbmc.to_string()));
    let tests = cells_of(&parts(&split, 0, &file), Part::Test);
    let all = file.cell_names().unwrap();
    assert!(
        tests
            .iter()
            .map(|row| all[*row as usize].as_str())
            .eq(names.iter().copied())
    );
    // In the file, the other cells have no value; the values are the same.
    done(here, &format!("{line} --output labelled.h5ad"));
    let labels = open(&here.join("labelled.h5ad"));
    let labels = labels.labels("sorted_population_predicted").unwrap();
    let known = (0..).zip(&labels.codes).filter(|(_, code)| **code >= 0);
    assert!(known.map(|(row, _)| row).eq(tests.iter().copied()));
    let value = |line: &str| line.split(',').nth(1).unwrap().to_owned();
    let values = table.lines().skip(1).map(value);
    let found = tests
        .iter()
        .map(|row| labels.value(*row as usize).unwrap().to_owned());
    assert!(values.eq(found));
    let eval = "eval --checkpoint run --split-file split.json --part test --output";
    let said = done(here, &format!("{eval} own"));
    assert!(said.contains("37 cells"), "{said}");
    let again = done(here, &format!("{eval} named {pbmc}"));
    let figures = |folder: &str| fs::read(here.join(folder).join("per_class.csv")).unwrap();
    assert!(figures("own") == figures("named"), "{again}");
    // Embeddings of the part alone are those of the cells among all.
    let line = format!("embed {pbmc} --checkpoint run");
    done(
        here,
        &format!("{line} --split-file split.json --part test --output test_e.csv"),
    );
    done(here, &format!("{line} --output all_e.csv"));
    let embeddings = |name: &str| fs::read_to_string(here.join(name)).unwrap();
    let (some, all) = (embeddings("test_e.csv"), embeddings("all_e.csv"));
    let all: BTreeSet<&str> = all.lines().collect();
    assert_eq!(some.lines().count(), 38);
    assert!(some.lines().all(|line| all.contains(line)));
}

#[test]
fn files_that_the_split_does_not_know_are_refused() {
    let (Some(one), Some(other)) = (
        shared_dir("data/accuracy/scmixology_sc_celseq2.h5ad"),
        shared_dir("data/accuracy/scmixology_sc_dropseq.h5ad"),
    ) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (here, one, other) = (dir.path(), one.display(), other.display());
    let both = format!("split {one} {other} --by-file");
    done(
        here,
        &format!("{both} --test-values scmixology_sc_dropseq.h5ad --output files.json"),
    );
    let split = Split::load(&here.join("files.json")).unwrap();
    assert_eq!(
        Part::ALL.map(|part| split.num_cells(0, part)),
        [274, 0, 225]
    );
    done(here, &format!("split {one} --output one.json"));
    let mlm = format!(
        "mlm --train_data_paths {one} {other} --model_arch quickstart --bin_edges 0.5 \
         --num_hidden_layers 1 --max_length 32 --max_steps 1 --min_gene_overlap 0.1 --output_dir run"
    );
    // Nothing validates: a share of the training cells does.
    let said = done(here, &format!("{mlm} --split_file files.json"));
    assert!(said.contains("225 cells are left alone"), "{said}");
    let words = ["scmixology_sc_dropseq.h5ad: the split was made without this file"];
    let again = format!("{mlm} --overwrite_output_dir");
    refused(here, &format!("{again} --split_file one.json"), &words);
    refused(
        here,
        &format!("{again} --split_file one.json --fold 1"),
        &["1 fold"],
    );
    refused(here, &format!("{again} --fold 0"), &["setting fold"]);
    refused(
        here,
        &format!("{again} --split_file one.json --eval_data_paths {other}"),
        &["both say which cells"],
    );
    let predict = format!("embed {one} --checkpoint run --output e.csv --split-file files.json");
    refused(
        here,
        &format!("{predict} --part test"),
        &["none of the 1 files has a cell"],
    );
    refused(here, &predict, &["--part"]);
    refused(
        here,
        &format!("{predict} --part dev"),
        &["train, val or test"],
    );
    // Another file under the same name, and its column changed.
    fs::copy(other.to_string(), here.join("scmixology_sc_celseq2.h5ad")).unwrap();
    refused(
        here,
        &format!("{again} --split_file one.json")
            .replace(&one.to_string(), "scmixology_sc_celseq2.h5ad"),
        &["the number of its cells: expected 274, found 225"],
    );
}

#[test]
fn cells_of_the_same_donors_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path();
    simulate(here, 3, 200).unwrap();
    let files = "simulated_1.h5ad simulated_2.h5ad";
    let warned = |line: &str| {
        let output = gene_bert(here, line);
        assert!(output.status.success(), "{}", text(&output));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let warnings = errors
            .lines()
            .filter(|l| l.starts_with("warning: "))
            .count();
        (warnings, errors.contains("`donor_id`"))
    };
    assert_eq!(warned(&format!("split {files} --output a.json")), (1, true));
    assert_eq!(
        warned(&format!("split {files} --by donor_id --output b.json")),
        (0, false)
    );
    let mlm = format!(
        "mlm --train_data_paths {files} --model_arch quickstart --num_hidden_layers 1 \
         --bin_edges 0.5 --max_length 32 --max_steps 1 --overwrite_output_dir --output_dir run"
    );
    assert_eq!(warned(&mlm), (1, true));
    assert_eq!(warned(&format!("{mlm} --split_file b.json")), (0, false));
}

#[test]
fn splits_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path();
    simulate(here, 3, 60).unwrap();
    let line = "split simulated_1.h5ad simulated_2.h5ad --output s.json";
    for (flags, words) in [
        ("--by colour", ["colour", "donor_id"]),
        ("--stratify-by colour", ["colour", "donor_id"]),
        (
            "--by sex --folds 5",
            ["2 values of obs column `sex`", "5 parts"],
        ),
        (
            "--val 0.5 --test 0.5",
            ["val and test", "leave cells to train on"],
        ),
        ("--val 1.5", ["--val 1.5", "share of the cells"]),
        ("--val -0.5", ["--val -0.5", "share of the cells"]),
        ("--test 60", ["`test` = 60", "fewer than all 60 cells"]),
        ("--from sex", ["is no part", "--test-values"]),
        ("--test-values x", ["values of what", "--by"]),
        ("--by sex --test-values x", ["\"x\" is not among", "female"]),
        ("--by sex --by-file", ["--by", "--by-file"]),
        ("--folds 5 --test 0.1", ["--folds", "--test"]),
    ] {
        refused(here, &format!("{line} {flags}"), &words);
        assert!(!here.join("s.json").exists());
    }
}
