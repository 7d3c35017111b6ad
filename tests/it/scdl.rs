//! SCDL archives: what is written is read, and nothing that is damaged is believed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use gene_bert::cell::{CellSource, CsrBlock};
use gene_bert::h5ad::{H5ad, OpenOptions};
use gene_bert::prepare::simulate::simulate;
use gene_bert::store::{ScalarType, ScdlArchive, ScdlOptions};

use crate::command::{done, gene_bert};

fn convert(folder: &Path, line: &str) -> String {
    done(folder, &format!("convert {line}"))
}

fn open(folder: &Path) -> Result<Vec<ScdlArchive>, String> {
    let opened = ScdlArchive::open(&folder.join("out.scdl"), &ScdlOptions::default());
    opened.map_err(|error| error.to_string())
}

/// Two files, each with genes that the other lacks.
fn files(folder: &Path) -> Vec<(PathBuf, H5ad)> {
    let paths = simulate(folder, 3, 60).unwrap().into_iter();
    let open = |path: PathBuf| {
        let file = H5ad::open(&path, &OpenOptions::default()).unwrap();
        (path, file)
    };
    paths.map(open).collect()
}

fn all(source: &dyn CellSource) -> CsrBlock {
    source.read_ranges(&[0..source.num_cells()]).unwrap()
}

#[test]
fn files_of_other_genes_are_parts_of_an_archive() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    for (dtype, scalar) in [
        ("keep", ScalarType::F32),
        ("narrowest", ScalarType::U8),
        ("float64", ScalarType::F64),
        ("uint16", ScalarType::U16),
    ] {
        let line = "simulated_1.h5ad simulated_2.h5ad --output out.scdl --format scdl";
        convert(
            dir.path(),
            &format!("{line} --genes ragged --dtype {dtype}"),
        );
        let parts = open(dir.path()).unwrap();
        assert_eq!(parts.len(), 2);
        for (part, (_, file)) in parts.iter().zip(&files) {
            assert!(dtype == "narrowest" || part.scalar() == scalar, "{dtype}");
            assert_eq!(part.gene_ids(), file.gene_ids());
            assert_eq!(all(part), all(file), "{dtype}");
            assert_eq!(part.cell_names().unwrap(), file.cell_names().unwrap());
            for column in ["cell_type", "sex"] {
                let (found, expected) =
                    (part.labels(column).unwrap(), file.labels(column).unwrap());
                for row in 0..file.num_cells() as usize {
                    assert_eq!(found.value(row), expected.value(row), "{column} {row}");
                }
            }
            let some = [1..3, 5..6, 9..10];
            assert_eq!(
                part.read_ranges(&some).unwrap(),
                file.read_ranges(&some).unwrap()
            );
            let outside = part.num_cells()..part.num_cells() + 1;
            assert!(part.read_ranges(std::slice::from_ref(&outside)).is_err());
            let error = part.labels("colour").unwrap_err().to_string();
            assert!(
                error.contains("cell_type") && error.contains("hint: "),
                "{error}"
            );
        }
    }
}

#[test]
fn files_of_the_same_genes_are_one_part() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    fs::copy(
        dir.path().join("simulated_1.h5ad"),
        dir.path().join("again.h5ad"),
    )
    .unwrap();
    let line = "simulated_1.h5ad again.h5ad --output out.scdl --format scdl";
    convert(dir.path(), line);
    let parts = open(dir.path()).unwrap();
    let ([part], (_, file)) = (parts.as_slice(), &files[0]) else {
        panic!("{} parts", parts.len());
    };
    assert_eq!(part.num_cells(), 2 * file.num_cells());
    let (first, second) = (0..file.num_cells(), file.num_cells()..part.num_cells());
    for own in [first, second] {
        assert_eq!(part.read_ranges(&[own]).unwrap(), all(file));
    }
    let flags = "data out.scdl --rows --passes 1 --readers 2 --json --check --entropy sex";
    let output = gene_bert(dir.path(), &format!("bench {flags}"));
    let said = String::from_utf8(output.stderr).unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&said);
    assert_eq!(rows[0]["cells"].as_u64(), Some(part.num_cells()));
    let values: f64 = all(part).data().iter().map(|value| f64::from(*value)).sum();
    assert_eq!(rows[0]["sum_of_values"].as_f64(), Some(values));
}

#[test]
fn no_damaged_header_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    convert(
        dir.path(),
        "simulated_1.h5ad simulated_2.h5ad --output out.scdl --format scdl --genes ragged",
    );
    let header = dir.path().join("out.scdl/header.sch");
    let whole = fs::read(&header).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&header, bytes).unwrap();
        let error = open(dir.path()).map(|_| ()).expect_err(what);
        assert!(error.contains("out.scdl"), "{what}: {error}");
    };
    for end in 0..whole.len() {
        refused(&whole[..end], &format!("{end} bytes"));
    }
    refused(&[whole.as_slice(), &[0]].concat(), "a byte more");
    for bit in 0..8 * whole.len() {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refused(&flipped, &format!("bit {bit}"));
    }
    fs::write(&header, &whole).unwrap();
    assert!(open(dir.path()).is_ok());
}

#[test]
fn damaged_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    let line = "simulated_1.h5ad --output out.scdl --format scdl";
    convert(dir.path(), line);
    for name in [
        "data.npy",
        "row_ptr.npy",
        "col_ptr.npy",
        "var_features/cumulative_sum_index.npy",
        "var_features/dataframe_0.parquet",
        "obs_features/dataframe_0.parquet",
        "obs_features/labels.npy",
    ] {
        let path = dir.path().join("out.scdl").join(name);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(open(dir.path()).is_err(), "{name}");
        if !name.ends_with("labels.npy") {
            fs::write(&path, &whole[..whole.len() - 1]).unwrap();
            let error = open(dir.path()).map(|_| ()).expect_err(name);
            assert!(error.contains("out.scdl"), "{name}: {error}");
        }
        fs::write(&path, &whole).unwrap();
    }
    // A column beyond the genes.
    let path = dir.path().join("out.scdl/col_ptr.npy");
    let mut columns = fs::read(&path).unwrap();
    let len = columns.len();
    columns[len - 2..].fill(0xff);
    fs::write(&path, &columns).unwrap();
    let parts = open(dir.path()).unwrap();
    let error = parts[0]
        .read_ranges(&[0..parts[0].num_cells()])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("row ") && error.contains("column 65535"),
        "{error}"
    );
    // What cannot be is said, and an archive is replaced as a whole.
    for (flags, part) in [
        ("--shuffle", "--shuffle"),
        ("--cells-per-file 5", "--cells-per-file"),
        ("--dtype int8", "--dtype narrowest"),
    ] {
        let output = gene_bert(dir.path(), &format!("convert {line} {flags}"));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(part) && said.contains("hint: "), "{said}");
        assert_eq!(fs::read(&path).unwrap(), columns, "{flags}");
    }
    convert(dir.path(), line);
    assert!(open(dir.path()).unwrap()[0].read_ranges(&[0..5]).is_ok());
    let ragged = "simulated_1.h5ad simulated_2.h5ad --output out.h5ad --genes ragged";
    let output = gene_bert(dir.path(), &format!("convert {ragged}"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--format scdl"), "{said}");
}
