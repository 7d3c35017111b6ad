//! `gene-bert split`: decides which cells train, validate and test, and says what came of it.

use std::fmt;
use std::path::PathBuf;

use super::PrepareError;
use crate::cell::CellSource;
use crate::h5ad::{OpenOptions, ValuePolicy};
use crate::loader::CellFile;
use crate::loader::split::{By, Part, Rule, Split, SplitConfig, shared_donors};

/// Groups of a part that are named on the screen.
const NAMED: usize = 5;

/// A split, and what a user should know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitReport {
    /// The split.
    pub split: Split,
    /// One line, where held-out cells are of donors that are trained on too.
    pub warning: Option<String>,
}

/// Splits the cells of `paths`.
///
/// # Errors
/// Files that cannot be read, or whatever [`SplitConfig::make`] refuses.
pub fn split(paths: &[PathBuf], config: &SplitConfig) -> Result<SplitReport, PrepareError> {
    let open = OpenOptions {
        values: ValuePolicy::Any,
        ..OpenOptions::default()
    };
    let files = CellFile::all(paths, &open)?;
    let sources: Vec<&dyn CellSource> = files.iter().map(|file| file.as_ref() as _).collect();
    let (split, parts) = config.make_with_parts(&sources)?;
    let warning = match config.by {
        By::Cells => same_donors(&parts, &sources),
        _ => None,
    };
    Ok(SplitReport { split, warning })
}

fn same_donors(parts: &[Option<Part>], sources: &[&dyn CellSource]) -> Option<String> {
    match shared_donors(sources, parts) {
        Err(error) => Some(format!(
            "whether cells of one donor are in several parts is not known: {error}"
        )),
        Ok(Some(shared)) if shared.num_shared == 0 => None,
        Ok(Some(shared)) => Some(format!(
            "cells were drawn at random: those of {} of {} donors (obs column `{2}`) are in several \
             parts, and held-out cells say nothing of new donors; --by {2} keeps donors whole",
            shared.num_shared, shared.num_donors, shared.column
        )),
        Ok(None) => Some(
            "cells were drawn at random, and no obs column tells the donors: if cells of one donor \
             are in several parts, held-out cells say nothing of new donors"
                .to_owned(),
        ),
    }
}

impl fmt::Display for SplitReport {
    /// A line for each part of each fold: cells, their share, groups.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let split = &self.split;
        let total: u64 = split.files.iter().map(|file| file.num_cells).sum();
        for fold in 0..split.num_folds() {
            if split.num_folds() > 1 {
                writeln!(f, "fold {fold}")?;
            }
            for part in Part::ALL {
                let cells = split.num_cells(fold, part);
                let share = 100.0 * cells as f64 / total as f64;
                write!(f, "  {part:<5} {cells:>9} cells  {share:>5.1} %")?;
                if let Rule::Groups { folds, .. } | Rule::Files { folds } = &split.rule {
                    write!(f, "  {}", groups(folds[fold].of(part)))?;
                }
                writeln!(f)?;
            }
            let none: u64 = split.files.iter().map(|file| file.folds[fold].none).sum();
            if none > 0 {
                writeln!(f, "  {none} cells without a value are in no part")?;
            }
        }
        Ok(())
    }
}

fn groups(names: &[String]) -> String {
    let more = if names.len() > NAMED { ", …" } else { "" };
    let shown = &names[..names.len().min(NAMED)];
    format!("{} groups: {}{more}", names.len(), shown.join(", "))
}
