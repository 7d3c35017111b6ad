//! What simple methods reach on the same cells, having learned from the same training cells:
//! logistic regression on principal components of the most variable genes, and a vote of the
//! nearest training cells by the model's own embeddings.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::answer::{Found, counted_up};
use super::expression::Expression;
use super::map::{Embedded, embed};
use super::subject::{Cells, NO_TRAINING, Question, Subject};
use crate::classical::{Components, Logistic, Moments, nearest};
use crate::infer::{Checkpoint, Model};
use crate::loader::{DataSet, NO_CLASS};
use crate::metrics::Predictions;
use crate::tokenize::UnknownPhenotype;

/// Most variable genes that are used.
const NUM_GENES: usize = 2000;
const NUM_COMPONENTS: usize = 50;
const NUM_NEIGHBOURS: usize = 15;
/// Training cells learned from at most; more are drawn from at random.
const MAX_TRAINING: u64 = 50_000;
/// Name and description of the methods.
const LOGISTIC: (&str, &str) = ("hvg_pca_logistic", "HVG + PCA + logistic regression");
const NEIGHBOURS: (&str, &str) = ("knn_on_embeddings", "k-NN on the model's embeddings");

/// What a method answers for the cells of a column, in their order.
pub(super) struct Simple {
    pub(super) method: &'static str,
    pub(super) description: &'static str,
    pub(super) predictions: Predictions,
}

/// Vectors of cells.
struct Vectors {
    width: usize,
    values: Vec<f32>,
    place_of: BTreeMap<u64, usize>,
}

/// Lets every method answer for every column.
///
/// # Errors
/// No training cells, no gene that all files share, unreadable cells.
pub(super) fn answer(
    checkpoint: &Checkpoint,
    question: &Question,
    (subject, found): (&Subject, &[Found]),
    progress: &mut dyn FnMut(&'static str, f64),
) -> Result<Vec<Vec<Simple>>> {
    let training = subject.training.as_ref().context(NO_TRAINING)?;
    let (data, selection) = (&training.data, training.selection.clone());
    let draw = (subject.seed, 4);
    let training = Cells {
        data: std::sync::Arc::clone(data),
        selection: selection.at_most(data.len(), Some(MAX_TRAINING), draw),
    };
    let expressed = by_expression(checkpoint, [&training, &subject.cells], progress)?;
    let embedded = by_embedding(
        checkpoint,
        question,
        [&training, &subject.cells],
        subject,
        progress,
    )?;
    let mut answers = Vec::new();
    // Once for each category, however many settings it is asked for in.
    let mut fitted: BTreeMap<&str, (Vec<u32>, Logistic)> = BTreeMap::new();
    for column in found {
        let num_classes = column.column.names.len();
        let (known, model) = match fitted.entry(&column.category) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let known = classes_of(checkpoint, &column.category, &training.data)?;
                let (rows, classes) = learned(&expressed[0], &known);
                let model = Logistic::fit(&rows, expressed[0].width, &classes, num_classes);
                entry.insert((known, model))
            }
        };
        let methods = [
            (
                LOGISTIC,
                logistic(model, &expressed[1], column, num_classes)?,
            ),
            (NEIGHBOURS, vote(&embedded, known, column, num_classes)?),
        ];
        let simple = methods.map(|((method, description), predictions)| Simple {
            method,
            description,
            predictions,
        });
        answers.push(simple.into_iter().collect());
    }
    Ok(answers)
}

/// The training cells with a class: their vectors and classes.
fn learned(vectors: &Vectors, known: &[u32]) -> (Vec<f32>, Vec<u32>) {
    let (mut rows, mut classes) = (Vec::new(), Vec::new());
    for (&cell, &place) in &vectors.place_of {
        let class = known[cell as usize];
        if class != NO_CLASS {
            rows.extend_from_slice(vectors.row(place));
            classes.push(class);
        }
    }
    (rows, classes)
}

impl Vectors {
    fn row(&self, place: usize) -> &[f32] {
        &self.values[place * self.width..][..self.width]
    }

    /// Those of the cells of a column, one after the other.
    fn of(&self, column: &Found) -> Vec<f32> {
        let places = column
            .column
            .cells
            .iter()
            .map(|cell| self.place_of.get(cell));
        places
            .flatten()
            .flat_map(|&place| self.row(place))
            .copied()
            .collect()
    }
}

fn logistic(
    model: &Logistic,
    evaluated: &Vectors,
    column: &Found,
    num_classes: usize,
) -> Result<Predictions> {
    let mut predictions = Predictions::new(num_classes);
    let asked = evaluated.of(column);
    let rows = asked.chunks_exact(evaluated.width.max(1));
    for (row, &truth) in rows.zip(column.column.predictions.truths()) {
        predictions.add(truth as usize, &model.probabilities(row))?;
    }
    Ok(predictions)
}

/// The probability of a class is the share of neighbours that have it.
fn vote(
    [training, evaluated]: &[Vectors; 2],
    known: &[u32],
    column: &Found,
    num_classes: usize,
) -> Result<Predictions> {
    let (rows, classes) = learned(training, known);
    let asked = evaluated.of(column);
    let found = nearest(&rows, Some(&asked), training.width, NUM_NEIGHBOURS);
    let mut predictions = Predictions::new(num_classes);
    for (number, &truth) in column.column.predictions.truths().iter().enumerate() {
        let mut shares = vec![0.0; num_classes];
        for &row in found.of(number).0 {
            shares[classes[row as usize] as usize] += 1.0 / found.num as f64;
        }
        predictions.add(truth as usize, &shares)?;
    }
    Ok(predictions)
}

/// Log-normalised expression of the most variable genes along their principal components, all
/// learned from the training cells.
fn by_expression(
    checkpoint: &Checkpoint,
    sets: [&Cells; 2],
    progress: &mut dyn FnMut(&'static str, f64),
) -> Result<[Vectors; 2]> {
    let expression = Expression::shared(&checkpoint.vocabulary, sets)?;
    let [training, _] = &expression;
    ensure!(
        training.num_genes() > 1,
        "--baselines: the training files and those evaluated share no genes that the model knows"
    );
    let num_training = sets[0].selection.len(sets[0].data.len());
    let num_all = 3 * num_training + sets[1].selection.len(sets[1].data.len());
    let mut seen = counted_up(num_all, |share| progress("baselines", share));
    let place = most_variable(training, num_training, &mut seen)?;
    let width = place.iter().flatten().count();
    let mut moments = Moments::new(width);
    training.for_each(|_, genes, values| {
        let (places, values) = chosen(&place, genes, values);
        moments.add_sparse(&places, &values);
        seen(1);
    })?;
    let components = moments.components(NUM_COMPONENTS);
    let [training, evaluated] = &expression;
    Ok([
        project(training, &place, &components, &mut seen)?,
        project(evaluated, &place, &components, &mut seen)?,
    ])
}

/// The place of each gene among those whose values vary most; `None`: it is not one of them.
fn most_variable(
    training: &Expression<'_>,
    num_cells: u64,
    seen: &mut dyn FnMut(u64),
) -> Result<Vec<Option<u32>>> {
    let num_genes = training.num_genes();
    let (mut sums, mut squares) = (vec![0.0; num_genes], vec![0.0; num_genes]);
    training.for_each(|_, genes, values| {
        for (&gene, &value) in genes.iter().zip(values) {
            sums[gene as usize] += f64::from(value);
            squares[gene as usize] += f64::from(value) * f64::from(value);
        }
        seen(1);
    })?;
    let num_cells = (num_cells as f64).max(1.0);
    let variance = |gene: usize| squares[gene] / num_cells - (sums[gene] / num_cells).powi(2);
    let mut order: Vec<usize> = (0..num_genes).collect();
    order.sort_by(|&a, &b| variance(b).total_cmp(&variance(a)));
    order.truncate(NUM_GENES);
    order.sort_unstable();
    let mut place = vec![None; num_genes];
    (0..)
        .zip(order)
        .for_each(|(number, gene)| place[gene] = Some(number));
    Ok(place)
}

fn chosen(place: &[Option<u32>], genes: &[u32], values: &[f32]) -> (Vec<u32>, Vec<f32>) {
    let both = genes.iter().zip(values);
    both.filter_map(|(&gene, &value)| Some((place[gene as usize]?, value)))
        .unzip()
}

fn project(
    expression: &Expression<'_>,
    place: &[Option<u32>],
    components: &Components,
    seen: &mut dyn FnMut(u64),
) -> Result<Vectors> {
    const TOGETHER: usize = 256;
    let mut vectors = Vectors {
        width: components.len(),
        values: Vec::new(),
        place_of: BTreeMap::new(),
    };
    let mut waiting: Vec<(Vec<u32>, Vec<f32>)> = Vec::new();
    let flush = |waiting: &mut Vec<(Vec<u32>, Vec<f32>)>, values: &mut Vec<f32>| {
        let rows = waiting.par_iter();
        let rows: Vec<Vec<f32>> = rows.map(|(c, v)| components.project_sparse(c, v)).collect();
        values.extend(rows.into_iter().flatten());
        waiting.clear();
    };
    expression.for_each(|cell, genes, values| {
        vectors.place_of.insert(cell, vectors.place_of.len());
        waiting.push(chosen(place, genes, values));
        if waiting.len() == TOGETHER {
            flush(&mut waiting, &mut vectors.values);
        }
        seen(1);
    })?;
    flush(&mut waiting, &mut vectors.values);
    Ok(vectors)
}

fn by_embedding(
    checkpoint: &Checkpoint,
    question: &Question,
    sets: [&Cells; 2],
    subject: &Subject,
    progress: &mut dyn FnMut(&'static str, f64),
) -> Result<[Vectors; 2]> {
    let total = sets
        .iter()
        .map(|cells| cells.selection.len(cells.data.len()))
        .sum();
    let mut seen = counted_up(total, |share| progress("embedding", share));
    let mut of = |cells: &Cells| -> Result<Vectors> {
        let chosen = (cells, &cells.selection);
        let (pooling, loader) = (&question.pooling, &subject.loader);
        let Embedded {
            cells,
            width,
            values,
        } = embed(checkpoint, chosen, pooling, loader, &mut seen)?;
        Ok(Vectors {
            width,
            values,
            place_of: cells.into_iter().zip(0..).collect(),
        })
    };
    Ok([of(sets[0])?, of(sets[1])?])
}

/// The class of each cell of `data`, numbered as the model's; [`NO_CLASS`] where it has none.
fn classes_of(checkpoint: &Checkpoint, category: &str, data: &DataSet) -> Result<Vec<u32>> {
    if let Model::Classifier(_, classes) = &checkpoint.model {
        return Ok(classes.of_cells(data, UnknownPhenotype::Skip)?.to_vec());
    }
    let vocabulary = &checkpoint.vocabulary;
    let first = vocabulary.category_ids(category).unwrap_or_default().start;
    let class = |value: &str| {
        vocabulary
            .phenotype_id(category, value)
            .map(|id| id.0 - first)
    };
    let mut of = Vec::with_capacity(data.len() as usize);
    for index in 0..data.num_sources() {
        let labels = data.source(index).map(|source| source.labels(category));
        let labels = labels.transpose().map_err(anyhow::Error::from_boxed)?;
        for row in 0..data.cells_of(index).count() {
            let value = labels.as_ref().and_then(|labels| labels.value(row));
            of.push(value.and_then(class).unwrap_or(NO_CLASS));
        }
    }
    Ok(of)
}
