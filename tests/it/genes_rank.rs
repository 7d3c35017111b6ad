//! `gene-bert genes rank` through the real command, and runs that use what it writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use gene_bert::cell::{CsrBlock, Labels};
use gene_bert::h5ad::write::{AnnData, ValueType, write_h5ad};
use serde_json::Value;

use crate::command::{done, refused};

const NUM_CELLS: usize = 60;

/// Counts of a cell of 40 genes: gene g varies the more the smaller g is; gene 39 is never seen.
fn count(cell: usize, gene: usize) -> f32 {
    let draw = (cell * 31 + gene * 17 + cell * gene) % 23;
    match gene {
        39 => 0.0,
        gene if draw < 3 => (60 - gene) as f32,
        _ => (draw % 3) as f32,
    }
}

/// The cells `rows` of [`count`], the genes named by `name`; `value` is made of each count.
fn cells(
    rows: std::ops::Range<usize>,
    name: impl Fn(usize) -> String,
    batch: impl Fn(usize) -> &'static str,
    value: impl Fn(f32) -> f32,
) -> AnnData {
    let (mut indptr, mut indices, mut data) = (vec![0], Vec::new(), Vec::new());
    for cell in rows.clone() {
        for gene in 0..40 {
            let count = count(cell, gene);
            if count > 0.0 {
                indices.push(gene as u32);
                data.push(value(count));
            }
        }
        indptr.push(indices.len());
    }
    let names: Vec<&str> = rows.clone().map(batch).collect();
    let mut categories: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    categories.sort();
    categories.dedup();
    let code = |n: &&str| {
        categories
            .iter()
            .position(|c| c == n)
            .map_or(-1, |c| c as i32)
    };
    let codes = names
        .iter()
        .map(|n| if n.is_empty() { -1 } else { code(n) });
    AnnData {
        x: CsrBlock::new((rows.len(), 40), indptr, indices, data),
        value_type: ValueType::Float32,
        layers: Vec::new(),
        cell_names: rows.clone().map(|row| format!("cell_{row}")).collect(),
        obs: vec![(
            "donor".to_owned(),
            Labels {
                codes: codes.collect(),
                categories: categories.clone(),
            },
        )],
        gene_ids: (0..40).map(name).collect(),
        var: Vec::new(),
    }
}

fn gene(g: usize) -> String {
    format!("ENSG{:011}", g + 1)
}

fn whole() -> AnnData {
    cells(0..NUM_CELLS, gene, |c| ["a", "b"][c % 2], |v| v)
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, data: &AnnData| write_h5ad(&dir.path().join(name), data).unwrap();
    write("whole.h5ad", &whole());
    let donor = |c: usize| ["a", "b"][c % 2];
    write("part_0.h5ad", &cells(0..25, gene, donor, |v| v));
    write("part_1.h5ad", &cells(25..25, gene, donor, |v| v));
    let versions = |g: usize| format!("{}.{g}", gene(g));
    write("part_2.h5ad", &cells(25..NUM_CELLS, versions, donor, |v| v));
    dir
}

fn genes_of(table: &Path) -> Vec<String> {
    let text = fs::read_to_string(table).unwrap();
    let lines = text.lines().skip(1);
    lines
        .map(|l| l.split([',', '\t']).next().unwrap().to_owned())
        .collect()
}

#[test]
fn several_files_rank_as_one() {
    let dir = folder();
    let at = |name: &str| dir.path().join(name);
    for more in [
        "",
        "--batch-key donor",
        "--batch-key donor --flavor seurat_v3_paper",
    ] {
        let line =
            format!("genes rank whole.h5ad --n_top_genes 9 --output one.csv --overwrite {more}");
        let text = done(dir.path(), &line);
        assert!(
            text.contains("60 cells of 1 files, 40 genes, 9 of them"),
            "{text}"
        );
        let line = format!(
            "genes rank part_{{0..2}}.h5ad --n_top_genes 9 --output many.csv --threads 3 \
             --overwrite {more}"
        );
        let text = done(dir.path(), &line);
        assert!(text.contains("60 cells of 3 files"), "{text}");
        assert_eq!(
            text.contains("2 batches: a (30 cells), b (30 cells)"),
            !more.is_empty()
        );
        let table = fs::read_to_string(at("many.csv")).unwrap();
        assert_eq!(fs::read_to_string(at("one.csv")).unwrap(), table);
        assert_eq!(table.lines().count(), 41);
        assert_eq!(table.lines().filter(|l| l.contains(",true,")).count(), 9);
        let unseen = format!("{},false,,0,0,0,0", gene(39));
        assert_eq!(table.lines().last(), Some(unseen.as_str()));
    }
    done(dir.path(), "genes rank whole.h5ad --output one.tsv");
    let table = fs::read_to_string(at("one.tsv")).unwrap();
    assert!(table.starts_with("gene\thighly_variable\t"));
}

#[test]
fn genes_that_not_every_file_has() {
    let dir = folder();
    let other = |g: usize| if g < 10 { gene(g) } else { format!("X{g}") };
    let other = cells(0..20, other, |_| "c", |v| v);
    write_h5ad(&dir.path().join("other.h5ad"), &other).unwrap();
    let line = "genes rank whole.h5ad other.h5ad --span 0.6 --output";
    let text = done(dir.path(), &format!("{line} common.csv"));
    assert!(text.contains("80 cells of 2 files, 10 genes"), "{text}");
    assert!(text.contains("note: 60 of 70 genes are left out"), "{text}");
    let text = done(dir.path(), &format!("{line} all.csv --genes union"));
    assert!(
        text.contains(" 70 genes") && !text.contains("note: "),
        "{text}"
    );
    let none = cells(0..20, |g| format!("X{g}"), |_| "c", |v| v);
    write_h5ad(&dir.path().join("none.h5ad"), &none).unwrap();
    let line = "genes rank whole.h5ad part_0.h5ad none.h5ad --output no.csv";
    let parts = [
        "no gene stands in every file",
        "whole.h5ad has ENSG",
        "none.h5ad has X0, X1",
        "hint: --gene-id-column",
    ];
    refused(dir.path(), line, &parts);
}

#[test]
fn a_run_takes_the_genes_as_they_are_ranked() {
    let dir = folder();
    done(dir.path(), "genes rank whole.h5ad --output rank.csv");
    let best: Vec<String> = genes_of(&dir.path().join("rank.csv"))[..4].to_vec();
    let line = "tokenize part_2.h5ad --bin_edges 0.5 --json --rows 0-34";
    let types = |more: &str| -> Vec<Vec<u64>> {
        let text = done(dir.path(), &format!("{line} {more}"));
        let cell = |line: &str| {
            let cell: Value = serde_json::from_str(line).unwrap();
            let types = cell["token_type_ids"].as_array().unwrap();
            let types = types.iter().map(|t| t.as_u64().unwrap());
            types.filter(|&t| t > 0).collect()
        };
        text.lines().map(cell).collect()
    };
    let expected = |row: usize| -> Vec<u64> {
        let number = |g: &String| g.trim_start_matches("ENSG").parse::<usize>().unwrap();
        let seen = best
            .iter()
            .map(number)
            .filter(|g| count(25 + row, g - 1) > 0.0);
        seen.map(|g| g as u64).collect()
    };
    let found = types("--gene_ranking rank.csv --num_top_genes 4");
    for (row, cell) in found.iter().enumerate() {
        assert_eq!(*cell, expected(row), "row {row}");
    }
    assert!(found.iter().any(|cell| cell.len() == 4));
    // A list made by hand; genes that are not in it come last.
    fs::write(
        dir.path().join("mine.txt"),
        format!("{}\n{}\n", gene(7), gene(3)),
    )
    .unwrap();
    for cell in types("--gene-ranking mine.txt --gene-order rank") {
        let first: Vec<u64> = cell
            .iter()
            .copied()
            .filter(|t| [8, 4].contains(t))
            .collect();
        assert_eq!(cell[..first.len()], first);
        assert!(first != [4, 8]);
    }
    let bad = |more: &str, parts: &[&str]| refused(dir.path(), &format!("{line} {more}"), parts);
    bad(
        "--num_top_genes 4",
        &["num_top_genes: is 4", "gene_ranking", "genes rank"],
    );
    bad("--gene_ranking no.csv", &["no.csv: no such file"]);
    fs::write(dir.path().join("odd.csv"), "gene\nTP53\n").unwrap();
    bad(
        "--gene_ranking odd.csv",
        &["odd.csv: none of its 1 genes (TP53", "TP53", "hint: "],
    );
}

#[test]
fn a_trained_run_keeps_its_ranking() {
    let dir = folder();
    done(dir.path(), "genes rank whole.h5ad --output rank.csv");
    let model = r#"{"dim": 16, "n_heads": 2, "hidden_dim": 32, "n_layers": 1}"#;
    fs::write(dir.path().join("model.json"), model).unwrap();
    let line = "mlm --train_data_paths whole.h5ad --pretrained_model_path model.json --bin_edges 1 \
                --max_length 9 --gene_ranking rank.csv --num_top_genes 6 --max_steps 2 --threads 1 \
                --save_steps 1 --output_dir run --eval_fraction 0";
    done(dir.path(), line);
    fs::remove_file(dir.path().join("rank.csv")).unwrap();
    let shown =
        "tokenize whole.h5ad --pretrained_model_path run/checkpoint-2 --json --num_top_genes 6";
    let text = done(dir.path(), shown);
    assert!(text.lines().count() >= 3, "{text}");
    fs::remove_dir_all(dir.path().join("run/checkpoint-2")).unwrap();
    done(dir.path(), "mlm --config run/run.toml --resume");
    let text = done(dir.path(), shown);
    assert!(text.lines().count() >= 3, "{text}");
}

#[test]
fn what_cannot_be_ranked_is_refused() {
    let dir = folder();
    let write = |name: &str, data: AnnData| write_h5ad(&dir.path().join(name), &data).unwrap();
    let log = cells(0..30, gene, |_| "a", |v: f32| v.ln_1p());
    let counts = cells(0..30, gene, |_| "a", |v| v).x;
    write(
        "log.h5ad",
        AnnData {
            layers: vec![("counts".to_owned(), counts)],
            ..log
        },
    );
    let bad = |line: &str, parts: &[&str]| {
        refused(
            dir.path(),
            &format!("genes rank {line} --output no.csv"),
            parts,
        );
    };
    let parts = [
        "log.h5ad: X holds no counts: row 0, gene ENSG",
        "log-transformed",
        "layers.counts",
        "--allow-fractions",
    ];
    bad("whole.h5ad log.h5ad", &parts);
    done(
        dir.path(),
        "genes rank log.h5ad --matrix layers.counts --output counts.csv",
    );
    done(
        dir.path(),
        "genes rank log.h5ad --allow-fractions --output log.csv",
    );
    write(
        "one.h5ad",
        cells(0..30, gene, |c| if c == 4 { "b" } else { "a" }, |v| v),
    );
    bad(
        "one.h5ad --batch-key donor",
        &["batch \"b\"", "`donor`: 1 cells", "hint: "],
    );
    write(
        "some.h5ad",
        cells(0..30, gene, |c| if c == 4 { "" } else { "a" }, |v| v),
    );
    bad(
        "some.h5ad --batch-key donor",
        &["some.h5ad: row 4 has no value", "`donor`", "hint: "],
    );
    bad(
        "whole.h5ad --batch-key plate",
        &["whole.h5ad", "\"plate\"", "donor"],
    );
    write("zero.h5ad", cells(0..30, gene, |_| "a", |_| 0.0));
    bad(
        "zero.h5ad",
        &["the values of 0 genes vary", "at least 14", "hint: "],
    );
    write("empty.h5ad", cells(0..0, gene, |_| "a", |v| v));
    bad("empty.h5ad", &["0 cells", "at least 2"]);
    write("negative.h5ad", cells(0..30, gene, |_| "a", |v| -v));
    bad("negative.h5ad", &["negative.h5ad", "row 0"]);
    bad("no.h5ad", &["no.h5ad: no such file"]);
    bad("whole.h5ad --span 0", &["--span is 0, expected"]);
    bad("whole.h5ad --n-top-genes 0", &["--n-top-genes is 0"]);
    bad(
        "whole.h5ad --flavor cell_ranger",
        &["cell_ranger", "seurat_v3"],
    );
    fs::write(dir.path().join("there.csv"), "").unwrap();
    let line = "genes rank whole.h5ad --output there.csv";
    refused(
        dir.path(),
        line,
        &["there.csv: exists already", "--overwrite"],
    );
}
