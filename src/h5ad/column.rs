//! A column of `obs` or `var`, and what it becomes: labels, or numbers and texts.
//!
//! | in the file | here |
//! |---|---|
//! | group of `categories` + `codes` (anndata ≥ 0.8) | categories |
//! | codes, categories in `__categories/<name>` (0.7) | categories |
//! | codes in a compound array, categories in `uns/<name>_categories` (< 0.7) | categories |
//! | group of `values` + `mask` (nullable integer, boolean, string) | numbers, booleans, texts |
//! | plain array | numbers, booleans, texts |

use std::collections::HashMap;

use crate::cell::Labels;

/// A column of `var`: what gene rankings and gene ids are read from.
#[derive(Debug, Clone, PartialEq)]
pub enum VarColumn {
    /// Numbers (booleans as 0 and 1); NaN where missing.
    Numbers(Vec<f64>),
    /// Texts; `None` where missing.
    Texts(Vec<Option<String>>),
}

/// A column as read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Column {
    Categories {
        categories: Vec<String>,
        codes: Vec<i32>,
    },
    Texts(Vec<Option<String>>),
    Integers(Vec<Option<i64>>),
    Booleans(Vec<Option<bool>>),
    /// NaN where missing; `single` where the file holds 32 bits, for the shortest text.
    Floats {
        values: Vec<f64>,
        single: bool,
    },
}

impl Column {
    pub(super) fn len(&self) -> usize {
        match self {
            Column::Categories { codes, .. } => codes.len(),
            Column::Texts(values) => values.len(),
            Column::Integers(values) => values.len(),
            Column::Booleans(values) => values.len(),
            Column::Floats { values, .. } => values.len(),
        }
    }

    /// The entries as texts, `None` where missing.
    pub(super) fn into_texts(self) -> Vec<Option<String>> {
        match self {
            Column::Categories { categories, codes } => codes
                .into_iter()
                .map(|code| categories.get(usize::try_from(code).ok()?).cloned())
                .collect(),
            Column::Texts(values) => values,
            Column::Integers(values) => texts(values),
            Column::Booleans(values) => values
                .into_iter()
                .map(|value| value.map(|v| boolean_text(v).to_owned()))
                .collect(),
            Column::Floats { values, single } => values
                .into_iter()
                .map(|value| (!value.is_nan()).then(|| float_text(value, single)))
                .collect(),
        }
    }

    /// Names of cells or genes: a missing one is empty.
    pub(super) fn into_names(self) -> Vec<String> {
        self.into_texts()
            .into_iter()
            .map(Option::unwrap_or_default)
            .collect()
    }

    /// As categories and codes. Categories keep the file's order; other values are sorted, numbers
    /// by size.
    pub(super) fn into_labels(self) -> Labels {
        match self {
            Column::Categories { categories, codes } => {
                let codes = codes.into_iter().map(|code| code.max(-1)).collect();
                Labels { categories, codes }
            }
            Column::Texts(values) => {
                let mut distinct: Vec<&String> = values.iter().flatten().collect();
                distinct.sort();
                distinct.dedup();
                let categories = distinct.into_iter().cloned().collect();
                encode(categories, values.iter().map(|value| value.as_deref()))
            }
            Column::Integers(values) => {
                let mut distinct: Vec<i64> = values.iter().flatten().copied().collect();
                distinct.sort_unstable();
                distinct.dedup();
                let codes = values.iter().map(|value| match value {
                    Some(value) => distinct.binary_search(value).map_or(-1, |at| at as i32),
                    None => -1,
                });
                let codes = codes.collect();
                Labels {
                    categories: distinct.iter().map(i64::to_string).collect(),
                    codes,
                }
            }
            Column::Booleans(values) => {
                let present = |which| values.iter().flatten().any(|value| *value == which);
                let distinct: Vec<bool> = [false, true]
                    .into_iter()
                    .filter(|which| present(*which))
                    .collect();
                let categories = distinct
                    .iter()
                    .map(|v| boolean_text(*v).to_owned())
                    .collect();
                encode(
                    categories,
                    values.iter().map(|value| value.map(boolean_text)),
                )
            }
            Column::Floats { values, single } => {
                let mut distinct: Vec<f64> =
                    values.iter().copied().filter(|v| !v.is_nan()).collect();
                distinct.sort_by(f64::total_cmp);
                let mut categories: Vec<String> = distinct
                    .into_iter()
                    .map(|value| float_text(value, single))
                    .collect();
                categories.dedup();
                let entries: Vec<Option<String>> = Column::Floats { values, single }.into_texts();
                encode(categories, entries.iter().map(Option::as_deref))
            }
        }
    }

    /// As numbers where it holds numbers, as texts otherwise.
    pub(super) fn into_var_column(self) -> VarColumn {
        match self {
            Column::Integers(values) => VarColumn::Numbers(
                values
                    .into_iter()
                    .map(|value| value.map_or(f64::NAN, |v| v as f64))
                    .collect(),
            ),
            Column::Booleans(values) => VarColumn::Numbers(
                values
                    .into_iter()
                    .map(|value| value.map_or(f64::NAN, f64::from))
                    .collect(),
            ),
            Column::Floats { values, .. } => VarColumn::Numbers(values),
            texts => VarColumn::Texts(texts.into_texts()),
        }
    }
}

fn texts(values: Vec<Option<i64>>) -> Vec<Option<String>> {
    values
        .into_iter()
        .map(|value| value.map(|v| v.to_string()))
        .collect()
}

fn encode<'a>(categories: Vec<String>, entries: impl Iterator<Item = Option<&'a str>>) -> Labels {
    let places: HashMap<&str, i32> = categories
        .iter()
        .enumerate()
        .map(|(at, text)| (text.as_str(), at as i32))
        .collect();
    let codes = entries
        .map(|entry| {
            entry
                .and_then(|text| places.get(text))
                .copied()
                .unwrap_or(-1)
        })
        .collect();
    Labels { codes, categories }
}

fn boolean_text(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// The shortest text that reads back as the value; whole numbers without a fraction.
fn float_text(value: f64, single: bool) -> String {
    let value = if value == 0.0 { 0.0 } else { value };
    if single {
        (value as f32).to_string()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_categories_in_order_of_size() {
        let labels = Column::Integers(vec![Some(10), None, Some(9), Some(10)]).into_labels();
        assert_eq!(labels.categories, ["9", "10"]);
        assert_eq!(labels.codes, [1, -1, 0, 1]);
        let values = vec![1.0, f64::NAN, f64::from(0.1f32), -0.0, 0.0];
        let labels = Column::Floats {
            values,
            single: true,
        }
        .into_labels();
        assert_eq!(labels.categories, ["0", "0.1", "1"]);
        assert_eq!(labels.codes, [2, -1, 1, 0, 0]);
    }

    #[test]
    fn booleans_and_texts_keep_missing_values() {
        let labels = Column::Booleans(vec![Some(true), None, Some(true)]).into_labels();
        assert_eq!(
            (labels.categories, labels.codes),
            (vec!["True".to_owned()], vec![0, -1, 0])
        );
        let entries = vec![Some("b".to_owned()), None, Some("a".to_owned())];
        let labels = Column::Texts(entries).into_labels();
        assert_eq!(labels.categories, ["a", "b"]);
        assert_eq!(labels.codes, [1, -1, 0]);
    }
}
