//! Feature tables: blocks of columns, one Parquet file each.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use super::error::ScdlError;
use super::npy;
use crate::file::write_synced;

/// A column of a feature table.
#[derive(Debug, Clone, PartialEq)]
pub enum Feature {
    /// Texts, `None` where missing.
    Texts(Vec<Option<String>>),
    /// Integers, `None` where missing.
    Integers(Vec<Option<i64>>),
    /// Floats, NaN where missing.
    Floats(Vec<f64>),
    /// Booleans, `None` where missing.
    Booleans(Vec<Option<bool>>),
}

/// Columns by name, in order.
pub(super) type Columns = Vec<(String, Feature)>;

impl Feature {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Texts(values) => values.len(),
            Self::Integers(values) => values.len(),
            Self::Floats(values) => values.len(),
            Self::Booleans(values) => values.len(),
        }
    }

    /// The entries as texts.
    pub(super) fn texts(&self) -> Vec<Option<String>> {
        fn each<T: ToString>(values: &[Option<T>]) -> Vec<Option<String>> {
            values
                .iter()
                .map(|value| value.as_ref().map(T::to_string))
                .collect()
        }
        match self {
            Self::Texts(values) => values.clone(),
            Self::Integers(values) => each(values),
            Self::Floats(values) => values
                .iter()
                .map(|v| (!v.is_nan()).then(|| v.to_string()))
                .collect(),
            Self::Booleans(values) => {
                let text = |value: &bool| (if *value { "True" } else { "False" }).to_owned();
                values
                    .iter()
                    .map(|value| value.as_ref().map(text))
                    .collect()
            }
        }
    }
}

/// The blocks of the table in `folder`.
pub(super) fn read_blocks(folder: &Path) -> Result<Vec<Block>, ScdlError> {
    let listed = std::fs::read_dir(folder).map_err(ScdlError::io("list it", folder))?;
    let mut files: Vec<PathBuf> = listed.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "parquet"));
    files.sort();
    let path = folder.join("cumulative_sum_index.npy");
    let ends = npy::read_integers(&path)?;
    let wrong = || {
        let what = format!(
            "expected -1 and {} rising numbers, found {ends:?}",
            files.len()
        );
        ScdlError::invalid(&path, what)
    };
    if ends.len() != files.len() + 1 || ends.first() != Some(&-1) {
        return Err(wrong());
    }
    let mut last = 0;
    let mut blocks = Vec::new();
    for (file, end) in files.iter().zip(ends.iter().skip(1)) {
        let end = u64::try_from(*end)
            .ok()
            .filter(|end| *end >= last)
            .ok_or_else(wrong)?;
        blocks.push(Block {
            columns: read_table(file)?,
            num_rows: end - last,
            label: String::new(),
        });
        last = end;
    }
    Ok(blocks)
}

/// A run of rows and what is told of them: of their genes, or of the rows themselves.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Block {
    pub(super) columns: Columns,
    pub(super) num_rows: u64,
    /// Where they come from.
    pub(super) label: String,
}

/// Writes a feature table.
pub(super) fn write_blocks(
    folder: &Path,
    blocks: &[Block],
    version: &str,
) -> Result<(), ScdlError> {
    std::fs::create_dir_all(folder).map_err(ScdlError::io("create the folder", folder))?;
    let mut ends = vec![-1];
    let mut end = 0;
    for block in blocks {
        end += i64::try_from(block.num_rows).unwrap_or(i64::MAX);
        ends.push(end);
    }
    let labels: Vec<&str> = blocks.iter().map(|block| block.label.as_str()).collect();
    let arrays = [
        ("cumulative_sum_index.npy", npy::integers(&ends)),
        ("labels.npy", npy::texts(&labels, false)),
        ("version.npy", npy::texts(&[version], true)),
    ];
    for (name, bytes) in arrays {
        write_synced(&folder.join(name), &bytes)?;
    }
    for (at, block) in blocks.iter().enumerate() {
        let path = folder.join(table_name(at, blocks.len()));
        write_table(&path, &block.columns).map_err(ScdlError::table(&path))?;
    }
    Ok(())
}

/// The files of the table `table` of `count` blocks, as the header tells them.
pub(super) fn file_names(table: &str, count: usize) -> Vec<String> {
    let arrays = ["cumulative_sum_index.npy", "labels.npy", "version.npy"];
    let arrays = arrays.into_iter().map(str::to_owned);
    let tables = (0..count).map(|at| table_name(at, count));
    let names = arrays.chain(tables);
    names.map(|name| format!("{table}/{name}")).collect()
}

/// Numbers are as wide as the number of tables, so that names sort as they count.
fn table_name(at: usize, count: usize) -> String {
    let width = count.to_string().len();
    format!("dataframe_{at:0width$}.parquet")
}

fn read_table(path: &Path) -> Result<Columns, ScdlError> {
    let failed = ScdlError::table(path);
    let file = File::open(path).map_err(ScdlError::io("read it", path))?;
    let reader = SerializedFileReader::new(file).map_err(&failed)?;
    let mut columns: BTreeMap<usize, Feature> = BTreeMap::new();
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(&failed)?;
        for at in 0..group.num_columns() {
            let descriptor = group.metadata().column(at).column_descr_ptr();
            if descriptor.max_rep_level() > 0 || descriptor.max_def_level() > 1 {
                let what = format!("column {} holds lists", descriptor.name());
                return Err(ScdlError::invalid(path, what));
            }
            let column = group.get_column_reader(at).map_err(&failed)?;
            let part = read_column(column, descriptor.max_def_level() > 0).map_err(&failed)?;
            let Some(part) = part else {
                let what = format!("column {} is of an unknown type", descriptor.name());
                return Err(ScdlError::invalid(path, what));
            };
            match columns.get_mut(&at) {
                None => {
                    columns.insert(at, part);
                }
                Some(whole) => append(whole, part),
            }
        }
    }
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    let named = columns
        .into_iter()
        .map(|(at, column)| (schema.column(at).name().to_owned(), column));
    let named: Columns = named.collect();
    let rows = named.first().map_or(0, |(_, column)| column.len());
    if named.iter().any(|(_, column)| column.len() != rows) {
        return Err(ScdlError::invalid(
            path,
            "its columns are not of one length",
        ));
    }
    Ok(named)
}

fn append(whole: &mut Feature, part: Feature) {
    match (whole, part) {
        (Feature::Texts(a), Feature::Texts(b)) => a.extend(b),
        (Feature::Integers(a), Feature::Integers(b)) => a.extend(b),
        (Feature::Floats(a), Feature::Floats(b)) => a.extend(b),
        (Feature::Booleans(a), Feature::Booleans(b)) => a.extend(b),
        // A column has one type in the whole file; lengths are compared afterwards.
        _ => {}
    }
}

fn read_column(column: ColumnReader, optional: bool) -> Result<Option<Feature>, ParquetError> {
    let floats = |values: Vec<Option<f64>>| {
        Feature::Floats(values.into_iter().map(|v| v.unwrap_or(f64::NAN)).collect())
    };
    Ok(Some(match column {
        ColumnReader::ByteArrayColumnReader(reader) => {
            Feature::Texts(read_values(reader, optional, |bytes| {
                String::from_utf8_lossy(bytes.data()).into_owned()
            })?)
        }
        ColumnReader::Int32ColumnReader(reader) => {
            Feature::Integers(read_values(reader, optional, |v| i64::from(*v))?)
        }
        ColumnReader::Int64ColumnReader(reader) => {
            Feature::Integers(read_values(reader, optional, |v| *v)?)
        }
        ColumnReader::FloatColumnReader(reader) => {
            floats(read_values(reader, optional, |v| f64::from(*v))?)
        }
        ColumnReader::DoubleColumnReader(reader) => floats(read_values(reader, optional, |v| *v)?),
        ColumnReader::BoolColumnReader(reader) => {
            Feature::Booleans(read_values(reader, optional, |v| *v)?)
        }
        _ => return Ok(None),
    }))
}

fn read_values<T: DataType, V>(
    mut reader: ColumnReaderImpl<T>,
    optional: bool,
    value: impl Fn(&T::T) -> V,
) -> Result<Vec<Option<V>>, ParquetError> {
    let (mut levels, mut present) = (Vec::new(), Vec::new());
    loop {
        let (records, _, _) =
            reader.read_records(1 << 16, Some(&mut levels), None, &mut present)?;
        if records == 0 {
            break;
        }
    }
    let mut present = present.iter();
    if !optional {
        return Ok(present.map(|v| Some(value(v))).collect());
    }
    let next = |level: &i16| {
        if *level > 0 {
            present.next().map(&value)
        } else {
            None
        }
    };
    Ok(levels.iter().map(next).collect())
}

fn write_table(path: &Path, columns: &Columns) -> Result<(), ParquetError> {
    let mut fields = Vec::new();
    for (name, column) in columns {
        let (physical, logical) = match column {
            Feature::Texts(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Feature::Integers(_) => (Physical::INT64, None),
            Feature::Floats(_) => (Physical::DOUBLE, None),
            Feature::Booleans(_) => (Physical::BOOLEAN, None),
        };
        let field = Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical);
        fields.push(Arc::new(field.build()?));
    }
    let schema = Type::group_type_builder("schema")
        .with_fields(fields)
        .build()?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    let file = File::create(path)?;
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for (_, feature) in columns {
        let Some(mut column) = group.next_column()? else {
            break;
        };
        match feature {
            Feature::Texts(values) => {
                let (levels, values) = split(values, |text| ByteArray::from(text.as_str()));
                column
                    .typed::<ByteArrayType>()
                    .write_batch(&values, Some(&levels), None)?;
            }
            Feature::Integers(values) => {
                let (levels, values) = split(values, |value| *value);
                column
                    .typed::<Int64Type>()
                    .write_batch(&values, Some(&levels), None)?;
            }
            Feature::Floats(values) => {
                let levels = vec![1; values.len()];
                column
                    .typed::<DoubleType>()
                    .write_batch(values, Some(&levels), None)?;
            }
            Feature::Booleans(values) => {
                let (levels, values) = split(values, |value| *value);
                column
                    .typed::<BoolType>()
                    .write_batch(&values, Some(&levels), None)?;
            }
        }
        column.close()?;
    }
    group.close()?;
    writer.close()?;
    Ok(())
}

/// Which entries are there (1) or missing (0), and those that are.
fn split<T, V>(values: &[Option<T>], value: impl Fn(&T) -> V) -> (Vec<i16>, Vec<V>) {
    let levels = values.iter().map(|v| i16::from(v.is_some())).collect();
    (levels, values.iter().flatten().map(value).collect())
}
