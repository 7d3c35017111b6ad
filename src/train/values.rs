//! What kind of values each file of a run holds: said before training, refused where they look
//! scaled, remarked on where they do not go together with one another or with the transform.
//!
//! Looks at a few rows of each file; a negative value elsewhere is refused when it is read.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::cell::CellSource;
use crate::config::RunConfig;
use crate::h5ad::{H5ad, ValueKind, ValueSample};
use crate::loader::CellFile;
use crate::tokenize::Transform;

/// The kinds of values seen so far.
pub(super) struct Kinds<'a> {
    config: &'a RunConfig,
    seen: Vec<(PathBuf, ValueKind)>,
}

impl<'a> Kinds<'a> {
    /// None seen yet.
    pub(super) fn new(config: &'a RunConfig) -> Self {
        let seen = Vec::new();
        Self { config, seen }
    }

    /// Looks at a few rows of `file` and says in a few words what they hold.
    ///
    /// # Errors
    /// Rows that cannot be read; values that look scaled, unless `allow_scaled` is set.
    pub(super) fn look_at(&mut self, file: &CellFile) -> Result<String> {
        let (kind, matrix) = match file.h5ad()? {
            Some(file) => {
                let sample = file.sample_values()?;
                if sample.kind == ValueKind::Negative && !self.config.allow_scaled {
                    refuse(&file, &sample)?;
                }
                (sample.kind, file.matrix().to_string())
            }
            // An archive refuses negative values itself.
            None => {
                let sample = ValueSample::of(file).map_err(anyhow::Error::from_boxed)?;
                (sample.kind, "archive".to_owned())
            }
        };
        self.seen.push((file.path().to_owned(), kind));
        Ok(format!("{matrix}: {kind}"))
    }

    /// What a user should know before training on all of these files.
    pub(super) fn notes(&self) -> Vec<String> {
        let of_transform = about_transform(&self.seen, &self.config.transform);
        about_mixture(&self.seen)
            .into_iter()
            .chain(of_transform)
            .collect()
    }
}

fn refuse(file: &H5ad, sample: &ValueSample) -> Result<()> {
    let (path, matrix) = (file.path().display(), file.matrix());
    let place = sample
        .first_negative
        .as_ref()
        .map_or_else(String::new, |n| {
            format!(", the first in row {}, gene {}: {}", n.row, n.gene, n.value)
        });
    let others: Vec<String> = file
        .matrices()?
        .into_iter()
        .filter(|name| *name != matrix.to_string())
        .collect();
    let other = match others.as_slice() {
        [] => format!("{path} holds no other matrix; counts must come from where it was made"),
        names => format!(
            "choose the matrix with counts by --matrix: {}",
            names.join(", ")
        ),
    };
    bail!(
        "{path}: {matrix} looks scaled or centred: {} of {} values looked at in {} cells are \
         negative{place}; expected counts or their logarithms\nhint: {other}\n\
         hint: --allow-scaled takes the values as they are; the bin edges must then fit them",
        sample.num_negative,
        sample.num_values,
        sample.num_cells,
    )
}

fn about_mixture(seen: &[(PathBuf, ValueKind)]) -> Option<String> {
    let told: Vec<&(PathBuf, ValueKind)> = seen
        .iter()
        .filter(|(_, kind)| *kind != ValueKind::Empty)
        .collect();
    let (first, rest) = told.split_first()?;
    let other = rest.iter().find(|other| other.1 != first.1)?;
    Some(format!(
        "the files hold different kinds of values ({}: {}; {}: {}), which the same bin edges cut \
         in different ways",
        first.0.display(),
        first.1,
        other.0.display(),
        other.1
    ))
}

fn about_transform(seen: &[(PathBuf, ValueKind)], transform: &Transform) -> Option<String> {
    let taken_twice = transform.takes_logarithms();
    let (path, _) = seen
        .iter()
        .find(|(_, kind)| *kind == ValueKind::Log && taken_twice)?;
    Some(format!(
        "{}: the values look like logarithms already, and --transform {transform} takes theirs \
         again; --transform none leaves them as they are",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn seen(kinds: &[ValueKind]) -> Vec<(PathBuf, ValueKind)> {
        let file = |(i, kind): (usize, &ValueKind)| (PathBuf::from(format!("{i}.h5ad")), *kind);
        kinds.iter().enumerate().map(file).collect()
    }

    #[test]
    fn kinds_that_do_not_go_together_are_remarked_on() {
        use ValueKind::{Empty, IntegerCounts, Log};
        assert_eq!(about_mixture(&seen(&[])), None);
        assert_eq!(
            about_mixture(&seen(&[IntegerCounts, Empty, IntegerCounts])),
            None
        );
        let text = about_mixture(&seen(&[Empty, IntegerCounts, Log])).unwrap();
        assert!(
            text.contains("1.h5ad: integer") && text.contains("2.h5ad: log"),
            "{text}"
        );
        let log1p: Transform = "log1p".parse().unwrap();
        assert_eq!(about_transform(&seen(&[IntegerCounts]), &log1p), None);
        assert_eq!(about_transform(&seen(&[Log]), &Transform::default()), None);
        assert!(about_transform(&seen(&[IntegerCounts, Log]), &log1p).is_some());
    }
}
