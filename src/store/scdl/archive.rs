//! An archive that is read: one source of cells for each run of rows with the same genes.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::ScdlError;
use super::features::{Block, Columns, Feature, file_names, read_blocks};
use super::header::{Header, ScalarType};
use super::neighbors::ScdlNeighbors;
use super::rows::{Refused, push_row};
use super::{ARRAYS, CELL_NAMES, GENE_IDS, HEADER, OBS, VAR};
use crate::cell::{CellSource, CsrBlock, Labels, SourceError};
use crate::file::read_exact_at;

/// How an archive is read.
#[derive(Debug, Clone, Default)]
pub struct ScdlOptions {
    /// The column of `var_features` that holds the gene ids; `var_feature_id` where `None`, or the
    /// only column of texts.
    pub gene_id_column: Option<String>,
}

/// The cells of an archive that share their genes. Values must be finite and not negative.
#[derive(Debug)]
pub struct ScdlArchive {
    files: Arc<Files>,
    rows: Range<u64>,
    gene_ids: Vec<String>,
    /// What is told of the genes, the ids among it.
    var: Columns,
}

/// What all parts of an archive share.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
    values: (File, ScalarType),
    columns: (File, ScalarType),
    /// Where each row begins, and where the last one ends.
    starts: Vec<u64>,
    obs: Vec<Block>,
}

impl ScdlArchive {
    /// Opens the archive in `folder`: one source for each run of rows that have the same genes, in
    /// order.
    ///
    /// # Errors
    /// A header that is damaged or says other things than the files; files that contradict each
    /// other; genes without ids.
    pub fn open(folder: &Path, options: &ScdlOptions) -> Result<Vec<ScdlArchive>, ScdlError> {
        let header = read_header(folder)?;
        let open = |array: &str| open_array(folder, &header, array);
        let (values, num_values) = open(ARRAYS[0].0)?;
        let (columns, num_columns) = open(ARRAYS[2].0)?;
        let starts = read_starts(folder, open(ARRAYS[1].0)?, num_values)?;
        let other = |what: String| ScdlError::invalid(&folder.join(HEADER), what);
        if num_values != num_columns || columns.1.kind().is_float() {
            return Err(other(format!(
                "expected a column, an integer, for each of {num_values} values, found \
                 {num_columns} of {:?}",
                columns.1
            )));
        }
        let num_rows = starts.len() as u64 - 1;
        let var = read_table(folder, &header, VAR, num_rows)?;
        let obs = read_table(folder, &header, OBS, num_rows)?;
        let files = Arc::new(Files {
            folder: folder.to_owned(),
            values,
            columns,
            starts,
            obs,
        });
        let (mut archives, mut start) = (Vec::new(), 0);
        for block in var {
            let rows = start..start + block.num_rows;
            start = rows.end;
            archives.push(ScdlArchive {
                files: Arc::clone(&files),
                rows,
                gene_ids: gene_ids(folder, &block, options)?,
                var: block.columns,
            });
        }
        Ok(archives)
    }

    /// The type of its values.
    pub fn scalar(&self) -> ScalarType {
        self.files.values.1
    }

    /// Its rows among those of the whole archive.
    pub fn rows(&self) -> Range<u64> {
        self.rows.clone()
    }

    /// What its genes have in the column `name` of var_features; `None` where there are no numbers
    /// of this name. NaN where one is missing.
    pub fn gene_numbers(&self, name: &str) -> Option<Vec<f64>> {
        match &self.var.iter().find(|(column, _)| column == name)?.1 {
            Feature::Integers(values) => {
                let number = |value: &Option<i64>| value.map_or(f64::NAN, |value| value as f64);
                Some(values.iter().map(number).collect())
            }
            Feature::Floats(values) => Some(values.clone()),
            Feature::Texts(_) | Feature::Booleans(_) => None,
        }
    }

    /// The neighbours of all cells of the whole archive; `None` where it tells of none.
    ///
    /// # Errors
    /// Files that cannot be read or contradict one another.
    pub fn neighbors(&self) -> Result<Option<ScdlNeighbors>, ScdlError> {
        let num_cells = self.files.starts.len() as u64 - 1;
        ScdlNeighbors::open(&self.files.folder, num_cells)
    }

    fn error(&self, what: String) -> SourceError {
        ScdlError::invalid(&self.files.folder, what).into()
    }

    /// The obs column `name` of its cells as texts, `None` where there is none.
    fn obs_texts(&self, name: &str) -> Option<Vec<Option<String>>> {
        let (mut texts, mut start, mut found) = (Vec::new(), 0, false);
        for block in &self.files.obs {
            let own = self.rows.start.max(start)..self.rows.end.min(start + block.num_rows);
            let within = own.start.saturating_sub(start)..own.end.saturating_sub(start);
            start += block.num_rows;
            if own.is_empty() {
                continue;
            }
            let column = block.columns.iter().find(|(column, _)| column == name);
            let within = within.start as usize..within.end as usize;
            match column {
                Some((_, column)) => {
                    found = true;
                    texts.extend_from_slice(column.texts().get(within).unwrap_or_default());
                }
                None => texts.extend(within.map(|_| None)),
            }
        }
        found.then_some(texts)
    }
}

impl CellSource for ScdlArchive {
    fn path(&self) -> &Path {
        &self.files.folder
    }

    fn num_cells(&self) -> u64 {
        self.rows.end - self.rows.start
    }

    fn gene_ids(&self) -> &[String] {
        &self.gene_ids
    }

    fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<CsrBlock, SourceError> {
        let num_genes = self.gene_ids.len();
        let (mut starts, mut columns, mut values) = (vec![0], Vec::new(), Vec::new());
        let (mut last, mut raw) = (0, Vec::new());
        for range in ranges {
            if range.start < last || range.end < range.start || range.end > self.num_cells() {
                let what = format!(
                    "rows {range:?} are no ascending rows of {}",
                    self.num_cells()
                );
                return Err(self.error(what));
            }
            last = range.end;
            let first = self.rows.start + range.start;
            let (own_columns, own_values) = self
                .files
                .read(first..self.rows.start + range.end, &mut raw)?;
            let begin = self.files.start(first);
            for row in first..self.rows.start + range.end {
                let at = |row| (self.files.start(row) - begin) as usize;
                let within = at(row)..at(row + 1);
                let entries = own_columns.get(within.clone()).zip(own_values.get(within));
                let (row_columns, row_values) = entries.unwrap_or_default();
                push_row(
                    row_columns,
                    row_values,
                    num_genes,
                    &mut columns,
                    &mut values,
                )
                .map_err(|refused| {
                    self.error(describe(&refused, row - self.rows.start, &self.gene_ids))
                })?;
                starts.push(columns.len());
            }
        }
        let block = CsrBlock::try_new((starts.len() - 1, num_genes), starts, columns, values);
        block.map_err(|(_, _, _, e)| self.error(e.to_string()))
    }

    fn obs_columns(&self) -> Result<Vec<String>, SourceError> {
        let mut names: Vec<String> = Vec::new();
        for block in &self.files.obs {
            for (name, _) in &block.columns {
                if name != CELL_NAMES && !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
        Ok(names)
    }

    fn labels(&self, column: &str) -> Result<Labels, SourceError> {
        let Some(texts) = self.obs_texts(column) else {
            let what = format!(
                "no obs column {column}; there are {}\nhint: name one of them",
                self.obs_columns()?.join(", ")
            );
            return Err(self.error(what));
        };
        let mut categories: Vec<String> = texts.iter().flatten().cloned().collect();
        categories.sort();
        categories.dedup();
        let codes: HashMap<&str, i32> = (0..)
            .zip(&categories)
            .map(|(at, text)| (text.as_str(), at))
            .collect();
        let code = |text: &Option<String>| codes.get(text.as_deref()?).copied();
        let codes = texts.iter().map(|text| code(text).unwrap_or(-1)).collect();
        Ok(Labels { categories, codes })
    }

    fn cell_names(&self) -> Result<Vec<String>, SourceError> {
        Ok(match self.obs_texts(CELL_NAMES) {
            Some(names) => names.into_iter().map(Option::unwrap_or_default).collect(),
            None => self.rows.clone().map(|row| row.to_string()).collect(),
        })
    }
}

impl Files {
    fn start(&self, row: u64) -> u64 {
        self.starts.get(row as usize).copied().unwrap_or(0)
    }

    /// Columns and values of `rows`, as they are stored.
    fn read(&self, rows: Range<u64>, raw: &mut Vec<u8>) -> Result<(Vec<u32>, Vec<f32>), ScdlError> {
        let window = self.start(rows.start)..self.start(rows.end);
        let (mut columns, mut values) = (Vec::new(), Vec::new());
        self.read_bytes(&self.columns, ARRAYS[2].1, &window, raw)?;
        self.columns.1.number().extend_columns(raw, &mut columns);
        self.read_bytes(&self.values, ARRAYS[0].1, &window, raw)?;
        self.values.1.number().extend_f32(raw, &mut values);
        Ok((columns, values))
    }

    fn read_bytes(
        &self,
        (file, scalar): &(File, ScalarType),
        name: &str,
        window: &Range<u64>,
        raw: &mut Vec<u8>,
    ) -> Result<(), ScdlError> {
        let size = scalar.size() as u64;
        raw.resize(((window.end - window.start) * size) as usize, 0);
        read_exact_at(file, window.start * size, raw)
            .map_err(ScdlError::io("read it", &self.folder.join(name)))
    }
}

fn describe(refused: &Refused, row: u64, gene_ids: &[String]) -> String {
    let genes = gene_ids.len();
    match refused {
        Refused::Column(column) => {
            format!("row {row} has an entry in column {column} of {genes}")
        }
        Refused::Value(column, value) => {
            let gene = gene_ids.get(*column as usize).map_or("?", String::as_str);
            format!("row {row}, gene {gene}: expected a finite value from 0 up, found {value}")
        }
    }
}

fn read_header(folder: &Path) -> Result<Header, ScdlError> {
    let path = folder.join(HEADER);
    let bytes = std::fs::read(&path).map_err(ScdlError::io("read it", &path))?;
    let refuse = |what: String| {
        let hint = "hint: convert the files again, or copy the whole folder again";
        ScdlError::invalid(&path, format!("{what}\n{hint}"))
    };
    let header = Header::parse(&bytes).map_err(refuse)?;
    header.check_names().map_err(refuse)?;
    Ok(header)
}

/// The file of an array, whose length must be what the header says.
fn open_array(
    folder: &Path,
    header: &Header,
    name: &str,
) -> Result<((File, ScalarType), u64), ScdlError> {
    let (_, file_name) = ARRAYS
        .iter()
        .find(|(array, _)| *array == name)
        .unwrap_or(&ARRAYS[0]);
    let path = folder.join(file_name);
    let declared = header.array(name);
    let (len, scalar) = declared.map_err(|what| ScdlError::invalid(&folder.join(HEADER), what))?;
    let file = File::open(&path).map_err(ScdlError::io("read it", &path))?;
    let bytes = file
        .metadata()
        .map_err(ScdlError::io("read it", &path))?
        .len();
    if len.checked_mul(scalar.size() as u64) != Some(bytes) {
        let what = format!(
            "expected {len} numbers of {scalar:?}, which {HEADER} tells of, found {bytes} bytes\n\
             hint: the folder was copied in part, or its header is of an earlier state"
        );
        return Err(ScdlError::invalid(&path, what));
    }
    Ok(((file, scalar), len))
}

/// The row pointer, checked: ascending from 0 to the number of values.
fn read_starts(
    folder: &Path,
    ((file, scalar), len): ((File, ScalarType), u64),
    num_values: u64,
) -> Result<Vec<u64>, ScdlError> {
    let path = folder.join(ARRAYS[1].1);
    let mut raw = vec![0; len as usize * scalar.size()];
    read_exact_at(&file, 0, &mut raw).map_err(ScdlError::io("read it", &path))?;
    let mut signed = Vec::with_capacity(len as usize);
    if !scalar.kind().is_float() {
        scalar.number().extend_i64(&raw, &mut signed);
    }
    let starts = signed
        .into_iter()
        .map(|start| u64::try_from(start).unwrap_or(u64::MAX));
    let starts: Vec<u64> = starts.collect();
    let ends = (starts.first(), starts.last());
    if ends != (Some(&0), Some(&num_values)) || !starts.is_sorted() {
        let what = format!("expected integers that rise from 0 to {num_values}, found {ends:?}");
        return Err(ScdlError::invalid(&path, what));
    }
    Ok(starts)
}

/// The blocks of a feature table, which must be those that the header tells of.
fn read_table(
    folder: &Path,
    header: &Header,
    name: &str,
    num_rows: u64,
) -> Result<Vec<Block>, ScdlError> {
    let own = folder.join(name);
    let blocks = read_blocks(&own)?;
    let rows: u64 = blocks.iter().map(|block| block.num_rows).sum();
    let entry = header.tables.iter().find(|entry| entry.name == name);
    let declared = entry.map_or(0, |entry| entry.len);
    // A table may be empty: of cells of which nothing is told.
    let empty = name == OBS && blocks.is_empty() && declared == 0;
    if !empty && (rows != num_rows || declared != num_rows) {
        let what = format!(
            "expected {num_rows} rows, found {rows}, and {declared} in {HEADER}\n\
             hint: convert the files again"
        );
        return Err(ScdlError::invalid(&own, what));
    }
    let files = entry.map(|entry| entry.files.as_slice());
    let names = file_names(name, blocks.len());
    if let Some(odd) = names
        .iter()
        .find(|file| !folder.join(file).is_file())
        .or_else(|| names.first().filter(|_| files != Some(&names)))
    {
        let what = format!("expected {odd} and the like here and in {HEADER}, found {files:?}");
        return Err(ScdlError::invalid(&own, what));
    }
    for block in blocks.iter().filter(|_| name == OBS) {
        let odd = block
            .columns
            .iter()
            .find(|(_, column)| column.len() as u64 != block.num_rows);
        if let Some((column, values)) = odd {
            let what = format!(
                "expected {} entries of {column}, found {}",
                block.num_rows,
                values.len()
            );
            return Err(ScdlError::invalid(&own, what));
        }
    }
    Ok(blocks)
}

fn gene_ids(folder: &Path, block: &Block, options: &ScdlOptions) -> Result<Vec<String>, ScdlError> {
    let texts = |(_, column): &&(String, Feature)| matches!(column, Feature::Texts(_));
    let named = |name: &str| block.columns.iter().find(|(column, _)| column == name);
    let mut candidates = block.columns.iter().filter(texts);
    let only = candidates.next().filter(|_| candidates.next().is_none());
    let chosen = match &options.gene_id_column {
        Some(name) => named(name),
        None => named(GENE_IDS).or(only),
    };
    let Some((_, column)) = chosen else {
        let known: Vec<&str> = block
            .columns
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        let what = format!(
            "which column holds the gene ids is not known; there are {}\n\
             hint: name it: --gene-id-column",
            known.join(", ")
        );
        return Err(ScdlError::invalid(&folder.join(VAR), what));
    };
    let ids = column.texts();
    Ok(ids.into_iter().map(Option::unwrap_or_default).collect())
}
