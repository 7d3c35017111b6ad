//! The conversion itself.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc;

use super::config::ConvertConfig;
use super::genes::GenePlan;
use super::places::Places;
use super::reading::{Progress, Reading, Sorted, kind_of};
use super::stage::Stage;
use crate::h5ad::writer::{GroupParts, MatrixWriter, Output, Storage, TableWriter};
use crate::h5ad::{H5ad, JoinedTable, Kind, Part, TableColumn};
use crate::prepare::PrepareError;

/// Output files that are open at once.
const MOST_FILES: usize = 500;
/// Members of a file that are not carried over.
const OTHERS: [&str; 5] = ["obsm", "varm", "obsp", "varp", "uns"];

/// What a conversion made.
#[derive(Debug)]
pub struct Converted {
    /// The files.
    pub outputs: Vec<PathBuf>,
    /// Cells in all of them.
    pub num_cells: u64,
    /// Genes of each.
    pub num_genes: usize,
    /// The type of the values.
    pub kind: Kind,
    /// How many values this type does not hold exactly.
    pub num_changed: u64,
    /// What the inputs have that the outputs lack, by name.
    pub left_out: Vec<String>,
}

/// A conversion under way.
struct Job<'a> {
    reading: Reading<'a>,
    genes: &'a GenePlan,
    /// The table of the genes, the same in every output.
    var: JoinedTable<'a>,
    var_columns: Vec<(String, TableColumn)>,
    stage: &'a Stage,
    num_changed: u64,
}

/// An output file but for its root group, and its number.
type Whole = (usize, Output, GroupParts);
/// Takes outputs to be completed elsewhere: until a file is safe on the disk, the next is written.
type Close<'a> = &'a dyn Fn(Whole) -> Result<(), PrepareError>;

/// Converts; `progress` is told what is done and its share from 0 to 1.
///
/// # Errors
/// Inputs that cannot be read or have different genes; outputs that cannot be written. What stood
/// under their names is untouched then.
pub fn convert(config: &ConvertConfig, progress: Progress<'_>) -> Result<Converted, PrepareError> {
    let files = config.open_inputs()?;
    let genes = GenePlan::new(&files, config.genes)?;
    let exact = config.storage == Storage::Contiguous;
    let places = Places::new(&files, config.shuffle, config.cells_per_file, exact)?;
    if places.shards.len() > MOST_FILES {
        return Err(PrepareError::Convert(format!(
            "{} cells make {} files, more than {MOST_FILES}\nhint: raise --cells-per-file",
            places.num_cells(),
            places.shards.len()
        )));
    }
    let kind = kind_of(config, &files, &places, progress)?;
    let stage = Stage::new(config, places.shards.len())?;
    let reading = Reading {
        config,
        files: &files,
        places: &places,
        maps: &genes.maps,
        kind,
    };
    let var = JoinedTable::new(&files, Part::Var);
    let mut job = Job {
        reading,
        genes: &genes,
        var_columns: genes.table(&var)?,
        var,
        stage: &stage,
        num_changed: 0,
    };
    job.run(progress)?;
    let num_changed = job.num_changed;
    Ok(Converted {
        outputs: stage.commit()?,
        num_cells: places.num_cells(),
        num_genes: genes.ids.len(),
        kind,
        num_changed,
        left_out: left_out(config, &files)?,
    })
}

impl Job<'_> {
    fn run(&mut self, progress: Progress<'_>) -> Result<(), PrepareError> {
        let mut waiting = Vec::new();
        for n in 0..self.reading.places.shards.len() {
            if !self.stage.is_done(n)? {
                waiting.push((n, Output::create(&self.stage.partial(n)?)?));
            }
        }
        let tables = self.write_obs(&mut waiting)?;
        let outputs = waiting.into_iter().zip(tables).collect::<Vec<_>>();
        let stage = self.stage;
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel::<Whole>(1);
            let closer = scope.spawn(move || -> Result<(), PrepareError> {
                for (n, output, root) in receiver {
                    output.finish(root)?;
                    stage.finish(n)?;
                }
                Ok(())
            });
            let stopped = || PrepareError::Convert("files are no longer completed".to_owned());
            let close = |whole| sender.send(whole).map_err(|_| stopped());
            let written = self.write(outputs, &close, progress);
            drop(sender);
            // Where the closer failed, that is why writing stopped.
            closer.join().unwrap_or_else(|_| Err(stopped()))?;
            written
        })
    }

    fn write(
        &mut self,
        outputs: Vec<((usize, Output), TableWriter)>,
        close: Close<'_>,
        progress: Progress<'_>,
    ) -> Result<(), PrepareError> {
        if self.reading.places.order.is_some() {
            return self.write_shuffled(outputs, close, progress);
        }
        for ((n, output), obs) in outputs {
            close(self.write_in_order(n, output, obs, progress)?)?;
        }
        Ok(())
    }

    /// The obs tables, one column of all files at a time.
    fn write_obs(&self, outputs: &mut [(usize, Output)]) -> Result<Vec<TableWriter>, PrepareError> {
        let joined = JoinedTable::new(self.reading.files, Part::Obs);
        let names = joined.names()?;
        let mut tables = Vec::new();
        for (n, output) in outputs.iter_mut() {
            let cells = self.cells_of(*n);
            let own = cells.map(|cell| names.get(cell).map_or("", String::as_str));
            tables.push(TableWriter::new(
                output,
                joined.index_name(),
                own,
                self.compressed(),
            )?);
        }
        drop(names);
        for name in joined.column_names() {
            let column = joined.column(&name)?;
            for ((n, output), table) in outputs.iter_mut().zip(&mut tables) {
                table.push(output, &name, &column.take(self.cells_of(*n)))?;
            }
        }
        Ok(tables)
    }

    /// The cells of output `n`, in its order.
    fn cells_of(&self, n: usize) -> impl Iterator<Item = usize> {
        self.shard(n)
            .map(|place| self.reading.places.cell(place) as usize)
    }

    fn shard(&self, n: usize) -> Range<u64> {
        self.reading.places.shards.get(n).cloned().unwrap_or(0..0)
    }

    fn compressed(&self) -> bool {
        matches!(
            self.reading.config.storage,
            Storage::Chunked { gzip: Some(_), .. }
        )
    }

    fn matrix(&self, n: usize, output: &mut Output) -> MatrixWriter {
        let most = self.reading.places.entries_at(self.shard(n));
        let num_genes = self.genes.ids.len() as u64;
        MatrixWriter::new(
            output,
            num_genes,
            self.reading.kind,
            self.reading.config.storage,
            most,
        )
    }

    fn write_in_order(
        &mut self,
        n: usize,
        mut output: Output,
        obs: TableWriter,
        progress: Progress<'_>,
    ) -> Result<Whole, PrepareError> {
        let mut matrix = self.matrix(n, &mut output);
        let (reading, within) = (self.reading, self.shard(n));
        self.num_changed += reading.each(within, ("converting", progress), |_, blocks| {
            for block in blocks {
                matrix.push(&mut output, &block.lengths, &block.columns, &block.values)?;
            }
            Ok(())
        })?;
        self.finish(n, output, obs, matrix)
    }

    fn write_shuffled(
        &mut self,
        outputs: Vec<((usize, Output), TableWriter)>,
        close: Close<'_>,
        progress: Progress<'_>,
    ) -> Result<(), PrepareError> {
        let shards: Vec<_> = outputs.iter().map(|((n, _), _)| self.shard(*n)).collect();
        let sorted = self.reading.sort(&shards, &self.stage.spill()?, progress)?;
        self.num_changed += sorted.num_changed;
        for (run, ((n, output), obs)) in outputs.into_iter().enumerate() {
            close(self.write_sorted(n, output, obs, (&sorted, run), progress)?)?;
        }
        Ok(())
    }

    fn write_sorted(
        &self,
        n: usize,
        mut output: Output,
        obs: TableWriter,
        (sorted, run): (&Sorted, usize),
        progress: Progress<'_>,
    ) -> Result<Whole, PrepareError> {
        let mut matrix = self.matrix(n, &mut output);
        sorted.each(run, progress, |block| {
            Ok(matrix.push(&mut output, &block.lengths, &block.columns, &block.values)?)
        })?;
        self.finish(n, output, obs, matrix)
    }

    /// Writes what else belongs into a file.
    fn finish(
        &self,
        n: usize,
        mut output: Output,
        obs: TableWriter,
        matrix: MatrixWriter,
    ) -> Result<Whole, PrepareError> {
        let mut root = GroupParts::encoded("anndata", "0.1.0");
        let expected = self.shard(n);
        if matrix.num_rows() != expected.end - expected.start {
            let what = format!("{} of {expected:?} rows were converted", matrix.num_rows());
            return Err(PrepareError::Convert(what));
        }
        root.member(
            "X",
            matrix.finish(&mut output, self.reading.config.storage)?,
        );
        for name in ["layers"].into_iter().chain(OTHERS) {
            root.member(name, output.group(GroupParts::encoded("dict", "0.1.0"))?);
        }
        root.member("obs", obs.finish(&mut output)?);
        let names = self.genes.ids.iter().map(String::as_str);
        let index = self.var.index_name();
        let mut var = TableWriter::new(&mut output, index, names, self.compressed())?;
        for (name, column) in &self.var_columns {
            var.push(&mut output, name, column)?;
        }
        root.member("var", var.finish(&mut output)?);
        Ok((n, output, root))
    }
}

/// The names of what is not carried over.
pub(super) fn left_out(
    config: &ConvertConfig,
    files: &[H5ad],
) -> Result<Vec<String>, PrepareError> {
    let chosen = config.open.matrix.to_string();
    let graph = config.neighbors.as_ref().map(|name| format!("obsp.{name}"));
    let mut names: Vec<String> = Vec::new();
    for file in files {
        let others = file.matrices()?.into_iter().filter(|name| *name != chosen);
        for name in others.chain(file.members(&OTHERS)?) {
            if !names.contains(&name) && graph.as_ref() != Some(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}
