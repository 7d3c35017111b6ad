//! Which genes are written, and where the columns of each file go.

use std::collections::{HashMap, HashSet};

use super::config::GeneChoice;
use crate::cell::CellSource;
use crate::h5ad::{ColumnMap, H5ad, H5adError, JoinedTable, TableColumn};
use crate::prepare::PrepareError;
use crate::vocab::canonical_gene_id;

/// The genes of the output.
#[derive(Debug)]
pub(super) struct GenePlan {
    /// Their ids, as the first file that has each spells it.
    pub(super) ids: Vec<String>,
    /// For each, its row in the var tables of all files, one under the other.
    pub(super) rows: Vec<usize>,
    /// For each file, where its columns go.
    pub(super) maps: Vec<ColumnMap>,
}

impl GenePlan {
    /// Matches the genes of `files` by id (without a version suffix).
    pub(super) fn new(files: &[H5ad], choice: GeneChoice) -> Result<Self, PrepareError> {
        let Some(first) = files.first() else {
            return Ok(Self {
                ids: Vec::new(),
                rows: Vec::new(),
                maps: Vec::new(),
            });
        };
        if files.iter().all(|file| file.gene_ids() == first.gene_ids()) {
            return Ok(Self {
                ids: first.gene_ids().to_vec(),
                rows: (0..first.gene_ids().len()).collect(),
                maps: vec![ColumnMap::Same; files.len()],
            });
        }
        let sets = files.iter().map(distinct).collect::<Result<Vec<_>, _>>()?;
        if choice == GeneChoice::Ragged {
            return Err(PrepareError::Convert(
                "an h5ad file has the same genes in every cell\n\
                 hint: choose --genes union, --genes intersection or --format scdl"
                    .to_owned(),
            ));
        }
        if choice == GeneChoice::Same {
            for (file, set) in files.iter().zip(&sets) {
                refuse_difference(first, &sets[0], file, set)?;
            }
        }
        let wanted = |id: &str| choice == GeneChoice::Union || sets.iter().all(|s| s.contains(id));
        let (mut ids, mut rows) = (Vec::new(), Vec::new());
        let mut places: HashMap<&str, u32> = HashMap::new();
        let mut row = 0;
        for file in files {
            for id in file.gene_ids() {
                let canonical = canonical_gene_id(id);
                if wanted(canonical) && !places.contains_key(canonical) {
                    places.insert(canonical, ids.len() as u32);
                    ids.push(id.clone());
                    rows.push(row);
                }
                row += 1;
            }
        }
        let place = |id: &String| places.get(canonical_gene_id(id)).copied();
        let to = |file: &H5ad| ColumnMap::To(file.gene_ids().iter().map(place).collect());
        let maps = files.iter().map(to).collect();
        Ok(Self { ids, rows, maps })
    }
}

impl GenePlan {
    /// The columns of `var` (of all files) for the genes of the output.
    pub(super) fn table(
        &self,
        var: &JoinedTable<'_>,
    ) -> Result<Vec<(String, TableColumn)>, H5adError> {
        let column = |name: String| {
            let column = var.column(&name)?.take(self.rows.iter().copied());
            Ok((name, column))
        };
        var.column_names().into_iter().map(column).collect()
    }
}

/// The genes of a file, each once.
fn distinct(file: &H5ad) -> Result<HashSet<&str>, PrepareError> {
    let mut seen = HashSet::new();
    for id in file.gene_ids() {
        let id = canonical_gene_id(id);
        if !seen.insert(id) {
            return Err(PrepareError::Convert(format!(
                "{}: gene {id} occurs twice, so that the genes of the files cannot be matched\n\
                 hint: name a column of var with distinct ids: --gene-id-column",
                file.path().display()
            )));
        }
    }
    Ok(seen)
}

fn refuse_difference(
    first: &H5ad,
    first_genes: &HashSet<&str>,
    file: &H5ad,
    genes: &HashSet<&str>,
) -> Result<(), PrepareError> {
    let (a, b) = (first.path().display(), file.path().display());
    let only = |have: &HashSet<&str>, lack: &HashSet<&str>| {
        let mut only: Vec<&str> = have.difference(lack).copied().collect();
        only.sort_unstable();
        let some = only
            .first()
            .map_or_else(String::new, |id| format!(" (such as {id})"));
        (only.len(), some)
    };
    let (missing, such) = only(first_genes, genes);
    let (more, such_more) = only(genes, first_genes);
    if missing + more == 0 {
        return Ok(());
    }
    Err(PrepareError::Convert(format!(
        "{b}: other genes than {a}: {missing} of its genes are absent{such}, {more} are \
         new{such_more}\n\
         hint: choose --genes union (0 where a file lacks a gene) or --genes intersection"
    )))
}
