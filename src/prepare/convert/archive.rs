//! h5ad files as one SCDL archive, in their order or shuffled.

use std::path::Path;

use super::config::{ConvertConfig, GeneChoice};
use super::genes::GenePlan;
use super::job::{Converted, left_out};
use super::neighbors::write_neighbors;
use super::places::Places;
use super::reading::{Progress, Reading, kind_of};
use super::stage::Stage;
use crate::cell::CellSource;
use crate::file::StagedDir;
use crate::h5ad::{ColumnMap, Entries, H5ad, H5adError, JoinedTable, Kind, Part, TableColumn};
use crate::prepare::PrepareError;
use crate::store::{Feature, ScalarType, ScdlTable, ScdlWriter};

/// Bytes after which what is written is marked, to be found again by a resumed conversion.
const MARK_BYTES: u64 = 512 << 20;

/// Writes the cells of all inputs as the archive `config.output`; of the settings those of storage
/// and of shards have no meaning here. `progress` is told what is done and its share from 0 to 1.
///
/// # Errors
/// Inputs that cannot be read or have different genes; a type that archives do not have; an output
/// that cannot be written. What stood under its name is untouched then.
pub fn convert_to_archive(
    config: &ConvertConfig,
    progress: Progress<'_>,
) -> Result<Converted, PrepareError> {
    let files = config.open_inputs()?;
    let plan = match config.genes {
        GeneChoice::Ragged if config.shuffle.is_some() => {
            return Err(PrepareError::Convert(
                "--shuffle would mix cells of different genes, each of which has its own\n\
                 hint: choose --genes union or --genes intersection"
                    .to_owned(),
            ));
        }
        GeneChoice::Ragged => None,
        choice => Some(GenePlan::new(&files, choice)?),
    };
    if let Some(name) = &config.neighbors {
        // Before anything is written.
        files
            .iter()
            .try_for_each(|file| file.graph(name).map(drop))?;
    }
    let places = Places::new(&files, config.shuffle, None, false)?;
    let kind = kind_of(config, &files, &places, progress)?;
    let numbers = files.iter().map(|file| file.gene_ids().len());
    let num_genes = match &plan {
        Some(plan) => plan.ids.len(),
        None => numbers.max().unwrap_or(0),
    };
    let stage = Stage::new(config, 1)?;
    let folder = StagedDir::kept(&config.output, stage.key(), config.resume)?;
    let same: Vec<ColumnMap> = files.iter().map(|_| ColumnMap::Same).collect();
    let reading = Reading {
        config,
        files: &files,
        places: &places,
        maps: plan.as_ref().map_or(&same, |plan| &plan.maps),
        kind,
    };
    let written = write_all(
        &reading,
        folder.path(),
        num_genes,
        plan.as_ref(),
        |writer| write_rows(&reading, writer, &stage, progress),
    );
    let num_changed = match written {
        Ok(num_changed) => num_changed,
        Err(error) => {
            if !ScdlWriter::is_begun(folder.path()) {
                folder.discard();
            }
            return Err(error);
        }
    };
    folder.commit()?;
    Ok(Converted {
        outputs: vec![config.output.clone()],
        num_cells: places.num_cells(),
        num_genes,
        kind,
        num_changed,
        left_out: left_out(config, &files)?,
    })
}

/// Writes the whole archive into `folder`, its rows by `rows`; how many values have changed.
fn write_all(
    reading: &Reading<'_>,
    folder: &Path,
    num_genes: usize,
    plan: Option<&GenePlan>,
    rows: impl FnOnce(&mut ScdlWriter) -> Result<u64, PrepareError>,
) -> Result<u64, PrepareError> {
    let (files, places) = (reading.files, reading.places);
    let mut writer = ScdlWriter::open(folder, scalar_of(reading.kind)?, num_genes)?;
    let num_changed = rows(&mut writer)?;
    if let Some(name) = &reading.config.neighbors {
        write_neighbors(files, places, name, writer.neighbors()?)?;
    }
    writer.finish(genes_of(files, plan)?, cells_of(files, places)?)?;
    Ok(num_changed)
}

/// Writes what is not there yet of the rows; how many values have changed.
fn write_rows(
    reading: &Reading<'_>,
    writer: &mut ScdlWriter,
    stage: &Stage,
    progress: Progress<'_>,
) -> Result<u64, PrepareError> {
    let left = writer.num_rows()..reading.places.num_cells();
    let (mut num_changed, mut bytes) = (writer.note(), 0);
    if reading.config.shuffle.is_some() {
        let sorted = reading.sort(std::slice::from_ref(&left), &stage.spill()?, progress)?;
        sorted.each(0, progress, |block| {
            writer.push(&block.lengths, &block.columns, &block.values)?;
            bytes += (block.columns.len() + block.values.len()) as u64;
            if bytes > MARK_BYTES {
                bytes = 0;
                writer.mark(0)?;
            }
            Ok(())
        })?;
        // All values were looked at again.
        return Ok(sorted.num_changed);
    }
    reading.each(left, ("converting", progress), |_, blocks| {
        for block in blocks {
            writer.push(&block.lengths, &block.columns, &block.values)?;
            bytes += (block.columns.len() + block.values.len()) as u64;
            num_changed += block.num_changed;
        }
        if bytes > MARK_BYTES {
            bytes = 0;
            writer.mark(num_changed)?;
        }
        Ok(())
    })?;
    Ok(num_changed)
}

/// The genes: of all files, or of each its own, where several after one another may have the same.
fn genes_of(files: &[H5ad], plan: Option<&GenePlan>) -> Result<Vec<ScdlTable>, PrepareError> {
    let label = |file: &H5ad| file.path().display().to_string();
    if let Some(plan) = plan {
        return Ok(vec![ScdlTable {
            label: files.first().map_or_else(String::new, label),
            num_rows: files.iter().map(CellSource::num_cells).sum(),
            names: plan.ids.clone(),
            columns: features(plan.table(&JoinedTable::new(files, Part::Var))?),
        }]);
    }
    let mut tables: Vec<ScdlTable> = Vec::new();
    for file in files {
        let table = ScdlTable {
            label: label(file),
            num_rows: file.num_cells(),
            names: file.gene_ids().to_vec(),
            columns: features(columns(std::slice::from_ref(file), Part::Var)?),
        };
        match tables.last_mut() {
            Some(last) if (&last.names, &last.columns) == (&table.names, &table.columns) => {
                last.num_rows += table.num_rows;
            }
            _ => tables.push(table),
        }
    }
    Ok(tables)
}

/// The cells: a table for each file, or one of all in their new order.
fn cells_of(files: &[H5ad], places: &Places) -> Result<Vec<ScdlTable>, PrepareError> {
    let Some(order) = &places.order else {
        let table = |file: &H5ad| {
            Ok(ScdlTable {
                label: file.path().display().to_string(),
                num_rows: file.num_cells(),
                names: file.cell_names().map_err(PrepareError::Source)?,
                columns: features(columns(std::slice::from_ref(file), Part::Obs)?),
            })
        };
        return files.iter().map(table).collect();
    };
    let cells = || order.iter().map(|cell| *cell as usize);
    let mut names = JoinedTable::new(files, Part::Obs).names()?;
    let name = |cell: usize| names.get_mut(cell).map(std::mem::take).unwrap_or_default();
    let names = cells().map(name).collect();
    let taken = columns(files, Part::Obs)?.into_iter();
    let taken = taken.map(|(name, column)| (name, column.take(cells())));
    Ok(vec![ScdlTable {
        label: "shuffled".to_owned(),
        num_rows: places.num_cells(),
        names,
        columns: features(taken.collect()),
    }])
}

fn columns(files: &[H5ad], part: Part) -> Result<Vec<(String, TableColumn)>, H5adError> {
    let table = JoinedTable::new(files, part);
    let column = |name: String| Ok((name.clone(), table.column(&name)?));
    table.column_names().into_iter().map(column).collect()
}

fn features(columns: Vec<(String, TableColumn)>) -> Vec<(String, Feature)> {
    let feature = |(name, column): (String, TableColumn)| {
        let feature = match column.into_entries() {
            Entries::Texts(values) => Feature::Texts(values),
            Entries::Integers(values) => Feature::Integers(values),
            Entries::Booleans(values) => Feature::Booleans(values),
            Entries::Floats(values) => Feature::Floats(values),
        };
        (name, feature)
    };
    columns.into_iter().map(feature).collect()
}

fn scalar_of(kind: Kind) -> Result<ScalarType, PrepareError> {
    Ok(match kind {
        Kind::U8 => ScalarType::U8,
        Kind::U16 => ScalarType::U16,
        Kind::U32 => ScalarType::U32,
        Kind::U64 => ScalarType::U64,
        Kind::F16 => ScalarType::F16,
        Kind::F32 => ScalarType::F32,
        Kind::F64 => ScalarType::F64,
        Kind::Bool | Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64 => {
            return Err(PrepareError::Convert(format!(
                "values of {} have no place in an SCDL archive\n\
                 hint: choose another type: --dtype narrowest for counts, or float32",
                kind.name()
            )));
        }
    })
}
