//! Embeddings of evaluated cells: where they lie in the plane, and whether cells of one label lie
//! together.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;

use super::answer::Found;
use super::subject::{Cells, Subject};
use super::summary::{EmbeddingSummary, LabelSummary};
use super::units::Units;
use crate::classical::{Moments, cluster, layout};
use crate::infer::embed::{Pooling, pooled};
use crate::infer::{Checkpoint, Model};
use crate::loader::{
    Collator, EvalMasking, Loader, LoaderConfig, MlmCollator, MlmConfig, PlainCollator, Sampler,
    SamplerConfig, Selection, Shuffle,
};
use crate::metrics::clustering::{adjusted_rand_index, normalized_mutual_information, silhouette};

/// Embeddings of some cells of a data set.
#[derive(Debug, Clone)]
pub(super) struct Embedded {
    pub(super) cells: Vec<u64>,
    pub(super) width: usize,
    /// [cells, width].
    pub(super) values: Vec<f32>,
}

/// Where cells lie in the plane.
#[derive(Debug, Clone)]
pub struct Map {
    /// The cells, as cells of the data set.
    pub cells: Vec<u64>,
    /// The first two principal components.
    pub components: Vec<[f32; 2]>,
    /// A layout that keeps neighbours together.
    pub neighbours: Vec<[f32; 2]>,
    /// What points can be coloured by.
    pub colourings: Vec<Colouring>,
}

/// The values of one obs column.
#[derive(Debug, Clone)]
pub struct Colouring {
    /// The column.
    pub name: String,
    /// Its values.
    pub names: Vec<String>,
    /// The value of each cell of the map; `None`: it has none, or one the model does not know.
    pub class_of: Vec<Option<u32>>,
}

/// Embeds cells with all phenotypes hidden (a classifier sees what it was trained to see).
pub(super) fn embed(
    checkpoint: &Checkpoint,
    (cells, selection): (&Cells, &Selection),
    pooling: &Pooling,
    loader: &LoaderConfig,
    seen: &mut dyn FnMut(u64),
) -> Result<Embedded> {
    let collator: Arc<dyn Collator> = match &checkpoint.model {
        Model::Classifier(..) => Arc::new(PlainCollator),
        Model::MaskedLM(_) => {
            let (nothing, hidden) = (MlmConfig::default(), EvalMasking::AllPhenotypes);
            let vocabulary = &checkpoint.vocabulary;
            Arc::new(MlmCollator::evaluation(
                vocabulary, &nothing, 0, None, &hidden,
            )?)
        }
    };
    let order = SamplerConfig {
        shuffle: Shuffle::Sequential,
        ..SamplerConfig::default()
    };
    let sampler = Sampler::new(order, selection.clone(), cells.data.len())?;
    let data = Arc::clone(&cells.data);
    let mut loader = Loader::new(data, sampler, collator, loader.clone())?;
    let mut embedded = Embedded {
        cells: Vec::new(),
        width: checkpoint.config.hidden_size,
        values: Vec::new(),
    };
    while let Some(batch) = loader.next_batch()? {
        if batch.num_cells() == 0 {
            continue;
        }
        let states = pooled(checkpoint, &batch, pooling)?; // [B, D]
        embedded
            .values
            .extend(states.flatten_all()?.to_vec1::<f32>()?);
        embedded.cells.extend_from_slice(&batch.cells);
        seen(batch.num_cells() as u64);
    }
    Ok(embedded)
}

/// Lays the cells out, and compares clusters of them with their labels.
pub(super) fn draw(
    embedded: Embedded,
    (subject, found): (&Subject, &[Found]),
    (group_by, groups): (Option<&str>, Option<&Units>),
    pooling: &Pooling,
) -> (Map, EmbeddingSummary) {
    let Embedded {
        cells,
        width,
        values,
    } = embedded;
    let seed = subject.seed;
    let mut colourings: Vec<Colouring> = Vec::new();
    for column in found {
        if !colourings.iter().any(|other| other.name == column.category) {
            colourings.push(by_label(column, &cells));
        }
    }
    let labels = colourings
        .iter()
        .filter_map(|labels| compare(labels, width, &values, seed));
    let summary = EmbeddingSummary {
        pooling: pooling.to_string(),
        num_cells: cells.len() as u64,
        width,
        labels: labels.collect(),
    };
    if let (Some(name), Some(units)) = (group_by, groups)
        && !colourings.iter().any(|other| other.name == name)
    {
        let class_of = cells.iter().map(|&cell| Some(units.of_cell[cell as usize]));
        colourings.push(Colouring {
            name: name.to_owned(),
            names: units.names.clone(),
            class_of: class_of.collect(),
        });
    }
    let map = Map {
        components: components(&values, width),
        neighbours: layout(&values, width, seed),
        cells,
        colourings,
    };
    (map, summary)
}

fn by_label(found: &Found, cells: &[u64]) -> Colouring {
    let column = &found.column;
    let truths = column.cells.iter().zip(column.predictions.truths());
    let class_of: BTreeMap<u64, u32> = truths.map(|(cell, truth)| (*cell, *truth)).collect();
    Colouring {
        name: found.category.clone(),
        names: column.names.clone(),
        class_of: cells
            .iter()
            .map(|cell| class_of.get(cell).copied())
            .collect(),
    }
}

/// As many clusters as labels, against the labels; `None` where there are no two labels.
fn compare(labels: &Colouring, width: usize, values: &[f32], seed: u64) -> Option<LabelSummary> {
    let rows = values.chunks_exact(width.max(1)).zip(&labels.class_of);
    let (rows, classes): (Vec<&[f32]>, Vec<u32>) = rows
        .filter_map(|(row, class)| Some((row, (*class)?)))
        .unzip();
    let rows = rows.concat();
    let mut present = classes.clone();
    present.sort_unstable();
    present.dedup();
    if present.len() < 2 {
        return None;
    }
    let clusters = cluster(&rows, width, present.len(), seed);
    Some(LabelSummary {
        category: labels.name.clone(),
        num_classes: present.len(),
        adjusted_rand_index: adjusted_rand_index(&classes, &clusters),
        normalized_mutual_information: normalized_mutual_information(&classes, &clusters),
        silhouette: silhouette(&rows, width, &classes),
    })
}

fn components(values: &[f32], width: usize) -> Vec<[f32; 2]> {
    let mut moments = Moments::new(width);
    let rows = || values.chunks_exact(width.max(1));
    rows().for_each(|row| moments.add(row));
    let found = moments.components(2);
    let place = |row: &[f32]| {
        let place = found.project(row);
        [0, 1].map(|axis| place.get(axis).copied().unwrap_or(0.0))
    };
    rows().map(place).collect()
}
