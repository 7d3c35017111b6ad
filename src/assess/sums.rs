//! Sums answers up: figures, intervals, the tables by class and by group.

use std::collections::BTreeMap;

use super::answer::{Found, NAMED_VALUES};
use super::intervals::Bootstrap;
use super::job::Column;
use super::simple::Simple;
use super::summary::{ColumnSummary, GeneSummary, GroupSummary, MethodSummary};
use super::units::Units;
use crate::metrics::Reliability;
use crate::train::answers::GeneAnswers;
use crate::train::class_figures::{MajorityFigures, OneClass};

/// One column in one setting.
pub(super) fn of_column(
    found: &Found,
    simple: &[Simple],
    bootstrap: &Bootstrap,
    groups: Option<&Units>,
) -> ColumnSummary {
    let Column {
        cells,
        predictions,
        names,
    } = &found.column;
    let majority = found.majority.unwrap_or(usize::MAX);
    let constant = predictions.confusion().always(majority);
    let majority_name = names.get(majority).cloned().unwrap_or_default();
    let rows = predictions.per_class().into_iter();
    let rows = rows.zip(predictions.auroc_per_class());
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
    ColumnSummary {
        category: found.category.clone(),
        setting: found.setting,
        num_cells: predictions.len(),
        num_missing: found.num_missing,
        num_unknown: found.unknown.iter().map(|(_, count)| count).sum(),
        unknown_values: (found.unknown.iter().take(NAMED_VALUES))
            .map(|(value, _)| value.clone())
            .collect(),
        figures: predictions.figures(),
        intervals: bootstrap.of_predictions(cells, predictions),
        accuracy_whole_vocabulary: found.whole,
        majority: MajorityFigures::new(majority_name, &constant),
        baselines: (simple.iter())
            .map(|simple| MethodSummary {
                method: simple.method,
                description: simple.description,
                figures: simple.predictions.figures(),
                intervals: bootstrap.of_predictions(cells, &simple.predictions),
            })
            .collect(),
        reliability: Reliability::new(predictions),
        classes: classes.filter(|class| class.figures.is_present()).collect(),
        confusion: present.iter().map(row).collect(),
        groups: groups.map_or_else(Vec::new, |units| by_group(units, &found.column, majority)),
    }
}

fn by_group(units: &Units, column: &Column, majority: usize) -> Vec<GroupSummary> {
    let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (number, &cell) in column.cells.iter().enumerate() {
        let group = units.of_cell[cell as usize];
        members.entry(group).or_default().push(number);
    }
    let group = |(group, members): (u32, Vec<usize>)| {
        let part = column.predictions.of(members);
        GroupSummary {
            group: units.names[group as usize].clone(),
            num_cells: part.len(),
            majority_accuracy: part.confusion().always(majority).accuracy(),
            figures: part.figures(),
        }
    };
    members.into_iter().map(group).collect()
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
