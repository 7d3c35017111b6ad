//! The genes of several files as one list.

use std::collections::HashSet;
use std::path::PathBuf;

use super::{GenesError, PrepareError};
use crate::cell::CellSource;
use crate::h5ad::H5ad;
use crate::vocab::{GeneTally, GeneVocab, GenesFrom, canonical_gene_id};

/// Most files of which repeated genes are noted.
const SHOWN: usize = 5;

/// Genes seen so far.
#[derive(Debug, Default)]
pub(super) struct Genes {
    tally: GeneTally,
    first: Option<Seen>,
    /// The file that shares the fewest genes with the first one.
    farthest: Option<(usize, Seen)>,
    first_genes: HashSet<String>,
    notes: Vec<String>,
}

/// A file and some of its genes, to be named.
#[derive(Debug, Clone, Default)]
struct Seen {
    path: PathBuf,
    genes: String,
}

impl Genes {
    /// Adds those of a file.
    pub(super) fn look(&mut self, file: &H5ad) {
        let repeated = self.tally.add(file.gene_ids());
        if let (Some(first), true) = (repeated.first(), self.notes.len() < SHOWN) {
            let (path, count) = (file.path().display(), repeated.len());
            self.notes.push(format!(
                "{path}: {count} columns repeat the gene of an earlier one ({first} first) and \
                 are not read"
            ));
        }
        let ids = file.gene_ids().iter().map(|id| canonical_gene_id(id));
        let seen = Seen {
            path: file.path().to_owned(),
            genes: ids.clone().take(3).collect::<Vec<_>>().join(", "),
        };
        if self.first.is_none() {
            self.first_genes = ids.map(str::to_owned).collect();
            self.first = Some(seen);
            return;
        }
        let shared = ids.filter(|id| self.first_genes.contains(*id)).count();
        if self
            .farthest
            .as_ref()
            .is_none_or(|(least, _)| shared < *least)
        {
            self.farthest = Some((shared, seen));
        }
    }

    /// The list, and what a user should know about it.
    ///
    /// # Errors
    /// It has no gene.
    pub(super) fn finish(self, from: GenesFrom) -> Result<(GeneVocab, Vec<String>), PrepareError> {
        let (all, mut notes) = (self.tally.len(), self.notes);
        let genes = self.tally.finish(from)?;
        if genes.is_empty() {
            let first = self.first.unwrap_or_default();
            let other = self.farthest.map_or_else(Seen::default, |(_, seen)| seen);
            return Err(GenesError::NoCommonGenes {
                path: first.path,
                genes: first.genes,
                other: other.path,
                other_genes: other.genes,
            }
            .into());
        }
        if genes.len() < all {
            notes.push(format!(
                "{} of {all} genes are left out, as not every file has them; --genes union takes \
                 them for not expressed there",
                all - genes.len()
            ));
        }
        Ok((genes, notes))
    }
}
