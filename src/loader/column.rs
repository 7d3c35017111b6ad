//! An obs column over all files: its values, and what an order makes of them.
//!
//! Values are compared as texts, so that files may encode the column differently. Of each file's
//! column only one code per cell stays in memory.

use std::collections::HashMap;

use super::data_set::DataSet;
use super::error::LoaderError;
use super::groups::Groups;
use super::sampler::{Basis, Sampler, SamplerConfig, Selection};
use super::weights::Weights;
use crate::cell::CellSource;

/// One obs column of several sources, one below the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CellColumn {
    /// The distinct values, in the order of the sources that have them first.
    pub values: Vec<String>,
    /// For each cell an index into `values`, `None` where it has no value.
    pub codes: Vec<Option<u32>>,
}

impl CellColumn {
    /// Reads `column` of every source.
    ///
    /// # Errors
    /// A source without the column, or an unreadable one.
    pub fn read<'a>(
        sources: impl IntoIterator<Item = &'a dyn CellSource>,
        column: &str,
    ) -> Result<Self, LoaderError> {
        let mut known: HashMap<String, u32> = HashMap::new();
        let mut read = Self::default();
        for source in sources {
            let labels = source.labels(column).map_err(|cause| LoaderError::Column {
                path: source.path().to_path_buf(),
                column: column.to_owned(),
                cause,
            })?;
            let mut code_of = vec![None; labels.categories.len()];
            for code in labels.codes {
                let Some(code) = usize::try_from(code).ok().filter(|c| *c < code_of.len()) else {
                    read.codes.push(None);
                    continue;
                };
                let code = code_of[code].get_or_insert_with(|| {
                    let value = &labels.categories[code];
                    *known.entry(value.clone()).or_insert_with(|| {
                        read.values.push(value.clone());
                        (read.values.len() - 1) as u32
                    })
                });
                read.codes.push(Some(*code));
            }
        }
        Ok(read)
    }

    /// 1 at the place of the cell's value, 0 elsewhere; all 0 where it has none or is not there.
    pub fn one_hot(&self, cell: u64) -> Vec<f32> {
        let code = usize::try_from(cell)
            .ok()
            .and_then(|cell| *self.codes.get(cell)?);
        let mut one_hot = vec![0.0; self.values.len()];
        if let Some(place) = code.and_then(|code| one_hot.get_mut(code as usize)) {
            *place = 1.0;
        }
        one_hot
    }

    /// Several columns of the same cells as one: a value for each combination that occurs, written
    /// `a | b`, in the order of the cells that have them first; a cell that lacks one has none.
    pub fn product(columns: &[&Self]) -> Self {
        let num_cells = columns
            .iter()
            .map(|column| column.codes.len())
            .min()
            .unwrap_or(0);
        let mut known: HashMap<Vec<u32>, u32> = HashMap::new();
        let mut product = Self::default();
        for cell in 0..num_cells {
            let codes: Option<Vec<u32>> = columns.iter().map(|column| column.codes[cell]).collect();
            product.codes.push(codes.map(|codes| {
                let value = |(column, code): (&&Self, &u32)| column.values[*code as usize].clone();
                *known.entry(codes).or_insert_with_key(|codes| {
                    let values: Vec<String> = columns.iter().zip(codes).map(value).collect();
                    product.values.push(values.join(" | "));
                    (product.values.len() - 1) as u32
                })
            }));
        }
        product
    }

    /// The codes of the selected cells.
    fn selected(&self, selection: &Selection) -> Vec<Option<u32>> {
        match selection {
            Selection::All => self.codes.clone(),
            Selection::Rows(rows) => rows.iter().map(|&row| self.codes[row as usize]).collect(),
        }
    }
}

/// The obs column that an order goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderBy {
    /// Every value equally often; a cell without a value never.
    Balance(String),
    /// Each cell as often as this number says; a cell without one never.
    Weight(String),
    /// Batches of cells of the same value; a cell without a value is in none.
    Group(String),
}

impl OrderBy {
    /// A plan in this order, and the number of selected cells that it leaves out.
    ///
    /// # Errors
    /// As [`Sampler::by`]; a source without the column; a value that is no number from 0 up where
    /// one is needed; no cell with a value.
    pub fn sampler(
        &self,
        config: SamplerConfig,
        selection: Selection,
        data: &DataSet,
    ) -> Result<(Sampler, u64), LoaderError> {
        let (Self::Balance(column) | Self::Weight(column) | Self::Group(column)) = self;
        let read = CellColumn::read(data.sources(), column)?;
        let mut codes = read.selected(&selection);
        let unusable = || LoaderError::NoValue {
            column: column.clone(),
        };
        let basis = match self {
            Self::Balance(_) => Basis::Weights(Weights::balanced(&codes).ok_or_else(unusable)?),
            Self::Weight(_) => {
                let numbers = numbers(&read.values, column)?;
                codes.iter_mut().for_each(|code| {
                    *code = code.filter(|code| numbers[*code as usize] > 0.0);
                });
                let weight = |code: &Option<u32>| code.map_or(0.0, |code| numbers[code as usize]);
                let weights = Weights::new(codes.iter().map(weight));
                Basis::Weights(weights.ok_or_else(unusable)?)
            }
            Self::Group(_) if codes.iter().flatten().next().is_none() => return Err(unusable()),
            Self::Group(_) => Basis::Groups(Groups::new(&codes)),
        };
        let left_out = codes.iter().filter(|code| code.is_none()).count() as u64;
        let sampler = Sampler::by(basis, config, selection, data.len())?;
        Ok((sampler, left_out))
    }
}

/// The values as weights.
fn numbers(values: &[String], column: &str) -> Result<Vec<f64>, LoaderError> {
    let number = |value: &String| {
        let number = value
            .parse()
            .ok()
            .filter(|n: &f64| n.is_finite() && *n >= 0.0);
        number.ok_or_else(|| LoaderError::NoWeight {
            column: column.to_owned(),
            value: value.clone(),
        })
    };
    values.iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(values: &[&str], codes: &[Option<u32>]) -> CellColumn {
        CellColumn {
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            codes: codes.to_vec(),
        }
    }

    #[test]
    fn products_have_the_combinations_that_occur() {
        let sex = column(&["f", "m"], &[Some(0), Some(1), Some(0), None, Some(0)]);
        let age = column(
            &["old", "young"],
            &[Some(1), Some(1), Some(0), Some(0), Some(1)],
        );
        let both = CellColumn::product(&[&sex, &age]);
        assert_eq!(both.values, ["f | young", "m | young", "f | old"]);
        assert_eq!(both.codes, [Some(0), Some(1), Some(2), None, Some(0)]);
        assert_eq!(both.one_hot(2), [0.0, 0.0, 1.0]);
        assert_eq!(both.one_hot(3), [0.0; 3]);
        assert_eq!(both.one_hot(9), [0.0; 3]);
        assert_eq!(CellColumn::product(&[]), CellColumn::default());
    }
}
