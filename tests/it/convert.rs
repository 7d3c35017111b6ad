//! `gene-bert convert` through the real command: values, tables, shards, kills, bad use.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gene_bert::cell::{CellSource, CsrBlock, Labels};
use gene_bert::h5ad::write::{AnnData, ValueType, write_h5ad};
use gene_bert::h5ad::{H5ad, Kind, OpenOptions, ValuePolicy, VarColumn};

use crate::command::{self, done, gene_bert};

/// What a line that must succeed says.
fn convert(folder: &Path, line: &str) -> String {
    done(folder, &format!("convert {line}"))
}

fn refused(folder: &Path, line: &str) -> String {
    command::refused(folder, &format!("convert {line}"), &[])
}

fn open(folder: &Path, name: &str) -> H5ad {
    let options = OpenOptions {
        values: ValuePolicy::Any,
        ..OpenOptions::default()
    };
    H5ad::open(&folder.join(name), &options).unwrap()
}

/// Cell name → gene id → value.
type Cells = BTreeMap<String, BTreeMap<String, u32>>;

fn cells(files: &[H5ad]) -> Cells {
    let mut all = Cells::new();
    for file in files {
        let block = file.read(&[0..file.num_cells()]).unwrap();
        for (row, name) in file.cell_names().unwrap().into_iter().enumerate() {
            let row = block.outer_view(row).unwrap();
            let gene = |column: usize| file.gene_ids()[column].clone();
            let values = row
                .iter()
                .map(|(column, value)| (gene(column), value.to_bits()));
            assert!(all.insert(name, values.collect()).is_none());
        }
    }
    all
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// `num_cells` cells of `genes`, named from `first` on, one in ten empty.
fn file(folder: &Path, name: &str, genes: &[&str], first: usize, num_cells: usize) -> PathBuf {
    let (mut indptr, mut indices, mut values) = (vec![0], Vec::new(), Vec::new());
    for cell in first..first + num_cells {
        for gene in 0..genes.len() {
            let value = (cell * 7 + gene * 13) % 29;
            if cell % 10 != 3 && value > 20 {
                indices.push(gene as u32);
                values.push((value * value) as f32);
            }
        }
        indptr.push(indices.len());
    }
    let x = CsrBlock::new((num_cells, genes.len()), indptr, indices, values);
    let codes = (0..num_cells).map(|cell| (cell % 3) as i32 - 1).collect();
    let categories = vec![format!("type of {name}"), "both".to_owned()];
    let data = AnnData {
        x,
        value_type: ValueType::Float32,
        layers: Vec::new(),
        cell_names: (first..first + num_cells)
            .map(|cell| format!("cell {cell}"))
            .collect(),
        obs: vec![("cell_type".to_owned(), Labels { categories, codes })],
        gene_ids: genes.iter().map(|gene| (*gene).to_owned()).collect(),
        var: vec![(
            "length".to_owned(),
            VarColumn::Numbers((0..genes.len()).map(|at| at as f64 + 0.5).collect()),
        )],
    };
    let path = folder.join(name);
    write_h5ad(&path, &data).unwrap();
    path
}

const GENES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

#[test]
fn every_layout_and_type_holds_the_same_values() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    file(folder, "in.h5ad", &GENES, 0, 137);
    let expected = cells(&[open(folder, "in.h5ad")]);
    let mut types = vec![
        "keep",
        "narrowest",
        "int16",
        "int32",
        "int64",
        "uint16",
        "uint32",
    ];
    types.extend(["uint64", "float16", "float32", "float64"]);
    for dtype in types {
        for how in [
            "",
            "--compression none",
            "--contiguous",
            "--compression gzip:1 --chunk 7",
            "--shuffle --memory 32MiB",
        ] {
            let line = format!("in.h5ad --output out.h5ad --dtype {dtype} {how}");
            let said = convert(folder, &line);
            let out = open(folder, "out.h5ad");
            assert_eq!(cells(std::slice::from_ref(&out)), expected, "{line}");
            assert!(!said.contains("warning"), "{line}\n{said}");
            let shuffled = how.contains("shuffle");
            let source = open(folder, "in.h5ad").cell_names().unwrap();
            assert_eq!(out.cell_names().unwrap() != source, shuffled, "{line}");
            let kind = match dtype {
                "keep" => Kind::F32,
                "narrowest" => Kind::U16,
                _ => out.kind().unwrap(),
            };
            assert_eq!(out.kind(), Some(kind), "{line}");
        }
    }
    assert_eq!(names(folder).len(), 2, "{:?}", names(folder));
}

#[test]
fn any_stored_type_is_read_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    file(folder, "in.h5ad", &GENES, 0, 40);
    let expected = cells(&[open(folder, "in.h5ad")]);
    let types = "int16 int32 int64 uint16 uint32 uint64 float16 float32 float64";
    for from in types.split(' ') {
        convert(
            folder,
            &format!("in.h5ad --output from.h5ad --dtype {from}"),
        );
        for to in types.split(' ') {
            let said = convert(folder, &format!("from.h5ad --output to.h5ad --dtype {to}"));
            assert!(!said.contains("warning"), "{from} {to}\n{said}");
            assert_eq!(cells(&[open(folder, "to.h5ad")]), expected, "{from} {to}");
        }
    }
    let said = convert(folder, "in.h5ad --output to.h5ad --dtype uint8");
    assert!(
        said.contains("warning: ") && said.contains("uint8 does not hold them"),
        "{said}"
    );
}

#[test]
fn several_files_become_one_and_shards_of_a_size() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    file(folder, "one.h5ad", &GENES, 0, 50);
    let mut turned = GENES;
    turned.reverse();
    file(folder, "two.h5ad", &turned, 50, 30);
    file(folder, "none.h5ad", &GENES, 80, 0);
    let inputs = "one.h5ad two.h5ad none.h5ad";
    let expected = cells(&[open(folder, "one.h5ad"), open(folder, "two.h5ad")]);
    convert(folder, &format!("{inputs} --output all.h5ad"));
    let all = open(folder, "all.h5ad");
    assert_eq!(all.gene_ids(), GENES);
    assert_eq!(cells(std::slice::from_ref(&all)), expected);
    let labels = all.obs_labels("cell_type").unwrap();
    assert_eq!(labels.categories[..2], ["type of one.h5ad", "both"]);
    assert_eq!(labels.categories[2], "type of two.h5ad");
    assert_eq!(labels.value(51), Some("type of two.h5ad"));
    assert_eq!((labels.value(0), labels.value(52)), (None, Some("both")));
    let lengths: Vec<f64> = (0..12).map(|at| f64::from(at) + 0.5).collect();
    assert_eq!(
        all.var_column("length").unwrap(),
        VarColumn::Numbers(lengths)
    );
    for how in [
        "",
        "--shuffle",
        "--shuffle --seed 1 --compression none --contiguous",
    ] {
        convert(
            folder,
            &format!("{inputs} --output s.h5ad --cells-per-file 33 {how}"),
        );
        let shards: Vec<H5ad> = (0..3)
            .map(|n| open(folder, &format!("s_{n}.h5ad")))
            .collect();
        let sizes: Vec<u64> = shards.iter().map(H5ad::num_cells).collect();
        assert_eq!(sizes, [33, 33, 14], "{how}");
        assert_eq!(cells(&shards), expected, "{how}");
        let types = shards.iter().map(|s| s.obs_labels("cell_type").unwrap());
        for (shard, types) in shards.iter().zip(types) {
            for (row, name) in shard.cell_names().unwrap().iter().enumerate() {
                let cell: usize = name.trim_start_matches("cell ").parse().unwrap();
                assert_eq!(types.value(row), labels.value(cell), "{how} {name}");
            }
        }
    }
    let said = refused(
        folder,
        &format!("{inputs} --output s.h5ad --cells-per-file 60"),
    );
    assert!(
        said.contains("s_2.h5ad") && said.contains("hint: remove it"),
        "{said}"
    );
}

#[test]
fn the_order_depends_on_the_seed_alone() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    file(folder, "in.h5ad", &GENES, 0, 200);
    let order = |line: &str| {
        convert(
            folder,
            &format!("in.h5ad --output out.h5ad --shuffle {line}"),
        );
        open(folder, "out.h5ad").cell_names().unwrap()
    };
    let first = order("");
    assert_eq!(first, order("--memory 32MiB --dtype narrowest"));
    assert_ne!(first, order("--seed 43"));
    let bytes = || std::fs::read(folder.join("out.h5ad")).unwrap();
    order("");
    let once = bytes();
    order("");
    assert!(once == bytes(), "the same command writes the same bytes");
}

#[test]
fn different_genes_are_refused_joined_or_cut() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    file(folder, "one.h5ad", &["ENSG00000000001.2", "b", "c"], 0, 40);
    file(folder, "two.h5ad", &["c", "ENSG00000000001.7", "d"], 40, 40);
    let said = refused(folder, "one.h5ad two.h5ad --output out.h5ad");
    assert!(
        said.contains("1 of its genes are absent (such as b)"),
        "{said}"
    );
    assert!(
        said.contains("1 are new (such as d)") && said.contains("--genes union"),
        "{said}"
    );
    convert(folder, "one.h5ad two.h5ad --output out.h5ad --genes union");
    let union = open(folder, "out.h5ad");
    assert_eq!(union.gene_ids(), ["ENSG00000000001.2", "b", "c", "d"]);
    let sources = cells(&[open(folder, "one.h5ad"), open(folder, "two.h5ad")]);
    let spelt = |cells: &Cells| -> Cells {
        let gene = |id: &String| id.split('.').next().unwrap().to_owned();
        let row = |row: &BTreeMap<_, _>| row.iter().map(|(id, value)| (gene(id), *value)).collect();
        cells
            .iter()
            .map(|(name, values)| (name.clone(), row(values)))
            .collect()
    };
    assert_eq!(spelt(&cells(&[union])), spelt(&sources));
    convert(
        folder,
        "one.h5ad two.h5ad --output out.h5ad --genes intersection",
    );
    assert_eq!(
        open(folder, "out.h5ad").gene_ids(),
        ["ENSG00000000001.2", "c"]
    );
    file(folder, "twice.h5ad", &["b", "b"], 0, 3);
    convert(folder, "twice.h5ad --output same.h5ad");
    let said = refused(
        folder,
        "one.h5ad twice.h5ad --output out.h5ad --genes union",
    );
    assert!(said.contains("twice.h5ad: gene b occurs twice"), "{said}");
}

#[test]
fn killed_at_any_moment_it_leaves_the_old_or_the_new() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let genes: Vec<String> = (0..600).map(|gene| format!("g{gene}")).collect();
    let genes: Vec<&str> = genes.iter().map(String::as_str).collect();
    file(folder, "old.h5ad", &genes, 5000, 20);
    file(folder, "in.h5ad", &genes, 0, 1500);
    convert(folder, "old.h5ad --output out.h5ad --cells-per-file 5");
    let shards = || -> Vec<H5ad> {
        (0..4)
            .map(|n| open(folder, &format!("out_{n}.h5ad")))
            .collect()
    };
    let (old, new) = (cells(&shards()), cells(&[open(folder, "in.h5ad")]));
    let line = "convert in.h5ad --output out.h5ad --cells-per-file 400 --shuffle --resume";
    for kill in 0..12u64 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gene-bert"))
            .args(line.split_whitespace())
            .current_dir(folder)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(5 + 23 * kill));
        child.kill().unwrap();
        child.wait().unwrap();
        // Between the renames of several files each is one or the other.
        let found = cells(&shards());
        let whole = |cell: &String| found[cell] == *old.get(cell).or(new.get(cell)).unwrap();
        assert!(found.keys().all(whole));
    }
    assert!(gene_bert(folder, line).status.success());
    assert_eq!(cells(&shards()), new);
    let left: Vec<String> = names(folder)
        .into_iter()
        .filter(|n| n.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    file(folder, "in.h5ad", &GENES, 0, 20);
    std::fs::write(folder.join("bad.h5ad"), b"not HDF5").unwrap();
    let cases = [
        ("in.h5ad --output no/such/out.h5ad", "no/such"),
        ("absent.h5ad --output out.h5ad", "absent.h5ad: no such file"),
        ("bad.h5ad --output out.h5ad", "bad.h5ad"),
        (
            "in.h5ad --output out.h5ad --contiguous --compression gzip",
            "hint: drop --compression gzip",
        ),
        (
            "in.h5ad --output out.h5ad --memory 1MiB",
            "hint: give at least 32MiB",
        ),
        (
            "in.h5ad --output out.h5ad --matrix layers.counts",
            "layers.counts",
        ),
        ("in.h5ad --output out.h5ad --compression zstd", "gzip"),
        ("in.h5ad --output out.h5ad --dtype int", "narrowest"),
    ];
    for (line, expected) in cases {
        let said = refused(folder, line);
        assert!(said.contains(expected), "{line}\n{said}");
        assert_eq!(names(folder).len(), 2, "{line} {:?}", names(folder));
    }
}

#[test]
fn an_output_may_be_one_of_the_inputs() {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path(), "in.h5ad", &GENES, 0, 20);
    let before = cells(&[open(dir.path(), "in.h5ad")]);
    convert(
        dir.path(),
        "in.h5ad --output in.h5ad --shuffle --dtype narrowest",
    );
    assert_eq!(cells(&[open(dir.path(), "in.h5ad")]), before);
}
