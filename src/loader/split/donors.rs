//! Whether cells of one donor are in several parts: then held-out cells are easier than new donors.

use std::collections::BTreeMap;

use super::Part;
use super::apply::read_labels;
use crate::cell::CellSource;
use crate::loader::error::LoaderError;

/// obs columns that tell whose cells they are, the surest first.
const DONOR_COLUMNS: [&str; 12] = [
    "donor_id",
    "donor",
    "patient_id",
    "patient",
    "individual",
    "subject_id",
    "subject",
    "participant_id",
    "mouse_id",
    "sample_id",
    "sample",
    "orig.ident",
];

/// Donors whose cells are in several parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedDonors {
    /// The obs column that tells them.
    pub column: &'static str,
    /// Donors.
    pub num_donors: usize,
    /// Of those, in several parts.
    pub num_shared: usize,
}

/// Whether donors are shared by several parts of `parts` (the cells of `sources`, one below the
/// other), by the first of the usual obs columns that a source has; `None` where none has one.
///
/// # Errors
/// A column that cannot be read, or that names nobody.
pub fn shared_donors(
    sources: &[&dyn CellSource],
    parts: &[Option<Part>],
) -> Result<Option<SharedDonors>, LoaderError> {
    let columns = sources.iter().map(|source| columns_of(*source));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let has = |names: &Vec<String>, column: &str| names.iter().any(|name| name == column);
    let known = |column: &&str| columns.iter().any(|names| has(names, column));
    let Some(column) = DONOR_COLUMNS.into_iter().find(known) else {
        return Ok(None);
    };
    let mut parts_of: BTreeMap<String, u8> = BTreeMap::new();
    let mut first = 0;
    for (source, names) in sources.iter().zip(&columns) {
        let here = parts.iter().skip(first).take(source.num_cells() as usize);
        first += source.num_cells() as usize;
        if !has(names, column) {
            continue;
        }
        let labels = read_labels(*source, column)?;
        let mut seen = vec![0u8; labels.categories.len()];
        for (code, part) in labels.codes.iter().zip(here) {
            let (Ok(code), Some(part)) = (usize::try_from(*code), part) else {
                continue;
            };
            if let Some(seen) = seen.get_mut(code) {
                *seen |= 1 << *part as u8;
            }
        }
        for (donor, seen) in labels.categories.into_iter().zip(seen) {
            *parts_of.entry(donor).or_default() |= seen;
        }
    }
    let several = |seen: &&u8| seen.count_ones() > 1;
    Ok(Some(SharedDonors {
        column,
        num_donors: parts_of.values().filter(|seen| **seen > 0).count(),
        num_shared: parts_of.values().filter(several).count(),
    }))
}

fn columns_of(source: &dyn CellSource) -> Result<Vec<String>, LoaderError> {
    source.obs_columns().map_err(|cause| LoaderError::Column {
        path: source.path().to_path_buf(),
        column: "*".to_owned(),
        cause,
    })
}
