//! Everything that can go wrong between a plan and a batch.

use std::path::PathBuf;

use crate::cell::SourceError;
use crate::file::FileError;
use crate::h5ad::H5adError;
use crate::store::ScdlError;
use crate::tokenize::TokenizeError;
use crate::vocab::VocabError;

/// The error of this room. What a source or the tokenizer said is kept as the cause.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// A setting that cannot work.
    #[error("`{key}` = {got}: expected {expected}")]
    Setting {
        /// The setting's key.
        key: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A selection that is not a list of distinct, ascending cells of the data set.
    #[error(
        "the selected cells must ascend and lie below {num_cells}, but entry {entry} is {got} \
         (after {previous:?})"
    )]
    Selection {
        /// Index into the list.
        entry: usize,
        /// The entry before it.
        previous: Option<u64>,
        /// The entry.
        got: u64,
        /// Size of the data set.
        num_cells: u64,
    },
    /// Cells could not be read; the cause names file and place.
    #[error("cannot read cells")]
    Read {
        /// The source.
        path: PathBuf,
        /// First row asked for.
        first: u64,
        /// One past the last row asked for.
        end: u64,
        /// What the source said.
        #[source]
        cause: SourceError,
    },
    /// An obs column could not be read; the cause names file and column.
    #[error("cannot read an obs column")]
    Column {
        /// The source.
        path: PathBuf,
        /// The column.
        column: String,
        /// What the source said.
        #[source]
        cause: SourceError,
    },
    /// A column that is to say how often a cell is drawn, and says something else.
    #[error(
        "obs column `{column}`: expected weights, numbers from 0 up, found {value:?}\n\
         hint: --balance_by {column} draws every value equally often, whatever it is"
    )]
    NoWeight {
        /// The column.
        column: String,
        /// The value.
        value: String,
    },
    /// A column in which no cell has a value to go by.
    #[error(
        "obs column `{column}`: no training cell has a value (as a weight: one above 0), so there \
         is nothing to order cells by\nhint: name another column; `gene-bert info` lists them"
    )]
    NoValue {
        /// The column.
        column: String,
    },
    /// A pre-masked set that cannot be used.
    #[error(
        "{}: no usable pre-masked set: {what}\nhint: `gene-bert eval-set` writes one, with the \
         vocabulary of a checkpoint", path.display()
    )]
    EvalSet {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// A file that a split was not made from.
    #[error(
        "{}: the split was made without this file, from {files}\n\
         hint: make it from all files of the run with `gene-bert split`", path.display()
    )]
    SplitWithoutFile {
        /// The file.
        path: PathBuf,
        /// The files that it was made from.
        files: String,
    },
    /// A file that is not what it was when the split was made.
    #[error(
        "{}: is not the file that the split was made from: {what}: expected {expected}, found \
         {found}\nhint: make the split anew with `gene-bert split`, or read the file it was made \
         from", path.display()
    )]
    SplitChanged {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
        /// As the split says.
        expected: String,
        /// As the file says.
        found: String,
    },
    /// A split that contradicts itself.
    #[error("{}: no usable split: {what}\nhint: write it with `gene-bert split`", path.display())]
    BadSplit {
        /// The file of the split.
        path: PathBuf,
        /// What cannot be.
        what: String,
    },
    /// No fold chosen where there are several, or one that is not there.
    #[error(
        "{}: the split has {num_folds} fold(s)\nhint: choose one with --fold, 0 to {last}",
        path.display()
    )]
    Fold {
        /// The file of the split.
        path: PathBuf,
        /// Number of its folds.
        num_folds: usize,
        /// The last one.
        last: usize,
    },
    /// Fewer groups than parts.
    #[error(
        "{groups} {what} cannot be divided into {parts} parts of whole groups\n\
         hint: ask for fewer parts (--val 0, fewer --folds), or go by another column"
    )]
    TooFewGroups {
        /// What the groups are.
        what: String,
        /// Their number.
        groups: usize,
        /// Parts wanted.
        parts: usize,
    },
    /// A group that is not there.
    #[error("{name:?} is not among the {what}: {known}\nhint: correct the name")]
    NoGroup {
        /// The group asked for.
        name: String,
        /// What the groups are.
        what: String,
        /// Their names.
        known: String,
    },
    /// A value that names no part.
    #[error(
        "obs column `{column}`: {value:?} is no part: train, val or test is expected\n\
         hint: --by {column} --test-values … says which values are held out"
    )]
    NoPart {
        /// The column.
        column: String,
        /// The value.
        value: String,
    },
    /// A file that cannot be opened.
    #[error(transparent)]
    Open(Box<H5adError>),
    /// An archive that cannot be opened.
    #[error(transparent)]
    Archive(Box<ScdlError>),
    /// Genes that cannot be put together.
    #[error(transparent)]
    Genes(Box<VocabError>),
    /// A transform that does not fit.
    #[error(transparent)]
    Transform(Box<TokenizeError>),
    /// A cell that there is not.
    #[error("there is no cell {cell}: there are {num_cells}, numbered from 0")]
    NoCell {
        /// The cell asked for.
        cell: u64,
        /// Number of cells.
        num_cells: u64,
    },
    /// Arrays of obsm that cannot stand below each other.
    #[error(
        "{}: {name} has {found} columns, that of {} has {expected}\nhint: they come from different \
         runs; leave it out, or compute it for all files together", path.display(), first.display()
    )]
    ObsmWidth {
        /// The array.
        name: String,
        /// The first file.
        first: PathBuf,
        /// Its columns.
        expected: usize,
        /// The other file.
        path: PathBuf,
        /// Its columns.
        found: usize,
    },
    /// A file that is no cell source could not be read or written.
    #[error(transparent)]
    File {
        /// What is wrong with it.
        cause: Box<FileError>,
    },
    /// A source handed back another number of rows than asked for.
    #[error("{}: asked for {expected} rows, got {got}", path.display())]
    RowCount {
        /// The source.
        path: PathBuf,
        /// Rows asked for.
        expected: usize,
        /// Rows received.
        got: usize,
    },
    /// A cell could not be made into tokens; the cause names file and row.
    #[error("a cell cannot be made into tokens")]
    Tokenize {
        /// The source.
        path: PathBuf,
        /// The row in that source.
        row: u64,
        /// What the tokenizer said.
        #[source]
        cause: Box<TokenizeError>,
    },
    /// A reader thread could not be started.
    #[error("cannot start a reader thread\nhint: lower `num_workers`")]
    Spawn {
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// A defect of this program, caught in a reader thread.
    #[error("internal error while reading {}, from row {row}: {message}", path.display())]
    Panicked {
        /// The source of the first cell of the work at hand.
        path: PathBuf,
        /// The row of that cell.
        row: u64,
        /// The panic's text.
        message: String,
    },
    /// A batch whose tokens cannot be counted in 32 bits.
    #[error("a batch of {cells} cells has 2^32 tokens or more\nhint: lower the batch size")]
    BatchTooLarge {
        /// Cells in the batch.
        cells: usize,
    },
    /// The saved position belongs to another data set or another plan.
    #[error(
        "cannot resume in the middle of an epoch: {what} was {saved}, now it is {now}\n\
         hint: resume with the same data files, selection and sampler settings (the numbers of \
         threads, ranks and cells per batch may change), or start a new run"
    )]
    Resume {
        /// What differs.
        what: String,
        /// Its saved value.
        saved: String,
        /// Its value now.
        now: String,
    },
}

impl From<ScdlError> for LoaderError {
    fn from(error: ScdlError) -> Self {
        Self::Archive(Box::new(error))
    }
}

impl From<H5adError> for LoaderError {
    fn from(error: H5adError) -> Self {
        Self::Open(Box::new(error))
    }
}

impl From<VocabError> for LoaderError {
    fn from(error: VocabError) -> Self {
        Self::Genes(Box::new(error))
    }
}

impl From<TokenizeError> for LoaderError {
    fn from(error: TokenizeError) -> Self {
        Self::Transform(Box::new(error))
    }
}

impl LoaderError {
    pub(super) fn setting(
        key: &'static str,
        expected: impl Into<String>,
        got: impl ToString,
    ) -> Self {
        Self::Setting {
            key,
            expected: expected.into(),
            got: got.to_string(),
        }
    }
}
