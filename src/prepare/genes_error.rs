//! What can be wrong with the genes of files and the figures about them.

use std::path::PathBuf;

/// An error of a job on genes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenesError {
    /// Files of which no gene stands in all.
    #[error(
        "no gene stands in every file: {} has {genes}, …; {} has {other_genes}, …\nhint: \
         --gene-id-column names the column of var where gene ids are spelled alike; --genes union \
         takes a gene for not expressed where a file lacks it", path.display(), other.display()
    )]
    NoCommonGenes {
        /// The first file.
        path: PathBuf,
        /// Its first genes.
        genes: String,
        /// The file after which no common gene was left.
        other: PathBuf,
        /// Its first genes.
        other_genes: String,
    },
    /// A column of var that was named for gene symbols and holds numbers.
    #[error(
        "{}: var column `{column}` holds numbers, expected gene symbols; there are {columns}\n\
         hint: name a column of texts with --symbol-column", path.display()
    )]
    NumericSymbols {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The columns there are.
        columns: String,
    },
    /// Values that are no counts where counts are needed.
    #[error(
        "{}: {matrix} holds no counts: row {row}, gene {gene} has {value}; its values look {kind}\n\
         hint: {remedy}\nhint: --allow-fractions takes the values as they are", path.display()
    )]
    NotCounts {
        /// The file.
        path: PathBuf,
        /// The matrix.
        matrix: String,
        /// The first row with a fraction.
        row: u64,
        /// Its gene.
        gene: String,
        /// The value.
        value: f32,
        /// What the values look like.
        kind: String,
        /// Where counts may be.
        remedy: String,
    },
    /// A value that is no number.
    #[error("{}: {matrix} has no finite number in row {row}, gene {gene}", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The matrix.
        matrix: String,
        /// The row.
        row: u64,
        /// Its gene.
        gene: String,
    },
    /// A cell without a batch.
    #[error(
        "{}: row {row} has no value in the obs column `{column}`, so that its batch is not known\n\
         hint: fill the column in, or name another one with --batch-key", path.display()
    )]
    NoBatch {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The first such row.
        row: u64,
    },
    /// Too few cells for a variance.
    #[error(
        "{place}: {found} cells; a variance needs at least 2\nhint: with --batch-key, every value \
         of the column needs 2 cells or more: merge or remove such values, or name another column"
    )]
    FewCells {
        /// The batch and its column, or the files.
        place: String,
        /// Its cells.
        found: u64,
    },
    /// Too few genes for a curve.
    #[error(
        "{place}: the values of {found} genes vary; a curve through them needs at least {least}\n\
         hint: {remedy}"
    )]
    FewGenes {
        /// The batch and its column, or the files.
        place: String,
        /// Genes that vary.
        found: usize,
        /// Genes needed.
        least: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// A table that names no gene.
    #[error(
        "{}: no line holds a symbol and an Ensembl id\nhint: a table (.csv, or tab-separated .tsv \
         or .txt) in whose lines both stand side by side, such as BioMart exports", path.display()
    )]
    NoNames {
        /// The table.
        path: PathBuf,
    },
    /// A number that cannot be used.
    #[error("--{flag} is {given}, expected {expected}")]
    Number {
        /// The flag.
        flag: &'static str,
        /// What was given.
        given: String,
        /// What is possible.
        expected: &'static str,
    },
}
