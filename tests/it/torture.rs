//! The collection of odd and broken files: each is read through the library as training reads it,
//! or refused with an error that names the file and the cause.
//!
//! The test prints a table with a row for each file. To write it to `tests/bench/torture.md`:
//!
//! ```text
//! GENE_BERT_WRITE_TORTURE=1 cargo test --test it torture
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use gene_bert::cell::{CellSource, CsrBlock};
use gene_bert::h5ad::{H5ad, H5adError, OpenOptions, ValuePolicy, inspect};

use crate::shared::shared_dir;

/// A file of the collection, `None` where it is not there.
fn torture(name: &str) -> Option<PathBuf> {
    shared_dir(&format!("data/torture/{name}"))
}

fn options(matrix: &str, values: ValuePolicy) -> OpenOptions {
    OpenOptions {
        matrix: matrix.parse().unwrap(),
        values,
        ..OpenOptions::default()
    }
}

fn open(path: &Path, matrix: &str) -> H5ad {
    H5ad::open(path, &options(matrix, ValuePolicy::Any)).unwrap()
}

fn whole(source: &H5ad) -> CsrBlock {
    source.read(&[0..source.num_cells()]).unwrap()
}

/// An error with its causes, without the folder.
fn tell(error: &H5adError, folder: &Path) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text.replace(&format!("{}/", folder.display()), "")
        .replace('\n', "; ")
}

/// Rows ascend in their columns, hold no zero and stay within the matrix.
fn check_block(block: &CsrBlock, rows: u64, columns: usize) {
    assert_eq!((block.rows() as u64, block.cols()), (rows, columns));
    for row in block.outer_iterator() {
        assert!(row.indices().windows(2).all(|pair| pair[0] < pair[1]));
        assert!(row.data().iter().all(|value| *value != 0.0));
    }
}

/// Reads a matrix whole, in ranges of all sizes and with gaps: always the same rows.
fn check_matrix(path: &Path, name: &str) -> Result<String, H5adError> {
    let source = H5ad::open(path, &options(name, ValuePolicy::Any))?;
    let (cells, genes) = (source.num_cells(), source.gene_ids().len());
    let all = source.read(&[0..cells])?;
    check_block(&all, cells, genes);
    for step in [1, 7, 64] {
        let starts: Vec<u64> = (0..cells).step_by(2 * step).take(40).collect();
        let ranges: Vec<_> = starts
            .iter()
            .map(|s| *s..(*s + step as u64).min(cells))
            .collect();
        let some = source.read(&ranges)?;
        for (at, row) in ranges.into_iter().flatten().enumerate() {
            let expected = all.outer_view(row as usize).unwrap();
            let found = some.outer_view(at).unwrap();
            assert_eq!(expected.indices(), found.indices(), "row {row} of {name}");
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(
                bits(expected.data()),
                bits(found.data()),
                "row {row} of {name}"
            );
        }
    }
    Ok(format!("{name} {cells} × {genes}, {} non-zeros", all.nnz()))
}

/// Reads everything of a file that training may ask for.
fn read_all(path: &Path) -> Result<String, H5adError> {
    let source = H5ad::open(path, &OpenOptions::default())?;
    let cells = source.num_cells() as usize;
    assert_eq!(source.cell_names().unwrap().len(), cells);
    for column in source.obs_column_names() {
        let labels = source.obs_labels(column)?;
        assert_eq!(labels.codes.len(), cells);
        let range = -1..labels.categories.len() as i32;
        assert!(labels.codes.iter().all(|code| range.contains(code)));
    }
    for column in source.var_column_names() {
        source.var_column(column)?;
    }
    let mut parts = Vec::new();
    for name in source.matrices()? {
        parts.push(check_matrix(path, &name)?);
    }
    if parts.is_empty() {
        parts.push(format!("{cells} cells, no matrix"));
    }
    parts.push(format!("{} obs columns", source.obs_column_names().len()));
    match source.read(&[0..source.num_cells()]) {
        Err(error @ H5adError::Value { row, .. }) => {
            assert!(error.to_string().contains(&format!("row {row}")));
            parts.push("X refused for training: negative, NaN or infinite values".into());
        }
        Err(error @ H5adError::Missing { .. }) => assert!(error.to_string().contains("\"X\"")),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    // Whatever can be read can be told about.
    inspect(path)?;
    Ok(parts.join("; "))
}

#[test]
fn torture_files_are_read_or_refused_with_the_cause() {
    let Some(folder) = shared_dir("data/torture") else {
        return;
    };
    let entries = std::fs::read_dir(&folder).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut table = String::from("| file | | what |\n|---|---|---|\n");
    let (mut read, mut refused) = (0, 0);
    for path in &files {
        let name = path.file_name().unwrap().to_string_lossy();
        let (verdict, what) = match read_all(path) {
            Ok(what) => {
                read += 1;
                ("read", what)
            }
            Err(error) => {
                refused += 1;
                let text = error.to_string();
                assert!(
                    text.contains(&*path.to_string_lossy()),
                    "names no file: {text}"
                );
                ("refused", tell(&error, &folder))
            }
        };
        let _ = writeln!(
            table,
            "| {name} | {verdict} | {} |",
            what.replace('|', "\\|")
        );
    }
    println!(
        "{table}\n{} files: {read} read, {refused} refused",
        files.len()
    );
    if std::env::var_os("GENE_BERT_WRITE_TORTURE").is_some() {
        write_table(&table, files.len(), read, refused);
    }
}

fn write_table(table: &str, files: usize, read: usize, refused: usize) {
    let text = format!(
        "# Odd and broken h5ad files\n\n{files} real files: {read} read, {refused} refused. \
         Written by\n\n    GENE_BERT_WRITE_TORTURE=1 cargo test --test it torture\n\n\
         over the files of `$GENE_BERT_SHARED/data/torture`; each matrix is read whole and in \
         ranges of three sizes, and each column of obs and var as labels or values.\n\n{table}"
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/torture.md");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn torture_broken_files_are_refused_for_the_right_cause() {
    let broken = [
        (
            "Elephenman+LocalSingleCell__pbmc3k_processed.h5ad",
            "truncated",
            "copy",
        ),
        (
            "broadinstitute+scp-ingest-pipeline__bad.h5",
            "truncated",
            "copy",
        ),
        (
            "theislab+pertpy__sc_sim@b1e376d.h5ad",
            "line ends",
            "binary mode",
        ),
        (
            "yelu61+scLucid__pbmc3k.lfs-pointer.h5ad",
            "Git-LFS pointer",
            "git lfs pull",
        ),
    ];
    for (name, cause, remedy) in broken {
        let Some(path) = torture(name) else { return };
        let text = H5ad::open(&path, &OpenOptions::default())
            .unwrap_err()
            .to_string();
        let (what, hint) = text.split_once("\nhint: ").unwrap();
        assert!(what.contains(cause) && what.contains(name), "{text}");
        assert!(hint.contains(remedy), "{text}");
    }
}

#[test]
fn torture_encodings_of_one_matrix_agree() {
    let same = [
        (
            "scverse+anndataR__example.h5ad",
            "layers.counts",
            "layers.csc_counts",
        ),
        (
            "scverse+anndataR__example.h5ad",
            "layers.counts",
            "layers.dense_counts",
        ),
        (
            "bnprks+BPCells__mini_mat.anndata-v0.6.22.h5ad",
            "X",
            "layers.dense",
        ),
        (
            "bnprks+BPCells__mini_mat.anndata-v0.6.22.h5ad",
            "X",
            "layers.transpose",
        ),
        (
            "bnprks+BPCells__mini_mat_uint_16.anndata-v0.10.9.h5ad",
            "X",
            "layers.transpose",
        ),
        (
            "bnprks+BPCells__mini_mat_int_64_neg.anndata-v0.12.6.h5ad",
            "X",
            "layers.transpose",
        ),
    ];
    for (name, one, other) in same {
        let Some(path) = torture(name) else { return };
        let (one, other) = (whole(&open(&path, one)), whole(&open(&path, other)));
        assert_eq!(one, other, "{name}");
        assert!(one.nnz() > 0);
    }
}

#[test]
fn torture_a_matrix_by_column_reads_the_same_in_little_memory() {
    let Some(path) = torture("theislab+pertpy__sc_sim@1bf8f79.h5ad") else {
        return;
    };
    let scanned = OpenOptions {
        csc_memory_bytes: 0,
        ..OpenOptions::default()
    };
    let scanned = H5ad::open(&path, &scanned).unwrap();
    let turned = open(&path, "X");
    let ranges = [0..3, 50..51, 190..200];
    assert_eq!(
        scanned.read(&ranges).unwrap(),
        turned.read(&ranges).unwrap()
    );
    assert_eq!(whole(&scanned).nnz(), 87_053);
}

#[test]
fn torture_refused_values_are_named() {
    let refused = [
        ("broadinstitute+scp-ingest-pipeline__nan_value.h5ad", "NaN"),
        (
            "bnprks+BPCells__mini_mat_int_64_neg.anndata-v0.12.6.h5ad",
            "-",
        ),
        ("scverse+anndata__v0.5.0.adata.h5ad", "-"),
    ];
    for (name, sign) in refused {
        let Some(path) = torture(name) else { return };
        let source = H5ad::open(&path, &OpenOptions::default()).unwrap();
        let error = source.read(&[0..source.num_cells()]).unwrap_err();
        let H5adError::Value {
            row,
            cell,
            gene,
            value,
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(source.cell_names().unwrap()[*row as usize], *cell);
        assert!(source.gene_ids().contains(gene));
        assert!(value.to_string().starts_with(sign));
        let text = error.to_string();
        assert!(
            text.contains(name) && text.contains(cell) && text.contains(gene),
            "{text}"
        );
    }
}

#[test]
fn torture_columns_of_every_generation_become_labels() {
    let columns = [
        // Compound table, categories in uns.
        ("scverse+anndata__v0.5.0.adata.h5ad", "bulk_labels", 10, 0),
        // Categories in __categories, which an attribute refers to.
        ("scverse+anndata__v0.7.8.adata.h5ad", "obs_cat", 21, 0),
        // Integer categories, and no cell that has one.
        (
            "single-cell-data+TileDB-SOMA__categorical_int_nan@f8b5af1.h5ad",
            "categ_int_nan",
            80,
            80,
        ),
        // Nullable integers and booleans, and a float with NaN.
        ("scverse+anndataR__example.h5ad", "IntNA", 1, 1),
        ("scverse+anndataR__example.h5ad", "BoolNA", 2, 1),
        ("scverse+anndataR__example.h5ad", "FloatNA", 1, 1),
    ];
    for (name, column, categories, missing) in columns {
        let Some(path) = torture(name) else { return };
        let labels = open(&path, "X").obs_labels(column).unwrap();
        let found = labels.codes.iter().filter(|code| **code == -1).count();
        assert_eq!(
            (labels.categories.len(), found),
            (categories, missing),
            "{name}: {column}"
        );
    }
    let Some(path) = torture("scverse+anndataR__example.h5ad") else {
        return;
    };
    assert_eq!(
        open(&path, "X").obs_labels("IntNA").unwrap().categories,
        ["42"]
    );
}

#[test]
fn torture_explicit_zeros_and_missing_matrices() {
    let Some(path) = torture("chanzuckerberg+single-cell-curation__example_invalid_CL.h5ad") else {
        return;
    };
    assert_eq!(whole(&open(&path, "X")).nnz(), 21_311 - 320);
    let Some(path) = torture("single-cell-data+TileDB-SOMA__x-empty@3687904.h5ad") else {
        return;
    };
    assert_eq!(whole(&open(&path, "X")).nnz(), 0);
    let Some(path) = torture("single-cell-data+TileDB-SOMA__x-none@ba15697.h5ad") else {
        return;
    };
    let source = open(&path, "X");
    assert_eq!(source.obs_labels("louvain").unwrap().categories.len(), 8);
    assert!(
        source
            .read(&[0..1])
            .unwrap_err()
            .to_string()
            .contains("no matrix \"X\"")
    );
    let error = H5ad::open(&path, &options("raw.X", ValuePolicy::Any)).unwrap_err();
    assert!(error.to_string().contains("no matrix \"raw.X\""));
}
