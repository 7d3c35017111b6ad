//! Makes a split: what is asked for, and which groups or how many cells that comes to.

use super::apply::{digest_of_names, file_part, short_names};
use super::assign::assign_groups;
use super::draw::{FoldOf, apportion};
use super::{FORMAT, FilePart, Groups, Part, Rule, Split, SplitFile};
use crate::cell::CellSource;
use crate::loader::column::CellColumn;
use crate::loader::error::LoaderError;

/// What is kept together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// Nothing: single cells are drawn.
    Cells,
    /// The cells of one file.
    Files,
    /// The cells with the same value of this obs column.
    Column(String),
    /// An obs column whose values are the parts themselves: train, val, test.
    PartColumn(String),
}

/// How much is held out for one part.
#[derive(Debug, Clone, PartialEq)]
pub enum Held {
    /// This share of all cells, from 0 to below 1.
    Share(f64),
    /// So many cells; of groups, as nearly as whole groups come to it.
    Cells(u64),
    /// These groups.
    Groups(Vec<String>),
}

/// How a split is to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitConfig {
    /// What is kept together.
    pub by: By,
    /// An obs column whose values are to have the shares of the whole in every part.
    pub stratify_by: Option<String>,
    /// What validates.
    pub val: Held,
    /// What tests; not used where there are folds.
    pub test: Held,
    /// Number of folds, in each of which another part of the cells tests; `None`: no folds.
    pub folds: Option<usize>,
    /// Seed of what is drawn.
    pub seed: u64,
}

/// A split, and the part of every cell in its first fold.
pub type Made = (Split, Vec<Option<Part>>);

/// Names of parts as obs columns have them, in small letters.
const PART_NAMES: [(Part, &[&str]); 3] = [
    (Part::Train, &["train", "training"]),
    (Part::Val, &["val", "valid", "validation", "dev"]),
    (Part::Test, &["test", "testing"]),
];

impl SplitConfig {
    /// Splits the cells of `sources`.
    ///
    /// # Errors
    /// Shares or numbers that cannot be, fewer groups than parts, a group that is not there, a
    /// source without the columns asked for, or an unreadable one.
    pub fn make(&self, sources: &[&dyn CellSource]) -> Result<Split, LoaderError> {
        Ok(self.make_with_parts(sources)?.0)
    }

    /// As [`Self::make`], with the parts of all cells in the first fold.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn make_with_parts(&self, sources: &[&dyn CellSource]) -> Result<Made, LoaderError> {
        let num_cells: Vec<u64> = sources.iter().map(|source| source.num_cells()).collect();
        self.validate(num_cells.iter().sum())?;
        let paths: Vec<_> = sources.iter().map(|source| source.path()).collect();
        let names = short_names(&paths);
        let num_folds = self.folds.unwrap_or(1);
        let rule = match &self.by {
            By::Cells => Rule::Cells {
                seed: self.seed,
                stratify_by: self.stratify_by.clone(),
            },
            By::Files => Rule::Files {
                folds: self.divide(&Counted::of_files(self, sources, &names)?)?,
            },
            By::Column(column) => Rule::Groups {
                column: column.clone(),
                folds: self.divide(&Counted::of_values(self, sources, column)?)?,
            },
            By::PartColumn(column) => Rule::Groups {
                column: column.clone(),
                folds: vec![named_parts(
                    &CellColumn::read(sources.iter().copied(), column)?,
                    column,
                )?],
            },
        };
        let mut split = Split {
            format: FORMAT.to_owned(),
            rule,
            files: Vec::new(),
        };
        for ((source, name), &num_cells) in sources.iter().zip(names).zip(&num_cells) {
            split.files.push(SplitFile {
                name,
                num_cells,
                cell_names: digest_of_names(*source)?,
                folds: vec![FilePart::default(); num_folds],
            });
        }
        if matches!(self.by, By::Cells) {
            self.set_quotas(&mut split, &num_cells);
        }
        let mut first = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            let labels = split.labels_of(*source)?;
            for fold in 0..num_folds {
                let parts = split.parts_of(labels.as_ref(), index, fold);
                split.files[index].folds[fold] = file_part(&parts);
                if fold == 0 {
                    first.extend(parts);
                }
            }
        }
        Ok((split, first))
    }

    fn validate(&self, num_cells: u64) -> Result<(), LoaderError> {
        if num_cells == 0 {
            return Err(LoaderError::setting(
                "files",
                "at least one cell in them",
                "0 cells",
            ));
        }
        if let Some(folds) = self.folds.filter(|folds| *folds < 2) {
            return Err(LoaderError::setting("folds", "at least 2", folds));
        }
        let mut held_out = self.folds.map_or(0.0, |folds| 1.0 / folds as f64);
        for (key, held) in [("val", &self.val), ("test", &self.test)] {
            let share = share(held, num_cells);
            if !(0.0..1.0).contains(&share) {
                let expected = match held {
                    Held::Cells(_) => format!("fewer than all {num_cells} cells"),
                    _ => "a share from 0 to below 1".to_owned(),
                };
                let got = match held {
                    Held::Cells(cells) => cells.to_string(),
                    _ => share.to_string(),
                };
                return Err(LoaderError::setting(key, expected, got));
            }
            if key == "val" || self.folds.is_none() {
                held_out += share;
            }
        }
        if held_out >= 1.0 {
            let expected = "shares that leave cells to train on";
            return Err(LoaderError::setting(
                "val and test",
                expected,
                format!("{held_out} of all"),
            ));
        }
        Ok(())
    }

    /// How many cells are drawn of each file.
    fn set_quotas(&self, split: &mut Split, num_cells: &[u64]) {
        let total: u64 = num_cells.iter().sum();
        let wanted = |held| (share(held, total) * total as f64).round() as u64;
        for fold in 0..self.folds.unwrap_or(1) {
            let test = match self.folds {
                None => apportion(wanted(&self.test), num_cells),
                Some(num_folds) => of_fold(fold, num_folds, num_cells),
            };
            let rest: Vec<u64> = num_cells
                .iter()
                .zip(&test)
                .map(|(n, test)| n - test)
                .collect();
            let val = apportion(wanted(&self.val).min(rest.iter().sum()), &rest);
            for (file, (test, val)) in split.files.iter_mut().zip(test.into_iter().zip(val)) {
                (file.folds[fold].test, file.folds[fold].val) = (test, val);
            }
        }
    }

    /// The groups of each part, in each fold.
    fn divide(&self, counted: &Counted) -> Result<Vec<Groups>, LoaderError> {
        let total = counted.sizes.iter().flatten().sum();
        if let (Held::Groups(val), Held::Groups(test)) = (&self.val, &self.test) {
            return Ok(vec![counted.named(val, test)?]);
        }
        let (val, test) = (share(&self.val, total), share(&self.test, total));
        let all: Vec<usize> = (0..counted.names.len()).collect();
        let Some(num_folds) = self.folds else {
            let parts = counted.assign(&all, &[1.0 - val - test, val, test], (self.seed, 0))?;
            return Ok(vec![counted.groups(&parts)]);
        };
        let even = vec![1.0 / num_folds as f64; num_folds];
        let fold_of = counted.assign(&all, &even, (self.seed, 0))?;
        let one = |fold: usize| {
            let rest: Vec<usize> = all
                .iter()
                .copied()
                .filter(|g| fold_of[*g] != fold)
                .collect();
            let val = val / (1.0 - 1.0 / num_folds as f64);
            let of_rest = counted.assign(&rest, &[1.0 - val, val], (self.seed, fold as u64 + 1))?;
            let mut parts = vec![2; all.len()];
            rest.iter()
                .zip(of_rest)
                .for_each(|(group, part)| parts[*group] = part);
            Ok(counted.groups(&parts))
        };
        (0..num_folds).map(one).collect()
    }
}

/// The cells of each file that test in one fold.
fn of_fold(fold: usize, num_folds: usize, num_cells: &[u64]) -> Vec<u64> {
    let mut cells_before = 0;
    let of_file = num_cells.iter().map(|&cells| {
        let (fold, num_folds) = (fold as u64, num_folds as u64);
        let place = FoldOf {
            fold,
            num_folds,
            cells_before,
        };
        cells_before += cells;
        place.len(cells)
    });
    of_file.collect()
}

fn share(held: &Held, total: u64) -> f64 {
    match held {
        Held::Share(share) => *share,
        Held::Cells(cells) => *cells as f64 / total.max(1) as f64,
        Held::Groups(_) => 0.0,
    }
}

/// The groups of a column whose values are the parts.
fn named_parts(read: &CellColumn, column: &str) -> Result<Groups, LoaderError> {
    let mut groups = Groups::default();
    for value in &read.values {
        let small = value.to_lowercase();
        let is_one = |(_, names): &&(Part, &[&str])| names.contains(&small.as_str());
        let Some((part, _)) = PART_NAMES.iter().find(is_one) else {
            return Err(LoaderError::NoPart {
                column: column.to_owned(),
                value: value.clone(),
            });
        };
        groups.of_mut(*part).push(value.clone());
    }
    Ok(groups)
}

/// Groups, and how many cells they have.
struct Counted {
    /// What they are, for messages.
    what: String,
    names: Vec<String>,
    /// `[groups][strata]`
    sizes: Vec<Vec<u64>>,
}

impl Counted {
    fn of_values(
        config: &SplitConfig,
        sources: &[&dyn CellSource],
        column: &str,
    ) -> Result<Self, LoaderError> {
        let read = CellColumn::read(sources.iter().copied(), column)?;
        let groups = read.codes.iter().copied();
        let (strata, num_strata) = strata(config, sources, read.codes.len())?;
        let mut sizes = vec![vec![0; num_strata]; read.values.len()];
        for (group, stratum) in groups.zip(strata) {
            if let Some(group) = group {
                sizes[group as usize][stratum] += 1;
            }
        }
        Ok(Self {
            what: format!("values of obs column `{column}`"),
            names: read.values,
            sizes,
        })
    }

    fn of_files(
        config: &SplitConfig,
        sources: &[&dyn CellSource],
        names: &[String],
    ) -> Result<Self, LoaderError> {
        let num_cells = sources.iter().map(|source| source.num_cells() as usize);
        let (strata, num_strata) = strata(config, sources, num_cells.clone().sum())?;
        let mut strata = strata.into_iter();
        let of_file = num_cells.map(|num_cells| {
            let mut sizes = vec![0; num_strata];
            strata
                .by_ref()
                .take(num_cells)
                .for_each(|stratum| sizes[stratum] += 1);
            sizes
        });
        Ok(Self {
            what: "files".to_owned(),
            names: names.to_vec(),
            sizes: of_file.collect(),
        })
    }

    /// A part, 0..shares, for each of `groups`; parts without a share get none.
    fn assign(
        &self,
        groups: &[usize],
        shares: &[f64],
        draw: (u64, u64),
    ) -> Result<Vec<usize>, LoaderError> {
        let parts: Vec<usize> = (0..shares.len())
            .filter(|part| shares[*part] > 0.0)
            .collect();
        let shares: Vec<f64> = parts.iter().map(|part| shares[*part]).collect();
        let sizes: Vec<&[u64]> = groups
            .iter()
            .map(|group| self.sizes[*group].as_slice())
            .collect();
        let assigned = assign_groups(&sizes, &shares, draw);
        let assigned = assigned.ok_or_else(|| LoaderError::TooFewGroups {
            what: self.what.clone(),
            groups: groups.len(),
            parts: parts.len(),
        })?;
        Ok(assigned.into_iter().map(|part| parts[part]).collect())
    }

    /// The groups by part, each part sorted; `parts` are numbers of [`Part::ALL`].
    fn groups(&self, parts: &[usize]) -> Groups {
        let mut groups = Groups::default();
        for (name, part) in self.names.iter().zip(parts) {
            groups.of_mut(Part::ALL[*part]).push(name.clone());
        }
        Part::ALL
            .iter()
            .for_each(|part| groups.of_mut(*part).sort_unstable());
        groups
    }

    /// The named groups are held out, all others train.
    fn named(&self, val: &[String], test: &[String]) -> Result<Groups, LoaderError> {
        let mut parts = vec![0; self.names.len()];
        for (part, wanted) in [(1, val), (2, test)] {
            for name in wanted {
                let place = self.names.iter().position(|known| known == name);
                let place = place.ok_or_else(|| LoaderError::NoGroup {
                    name: name.clone(),
                    what: self.what.clone(),
                    known: first_of(&self.names),
                })?;
                if ![0, part].contains(&parts[place]) {
                    let expected = "each group in one part only";
                    return Err(LoaderError::setting("val and test", expected, name));
                }
                parts[place] = part;
            }
        }
        Ok(self.groups(&parts))
    }
}

fn first_of(names: &[String]) -> String {
    const SHOWN: usize = 20;
    let more = if names.len() > SHOWN { ", …" } else { "" };
    let shown = &names[..names.len().min(SHOWN)];
    format!("{}{more}", shown.join(", "))
}

/// The stratum of every cell, and the number of strata; cells without a value are one.
fn strata(
    config: &SplitConfig,
    sources: &[&dyn CellSource],
    num_cells: usize,
) -> Result<(Vec<usize>, usize), LoaderError> {
    let Some(column) = &config.stratify_by else {
        return Ok((vec![0; num_cells], 1));
    };
    let read = CellColumn::read(sources.iter().copied(), column)?;
    if read.values.len() > num_cells / 2 {
        let expected = "a column with few values";
        let got = format!(
            "{column} ({} values in {num_cells} cells)",
            read.values.len()
        );
        return Err(LoaderError::setting("stratify_by", expected, got));
    }
    let missing = read.values.len();
    let stratum = |code: Option<u32>| code.map_or(missing, |code| code as usize);
    Ok((read.codes.into_iter().map(stratum).collect(), missing + 1))
}
