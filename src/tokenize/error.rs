//! What can be wrong between cells and tokens.

use crate::cell::SourceError;
use crate::vocab::VocabError;

/// An error of this room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizeError {
    /// The source could not be read.
    #[error(transparent)]
    Source(SourceError),
    /// Bin edges that cannot work.
    #[error("bin edges: {place}: {what}")]
    Bins {
        /// The gene or setting.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// A transform that there is not.
    #[error("transform {found:?} is unknown\nhint: {expected}")]
    Transform {
        /// What was given.
        found: String,
        /// What there is.
        expected: String,
    },
    /// A table of genes that a transform cannot use.
    #[error(transparent)]
    GeneTable(#[from] VocabError),
    /// A setting that cannot work.
    #[error("setting {key}: {what}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// What is wrong and what to set instead.
        what: String,
    },
    /// A phenotype that the vocabulary does not have.
    #[error(
        "phenotype `{category}` is not in the vocabulary, which has {known}\nhint: add it with \
             `gene-bert vocab build FILES… --phenotypes {category}`"
    )]
    UnknownCategory {
        /// The phenotype asked for.
        category: String,
        /// Those there are.
        known: String,
    },
    /// A value that the vocabulary does not have, or none.
    #[error(
        "{source_path}: row {row}, obs column `{column}`: {value} is not in the vocabulary\n\
             hint: add it with `gene-bert vocab build`, or let it pass with --unknown-phenotype \
             mask (hide it) or skip (leave the cell out)"
    )]
    UnknownValue {
        /// The file.
        source_path: String,
        /// The row, from 0.
        row: u64,
        /// The obs column.
        column: String,
        /// The value in quotes, or `a missing value`.
        value: String,
    },
    /// A source with too few of the vocabulary's genes.
    #[error(
        "{source_path}: has {matched} of the vocabulary's {expected} genes ({share:.1} %), \
             expected at least {least:.1} %; its ids look like {found}, the vocabulary's like \
             {wanted}\nhint: --gene-id-column names the column of var with the vocabulary's kind \
             of ids; --min-gene-overlap lowers the bar"
    )]
    GeneOverlap {
        /// The file.
        source_path: String,
        /// Genes found in both.
        matched: usize,
        /// Genes of the vocabulary.
        expected: usize,
        /// In percent.
        share: f64,
        /// In percent.
        least: f64,
        /// Some ids of the source.
        found: String,
        /// Some ids of the vocabulary.
        wanted: String,
    },
    /// Values that are not counts or their logs.
    #[error(
        "{source_path}: row {row}, gene {gene}: value {value} is {problem}; expected finite \
             values of 0 or more\nhint: {hint}"
    )]
    Value {
        /// The file.
        source_path: String,
        /// The row, from 0.
        row: u64,
        /// The gene id.
        gene: String,
        /// What was found.
        value: f32,
        /// What is wrong with it.
        problem: &'static str,
        /// What to do.
        hint: &'static str,
    },
}
