//! Small standard h5ad files: simulated cells and fixtures.
//!
//! What is written is anndata's current encoding (group attributes `encoding-type` and
//! `encoding-version`): X and layers as gzip-compressed `csr_matrix`, obs columns as categoricals,
//! an index and numbers or texts in var. The file is built in memory and appears whole or not at
//! all; it is no way to write an atlas.

use std::path::Path;

use hdf5_pure::{AttrValue, DatasetBuilder, Error, FileBuilder, FinishedGroup, GroupBuilder};

use crate::cell::{CsrBlock, Labels};
use crate::file::write_atomic;

use super::{H5adError, VarColumn};

const GZIP_LEVEL: u32 = 4;
const CHUNK_ENTRIES: u64 = 32 << 10;

/// How the values of a matrix are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ValueType {
    /// 32-bit floats.
    #[default]
    Float32,
    /// 32-bit integers: fractions are cut off.
    Int32,
}

/// What goes into a file.
#[derive(Debug, Clone)]
pub struct AnnData {
    /// Cells × genes.
    pub x: CsrBlock,
    /// How X and the layers are stored.
    pub value_type: ValueType,
    /// Further matrices of the same shape.
    pub layers: Vec<(String, CsrBlock)>,
    /// The obs index, one for each row.
    pub cell_names: Vec<String>,
    /// Columns of obs.
    pub obs: Vec<(String, Labels)>,
    /// The var index, one for each column.
    pub gene_ids: Vec<String>,
    /// Columns of var.
    pub var: Vec<(String, VarColumn)>,
}

/// Writes `data` to `path`, whole or not at all.
///
/// # Errors
/// Parts whose lengths differ, a name that HDF5 cannot hold, a full disk.
pub fn write_h5ad(path: &Path, data: &AnnData) -> Result<(), H5adError> {
    let invalid = |key: &str, what: String| H5adError::Invalid {
        path: path.to_owned(),
        key: key.to_owned(),
        what,
    };
    check(data).map_err(|(key, what)| invalid(&key, what))?;
    let built = build(data).map_err(|source| H5adError::Hdf5 {
        path: path.to_owned(),
        key: "/".into(),
        source: Box::new(source),
    });
    write_atomic(path, &built?).map_err(|source| H5adError::Write {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// The first part that does not fit the others, and how.
fn check(data: &AnnData) -> Result<(), (String, String)> {
    let (rows, columns) = (data.x.rows(), data.x.cols());
    let expect = |key: String, expected: usize, found: usize| {
        if expected == found {
            return Ok(());
        }
        Err((key, format!("expected {expected} entries, found {found}")))
    };
    expect("obs".into(), rows, data.cell_names.len())?;
    expect("var".into(), columns, data.gene_ids.len())?;
    for (name, labels) in &data.obs {
        let key = format!("obs/{name}");
        expect(key.clone(), rows, labels.codes.len())?;
        let categories = labels.categories.len() as i64;
        if let Some(code) = labels
            .codes
            .iter()
            .find(|code| i64::from(**code) >= categories)
        {
            return Err((key, format!("category {code} of {categories}")));
        }
    }
    for (name, column) in &data.var {
        let found = match column {
            VarColumn::Numbers(values) => values.len(),
            VarColumn::Texts(values) => values.len(),
        };
        expect(format!("var/{name}"), columns, found)?;
    }
    for (name, layer) in &data.layers {
        expect(format!("layers/{name}"), rows, layer.rows())?;
        expect(format!("layers/{name}"), columns, layer.cols())?;
    }
    let names = data
        .obs
        .iter()
        .map(|(name, _)| name)
        .chain(data.var.iter().map(|(name, _)| name));
    let mut names = names.chain(data.layers.iter().map(|(name, _)| name));
    match names.find(|name| name.is_empty() || name.contains('/') || *name == "_index") {
        Some(name) => Err((name.clone(), "not a name that a column can have".into())),
        None => Ok(()),
    }
}

fn build(data: &AnnData) -> Result<Vec<u8>, Error> {
    let mut file = FileBuilder::new();
    file.set_attr("encoding-type", text("anndata"));
    file.set_attr("encoding-version", text("0.1.0"));
    let x = matrix(file.create_group("X"), &data.x, data.value_type);
    file.add_group(x);
    let mut layers = file.create_group("layers");
    encode_group(&mut layers, "dict", "0.1.0");
    for (name, layer) in &data.layers {
        let layer = matrix(layers.create_group(name), layer, data.value_type);
        layers.add_group(layer);
    }
    file.add_group(layers.finish());
    let obs = obs_table(file.create_group("obs"), data);
    file.add_group(obs);
    let var = var_table(file.create_group("var"), data);
    file.add_group(var);
    for name in ["obsm", "varm", "obsp", "varp", "uns"] {
        let mut group = file.create_group(name);
        encode_group(&mut group, "dict", "0.1.0");
        file.add_group(group.finish());
    }
    file.finish()
}

pub(super) fn text(value: &str) -> AttrValue {
    AttrValue::VarLenString(value.to_owned())
}

fn encode_group(group: &mut GroupBuilder, kind: &str, version: &str) {
    group.set_attr("encoding-type", text(kind));
    group.set_attr("encoding-version", text(version));
}

pub(super) fn encode(dataset: &mut DatasetBuilder, kind: &str) {
    dataset.set_attr("encoding-type", text(kind));
    dataset.set_attr("encoding-version", text("0.2.0"));
}

/// Sets the shape, and chunks and compression where there is anything to compress.
fn compress(dataset: &mut DatasetBuilder, len: usize) {
    let len = len as u64;
    dataset.with_shape(&[len]);
    if len > 0 {
        dataset
            .with_chunks(&[len.min(CHUNK_ENTRIES)])
            .with_shuffle()
            .with_deflate(GZIP_LEVEL);
    }
}

fn matrix(mut group: GroupBuilder, block: &CsrBlock, value_type: ValueType) -> FinishedGroup {
    encode_group(&mut group, "csr_matrix", "0.1.0");
    let shape = vec![block.rows() as i64, block.cols() as i64];
    group.set_attr("shape", AttrValue::I64Array(shape));
    let values = group.create_dataset("data");
    match value_type {
        ValueType::Float32 => values.with_f32_data(block.data()),
        ValueType::Int32 => {
            let whole: Vec<i32> = block.data().iter().map(|value| *value as i32).collect();
            values.with_i32_data(&whole)
        }
    };
    compress(values, block.nnz());
    let columns: Vec<i32> = block
        .indices()
        .iter()
        .map(|column| *column as i32)
        .collect();
    compress(
        group.create_dataset("indices").with_i32_data(&columns),
        columns.len(),
    );
    let pointer: Vec<i64> = block
        .indptr()
        .as_slice()
        .unwrap_or_default()
        .iter()
        .map(|at| *at as i64)
        .collect();
    compress(
        group.create_dataset("indptr").with_i64_data(&pointer),
        pointer.len(),
    );
    group.finish()
}

fn table<'a>(
    group: &mut GroupBuilder,
    index: &[String],
    columns: impl Iterator<Item = &'a String>,
) {
    encode_group(group, "dataframe", "0.2.0");
    group.set_attr("_index", text("_index"));
    let order: Vec<String> = columns.cloned().collect();
    let order = if order.is_empty() {
        AttrValue::F64Array(Vec::new())
    } else {
        AttrValue::VarLenStringArray(order)
    };
    group.set_attr("column-order", order);
    strings(
        group.create_dataset("_index"),
        index.iter().map(String::as_str),
    );
}

pub(super) fn strings<'a>(dataset: &mut DatasetBuilder, values: impl Iterator<Item = &'a str>) {
    let values: Vec<&str> = values.collect();
    dataset
        .with_vlen_strings(&values)
        .with_shape(&[values.len() as u64]);
    encode(dataset, "string-array");
}

fn obs_table(mut group: GroupBuilder, data: &AnnData) -> FinishedGroup {
    table(
        &mut group,
        &data.cell_names,
        data.obs.iter().map(|(name, _)| name),
    );
    for (name, labels) in &data.obs {
        let mut column = group.create_group(name);
        encode_group(&mut column, "categorical", "0.2.0");
        column.set_attr("ordered", AttrValue::U8(0));
        strings(
            column.create_dataset("categories"),
            labels.categories.iter().map(String::as_str),
        );
        codes(column.create_dataset("codes"), labels);
        group.add_group(column.finish());
    }
    group.finish()
}

/// The codes of a categorical, as narrow as they can be.
pub(super) fn codes(dataset: &mut DatasetBuilder, labels: &Labels) {
    let narrow = labels.codes.iter().map(|code| i8::try_from(*code).ok());
    let narrow: Option<Vec<i8>> = narrow.collect();
    match narrow.filter(|_| labels.categories.len() <= 127) {
        Some(narrow) => dataset.with_i8_data(&narrow),
        None => dataset.with_i32_data(&labels.codes),
    };
    compress(dataset, labels.codes.len());
    encode(dataset, "array");
}

fn var_table(mut group: GroupBuilder, data: &AnnData) -> FinishedGroup {
    table(
        &mut group,
        &data.gene_ids,
        data.var.iter().map(|(name, _)| name),
    );
    for (name, column) in &data.var {
        let dataset = group.create_dataset(name);
        match column {
            VarColumn::Numbers(values) => {
                compress(dataset.with_f64_data(values), values.len());
                encode(dataset, "array");
            }
            VarColumn::Texts(values) => {
                strings(
                    dataset,
                    values
                        .iter()
                        .map(|value| value.as_deref().unwrap_or_default()),
                );
            }
        }
    }
    group.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::cell::CellSource;
    use crate::h5ad::{H5ad, OpenOptions};

    fn small() -> AnnData {
        let x = CsrBlock::new((3, 4), vec![0, 2, 2, 3], vec![0, 3, 1], vec![1.0, 2.0, 7.0]);
        let labels = Labels {
            categories: vec!["B cell".into(), "T".into()],
            codes: vec![1, -1, 0],
        };
        AnnData {
            layers: vec![("counts".into(), x.clone())],
            x,
            value_type: ValueType::Int32,
            cell_names: ["c0", "c1", "c2"].map(String::from).to_vec(),
            obs: vec![("cell_type".into(), labels)],
            gene_ids: ["g0", "g1", "g2", "gé"].map(String::from).to_vec(),
            var: vec![
                (
                    "order".into(),
                    VarColumn::Numbers(vec![3.0, f64::NAN, 1.0, 0.0]),
                ),
                (
                    "name".into(),
                    VarColumn::Texts(vec![Some("a".into()), None, None, None]),
                ),
            ],
        }
    }

    #[test]
    fn a_written_file_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small.h5ad");
        let data = small();
        write_h5ad(&path, &data).unwrap();
        let source = H5ad::open(&path, &OpenOptions::default()).unwrap();
        assert_eq!(source.read(&[0..3]).unwrap(), data.x);
        assert_eq!(source.cell_names().unwrap(), data.cell_names);
        assert_eq!(source.gene_ids(), data.gene_ids);
        assert_eq!(source.obs_labels("cell_type").unwrap(), data.obs[0].1);
        let VarColumn::Numbers(order) = source.var_column("order").unwrap() else {
            panic!()
        };
        assert!(order[1].is_nan() && order[0] == 3.0);
        let layer = OpenOptions {
            matrix: "layers.counts".parse().unwrap(),
            ..Default::default()
        };
        assert_eq!(
            H5ad::open(&path, &layer)
                .unwrap()
                .read(&[2..3])
                .unwrap()
                .nnz(),
            1
        );
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.h5ad");
        let mut data = small();
        data.cell_names.pop();
        assert!(
            write_h5ad(&path, &data)
                .unwrap_err()
                .to_string()
                .contains("expected 3")
        );
        let mut data = small();
        data.obs[0].1.codes[0] = 2;
        assert!(
            write_h5ad(&path, &data)
                .unwrap_err()
                .to_string()
                .contains("category 2 of 2")
        );
        assert!(!path.exists());
    }
}
