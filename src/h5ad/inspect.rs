//! Reads everything about a file that a user should know before training on it.
//!
//! Nothing here fails for what is merely odd: a matrix or column that cannot be read becomes a
//! problem in the report, and the rest is still told.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::column::Column;
use super::container::{Container, Node};
use super::genes::{style, style_of};
use super::matrix::Matrix;
use super::report::{ColumnReport, GeneReport, GeneStyle, MatrixReport, Report, ValueKind};
use super::scan::Scan;
use super::table::Table;
use super::{H5adError, MatrixKey};

/// Gene ids, category values and such that are shown.
const NUM_SHOWN: usize = 5;

/// Inspects a file, reading every value of every matrix once.
///
/// # Errors
/// The file is missing or is no whole HDF5 file.
pub fn inspect(path: &Path) -> Result<Report, H5adError> {
    inspect_with(path, &mut |_, _| {})
}

/// As [`inspect`]; `progress` is told which matrix is being read, and the share that is done.
///
/// # Errors
/// The file is missing or is no whole HDF5 file.
pub fn inspect_with(path: &Path, progress: &mut dyn FnMut(&str, f64)) -> Result<Report, H5adError> {
    let container = Arc::new(Container::open(path)?);
    let obs = Table::open(&container, "obs")?;
    let var = Table::open(&container, "var")?;
    let mut problems = Vec::new();
    let cells = names(&obs, "cell", &mut problems);
    let genes = names(&var, "gene", &mut problems);
    let expected = (cells.len() as u64, genes.len() as u64);
    let mut report = Report {
        path: path.to_owned(),
        bytes: container.bytes(),
        num_cells: expected.0,
        num_genes: expected.1,
        encoding: generation(&container)?,
        user_block_bytes: container.addressing().1,
        matrices: Vec::new(),
        counts_in: Vec::new(),
        genes: gene_report(&var, &genes),
        obs: Vec::new(),
        problems,
    };
    report.check_genes(&genes);
    report.read_matrices(&container, expected, progress)?;
    report.read_columns(&obs);
    Ok(report)
}

/// The index of a table; what is odd about it joins the problems.
fn names(table: &Table, what: &str, problems: &mut Vec<String>) -> Vec<String> {
    let names = match table.index() {
        Ok(Some(names)) => names,
        Ok(None) => {
            problems.push(format!(
                "{}: there is no index: the {what}s have no names",
                table.key()
            ));
            return Vec::new();
        }
        Err(error) => {
            problems.push(describe(&error));
            return Vec::new();
        }
    };
    let mut seen = HashSet::with_capacity(names.len());
    let repeated: Vec<&String> = names
        .iter()
        .filter(|name| !seen.insert(name.as_str()))
        .collect();
    if let Some(first) = repeated.first() {
        let count = repeated.len();
        problems.push(format!(
            "{}: {count} {what} names occur again, {first:?} first",
            table.key()
        ));
    }
    let empty = names.iter().filter(|name| name.is_empty()).count();
    if empty > 0 {
        problems.push(format!("{}: {empty} {what} names are empty", table.key()));
    }
    names
}

/// Which anndata wrote the file.
fn generation(container: &Container) -> Result<String, H5adError> {
    let root = container.root_attributes()?;
    if root.text("encoding-type") == Some("anndata") {
        let version = root.text("encoding-version").unwrap_or("?");
        return Ok(format!("anndata 0.8 or later (encoding {version})"));
    }
    let node = container.node("obs")?;
    let attributes = container.attributes("obs", &node)?;
    Ok(match (&node, attributes.text("encoding-type")) {
        (Node::Dataset(_), _) => "anndata before 0.7 (compound tables)".into(),
        (Node::Group(_), Some("dataframe")) => "anndata 0.7".into(),
        (Node::Group(_), _) => "something that names no encoding".into(),
        (Node::Absent, _) => "something that is not anndata: there is no obs".into(),
    })
}

fn gene_report(var: &Table, ids: &[String]) -> GeneReport {
    let holds_ensembl = |name: &&String| match var.column(name) {
        Ok(Some(column @ (Column::Texts(_) | Column::Categories { .. }))) => {
            let texts = column.into_texts();
            let style = style_of(texts.iter().flatten().map(String::as_str));
            matches!(style, GeneStyle::Ensembl | GeneStyle::EnsemblWithVersion)
        }
        _ => false,
    };
    GeneReport {
        index: var.index_name().map(str::to_owned),
        style: style_of(ids.iter().map(String::as_str)),
        first: ids.iter().take(NUM_SHOWN).cloned().collect(),
        ensembl_columns: var
            .column_names()
            .iter()
            .filter(holds_ensembl)
            .cloned()
            .collect(),
        columns: var.column_names().to_vec(),
    }
}

impl Report {
    fn check_genes(&mut self, ids: &[String]) {
        if self.genes.style == GeneStyle::EnsemblWithVersion {
            let stem = |id: &String| id.split('.').next().unwrap_or_default().to_owned();
            let stems: HashSet<String> = ids.iter().map(stem).collect();
            let merged = ids.len() - stems.len();
            self.problems.push(format!(
                "var: the Ensembl ids carry versions; without them {merged} ids coincide"
            ));
        }
        let mut odd = ids
            .iter()
            .filter(|id| style(id) != self.genes.style && !id.is_empty());
        if let (Some(first), true) = (odd.next(), self.genes.style != GeneStyle::Other) {
            let count = odd.count() + 1;
            let style = self.genes.style;
            self.problems.push(format!(
                "var: {count} gene ids are not {style}, {first:?} first"
            ));
        }
    }

    fn read_matrices(
        &mut self,
        container: &Arc<Container>,
        expected: (u64, u64),
        progress: &mut dyn FnMut(&str, f64),
    ) -> Result<(), H5adError> {
        let names = Matrix::available(container)?;
        if !names.iter().any(|name| name == "X") {
            self.problems.push("there is no X".into());
        }
        for name in names {
            let Ok(key) = name.parse::<MatrixKey>() else {
                continue;
            };
            progress(&name, 0.0);
            let mut on_piece = |share: f64| progress(&name, share);
            match self.read_matrix(container, &key, expected, &mut on_piece) {
                Ok(matrix) => self.matrices.push(matrix),
                Err(error) => self.problems.push(describe(&error)),
            }
        }
        let counts = self
            .matrices
            .iter()
            .filter(|m| m.values == ValueKind::IntegerCounts);
        self.counts_in = counts.map(|matrix| matrix.name.clone()).collect();
        if self.counts_in.is_empty() && self.matrices.iter().any(|m| m.values != ValueKind::Empty) {
            self.problems.push("no matrix holds integer counts".into());
        }
        Ok(())
    }

    fn read_matrix(
        &mut self,
        container: &Arc<Container>,
        key: &MatrixKey,
        expected: (u64, u64),
        progress: &mut dyn FnMut(f64),
    ) -> Result<MatrixReport, H5adError> {
        let expected = match key {
            MatrixKey::RawX => {
                let var = Table::open(container, &Matrix::var_key(container, key)?)?;
                (expected.0, var.num_rows()?.unwrap_or(0))
            }
            _ => expected,
        };
        let matrix = Matrix::open(container, key, expected)?;
        let shape = matrix.shape().unwrap_or_default();
        if shape != expected {
            let what = format!("expected the shape {expected:?} of obs and var, found {shape:?}");
            return Err(container.invalid(matrix.key(), what));
        }
        let scan = Scan::of(container, &matrix, progress)?;
        self.check_matrix(&key.to_string(), &matrix, &scan);
        let (data, indices) = match &matrix {
            Matrix::Sparse { sparse, .. } => (Some(sparse.data()), Some(sparse.indices())),
            Matrix::Dense { dense, .. } => (Some(dense.data()), None),
            Matrix::Absent { .. } => (None, None),
        };
        Ok(MatrixReport {
            name: key.to_string(),
            encoding: matrix.encoding().into(),
            shape,
            value_type: data
                .map(|data| data.number.kind.name().to_owned())
                .unwrap_or_default(),
            index_type: indices.map(|indices| indices.number.kind.name().to_owned()),
            chunks: data.map(|data| data.chunks.clone()).unwrap_or_default(),
            compression: data.map(|data| data.compression()).unwrap_or_default(),
            values: scan.kind(),
            range: scan.range(),
            num_nonzero: scan.num_nonzero(),
            nonzero_per_cell: scan.spread(),
        })
    }

    fn check_matrix(&mut self, name: &str, matrix: &Matrix, scan: &Scan) {
        let by_column = matrix.by_column();
        let major = if by_column { "columns" } else { "rows" };
        let mut add = |count: u64, what: &str| {
            if count > 0 {
                self.problems.push(format!("{name}: {count} {what}"));
            }
        };
        add(scan.num_nan, "values are NaN");
        add(scan.num_infinite, "values are infinite");
        add(scan.num_negative, "values are negative");
        add(
            scan.num_unsorted,
            &format!("{major} have unsorted indices (sorted as they are read)"),
        );
        add(
            scan.num_duplicates,
            "entries stand at a place that has one already (they are summed)",
        );
        add(
            scan.num_explicit_zeros,
            "zeros are stored (they are dropped)",
        );
        add(
            scan.num_empty_cells() as u64,
            "cells have no non-zero value",
        );
        if by_column {
            self.problems.push(format!(
                "{name}: compressed by column, so that reading cells means turning it round in \
                 memory or scanning all of it; write it as csr_matrix for training"
            ));
        }
    }

    fn read_columns(&mut self, obs: &Table) {
        for name in obs.column_names() {
            match obs.column(name) {
                Ok(Some(column)) => {
                    if column.len() as u64 != self.num_cells {
                        let (found, cells) = (column.len(), self.num_cells);
                        self.problems
                            .push(format!("obs/{name}: {found} entries for {cells} cells"));
                    }
                    self.obs.push(column_report(name, column));
                }
                Ok(None) => {}
                Err(error) => self.problems.push(describe(&error)),
            }
        }
    }
}

fn column_report(name: &str, column: Column) -> ColumnReport {
    let kind = match &column {
        Column::Categories { .. } => "categories",
        Column::Texts(_) => "texts",
        Column::Integers(_) => "integers",
        Column::Booleans(_) => "booleans",
        Column::Floats { .. } => "floats",
    };
    let range = number_range(&column);
    let labels = column.into_labels();
    let mut cells: HashMap<i32, usize> = HashMap::new();
    for code in &labels.codes {
        *cells.entry(*code).or_default() += 1;
    }
    let num_missing = cells.remove(&-1).unwrap_or(0);
    let mut counts: Vec<(i32, usize)> = cells.into_iter().collect();
    counts.sort_by_key(|(code, count)| (std::cmp::Reverse(*count), *code));
    let value = |code: i32| labels.categories.get(usize::try_from(code).ok()?).cloned();
    let first = counts.into_iter().take(NUM_SHOWN);
    let first = first
        .filter_map(|(code, count)| Some((value(code)?, count)))
        .collect();
    ColumnReport {
        name: name.to_owned(),
        kind,
        num_values: labels.categories.len(),
        num_missing,
        range,
        first,
    }
}

fn number_range(column: &Column) -> Option<(f64, f64)> {
    let numbers: Vec<f64> = match column {
        Column::Integers(values) => values.iter().flatten().map(|value| *value as f64).collect(),
        Column::Floats { values, .. } => values.iter().copied().filter(|v| !v.is_nan()).collect(),
        _ => return None,
    };
    let least = numbers.iter().copied().reduce(f64::min)?;
    Some((least, numbers.into_iter().fold(least, f64::max)))
}

/// An error and its causes in one line, without the file's name.
fn describe(error: &H5adError) -> String {
    let mut text = match error {
        H5adError::Invalid { key, what, .. } => format!("{key}: {what}"),
        H5adError::Hdf5 { key, .. } => format!("{key}: cannot be read"),
        H5adError::Filter { key, filter, .. } => {
            format!("{key}: compressed with {filter}, which is not supported")
        }
        other => other.to_string(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
