//! Sums answers up: figures, intervals, the tables by class and by group.

use std::collections::BTreeMap;

use anyhow::Result;

use super::answer::{Found, NAMED_VALUES};
use super::intervals::Bootstrap;
use super::job::Column;
use super::simple::Simple;
use super::summary::{ColumnSummary, GeneSummary, GroupSummary, MethodSummary};
use super::units::Units;
use crate::metrics::{Confusion, Figures, Reliability};
use crate::train::answers::GeneAnswers;
use crate::train::class_figures::{MajorityFigures, OneClass};

/// One column in one setting.
///
/// # Errors
/// Probabilities that went to the disk cannot be read.
pub(super) fn of_column(
    found: &Found,
    simple: &[Simple],
    bootstrap: &Bootstrap,
    groups: Option<&Units>,
) -> Result<ColumnSummary> {
    let Column {
        cells,
        predictions,
        names,
    } = &found.column;
    let majority = found.majority.unwrap_or(usize::MAX);
    let constant = predictions.confusion().always(majority);
    let majority_name = names.get(majority).cloned().unwrap_or_default();
    let areas = predictions.auroc_per_class()?;
    let present_areas: Vec<f64> = areas.iter().copied().flatten().collect();
    let rows = predictions.per_class().into_iter().zip(areas);
    let present: Vec<usize> = (predictions.per_class().iter().enumerate())
        .filter(|(_, class)| class.is_present())
        .map(|(number, _)| number)
        .collect();
    let classes = names
        .iter()
        .zip(rows)
        .map(|(name, (figures, auroc))| OneClass {
            name: name.clone(),
            figures,
            auroc,
        });
    let counts: Vec<&[u64]> = predictions.confusion().rows().collect();
    let row = |&truth: &usize| present.iter().map(|&p| counts[truth][p]).collect();
    let method = |simple: &Simple| -> Result<MethodSummary> {
        Ok(MethodSummary {
            method: simple.method,
            description: simple.description,
            figures: simple.predictions.figures()?,
            intervals: bootstrap.of_predictions(cells, &simple.predictions)?,
        })
    };
    Ok(ColumnSummary {
        category: found.category.clone(),
        setting: found.setting,
        num_cells: predictions.len(),
        num_missing: found.num_missing,
        num_unknown: found.unknown.iter().map(|(_, count)| count).sum(),
        unknown_values: (found.unknown.iter().take(NAMED_VALUES))
            .map(|(value, _)| value.clone())
            .collect(),
        figures: predictions.figures_with(&present_areas),
        intervals: bootstrap.of_predictions(cells, predictions)?,
        accuracy_whole_vocabulary: found.whole,
        majority: MajorityFigures::new(majority_name, &constant),
        baselines: simple.iter().map(method).collect::<Result<_>>()?,
        reliability: Reliability::new(predictions),
        classes: classes.filter(|class| class.figures.is_present()).collect(),
        confusion: present.iter().map(row).collect(),
        groups: match groups {
            Some(units) => by_group(units, &found.column, majority)?,
            None => Vec::new(),
        },
    })
}

fn by_group(units: &Units, column: &Column, majority: usize) -> Result<Vec<GroupSummary>> {
    let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (number, &cell) in column.cells.iter().enumerate() {
        let group = units.of_cell[cell as usize];
        members.entry(group).or_default().push(number);
    }
    let (groups, members): (Vec<u32>, Vec<Vec<usize>>) = members.into_iter().unzip();
    let summed = |confusion: &Confusion, figures| {
        let majority_accuracy = confusion.always(majority).accuracy();
        (confusion.total(), majority_accuracy, figures)
    };
    let parts = column.predictions.of_parts(&members, summed)?;
    let group = |(group, (num_cells, majority_accuracy, figures)): (u32, (u64, f64, Figures))| {
        GroupSummary {
            group: units.names[group as usize].clone(),
            num_cells,
            majority_accuracy,
            figures,
        }
    };
    Ok(groups.into_iter().zip(parts).map(group).collect())
}

/// Masked genes; `None`: none was masked.
pub(super) fn of_genes(genes: &GeneAnswers, bootstrap: &Bootstrap) -> Option<GeneSummary> {
    let confusion = genes.predictions.confusion();
    Some(GeneSummary {
        figures: genes.figures()?,
        bins: (0..confusion.num_classes())
            .map(|n| format!("bin_{n}"))
            .collect(),
        confusion: confusion.rows().map(<[u64]>::to_vec).collect(),
        intervals: bootstrap.of_genes(&genes.cells),
    })
}
