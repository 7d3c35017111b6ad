//! Lets a model answer for the evaluated cells, by the code that evaluates in training.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};

use super::job::Column;
use super::subject::{Question, Subject};
use crate::dist::Ranks;
use crate::infer::{Checkpoint, Model};
use crate::loader::{EvalSet, NO_CLASS, Sampler, SamplerConfig, Selection, Shuffle};
use crate::metrics::argmax;
use crate::model::{GeneBertForMaskedLM, GeneBertForSequenceClassification};
use crate::tokenize::UnknownPhenotype;
use crate::train::answers::{ColumnAnswers, GeneAnswers};
use crate::train::baseline::Baselines;
use crate::train::classes::Classes;
use crate::train::evaluate::{EvalCells, Evaluator};
use crate::train::figures::Setting;
use crate::train::held_out::HeldOut;

/// Unknown values that are named.
pub(super) const NAMED_VALUES: usize = 5;

/// The answers of a model, before they are summed up.
pub(super) struct Answered {
    pub(super) num_cells: u64,
    pub(super) eval_loss: Option<f64>,
    pub(super) genes: Option<GeneAnswers>,
    pub(super) columns: Vec<Found>,
}

/// One column in one setting.
pub(super) struct Found {
    pub(super) category: String,
    pub(super) setting: Option<Setting>,
    /// Accuracy with the choice among all tokens.
    pub(super) whole: Option<f64>,
    pub(super) majority: Option<usize>,
    pub(super) column: Column,
    /// Cells without a value.
    pub(super) num_missing: u64,
    /// Values that the model does not know, and how many cells have each.
    pub(super) unknown: Vec<(String, u64)>,
}

/// Lets the model answer; `progress` is told the share that is done.
///
/// # Errors
/// Unreadable cells, phenotypes that the model or the files lack, nothing to evaluate.
pub(super) fn answer(
    checkpoint: &Checkpoint,
    question: &Question,
    subject: &Subject,
    progress: &mut dyn FnMut(f64),
) -> Result<Answered> {
    match &checkpoint.model {
        Model::MaskedLM(model) => masked(checkpoint, model, (question, subject), progress),
        Model::Classifier(model, classes) => {
            classifier(model, classes, (question, subject), progress)
        }
    }
}

/// The phenotypes that can be evaluated on these cells.
fn asked(checkpoint: &Checkpoint, question: &Question, subject: &Subject) -> Result<Vec<String>> {
    let included = &checkpoint.tokenize.included_phenotypes;
    if let Some(unknown) = question.phenotypes.iter().find(|p| !included.contains(p)) {
        bail!(
            "--phenotypes {unknown}: the model was not trained with this phenotype\nhint: it was \
             with: {}",
            if included.is_empty() {
                "none".to_owned()
            } else {
                included.join(", ")
            }
        );
    }
    if !subject.sets.is_empty() {
        let wanted =
            |name: &&String| question.phenotypes.is_empty() || question.phenotypes.contains(name);
        return Ok(included.iter().filter(wanted).cloned().collect());
    }
    let data = &subject.cells.data;
    let has = |column: &String| {
        let mut sources = (0..data.num_sources()).filter_map(|index| data.source(index));
        sources.any(|source| source.labels(column).is_ok())
    };
    let (there, absent): (Vec<String>, Vec<String>) = included
        .iter()
        .filter(|name| question.phenotypes.is_empty() || question.phenotypes.contains(name))
        .cloned()
        .partition(has);
    if !absent.is_empty() {
        let names = absent.join(", ");
        ensure!(
            question.phenotypes.is_empty(),
            "--phenotypes {names}: no file has this obs column\nhint: `gene-bert info` lists those \
             there are"
        );
        eprintln!("note: no file has obs column {names}; not evaluated");
    }
    Ok(there)
}

fn masked(
    checkpoint: &Checkpoint,
    model: &GeneBertForMaskedLM,
    (question, subject): (&Question, &Subject),
    progress: &mut dyn FnMut(f64),
) -> Result<Answered> {
    let asked = asked(checkpoint, question, subject)?;
    ensure!(
        !asked.is_empty() || subject.config.gene_mask_prob > 0.0 || !subject.sets.is_empty(),
        "there is nothing to evaluate: no phenotype that the model knows is in the files, and it \
         was trained without masking genes\nhint: --gene-mask-prob 0.15 masks genes"
    );
    let evaluator = evaluator(checkpoint, subject, asked)?;
    let in_sets: u64 = subject.sets.iter().map(EvalSet::num_cells).sum();
    let num_cells = in_sets + subject.cells.selection.len(subject.cells.data.len());
    let mut seen = counted_up(num_cells * evaluator.num_passes(), progress);
    let collected = evaluator.collect(model, &mut seen)?;
    let nothing = unanswered(subject, &evaluator, &collected.columns)?;
    ensure!(
        !collected.columns.is_empty() || !collected.genes.predictions.is_empty(),
        "there is nothing to evaluate: {}\nhint: name files with values that the model was trained \
         with; `gene-bert info` lists those of a file",
        nothing.join("; ")
    );
    for nothing in nothing {
        eprintln!("note: {nothing}; not evaluated");
    }
    let columns = collected.columns.into_iter();
    let columns = columns.map(|column| found(subject, &evaluator, column));
    Ok(Answered {
        num_cells: collected.num_cells,
        eval_loss: collected.eval_loss,
        genes: Some(collected.genes),
        columns: columns.collect::<Result<_>>()?,
    })
}

/// What asks the model, with the masks of its training.
fn evaluator(checkpoint: &Checkpoint, subject: &Subject, asked: Vec<String>) -> Result<Evaluator> {
    let (config, vocabulary) = (&subject.config, &checkpoint.vocabulary);
    let (masking, source) = (config.mlm_config(), subject.baseline_cells());
    let (sampling, num_genes) = (config.absent_gene_sampling, vocabulary.genes().len());
    let gene_weights = (source.data).gene_weights(sampling, &source.selection, num_genes)?;
    let order = match &subject.training {
        Some(_) => config.looking_sampler_config(),
        None => sequential(),
    };
    let sampler = Sampler::new(order, source.selection.clone(), source.data.len())?;
    let counted = (&masking, gene_weights.as_deref(), subject.seed);
    let (data, loader) = (&source.data, &subject.loader);
    let baselines = match &subject.training {
        None if !subject.sets.is_empty() => Baselines::of_sets(&subject.sets, vocabulary)?,
        _ => Baselines::count(data, &sampler, vocabulary, counted, loader)?,
    };
    Ok(Evaluator {
        cells: if subject.sets.is_empty() {
            let cells = &subject.cells;
            EvalCells::Files(Arc::clone(&cells.data), cells.selection.clone())
        } else {
            EvalCells::Sets(subject.sets.clone())
        },
        vocabulary: Arc::clone(vocabulary),
        phenotypes: checkpoint.tokenize.included_phenotypes.clone(),
        asked,
        masking,
        gene_weights,
        seed: subject.seed,
        loader: subject.loader.clone(),
        baselines,
        ranks: Arc::new(Ranks::alone()),
    })
}

/// Why phenotypes that were asked for have no answer.
fn unanswered(
    subject: &Subject,
    evaluator: &Evaluator,
    columns: &[ColumnAnswers],
) -> Result<Vec<String>> {
    let has = |category: &&String| columns.iter().any(|c| c.category == **category);
    let mut nothing = Vec::new();
    for category in evaluator.asked.iter().filter(|category| !has(category)) {
        if !subject.sets.is_empty() {
            nothing.push(format!("{category}: the pre-masked sets never ask for it"));
            continue;
        }
        let token = |value: &str| evaluator.vocabulary.phenotype_id(category, value);
        let known = |value: &str| token(value).map(|id| id.0 as usize);
        let (num_missing, unknown) = look_at(subject, category, known, None)?;
        nothing.push(without_values(category, num_missing, &unknown));
    }
    Ok(nothing)
}

/// One phenotype's answers, with the names of its values and what was left out.
fn found(subject: &Subject, evaluator: &Evaluator, column: ColumnAnswers) -> Result<Found> {
    let (category, answers, vocabulary) = (column.category, column.answers, &evaluator.vocabulary);
    let token = |value: &str| vocabulary.phenotype_id(&category, value);
    let known = |value: &str| token(value).map(|id| answers.class_of(id.0));
    let tokens = vocabulary.phenotypes().tokens(&category);
    let bare = |token: &String| token.trim_matches(['[', ']']).to_owned();
    let mut names: Vec<String> = tokens.unwrap_or_default().iter().map(bare).collect();
    let (num_missing, unknown) = look_at(subject, &category, known, Some(&mut names))?;
    Ok(Found {
        whole: Some(answers.accuracy_in_whole()),
        majority: (evaluator.baselines.majority(&category)).map(|id| answers.class_of(id)),
        column: Column {
            cells: answers.cells,
            predictions: answers.predictions,
            names,
        },
        setting: Some(column.setting),
        category,
        num_missing,
        unknown,
    })
}

/// In words, why a column has nothing to be compared with.
fn without_values(category: &str, num_missing: u64, unknown: &[(String, u64)]) -> String {
    let total = num_missing + unknown.iter().map(|(_, n)| n).sum::<u64>();
    let mut text = format!(
        "obs column {category}: none of the {total} cells has a value that the model learned"
    );
    if num_missing > 0 {
        text += &format!(", {num_missing} have none at all");
    }
    let names: Vec<String> = unknown
        .iter()
        .take(NAMED_VALUES)
        .map(|(value, count)| format!("{value} ({count})"))
        .collect();
    if !names.is_empty() {
        text += &format!("; the values are {}", names.join(", "));
    }
    text
}

/// Turns numbers of cells into the share of all of them.
pub(super) fn counted_up(total: u64, mut progress: impl FnMut(f64)) -> impl FnMut(u64) {
    let mut done = 0;
    move |cells| {
        done += cells;
        progress(done as f64 / total.max(1) as f64);
    }
}

fn sequential() -> SamplerConfig {
    SamplerConfig {
        shuffle: Shuffle::Sequential,
        ..SamplerConfig::default()
    }
}

fn classifier(
    model: &GeneBertForSequenceClassification,
    classes: &Classes,
    (question, subject): (&Question, &Subject),
    progress: &mut dyn FnMut(f64),
) -> Result<Answered> {
    let category = &classes.category;
    if let Some(other) = question.phenotypes.iter().find(|name| *name != category) {
        bail!(
            "--phenotypes {other}: this is a classifier of {category}\nhint: leave --phenotypes \
             out, or use a checkpoint of `gene-bert mlm`"
        );
    }
    let skip = UnknownPhenotype::Skip;
    let cells = &subject.cells;
    let class_of = classes.of_cells(&cells.data, skip)?;
    let source = subject.baseline_cells();
    let majority = majority(
        &source.selection,
        &classes.of_cells(&source.data, skip)?,
        classes,
    );
    let known = |value: &str| classes.class_of(value).map(|class| class as usize);
    let (num_missing, unknown) = look_at(subject, category, known, None)?;
    let selected = cells.selection.cells(cells.data.len());
    ensure!(
        selected
            .into_iter()
            .any(|cell| class_of[cell as usize] != NO_CLASS),
        "there is nothing to evaluate: {}\nhint: name files with values that the model was trained \
         with; `gene-bert info` lists those of a file",
        without_values(category, num_missing, &unknown)
    );
    let order = SamplerConfig {
        seed: subject.seed,
        ..sequential()
    };
    let settings = (order, subject.loader.clone());
    let cells = (&cells.data, &cells.selection);
    let held_out = HeldOut::new(cells, class_of, classes, majority, settings)?;
    let mut seen = counted_up(held_out.len(), progress);
    let (cells, predictions) = held_out.collect(model, &mut seen)?;
    Ok(Answered {
        num_cells: predictions.len(),
        eval_loss: Some(predictions.log_loss()),
        genes: None,
        columns: vec![Found {
            category: category.clone(),
            setting: None,
            whole: None,
            majority: Some(majority),
            column: Column {
                cells,
                predictions,
                names: classes.names.clone(),
            },
            num_missing,
            unknown,
        }],
    })
}

fn majority(selection: &Selection, class_of: &[u32], classes: &Classes) -> usize {
    let mut counts = vec![0u64; classes.len()];
    for cell in selection.cells(class_of.len() as u64) {
        let class = class_of[cell as usize];
        if class != NO_CLASS {
            counts[class as usize] += 1;
        }
    }
    argmax(&counts)
}

/// How many evaluated cells have no value, and which values are unknown; `names` become what obs
/// calls the known ones.
fn look_at(
    subject: &Subject,
    category: &str,
    known: impl Fn(&str) -> Option<usize>,
    mut names: Option<&mut Vec<String>>,
) -> Result<(u64, Vec<(String, u64)>)> {
    let data = &subject.cells.data;
    let mut counts: BTreeMap<Option<String>, u64> = BTreeMap::new();
    let mut selected = vec![false; data.len() as usize];
    for cell in subject.cells.selection.cells(data.len()) {
        selected[cell as usize] = true;
    }
    for index in 0..data.num_sources() {
        let labels = data.source(index).map(|source| source.labels(category));
        let labels = labels.and_then(Result::ok);
        for (row, cell) in data.cells_of(index).enumerate() {
            if selected[cell as usize] {
                let value = labels.as_ref().and_then(|labels| labels.value(row));
                let class = value.and_then(&known);
                if let (Some(names), Some(value), Some(class)) = (&mut names, value, class)
                    && let Some(name) = names.get_mut(class)
                    && name != value
                {
                    value.clone_into(name);
                }
                if class.is_none() {
                    *counts.entry(value.map(str::to_owned)).or_default() += 1;
                }
            }
        }
    }
    let missing = counts.remove(&None).unwrap_or(0);
    let unknown = counts.into_iter();
    let mut unknown: Vec<(String, u64)> = unknown.filter_map(|(v, n)| Some((v?, n))).collect();
    unknown.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Ok((missing, unknown))
}
