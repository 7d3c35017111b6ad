//! From the rule to the part of each cell, and whether the files are those it was made from.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::draw::{FoldOf, Quota, draw};
use super::{FilePart, Groups, Part, Rule, Split, SplitFile};
use crate::cell::{CellSource, Labels};
use crate::loader::error::LoaderError;

/// Hexadecimal digits of a digest: enough to notice a change.
const DIGEST_DIGITS: usize = 32;

impl Split {
    /// The part of every cell of `sources` in `fold`, one source below the other; `None`: in no
    /// part.
    ///
    /// # Errors
    /// No such fold; a source that the split was not made from, or that is not what it was then.
    pub fn parts(
        &self,
        fold: usize,
        sources: &[&dyn CellSource],
    ) -> Result<Vec<Option<Part>>, LoaderError> {
        let mut parts = Vec::new();
        for source in sources {
            let index = self.find(*source)?;
            let Some(noted) = self.files[index].folds.get(fold) else {
                let expected = format!("below {}", self.num_folds());
                return Err(LoaderError::setting("fold", expected, fold));
            };
            let labels = self.labels_of(*source)?;
            let of = self.parts_of(labels.as_ref(), index, fold);
            if file_part(&of) != *noted {
                let expected = format!("{} in train, {} in val", noted.train, noted.val);
                return Err(LoaderError::SplitChanged {
                    path: source.path().to_path_buf(),
                    what: self.rule_reads(),
                    expected: format!("{expected}, {} in test", noted.test),
                    found: "other cells in these".to_owned(),
                });
            }
            parts.extend(of);
        }
        Ok(parts)
    }

    /// The obs column that the rule goes by.
    fn column(&self) -> Option<&String> {
        match &self.rule {
            Rule::Groups { column, .. } => Some(column),
            Rule::Cells { stratify_by, .. } => stratify_by.as_ref(),
            Rule::Files { .. } => None,
        }
    }

    fn rule_reads(&self) -> String {
        let column = self.column();
        column.map_or_else(|| "its parts".to_owned(), |c| format!("obs column `{c}`"))
    }

    /// What the rule goes by in `source`: the same for all folds.
    pub(super) fn labels_of(&self, source: &dyn CellSource) -> Result<Option<Labels>, LoaderError> {
        let column = self.column();
        column.map(|column| read_labels(source, column)).transpose()
    }

    /// Which of the split's files `source` is: by its cells, and by its name among equals.
    fn find(&self, source: &dyn CellSource) -> Result<usize, LoaderError> {
        let path = source.path();
        let (num_cells, names) = (source.num_cells(), digest_of_names(source)?);
        let same = |file: &SplitFile| file.num_cells == num_cells && file.cell_names == names;
        let named = |file: &SplitFile| path.ends_with(&file.name);
        let all = || (0..).zip(&self.files);
        let candidates: Vec<usize> = all().filter(|(_, f)| same(f)).map(|(i, _)| i).collect();
        if let [only] = candidates[..] {
            return Ok(only);
        }
        if let Some(index) = candidates.iter().find(|i| named(&self.files[**i])) {
            return Ok(*index);
        }
        if let Some(file) = self.files.iter().find(|file| named(file)) {
            let (what, expected, found) = if file.num_cells == num_cells {
                ("the names of its cells", file.cell_names.clone(), names)
            } else {
                let numbers = (file.num_cells.to_string(), num_cells.to_string());
                ("the number of its cells", numbers.0, numbers.1)
            };
            return Err(LoaderError::SplitChanged {
                path: path.to_path_buf(),
                what: what.to_owned(),
                expected,
                found,
            });
        }
        Err(LoaderError::SplitWithoutFile {
            path: path.to_path_buf(),
            files: some_names(&self.files),
        })
    }

    /// The parts of the cells of file `index`, of which the rule goes by `labels`.
    pub(super) fn parts_of(
        &self,
        labels: Option<&Labels>,
        index: usize,
        fold: usize,
    ) -> Vec<Option<Part>> {
        let num_cells = self.files[index].num_cells as usize;
        let codes = labels.map(|labels| labels.codes.as_slice());
        match &self.rule {
            Rule::Groups { folds, .. } => {
                let of = by_value(&folds[fold]);
                let values = labels.map_or(&[][..], |labels| &labels.categories);
                let part = |value: &String| of.get(value.as_str()).copied();
                let of_code: Vec<Option<Part>> = values.iter().map(part).collect();
                let part = |code: &i32| {
                    let code = usize::try_from(*code).ok()?;
                    of_code.get(code).copied().flatten()
                };
                codes.unwrap_or_default().iter().map(part).collect()
            }
            Rule::Files { folds } => {
                let part = by_value(&folds[fold])
                    .get(self.files[index].name.as_str())
                    .copied();
                vec![part; num_cells]
            }
            Rule::Cells { seed, .. } => {
                let strata = codes.map_or_else(|| vec![0; num_cells], <[i32]>::to_vec);
                let quota = self.quota(index, fold);
                let parts = draw(*seed, index as u64, &quota, &strata);
                parts.into_iter().map(Some).collect()
            }
        }
    }

    /// What is drawn of file `index`.
    fn quota(&self, index: usize, fold: usize) -> Quota {
        let file = &self.files[index];
        let before = self.files[..index].iter().map(|file| file.num_cells);
        let place = FoldOf {
            fold: fold as u64,
            num_folds: file.folds.len() as u64,
            cells_before: before.sum(),
        };
        Quota {
            val: file.folds[fold].val,
            test: file.folds[fold].test,
            fold: (place.num_folds > 1).then_some(place),
        }
    }
}

fn by_value(groups: &Groups) -> HashMap<&str, Part> {
    let of = |part: Part| {
        groups
            .of(part)
            .iter()
            .map(move |value| (value.as_str(), part))
    };
    Part::ALL.into_iter().flat_map(of).collect()
}

/// The first few names.
fn some_names(files: &[SplitFile]) -> String {
    const SHOWN: usize = 5;
    let names: Vec<&str> = files.iter().take(SHOWN).map(|f| f.name.as_str()).collect();
    let more = if files.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", names.join(", "))
}

pub(super) fn read_labels(source: &dyn CellSource, column: &str) -> Result<Labels, LoaderError> {
    source.labels(column).map_err(|cause| LoaderError::Column {
        path: source.path().to_path_buf(),
        column: column.to_owned(),
        cause,
    })
}

/// What the cells are called, in few letters.
pub(super) fn digest_of_names(source: &dyn CellSource) -> Result<String, LoaderError> {
    let names = source.cell_names().map_err(|cause| LoaderError::Read {
        path: source.path().to_path_buf(),
        first: 0,
        end: source.num_cells(),
        cause,
    })?;
    let mut hash = Sha256::new();
    for name in names {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
    }
    Ok(hex(hash))
}

/// How many cells are in each part, and which.
pub(super) fn file_part(parts: &[Option<Part>]) -> FilePart {
    let (mut counts, mut hash) = ([0; 4], Sha256::new());
    for part in parts {
        let number = part.map_or(3, |part| part as u8);
        counts[usize::from(number)] += 1;
        hash.update([number]);
    }
    let [train, val, test, none] = counts;
    let digest = hex(hash);
    FilePart {
        train,
        val,
        test,
        none,
        digest,
    }
}

fn hex(hash: Sha256) -> String {
    let bytes = hash.finalize();
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    digits.take(DIGEST_DIGITS / 2).collect()
}

/// For each path as much of its end as no other path ends with.
pub(super) fn short_names(paths: &[&Path]) -> Vec<String> {
    let mut same_name: HashMap<_, Vec<&Path>> = HashMap::new();
    for path in paths {
        same_name.entry(path.file_name()).or_default().push(path);
    }
    let short = |path: &&Path| {
        let others = &same_name[&path.file_name()];
        let own: Vec<_> = path.components().collect();
        let mut ends = (1..=own.len()).map(|n| own[own.len() - n..].iter().collect::<PathBuf>());
        let name = ends.find(|end| others.iter().filter(|other| other.ends_with(end)).count() == 1);
        name.unwrap_or_else(|| path.to_path_buf())
            .display()
            .to_string()
    };
    paths.iter().map(short).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_short_as_they_can_be() {
        let paths = ["a/x.h5ad", "b/x.h5ad", "b/y.h5ad"].map(Path::new);
        assert_eq!(short_names(&paths), ["a/x.h5ad", "b/x.h5ad", "y.h5ad"]);
    }
}
