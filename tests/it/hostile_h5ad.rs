//! h5ad files that this test writes: odd ones that must be read right, hostile ones that must be
//! refused with an error that says what was expected and found, and thousands of damaged ones
//! that may be read or refused, but never panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use gene_bert::cell::{CellSource, CsrBlock};
use gene_bert::h5ad::write::{AnnData, ValueType, write_h5ad};
use gene_bert::h5ad::{H5ad, OpenOptions, inspect};
use gene_bert::rng::{Stream, stream};
use hdf5_pure::{AttrValue, DatasetBuilder, FileBuilder, GroupBuilder};
use rand::Rng;

/// Ends a chain of settings.
fn done(_: &mut DatasetBuilder) {}

fn text(value: &str) -> AttrValue {
    AttrValue::VarLenString(value.to_owned())
}

fn table(mut group: GroupBuilder, names: &[&str]) -> GroupBuilder {
    group.set_attr("encoding-type", text("dataframe"));
    group.set_attr("_index", text("_index"));
    group
        .create_dataset("_index")
        .with_vlen_strings(names)
        .with_shape(&[names.len() as u64]);
    group
}

/// A file of 3 cells and 4 genes whose X and further members are made by `build`.
fn file_with(build: impl FnOnce(&mut FileBuilder)) -> FileBuilder {
    let mut file = FileBuilder::new();
    let obs = table(file.create_group("obs"), &["a", "b", "c"]).finish();
    file.add_group(obs);
    let var = table(file.create_group("var"), &["g0", "g1", "g2", "g3"]).finish();
    file.add_group(var);
    build(&mut file);
    file
}

/// A sparse X.
struct Sparse<'a> {
    encoding: &'a str,
    shape: Vec<i64>,
    data: &'a [f32],
    indices: &'a [i32],
    indptr: &'a [i64],
    /// Entries of a gzip chunk; 0 for one piece.
    chunk: u64,
}

impl Default for Sparse<'_> {
    fn default() -> Self {
        Sparse {
            encoding: "csr_matrix",
            shape: vec![3, 4],
            data: &[1.0, 2.0, 3.0],
            indices: &[0, 3, 1],
            indptr: &[0, 2, 2, 3],
            chunk: 0,
        }
    }
}

impl Sparse<'_> {
    fn add(&self, file: &mut FileBuilder) {
        let mut x = file.create_group("X");
        x.set_attr("encoding-type", text(self.encoding));
        x.set_attr("shape", AttrValue::I64Array(self.shape.clone()));
        let compress = |dataset: &mut DatasetBuilder| {
            if self.chunk > 0 {
                dataset
                    .with_chunks(&[self.chunk])
                    .with_shuffle()
                    .with_deflate(4);
            }
        };
        let data = x.create_dataset("data");
        compress(
            data.with_f32_data(self.data)
                .with_shape(&[self.data.len() as u64]),
        );
        let indices = x.create_dataset("indices");
        compress(
            indices
                .with_i32_data(self.indices)
                .with_shape(&[self.indices.len() as u64]),
        );
        let indptr = x.create_dataset("indptr");
        indptr
            .with_i64_data(self.indptr)
            .with_shape(&[self.indptr.len() as u64]);
        file.add_group(x.finish());
    }

    fn read(&self) -> Result<Vec<Vec<f32>>, String> {
        read(file_with(|file| self.add(file)))
    }
}

/// Writes the file, opens it and reads all of X.
fn read(file: FileBuilder) -> Result<Vec<Vec<f32>>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.h5ad");
    file.write(&path).unwrap();
    read_path(&path)
}

fn read_path(path: &Path) -> Result<Vec<Vec<f32>>, String> {
    let dense = || -> Result<_, gene_bert::h5ad::H5adError> {
        let source = H5ad::open(path, &OpenOptions::default())?;
        for column in source.obs_column_names() {
            source.obs_labels(column)?;
        }
        Ok(source.read(&[0..source.num_cells()])?.to_dense())
    };
    match dense() {
        Ok(dense) => Ok(dense.outer_iter().map(|row| row.to_vec()).collect()),
        Err(error) => {
            let text = error.to_string();
            assert!(
                text.contains(&*path.to_string_lossy()),
                "names no file: {text}"
            );
            Err(text)
        }
    }
}

fn expected_rows() -> Vec<Vec<f32>> {
    vec![
        vec![1.0, 0.0, 0.0, 2.0],
        vec![0.0; 4],
        vec![0.0, 3.0, 0.0, 0.0],
    ]
}

#[test]
fn a_sound_file_is_read() {
    for chunk in 0..5 {
        let x = Sparse {
            chunk,
            ..Sparse::default()
        };
        assert_eq!(x.read().unwrap(), expected_rows());
    }
}

#[test]
fn unsorted_duplicate_and_zero_entries_are_put_right() {
    let x = Sparse {
        data: &[1.5, 0.5, 2.0, 0.0, 0.5, 0.0, 3.0],
        indices: &[0, 3, 2, 1, 0, 3, 1],
        indptr: &[0, 5, 6, 7],
        ..Sparse::default()
    };
    let expected = [
        vec![2.0, 0.0, 2.0, 0.5],
        vec![0.0; 4],
        vec![0.0, 3.0, 0.0, 0.0],
    ];
    assert_eq!(x.read().unwrap(), expected);
}

#[test]
fn sparse_structures_that_lie_are_refused() {
    let pointer = |indptr| Sparse {
        indptr,
        ..Sparse::default()
    };
    let places = |indices| Sparse {
        indices,
        ..Sparse::default()
    };
    let shaped = |shape: &[i64]| Sparse {
        shape: shape.to_vec(),
        ..Sparse::default()
    };
    let encoded = |encoding| Sparse {
        encoding,
        ..Sparse::default()
    };
    let cases = [
        ("ascend", pointer(&[0, 2, 1, 3])),
        ("ascend", pointer(&[0, 2, 2, 4])),
        ("ascend", pointer(&[1, 2, 2, 3])),
        ("ascend", pointer(&[0, -2, 2, 3])),
        ("ascend", pointer(&[0, i64::MAX, 2, 3])),
        ("expected 4 integers", pointer(&[0, 2, 3])),
        ("expected 4 integers", pointer(&[])),
        ("outside of the 4 columns", places(&[0, 4, 1])),
        ("outside of the 4 columns", places(&[0, -1, 1])),
        ("as many integer indices as values", places(&[0, 3, 1, 1])),
        ("two dimensions", shaped(&[3, 4, 5])),
        ("expected 9223372036854775808", shaped(&[i64::MAX, 4])),
        ("2^32", shaped(&[3, i64::MAX])),
        ("expected one row for each of the 5", shaped(&[3, 5])),
        ("found coo_matrix", encoded("coo_matrix")),
        ("expected 5 integers", encoded("csc_matrix")),
    ];
    for (expected, x) in cases {
        let error = x.read().unwrap_err();
        assert!(
            error.contains(expected),
            "expected {expected:?}, found {error:?}"
        );
    }
    let by_column = Sparse {
        encoding: "csc_matrix",
        indices: &[0, 3, 1],
        indptr: &[0, 1, 2, 2, 3],
        ..Sparse::default()
    };
    assert!(by_column.read().unwrap_err().contains("at 3 of 3"));
}

#[test]
fn values_of_every_type_are_read() {
    type Fill = fn(&mut DatasetBuilder);
    let fills: [Fill; 10] = [
        |d| done(d.with_i8_data(&[1, 2, 3])),
        |d| done(d.with_i16_data(&[1, 2, 3])),
        |d| done(d.with_i32_data(&[1, 2, 3])),
        |d| done(d.with_i64_data(&[1, 2, 3])),
        |d| done(d.with_u8_data(&[1, 2, 3])),
        |d| done(d.with_u16_data(&[1, 2, 3])),
        |d| done(d.with_u32_data(&[1, 2, 3])),
        |d| done(d.with_u64_data(&[1, 2, 3])),
        |d| done(d.with_f64_data(&[1.0, 2.0, 3.0])),
        |d| done(d.with_f32_data(&[1.0, 2.0, 3.0])),
    ];
    for (at, fill) in fills.into_iter().enumerate() {
        let file = file_with(|file| {
            let mut x = file.create_group("X");
            x.set_attr("h5sparse_format", text("csr"));
            x.set_attr("h5sparse_shape", AttrValue::I64Array(vec![3, 4]));
            let data = x.create_dataset("data");
            fill(data);
            data.with_shape(&[3]).with_chunks(&[2]);
            match at % 4 {
                0 => done(data.with_shuffle().with_deflate(4)),
                1 => done(data.with_lzf()),
                2 => done(data.with_fletcher32()),
                _ => {}
            }
            x.create_dataset("indices")
                .with_u16_data(&[0, 3, 1])
                .with_shape(&[3]);
            x.create_dataset("indptr")
                .with_i32_data(&[0, 2, 2, 3])
                .with_shape(&[4]);
            file.add_group(x.finish());
        });
        assert_eq!(read(file).unwrap(), expected_rows(), "type {at}");
    }
}

#[test]
fn dense_arrays_of_wrong_shape_or_type_are_refused() {
    let values: Vec<f32> = (0..24u8).map(f32::from).collect();
    let cube = file_with(|f| {
        done(
            f.create_dataset("X")
                .with_f32_data(&values)
                .with_shape(&[2, 3, 4]),
        )
    });
    assert!(read(cube).unwrap_err().contains("two dimensions"));
    let wide = file_with(|f| {
        done(
            f.create_dataset("X")
                .with_f32_data(&values)
                .with_shape(&[3, 8]),
        )
    });
    assert!(
        read(wide)
            .unwrap_err()
            .contains("expected one row for each of the 8 columns")
    );
    let texts = file_with(|f| {
        done(
            f.create_dataset("X")
                .with_vlen_strings(&["a"])
                .with_shape(&[1]),
        )
    });
    assert!(
        read(texts)
            .unwrap_err()
            .contains("expected numbers, found elements of text")
    );
    let flat: Vec<f32> = expected_rows().concat();
    let chunked = file_with(|f| {
        let x = f.create_dataset("X");
        x.with_f32_data(&flat)
            .with_shape(&[3, 4])
            .with_chunks(&[2, 3])
            .with_deflate(1);
    });
    assert_eq!(read(chunked).unwrap(), expected_rows());
}

#[test]
fn a_user_block_is_skipped() {
    let mut file = file_with(|file| Sparse::default().add(file));
    file.with_userblock(1024);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("user_block.h5ad");
    file.write(&path).unwrap();
    assert_eq!(read_path(&path).unwrap(), expected_rows());
    assert_eq!(inspect(&path).unwrap().user_block_bytes, 1024);
}

#[test]
fn columns_that_contradict_themselves_are_refused() {
    let with_column = |codes: &'static [i32], rows: u64| {
        let mut file = FileBuilder::new();
        let mut obs = table(file.create_group("obs"), &["a", "b", "c"]);
        let mut column = obs.create_group("kind");
        let categories = column.create_dataset("categories");
        categories.with_vlen_strings(&["x", "y"]).with_shape(&[2]);
        column
            .create_dataset("codes")
            .with_i32_data(codes)
            .with_shape(&[rows]);
        obs.add_group(column.finish());
        file.add_group(obs.finish());
        let var = table(file.create_group("var"), &["g0", "g1", "g2", "g3"]).finish();
        file.add_group(var);
        Sparse::default().add(&mut file);
        read(file)
    };
    assert!(with_column(&[0, -1, 1], 3).is_ok());
    assert!(
        with_column(&[0, 2, 1], 3)
            .unwrap_err()
            .contains("row 1 has category 2 of 2")
    );
    assert!(
        with_column(&[0, 1], 2)
            .unwrap_err()
            .contains("expected 3 entries, found 2")
    );
}

#[test]
fn nullable_values_need_a_mask_of_their_length() {
    let with_mask = |mask: &'static [u8]| {
        let mut file = FileBuilder::new();
        let mut obs = table(file.create_group("obs"), &["a", "b", "c"]);
        let mut column = obs.create_group("age");
        column
            .create_dataset("values")
            .with_i64_data(&[7, 8, 7])
            .with_shape(&[3]);
        column
            .create_dataset("mask")
            .with_u8_data(mask)
            .with_shape(&[mask.len() as u64]);
        obs.add_group(column.finish());
        file.add_group(obs.finish());
        let var = table(file.create_group("var"), &["g0", "g1", "g2", "g3"]).finish();
        file.add_group(var);
        Sparse::default().add(&mut file);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nullable.h5ad");
        file.write(&path).unwrap();
        H5ad::open(&path, &OpenOptions::default())
            .unwrap()
            .obs_labels("age")
    };
    assert_eq!(with_mask(&[0, 1, 0]).unwrap().codes, [0, -1, 0]);
    assert!(
        with_mask(&[0, 1])
            .unwrap_err()
            .to_string()
            .contains("2 entries for 3 values")
    );
}

#[test]
fn no_cells_and_no_genes_are_no_error() {
    let mut file = FileBuilder::new();
    let obs = table(file.create_group("obs"), &[]).finish();
    file.add_group(obs);
    let var = table(file.create_group("var"), &["g0", "g1"]).finish();
    file.add_group(var);
    let x = Sparse {
        shape: vec![0, 2],
        data: &[],
        indices: &[],
        indptr: &[0],
        ..Sparse::default()
    };
    x.add(&mut file);
    assert_eq!(read(file).unwrap(), Vec::<Vec<f32>>::new());
}

#[test]
fn ranges_outside_of_the_matrix_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ranges.h5ad");
    file_with(|file| Sparse::default().add(file))
        .write(&path)
        .unwrap();
    let source = H5ad::open(&path, &OpenOptions::default()).unwrap();
    for ranges in [
        vec![2..4],
        vec![1..2, 0..1],
        vec![0..2, 1..3],
        vec![u64::MAX - 1..u64::MAX],
    ] {
        assert!(source.read(&ranges).is_err(), "{ranges:?}");
    }
    assert_eq!(source.read(&[]).unwrap().rows(), 0);
    assert_eq!(source.read(&[1..1, 2..3]).unwrap().rows(), 1);
}

#[test]
fn an_unknown_column_lists_those_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("columns.h5ad");
    file_with(|file| Sparse::default().add(file))
        .write(&path)
        .unwrap();
    let source = H5ad::open(&path, &OpenOptions::default()).unwrap();
    let error = source.labels("cell_type").unwrap_err().to_string();
    assert!(
        error.contains("no column of obs \"cell_type\"; there is: none"),
        "{error}"
    );
}

#[test]
fn threads_share_one_handle() {
    let mut random = stream(7, Stream::Simulate, 1, 0);
    let (mut indptr, mut indices, mut data) = (vec![0], Vec::new(), Vec::new());
    for _ in 0..400 {
        for column in 0..600u32 {
            if random.random_bool(0.2) {
                indices.push(column);
                data.push(random.random_range(1..9u8).into());
            }
        }
        indptr.push(indices.len());
    }
    let x = CsrBlock::new((400, 600), indptr, indices, data);
    let named = |prefix: &str, n: usize| (0..n).map(|at| format!("{prefix}{at}")).collect();
    let written = AnnData {
        x: x.clone(),
        value_type: ValueType::Float32,
        layers: vec![],
        cell_names: named("c", 400),
        obs: vec![],
        gene_ids: named("g", 600),
        var: vec![],
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("threads.h5ad");
    write_h5ad(&path, &written).unwrap();
    let source = H5ad::open(&path, &OpenOptions::default()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (source, x) = (&source, &x);
            scope.spawn(move || {
                for round in 0..40 {
                    let mut random = stream(7, Stream::Simulate, 2 + thread, round);
                    let start = random.random_range(0..390u64);
                    let end = random.random_range(start..400);
                    let block = source.read(&[start..end, end..400]).unwrap();
                    let expected = x.slice_outer(start as usize..400).to_dense();
                    assert!(block.to_dense() == expected, "rows from {start}");
                }
            });
        }
    });
}

/// Damages a sound file in random places, or cuts it short: read or refused, but no panic, and no
/// more memory than the file can justify.
#[test]
fn damaged_files_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sound.h5ad");
    let file = file_with(|file| {
        Sparse {
            chunk: 2,
            ..Sparse::default()
        }
        .add(file);
        let dense: Vec<f32> = expected_rows().concat();
        let mut layers = file.create_group("layers");
        let layer = layers
            .create_dataset("dense")
            .with_f32_data(&dense)
            .with_shape(&[3, 4]);
        layer.with_chunks(&[2, 4]).with_shuffle().with_deflate(4);
        file.add_group(layers.finish());
    });
    file.write(&path).unwrap();
    let sound = std::fs::read(&path).unwrap();
    let path = folder.path().join("damaged.h5ad");
    for round in 0..1500 {
        let mut random = stream(7, Stream::Simulate, 0, round);
        let mut bytes = sound.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = match random.random_range(0..3) {
                0 => 0xff,
                1 => bytes[at] ^ (1 << random.random_range(0..8)),
                _ => random.random(),
            };
        }
        if round % 5 == 0 {
            bytes.truncate(random.random_range(0..bytes.len()));
        }
        std::fs::write(&path, bytes).unwrap();
        let _ = read_path(&path);
        let layer = OpenOptions {
            matrix: "layers.dense".parse().unwrap(),
            ..Default::default()
        };
        if let Ok(source) = H5ad::open(&path, &layer) {
            let _ = source.read(&[0..source.num_cells()]);
        }
        let _ = inspect(&path);
    }
}
