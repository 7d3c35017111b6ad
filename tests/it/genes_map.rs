//! `gene-bert genes map` through the real command, and commands that use what it writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use gene_bert::cell::CsrBlock;
use gene_bert::h5ad::VarColumn;
use gene_bert::h5ad::write::{AnnData, ValueType, write_h5ad};

use crate::command::{done, refused};

fn ensembl(number: usize) -> String {
    format!("ENSG{number:011}")
}

/// Three cells that express gene g at 1 + g, with a column of var.
fn write(path: &Path, genes: &[&str], column: Option<(&str, &[String])>) {
    let n = genes.len();
    let counts: Vec<f32> = (0..3 * n).map(|i| 1.0 + (i % n) as f32).collect();
    let columns = (0..3 * n).map(|i| (i % n) as u32).collect();
    let starts = (0..4).map(|row| row * n).collect();
    let texts = |texts: &[String]| VarColumn::Texts(texts.iter().cloned().map(Some).collect());
    let data = AnnData {
        x: CsrBlock::new((3, n), starts, columns, counts),
        value_type: ValueType::Float32,
        layers: Vec::new(),
        cell_names: (0..3).map(|c| format!("cell{c}")).collect(),
        obs: Vec::new(),
        gene_ids: genes.iter().map(|&g| g.to_owned()).collect(),
        var: column
            .map(|(name, values)| (name.to_owned(), texts(values)))
            .into_iter()
            .collect(),
    };
    write_h5ad(path, &data).unwrap();
}

/// `both.h5ad` has symbols and Ensembl ids (with versions), `symbols.h5ad` symbols alone.
fn files(folder: &Path) {
    let ids: Vec<String> = [1, 2, 3, 4].map(|n| ensembl(n) + ".7").into();
    let both = folder.join("both.h5ad");
    write(&both, &["A", "B", "TWICE", "OLD"], Some(("gene_ids", &ids)));
    let more = [ensembl(5), ensembl(4)];
    let other = folder.join("other.h5ad");
    write(&other, &["TWICE", "NEW"], Some(("gene_ids", &more)));
    let symbols = folder.join("symbols.h5ad");
    write(
        &symbols,
        &["B", "A", "NOWHERE", "TWICE", "OLD", "NEW"],
        None,
    );
}

fn table(folder: &Path, name: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(folder.join(name)).unwrap();
    let row = |line: &str| line.split(',').map(str::to_owned).collect();
    text.lines().map(row).collect()
}

#[test]
fn files_that_have_both_name_the_genes_of_those_that_have_one() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    let line = "genes map symbols.h5ad both.h5ad other.h5ad --to ensembl --output map.csv";
    let said = done(dir.path(), line);
    for part in [
        "6 genes of 3 files",
        "4 have another name",
        "1 have several names and keep theirs (TWICE)",
        "1 have no other name and keep theirs (NOWHERE)",
        "ENSG00000000004 stands for NEW, OLD of one file",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
    let candidates = format!("{} {}", ensembl(3), ensembl(5));
    let expected = [
        row(["gene", "mapped_to", "status", "candidates"]),
        row(["B", &ensembl(2), "mapped", ""]),
        row(["A", &ensembl(1), "mapped", ""]),
        row(["NOWHERE", "", "missing", ""]),
        row(["TWICE", "", "ambiguous", &candidates]),
        row(["OLD", &ensembl(4), "mapped", ""]),
        row(["NEW", &ensembl(4), "mapped", ""]),
    ];
    assert_eq!(table(dir.path(), "map.csv"), expected);

    let line = "genes map both.h5ad --gene-id-column gene_ids --to symbol --output back.csv";
    done(dir.path(), line);
    let back = table(dir.path(), "back.csv");
    assert_eq!(
        back[1][..2],
        [ensembl(1), "A".to_owned()],
        "by the index of var"
    );
}

#[test]
fn a_users_table_goes_before_what_the_files_say() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    let text = format!(
        "symbol\tid\nTWICE\t{}\nNOWHERE\t{}.2\n",
        ensembl(8),
        ensembl(9)
    );
    fs::write(dir.path().join("table.tsv"), text).unwrap();
    let line = "genes map symbols.h5ad both.h5ad --to ensembl --table table.tsv --output map.csv";
    done(dir.path(), line);
    let map = table(dir.path(), "map.csv");
    let named = |gene: &str| map.iter().find(|row| row[0] == gene).unwrap()[1].clone();
    assert_eq!([named("TWICE"), named("NOWHERE")], [ensembl(8), ensembl(9)]);
    assert_eq!(named("A"), ensembl(1));
    refused(dir.path(), line, &["map.csv", "exists"]);
    fs::write(dir.path().join("none.csv"), "a,b\nc,d\n").unwrap();
    let line = "genes map both.h5ad --to ensembl --table none.csv --output new.csv";
    refused(
        dir.path(),
        line,
        &["none.csv", "no line holds a symbol and an Ensembl id"],
    );
    assert!(!dir.path().join("new.csv").exists());
}

#[test]
fn files_are_read_under_the_names_of_a_map() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    done(
        dir.path(),
        "genes map both.h5ad --to ensembl --output map.csv",
    );
    let line = "genes stats both.h5ad symbols.h5ad --gene-map map.csv --output stats.csv";
    done(dir.path(), line);
    let stats = table(dir.path(), "stats.csv");
    let cells = |gene: &str| {
        stats
            .iter()
            .find(|row| row[0] == gene)
            .map(|row| row[1].clone())
    };
    assert_eq!(
        cells(&ensembl(1)).as_deref(),
        Some("6"),
        "of both files: {stats:?}"
    );
    assert_eq!(
        cells("NEW").as_deref(),
        Some("3"),
        "keeps its name: {stats:?}"
    );
    assert_eq!(cells("A"), None);

    fs::write(dir.path().join("bad.csv"), "gene,name\nA,B\n").unwrap();
    let line = "genes stats both.h5ad --gene-map bad.csv --output new.csv";
    refused(dir.path(), line, &["bad.csv", "`mapped_to`", "genes map"]);
    assert!(!dir.path().join("new.csv").exists());
}
