//! h5ad files as one SCDL archive.

use super::config::{ConvertConfig, GeneChoice};
use super::genes::GenePlan;
use super::job::{Converted, kind_of, left_out, read, share, waves};
use super::places::Places;
use crate::cell::CellSource;
use crate::h5ad::{ColumnMap, Entries, H5ad, H5adError, JoinedTable, Kind, Part, TableColumn};
use crate::prepare::PrepareError;
use crate::store::{Feature, ScalarType, ScdlWriter};

/// Writes the cells of all inputs, in their order, as the archive `config.output`; of the settings
/// those of files (shards, storage, shuffle, resume) have no meaning here. `progress` is told what
/// is done and its share from 0 to 1.
///
/// # Errors
/// Inputs that cannot be read or have different genes; a type that archives do not have; an output
/// that cannot be written. What stood under its name is untouched then.
pub fn convert_to_archive(
    config: &ConvertConfig,
    progress: &mut (dyn FnMut(&'static str, f64) + Send),
) -> Result<Converted, PrepareError> {
    let files = config.open_inputs()?;
    let plan = match config.genes {
        GeneChoice::Ragged => None,
        choice => Some(GenePlan::new(&files, choice)?),
    };
    let places = Places::new(&files, None, None, false)?;
    let kind = kind_of(config, &files, &places, progress)?;
    let most_genes = match &plan {
        Some(plan) => plan.ids.len(),
        None => files
            .iter()
            .map(|file| file.gene_ids().len())
            .max()
            .unwrap_or(0),
    };
    let mut writer = ScdlWriter::new(&config.output, scalar_of(kind)?, most_genes)?;
    let mut num_changed = 0;
    let same: Vec<ColumnMap> = files.iter().map(|_| ColumnMap::Same).collect();
    let maps = plan.as_ref().map_or(&same, |plan| &plan.maps);
    for (file, own) in files.iter().zip(places.offsets.windows(2)) {
        let waves = waves(config, &files, &places, own[0]..own[1]);
        let mut next = waves
            .first()
            .map(|wave| read(&files, maps, kind, wave))
            .transpose()?;
        for (at, wave) in waves.iter().enumerate() {
            let blocks = next.take().unwrap_or_default();
            num_changed += blocks.iter().map(|block| block.num_changed).sum::<u64>();
            let ahead = waves.get(at + 1);
            let (written, read) = rayon::join(
                || {
                    blocks.iter().try_for_each(|block| {
                        writer.push(&block.lengths, &block.columns, &block.values)
                    })
                },
                || ahead.map(|wave| read(&files, maps, kind, wave)).transpose(),
            );
            written?;
            next = read?;
            progress("converting", share(wave, &places));
        }
        let one = std::slice::from_ref(file);
        let var = match &plan {
            Some(plan) => {
                let rows = || plan.rows.iter().copied();
                (
                    plan.ids.clone(),
                    features(&files, Part::Var, |c| c.take(rows()))?,
                )
            }
            None => (file.gene_ids().to_vec(), features(one, Part::Var, |c| c)?),
        };
        let names = file.cell_names().map_err(PrepareError::Source)?;
        let obs = (names, features(one, Part::Obs, |c| c)?);
        writer.end_block(&file.path().display().to_string(), var, obs);
    }
    writer.finish()?;
    Ok(Converted {
        outputs: vec![config.output.clone()],
        num_cells: places.num_cells(),
        num_genes: most_genes,
        kind,
        num_changed,
        left_out: left_out(config, &files)?,
    })
}

fn features(
    files: &[H5ad],
    part: Part,
    choose: impl Fn(TableColumn) -> TableColumn,
) -> Result<Vec<(String, Feature)>, H5adError> {
    let table = JoinedTable::new(files, part);
    let feature = |name: String| {
        let feature = match choose(table.column(&name)?).into_entries() {
            Entries::Texts(values) => Feature::Texts(values),
            Entries::Integers(values) => Feature::Integers(values),
            Entries::Booleans(values) => Feature::Booleans(values),
            Entries::Floats(values) => Feature::Floats(values),
        };
        Ok((name, feature))
    };
    table.column_names().into_iter().map(feature).collect()
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
