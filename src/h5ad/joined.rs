//! The tables of several files as one: columns under each other, rows chosen from them.
//!
//! Columns of the same kind stay what they are; integers and floats become floats; anything
//! else of two kinds becomes texts, or categories where one file has them. Where a file lacks a
//! column its rows are missing. Categories stand in the order of their first file.

use std::collections::HashMap;

use super::column::Column;
use super::table::Table;
use super::writer::{Output, TableWriter};
use super::{H5ad, H5adError};
use crate::cell::CellSource;

/// Which table of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// One row for each cell.
    Obs,
    /// One row for each gene.
    Var,
}

/// The tables of several files, one under the other.
#[derive(Debug)]
pub struct JoinedTable<'a> {
    files: &'a [H5ad],
    part: Part,
}

/// A column of a table, to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct TableColumn {
    column: Column,
    ordered: bool,
}

impl<'a> JoinedTable<'a> {
    /// One of the tables of `files`.
    pub fn new(files: &'a [H5ad], part: Part) -> Self {
        Self { files, part }
    }

    fn table<'b>(&self, file: &'b H5ad) -> &'b Table {
        match self.part {
            Part::Obs => &file.obs,
            Part::Var => &file.var,
        }
    }

    fn rows(&self, file: &H5ad) -> usize {
        match self.part {
            Part::Obs => file.num_cells() as usize,
            Part::Var => file.gene_ids().len(),
        }
    }

    /// The name of the index in the first file.
    pub fn index_name(&self) -> &str {
        let first = self.files.first();
        first
            .and_then(|file| self.table(file).index_name())
            .unwrap_or_default()
    }

    /// The names of all columns, in the order in which the files bring them.
    pub fn column_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self
            .files
            .iter()
            .flat_map(|file| self.table(file).column_names())
        {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// The index of all rows.
    ///
    /// # Errors
    /// Unreadable data; not one name for each row.
    pub fn names(&self) -> Result<Vec<String>, H5adError> {
        let mut names = Vec::new();
        for file in self.files {
            match self.part {
                Part::Obs => names.extend(file.names()?),
                Part::Var => names.extend_from_slice(file.gene_ids()),
            }
        }
        Ok(names)
    }

    /// The column `name` of all rows.
    ///
    /// # Errors
    /// Unreadable data; not one entry for each row.
    pub fn column(&self, name: &str) -> Result<TableColumn, H5adError> {
        let mut parts = Vec::new();
        let mut ordered = Vec::new();
        for file in self.files {
            let table = self.table(file);
            let has = table.column_names().iter().any(|have| have == name);
            let column = if has { table.column(name)? } else { None };
            let rows = self.rows(file);
            if let Some(column) = &column {
                file.check_length(table, name, column.len(), rows)?;
                ordered.push(match column {
                    Column::Categories { categories, .. } if table.is_ordered(name)? => {
                        Some(categories.clone())
                    }
                    _ => None,
                });
            }
            parts.push((column, rows));
        }
        let same =
            |first: &Option<Vec<String>>| first.is_some() && ordered.iter().all(|o| o == first);
        Ok(TableColumn {
            column: join(parts),
            ordered: ordered.first().is_some_and(same),
        })
    }
}

/// The entries of a column, by their kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Entries {
    /// Texts and categories; `None` where missing.
    Texts(Vec<Option<String>>),
    /// Integers; `None` where missing.
    Integers(Vec<Option<i64>>),
    /// Booleans; `None` where missing.
    Booleans(Vec<Option<bool>>),
    /// Floats; NaN where missing.
    Floats(Vec<f64>),
}

impl TableColumn {
    /// Its entries.
    pub fn into_entries(self) -> Entries {
        match self.column {
            Column::Integers(values) => Entries::Integers(values),
            Column::Booleans(values) => Entries::Booleans(values),
            Column::Floats { values, .. } => Entries::Floats(values),
            texts @ (Column::Texts(_) | Column::Categories { .. }) => {
                Entries::Texts(texts.into_texts())
            }
        }
    }

    /// These rows of it.
    pub fn take(&self, rows: impl Iterator<Item = usize>) -> TableColumn {
        let ordered = self.ordered;
        let column = match &self.column {
            Column::Categories { categories, codes } => Column::Categories {
                categories: categories.clone(),
                codes: rows
                    .map(|row| codes.get(row).copied().unwrap_or(-1))
                    .collect(),
            },
            Column::Texts(values) => {
                Column::Texts(rows.map(|row| values.get(row).cloned().flatten()).collect())
            }
            Column::Integers(values) => {
                Column::Integers(rows.map(|row| values.get(row).copied().flatten()).collect())
            }
            Column::Booleans(values) => {
                Column::Booleans(rows.map(|row| values.get(row).copied().flatten()).collect())
            }
            Column::Floats { values, single } => Column::Floats {
                values: rows
                    .map(|row| values.get(row).copied().unwrap_or(f64::NAN))
                    .collect(),
                single: *single,
            },
        };
        TableColumn { column, ordered }
    }
}

impl TableWriter {
    /// Adds the column `name`.
    ///
    /// # Errors
    /// The disk is full.
    pub fn push(
        &mut self,
        output: &mut Output,
        name: &str,
        column: &TableColumn,
    ) -> Result<(), H5adError> {
        self.column(output, name, &column.column, column.ordered)
    }
}

/// Columns of several files under each other; `None` where a file has none for its rows.
fn join(parts: Vec<(Option<Column>, usize)>) -> Column {
    let present = || parts.iter().filter_map(|(column, _)| column.as_ref());
    let all = |fits: fn(&Column) -> bool| present().all(fits);
    if present().any(|column| matches!(column, Column::Categories { .. })) {
        return join_categories(parts);
    }
    if all(|column| matches!(column, Column::Integers(_))) {
        return Column::Integers(gather(parts, |column| match column {
            Column::Integers(values) => values,
            _ => Vec::new(),
        }));
    }
    if all(|column| matches!(column, Column::Booleans(_))) {
        return Column::Booleans(gather(parts, |column| match column {
            Column::Booleans(values) => values,
            _ => Vec::new(),
        }));
    }
    if all(|column| matches!(column, Column::Integers(_) | Column::Floats { .. })) {
        let single = all(|column| matches!(column, Column::Floats { single: true, .. }));
        let values = gather(parts, |column| match column {
            Column::Floats { values, .. } => values.into_iter().map(Some).collect(),
            Column::Integers(values) => values
                .into_iter()
                .map(|value| value.map(|v| v as f64))
                .collect(),
            _ => Vec::new(),
        });
        let values = values
            .into_iter()
            .map(|value| value.unwrap_or(f64::NAN))
            .collect();
        return Column::Floats { values, single };
    }
    Column::Texts(gather(parts, Column::into_texts))
}

fn gather<T: Clone>(
    parts: Vec<(Option<Column>, usize)>,
    values: impl Fn(Column) -> Vec<Option<T>>,
) -> Vec<Option<T>> {
    let mut out = Vec::new();
    for (column, rows) in parts {
        match column {
            Some(column) => out.extend(values(column)),
            None => out.resize(out.len() + rows, None),
        }
    }
    out
}

fn join_categories(parts: Vec<(Option<Column>, usize)>) -> Column {
    let mut categories: Vec<String> = Vec::new();
    let mut places: HashMap<String, i32> = HashMap::new();
    let mut codes: Vec<i32> = Vec::new();
    for (column, rows) in parts {
        let Some(column) = column else {
            codes.resize(codes.len() + rows, -1);
            continue;
        };
        let labels = column.into_labels();
        let map: Vec<i32> = labels
            .categories
            .into_iter()
            .map(|category| {
                let next = categories.len() as i32;
                *places.entry(category.clone()).or_insert_with(|| {
                    categories.push(category);
                    next
                })
            })
            .collect();
        let place = |code: &i32| {
            usize::try_from(*code)
                .ok()
                .and_then(|at| map.get(at).copied())
        };
        codes.extend(labels.codes.iter().map(|code| place(code).unwrap_or(-1)));
    }
    Column::Categories { categories, codes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn categories(names: &[&str], codes: &[i32]) -> Column {
        Column::Categories {
            categories: names.iter().map(|name| (*name).to_owned()).collect(),
            codes: codes.to_vec(),
        }
    }

    #[test]
    fn categories_keep_the_order_of_the_first_file() {
        let first = categories(&["b", "a"], &[0, 1, -1]);
        let second = categories(&["c", "a"], &[1, 0]);
        let joined = join(vec![(Some(first), 3), (None, 1), (Some(second), 2)]);
        assert_eq!(joined, categories(&["b", "a", "c"], &[0, 1, -1, -1, 1, 2]));
    }

    #[test]
    fn numbers_stay_numbers_and_mixtures_become_texts() {
        let integers = Column::Integers(vec![Some(2)]);
        let floats = Column::Floats {
            values: vec![0.5],
            single: true,
        };
        let joined = join(vec![(Some(integers.clone()), 1), (Some(floats), 1)]);
        let expected = Column::Floats {
            values: vec![2.0, 0.5],
            single: false,
        };
        assert_eq!(joined, expected);
        let joined = join(vec![(Some(integers.clone()), 1), (None, 1)]);
        assert_eq!(joined, Column::Integers(vec![Some(2), None]));
        let texts = Column::Texts(vec![Some("x".into())]);
        let joined = join(vec![(Some(integers), 1), (Some(texts), 1)]);
        let expected = vec![Some("2".to_owned()), Some("x".to_owned())];
        assert_eq!(joined, Column::Texts(expected));
    }
}
