//! Where results go: columns and arrays of an h5ad file, or files of their own.
//!
//! Every file appears whole or not at all. CSV begins with the cells' names in column `cell`;
//! numbers are written so that they read back as the same f32. Embeddings, which are many, are
//! written while they are computed: [`streams`].

pub mod streams;

use std::path::Path;

use anyhow::{Context, Result};

use super::embed::GeneEmbeddings;
use super::predict::{CellPredictions, Prediction};
use crate::cell::Labels;
use crate::file::write_atomic;
use crate::h5ad::edit::{Additions, ObsColumn};

/// Predictions as columns of obs: `<category>_predicted`, `<category>_predicted_probability`, and,
/// for the second and third best, the same with `_2` and `_3` after `predicted`. Rows that were not
/// read have no value.
pub fn predictions_for_h5ad(predictions: &CellPredictions) -> Additions {
    let columns = predictions.columns.iter().flat_map(|prediction| {
        (0..prediction.num_best).flat_map(move |rank| {
            let (value, probability) = names(prediction, rank);
            let codes = prediction.at(rank).map(|(value, _)| value as i32).collect();
            let labels = Labels {
                categories: prediction.values.clone(),
                codes: predictions.rows.spread(codes, 1, -1),
            };
            let numbers = prediction.at(rank).map(|(_, probability)| probability);
            let numbers = predictions.rows.spread(numbers.collect(), 1, f32::NAN);
            [
                (value, ObsColumn::Categorical(labels)),
                (probability, ObsColumn::Numbers(numbers)),
            ]
        })
    });
    Additions {
        obs: columns.collect(),
        ..Additions::default()
    }
}

fn names(prediction: &Prediction, rank: usize) -> (String, String) {
    let number = match rank {
        0 => String::new(),
        rank => format!("_{}", rank + 1),
    };
    let name = format!("{}_predicted{number}", prediction.category);
    let probability = format!("{name}_probability");
    (name, probability)
}

impl Prediction {
    /// Value and probability of each cell's answer number `rank`, from 0.
    fn at(&self, rank: usize) -> impl Iterator<Item = (u32, f32)> {
        let num_best = self.num_best.max(1);
        let best = self.best.iter().skip(rank).step_by(num_best);
        let probabilities = self.probabilities.iter().skip(rank).step_by(num_best);
        best.copied().zip(probabilities.copied())
    }
}

/// Writes predictions as CSV, one line per cell.
///
/// # Errors
/// A file that cannot be written.
pub fn write_predictions(path: &Path, predictions: &CellPredictions) -> Result<()> {
    let mut header = vec!["cell".to_owned()];
    for prediction in &predictions.columns {
        for rank in 0..prediction.num_best {
            let (value, probability) = names(prediction, rank);
            header.extend([value, probability]);
        }
    }
    let lines = predictions
        .cell_names
        .iter()
        .enumerate()
        .map(|(cell, name)| {
            let mut line = vec![name.clone()];
            for prediction in &predictions.columns {
                for at in (0..prediction.num_best).map(|rank| cell * prediction.num_best + rank) {
                    line.push(prediction.values[prediction.best[at] as usize].clone());
                    line.push(prediction.probabilities[at].to_string());
                }
            }
            line
        });
    write_csv(path, &header, lines)
}

/// Writes embeddings of genes as CSV: `gene`, `num_cells`, then one column per number.
///
/// # Errors
/// A file that cannot be written.
pub fn write_genes(path: &Path, genes: &GeneEmbeddings) -> Result<()> {
    let width = genes.width;
    let header = streams::header(&["gene", "num_cells"], width);
    let rows = genes.values.chunks_exact(width.max(1));
    let names = genes.gene_ids.iter().zip(&genes.num_cells);
    let lines = names.zip(rows).map(|((gene, num_cells), row)| {
        let mut line = vec![gene.clone(), num_cells.to_string()];
        line.extend(row.iter().map(f32::to_string));
        line
    });
    write_csv(path, &header, lines)
}

fn write_csv(
    path: &Path,
    header: &[String],
    lines: impl Iterator<Item = Vec<String>>,
) -> Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let context = || format!("{}: cannot be put into CSV", path.display());
    writer.write_record(header).with_context(context)?;
    for line in lines {
        writer.write_record(&line).with_context(context)?;
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error());
    Ok(write_atomic(path, &bytes.with_context(context)?)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::infer::Rows;

    #[test]
    fn predictions_become_columns_and_lines() {
        let predictions = CellPredictions {
            rows: Rows {
                read: vec![0, 1],
                num_rows: 2,
            },
            cell_names: vec!["a,1".into(), "b".into()],
            columns: vec![Prediction {
                category: "tissue".into(),
                values: vec!["lung".into(), "liver".into()],
                num_best: 2,
                best: vec![1, 0, 0, 1],
                probabilities: vec![0.75, 0.25, 0.5, 0.5],
                agreement: None,
            }],
        };
        let added = predictions_for_h5ad(&predictions);
        let names: Vec<&str> = added.obs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[0], "tissue_predicted");
        assert_eq!(names[3], "tissue_predicted_2_probability");
        assert_eq!(added.obs[3].1, ObsColumn::Numbers(vec![0.25, 0.5]));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.csv");
        write_predictions(&path, &predictions).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\n\"a,1\",liver,0.75,lung,0.25\n"), "{text}");
    }
}
