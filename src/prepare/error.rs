//! What can be wrong in jobs on data.

use std::io;
use std::path::PathBuf;

use crate::cell::SourceError;
use crate::config::{ConfigError, Invalid};
use crate::file::FileError;
use crate::h5ad::H5adError;
use crate::loader::LoaderError;
use crate::store::ScdlError;
use crate::tokenize::TokenizeError;
use crate::vocab::VocabError;

use super::GenesError;

/// An error of this room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// A path that cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// An h5ad file that cannot be read.
    #[error(transparent)]
    H5ad(#[from] H5adError),
    /// An SCDL archive that cannot be written.
    #[error(transparent)]
    Scdl(#[from] ScdlError),
    /// Cells that cannot be read.
    #[error(transparent)]
    Source(SourceError),
    /// Settings that cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Settings that cannot work.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A vocabulary that cannot be had.
    #[error(transparent)]
    Vocab(#[from] VocabError),
    /// Cells that cannot become tokens.
    #[error(transparent)]
    Tokenize(#[from] TokenizeError),
    /// Cells that cannot be split.
    #[error(transparent)]
    Split(#[from] LoaderError),
    /// The settings beside a saved vocabulary are none.
    #[error("{}: `tokenize` holds no settings of tokens", path.display())]
    SavedSettings {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// An evaluation set in which nothing would be asked.
    #[error(
        "none of the tokens of {num_cells} cells was masked, so there is nothing to evaluate\n\
         hint: raise --gene_mask_prob or --phenotype_mask_prob"
    )]
    NothingMasked {
        /// Cells.
        num_cells: u64,
    },
    /// Other bins than the checkpoint's.
    #[error(
        "{}: this checkpoint was trained with other bins than this run is told to use\n\
         hint: leave --bin_edges and its like out: the checkpoint's are used", checkpoint.display()
    )]
    OtherBins {
        /// The checkpoint's folder.
        checkpoint: PathBuf,
    },
    /// Other phenotypes than the checkpoint's.
    #[error(
        "{}: this vocabulary is not that of the checkpoint {}\nhint: leave --vocab_path out: the \
         checkpoint's own vocabulary is used", vocab_path.display(), checkpoint.display()
    )]
    OtherVocabulary {
        /// The vocabulary file.
        vocab_path: PathBuf,
        /// The checkpoint's folder.
        checkpoint: PathBuf,
    },
    /// Nothing to build a vocabulary from.
    #[error(
        "no obs column was named, so there is nothing to build a vocabulary from\n\
         hint: name some with --phenotypes; {} has {columns}", path.display()
    )]
    NoPhenotypes {
        /// The first file.
        path: PathBuf,
        /// Its obs columns.
        columns: String,
    },
    /// A value of two columns.
    #[error(
        "the value {value:?} stands both in `{other}` and in `{column}`, so that its token \
         {token} would be in two categories\nhint: --leave_out '{column}={value}' gives it no \
         token there; what becomes of such cells, --unknown-phenotype says in a run"
    )]
    TwoCategories {
        /// The value.
        value: String,
        /// Its token.
        token: String,
        /// The category that has it already.
        other: String,
        /// The column that has it too.
        column: String,
    },
    /// An output folder holds genes and bins, and bins are not given.
    #[error(
        "{}: a folder also holds genes and bins, and no bins are given\nhint: give --bin_edges or \
         its like, or name a .json file for the phenotypes alone", path.display()
    )]
    FolderWithoutBins {
        /// The folder.
        path: PathBuf,
    },
    /// The output is there already.
    #[error("{}: exists already\nhint: {remedy}", path.display())]
    OutputExists {
        /// The file or folder.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// A list of rows that is none.
    #[error(
        "`{given}` is no list of rows: {problem}\nhint: rows are numbers from 0 with commas \
         between them, and ranges: 0,5,7 or 0-4 (both ends) or 0..5 (without 5)"
    )]
    Rows {
        /// What was given.
        given: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A row that the file does not have.
    #[error("{}: there is no row {row}\nhint: the file has {num_cells} rows, numbered from 0",
        path.display())]
    NoSuchRow {
        /// The file.
        path: PathBuf,
        /// The row asked for.
        row: u64,
        /// Number of rows.
        num_cells: u64,
    },
    /// Genes that nothing can be told of.
    #[error(transparent)]
    Genes(Box<GenesError>),
    /// Threads could not be started.
    #[error("cannot start threads\nhint: --threads N with a smaller number")]
    Threads(#[source] rayon::ThreadPoolBuildError),
    /// Files that cannot be converted.
    #[error("{0}")]
    Convert(String),
    /// The output could not be written.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

impl From<GenesError> for PrepareError {
    fn from(error: GenesError) -> Self {
        Self::Genes(Box::new(error))
    }
}
