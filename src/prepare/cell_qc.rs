//! `gene-bert cells qc`: figures of each cell of any number of files.
//!
//! Those of scanpy's `calculate_qc_metrics`, under its names: genes expressed, counts, the share of
//! the counts in the first genes, and in mitochondrial, ribosomal and haemoglobin genes. One pass;
//! lines go to the disk as the cells are read.

use std::path::Path;

use super::gene_sets::{Members, NAMES};
use super::passes::{FileChoice, FileSet, Progress, Rows};
use super::sketch::Sketch;
use super::{GenesError, PrepareError};
use crate::cell::CellSource;
use crate::file::TableWriter;
use crate::h5ad::H5ad;

/// Most files that are named in notes.
const NAMED: usize = 5;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The files.
    pub choice: FileChoice,
    /// Numbers of genes whose share of the counts is told.
    pub percent_top: Vec<usize>,
    /// The column of var with gene symbols; `None`: one that sounds like it, else the index.
    pub symbol_column: Option<String>,
}

/// What was found, beside the table.
#[derive(Debug, Clone, PartialEq)]
pub struct CellQc {
    /// Files read.
    pub num_files: usize,
    /// Cells read.
    pub num_cells: u64,
    /// Medians over the cells: genes, counts, percent mitochondrial.
    pub medians: [Option<f64>; 3],
    /// What a user should know although nothing is wrong.
    pub notes: Vec<String>,
}

/// Of a file, made when it is opened.
struct Opened {
    cells: Vec<String>,
    members: Members,
}

/// A line of the table, and what the medians are of.
struct Line {
    fields: Vec<String>,
    figures: [Option<f32>; 3],
}

/// Reads the files and writes the table to `output`, whole or not at all.
///
/// # Errors
/// Files that cannot be read, a column of symbols that a file lacks, an output that cannot be
/// written.
pub fn cell_qc(
    request: &Request,
    output: &Path,
    progress: Progress<'_>,
) -> Result<CellQc, PrepareError> {
    if request.percent_top.contains(&0) {
        return Err(GenesError::Number {
            flag: "percent-top",
            given: "0".to_owned(),
            expected: "numbers of genes, at least 1",
        }
        .into());
    }
    let mut notes = Vec::new();
    let files = FileSet::new(&request.choice, |file| {
        let members = Members::of(file, request.symbol_column.as_deref())?;
        if !members.has(0) && notes.len() < NAMED {
            notes.push(format!(
                "{}: no gene is known as mitochondrial; --symbol-column names the column of var \
                 with gene symbols",
                file.path().display()
            ));
        }
        Ok(())
    })?;
    let header = header(&request.percent_top);
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut table = TableWriter::new(output, &header)?;
    let mut middles = [const { Sketch::new() }; 3];
    let open = |file: &H5ad| {
        Ok(Opened {
            cells: file.cell_names().map_err(PrepareError::Source)?,
            members: Members::of(file, request.symbol_column.as_deref())?,
        })
    };
    let map = |rows: Rows<'_, Opened>| Ok(lines(&rows, &request.percent_top));
    let merge = |lines: Vec<Line>| {
        for line in lines {
            for (middle, figure) in middles.iter_mut().zip(line.figures) {
                figure.into_iter().for_each(|figure| middle.add(figure));
            }
            table.row(line.fields)?;
        }
        Ok(())
    };
    files.pass(open, map, merge, progress)?;
    table.finish()?;
    Ok(CellQc {
        num_files: files.len(),
        num_cells: files.num_cells(),
        medians: middles.map(|middle| middle.median()),
        notes,
    })
}

fn header(percent_top: &[usize]) -> Vec<String> {
    let mut names: Vec<String> = ["cell", "file", "n_genes_by_counts", "total_counts"]
        .map(str::to_owned)
        .to_vec();
    let top = percent_top.iter();
    names.extend(top.map(|n| format!("pct_counts_in_top_{n}_genes")));
    for set in NAMES {
        names.push(format!("total_counts_{set}"));
        names.push(format!("pct_counts_{set}"));
    }
    names
}

fn lines(rows: &Rows<'_, Opened>, percent_top: &[usize]) -> Vec<Line> {
    let path = rows.source.path().display().to_string();
    let cells = (rows.first as usize..).zip(rows.cells.outer_iterator());
    let line = |(row, cell): (usize, sprs::CsVecViewI<'_, f32, u32>)| {
        let name = rows.opened.cells.get(row).cloned().unwrap_or_default();
        let total: f64 = cell.data().iter().map(|&v| f64::from(v)).sum();
        let percent = |part: f64| 100.0 * part / total;
        let mut fields = vec![
            name,
            path.clone(),
            cell.nnz().to_string(),
            number(Some(total)),
        ];
        for part in in_top(cell.data(), percent_top) {
            fields.push(number((total > 0.0).then(|| percent(part))));
        }
        let mut figures = [Some(cell.nnz() as f32), Some(total as f32), None];
        for set in 0..NAMES.len() {
            let known = rows.opened.members.has(set);
            let is_in = |column: &u32| rows.opened.members.is_in(*column, set);
            let entries = cell.indices().iter().zip(cell.data());
            let part: f64 = entries
                .filter(|(column, _)| is_in(column))
                .map(|(_, &v)| f64::from(v))
                .sum();
            let share = (known && total > 0.0).then(|| percent(part));
            fields.extend([number(known.then_some(part)), number(share)]);
            if set == 0 {
                figures[2] = share.map(|share| share as f32);
            }
        }
        Line { fields, figures }
    };
    cells.map(line).collect()
}

fn number(value: Option<f64>) -> String {
    // An empty sum is -0.
    value.map(|v| (v + 0.0).to_string()).unwrap_or_default()
}

/// The sum of the largest values, for each number of them.
fn in_top<'a>(values: &[f32], numbers: &'a [usize]) -> impl Iterator<Item = f64> + use<'a> {
    let mut sorted = values.to_vec();
    let most = numbers.iter().copied().max().unwrap_or(0);
    let descending = |a: &f32, b: &f32| b.total_cmp(a);
    if most > 0 && most < sorted.len() {
        sorted.select_nth_unstable_by(most - 1, descending);
        sorted.truncate(most);
    }
    sorted.sort_unstable_by(descending);
    numbers.iter().map(move |&number| {
        let top = sorted.get(..number).unwrap_or(&sorted);
        top.iter().map(|&v| f64::from(v)).sum()
    })
}
