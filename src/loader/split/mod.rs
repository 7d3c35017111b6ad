//! Which cells train, which validate, which test: decided once, kept in a small file.
//!
//! A [`Split`] is a rule and the files that it was made from. The rule ([`Rule`]) names whole groups
//! of cells (values of an obs column, or files), or says how cells are drawn, so that the file stays
//! small however many cells there are. Of each file the split notes what its cells are called and a
//! digest of the parts they are in: a file that is another one now is refused rather than divided in
//! another way. Files are known by their cells, and may have been renamed or moved.
//!
//! A split has one fold, or several for cross-validation: in each another part of the cells tests.
//!
//! [`SplitConfig::make`] makes a split, [`Split::parts`] applies it, [`PartChoice`] is what a command
//! that reads one part carries around. [`shared_donors`] says whether cells of one donor are apart.

mod apply;
mod assign;
mod donors;
mod draw;
mod make;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::LoaderError;
use super::sampler::Selection;
use crate::cell::CellSource;
use crate::file::{read_json, write_atomic};

pub use donors::{SharedDonors, shared_donors};
pub use make::{By, Held, SplitConfig};

/// What the files of this format begin with.
const FORMAT: &str = "gene-bert split 1";

/// A part of the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Trained on.
    Train,
    /// Evaluated on while training goes on, and to choose by.
    Val,
    /// Left alone until the end.
    Test,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        })
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let of_name = |part: &&Self| part.to_string() == name;
        let part = Self::ALL.iter().find(of_name).copied();
        part.ok_or_else(|| format!("`{name}` is no part: train, val or test is expected"))
    }
}

/// A division of cells into [`Part`]s, in one or more folds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// `gene-bert split 1`.
    format: String,
    /// How it is known to which part a cell belongs.
    pub rule: Rule,
    /// What the rule was made from.
    pub files: Vec<SplitFile>,
}

/// How it is known to which part a cell belongs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Rule {
    /// By its value of an obs column; a cell without a value is in no part.
    Groups {
        /// The column.
        column: String,
        /// The values of each part, in each fold.
        folds: Vec<Groups>,
    },
    /// By the file that it is in.
    Files {
        /// The names of the files of each part, as in [`Split::files`], in each fold.
        folds: Vec<Groups>,
    },
    /// By a draw, in each file for itself; how many cells are drawn stands with the file.
    Cells {
        /// Seed of the draw.
        seed: u64,
        /// An obs column each of whose values has the shares of the whole.
        stratify_by: Option<String>,
    },
}

/// The groups of each part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Groups {
    /// Whose cells train.
    pub train: Vec<String>,
    /// Whose cells validate.
    pub val: Vec<String>,
    /// Whose cells test.
    pub test: Vec<String>,
}

impl Groups {
    /// The groups of one part.
    pub fn of(&self, part: Part) -> &[String] {
        match part {
            Part::Train => &self.train,
            Part::Val => &self.val,
            Part::Test => &self.test,
        }
    }

    fn of_mut(&mut self, part: Part) -> &mut Vec<String> {
        match part {
            Part::Train => &mut self.train,
            Part::Val => &mut self.val,
            Part::Test => &mut self.test,
        }
    }
}

/// A file that a split was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitFile {
    /// As much of the end of its path as tells it from the others.
    pub name: String,
    /// Number of its cells.
    pub num_cells: u64,
    /// Digest of the names of its cells, in their order.
    pub cell_names: String,
    /// Its parts, in each fold.
    pub folds: Vec<FilePart>,
}

/// How many cells of a file are in each part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePart {
    /// Cells that train.
    pub train: u64,
    /// Cells that validate.
    pub val: u64,
    /// Cells that test.
    pub test: u64,
    /// Cells in no part, as they have no value to go by.
    pub none: u64,
    /// Digest of the part of every cell.
    pub digest: String,
}

impl FilePart {
    /// Cells of one part.
    pub fn of(&self, part: Part) -> u64 {
        match part {
            Part::Train => self.train,
            Part::Val => self.val,
            Part::Test => self.test,
        }
    }
}

impl Split {
    /// Reads a split.
    ///
    /// # Errors
    /// No such file, or one that is no split or contradicts itself.
    pub fn load(path: &Path) -> Result<Self, LoaderError> {
        let split: Self = read_json(path).map_err(|cause| LoaderError::File {
            cause: Box::new(cause),
        })?;
        match split.contradiction() {
            None => Ok(split),
            Some(what) => Err(LoaderError::BadSplit {
                path: path.to_path_buf(),
                what,
            }),
        }
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), LoaderError> {
        // Neither keys nor numbers here can fail to be JSON.
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        write_atomic(path, &text).map_err(|cause| LoaderError::File {
            cause: Box::new(cause),
        })
    }

    /// Number of folds, at least 1.
    pub fn num_folds(&self) -> usize {
        match (&self.rule, self.files.first()) {
            (Rule::Groups { folds, .. } | Rule::Files { folds }, _) => folds.len(),
            (Rule::Cells { .. }, Some(file)) => file.folds.len(),
            (Rule::Cells { .. }, None) => 0,
        }
    }

    /// Cells of all files in `part` of `fold`.
    pub fn num_cells(&self, fold: usize, part: Part) -> u64 {
        let of_file = |file: &SplitFile| file.folds.get(fold).map_or(0, |fold| fold.of(part));
        self.files.iter().map(of_file).sum()
    }

    /// What cannot be, in a file that parses.
    fn contradiction(&self) -> Option<String> {
        if self.format != FORMAT {
            return Some(format!(
                "expected format {FORMAT:?}, found {:?}",
                self.format
            ));
        }
        let num_folds = self.num_folds();
        if num_folds == 0 {
            return Some("it has no fold".to_owned());
        }
        for file in &self.files {
            if file.folds.len() != num_folds {
                let got = file.folds.len();
                return Some(format!("{}: {got} folds, expected {num_folds}", file.name));
            }
            for (number, fold) in file.folds.iter().enumerate() {
                let parts = [fold.train, fold.val, fold.test, fold.none];
                let sum = parts.iter().try_fold(0, |sum: u64, n| sum.checked_add(*n));
                if sum != Some(file.num_cells) {
                    return Some(format!(
                        "{}, fold {number}: the parts have not {} cells together",
                        file.name, file.num_cells
                    ));
                }
            }
        }
        let (Rule::Groups { folds, .. } | Rule::Files { folds }) = &self.rule else {
            return None;
        };
        folds.iter().enumerate().find_map(|(number, groups)| {
            let mut all: Vec<&String> = Part::ALL.iter().flat_map(|p| groups.of(*p)).collect();
            all.sort_unstable();
            let pair = all.windows(2).find(|pair| pair[0] == pair[1])?;
            Some(format!("fold {number}: {:?} stands in it twice", pair[0]))
        })
    }
}

/// One fold of a split, chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldChoice {
    split: Split,
    fold: usize,
}

impl FoldChoice {
    /// Reads a split; `fold` may be left out where there is one only.
    ///
    /// # Errors
    /// As [`Split::load`]; no fold chosen where there are several, or one that is not there.
    pub fn load(path: &Path, fold: Option<usize>) -> Result<Self, LoaderError> {
        let split = Split::load(path)?;
        let num_folds = split.num_folds();
        let fold = match fold {
            Some(fold) => Some(fold).filter(|fold| *fold < num_folds),
            None => (num_folds == 1).then_some(0),
        };
        let fold = fold.ok_or_else(|| LoaderError::Fold {
            path: path.to_path_buf(),
            num_folds,
            last: num_folds - 1,
        })?;
        Ok(Self { split, fold })
    }

    /// The part of every cell of `sources`, one source below the other; `None`: in no part.
    ///
    /// # Errors
    /// As [`Split::parts`].
    pub fn parts(&self, sources: &[&dyn CellSource]) -> Result<Vec<Option<Part>>, LoaderError> {
        self.split.parts(self.fold, sources)
    }
}

/// One part of one fold of a split: the cells that a command is to read.
#[derive(Debug, Clone, PartialEq)]
pub struct PartChoice {
    /// The fold.
    pub fold: FoldChoice,
    /// The part.
    pub part: Part,
}

impl PartChoice {
    /// The chosen cells of `sources`, numbered from 0 over all of them; there may be none.
    ///
    /// # Errors
    /// As [`Split::parts`].
    pub fn cells(&self, sources: &[&dyn CellSource]) -> Result<Selection, LoaderError> {
        let parts = self.fold.parts(sources)?;
        Ok(Selection::Rows(cells_of(&parts, self.part).into()))
    }
}

/// The cells of `part`, ascending.
pub fn cells_of(parts: &[Option<Part>], part: Part) -> Vec<u64> {
    let cells = (0..).zip(parts);
    cells
        .filter_map(|(cell, of)| (*of == Some(part)).then_some(cell))
        .collect()
}
