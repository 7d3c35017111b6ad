//! What can be wrong with a vocabulary.

use std::path::PathBuf;

use crate::file::FileError;

/// An error of this room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VocabError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A source of cells cannot be read.
    #[error(transparent)]
    Source(crate::cell::SourceError),
    /// A gene stands twice in a gene list.
    #[error(
        "gene {gene} stands twice in the gene list, at {first} and at {second} (from 0)\n\
             hint: gene ids must differ also without their version suffix"
    )]
    DuplicateGene {
        /// The id without version.
        gene: String,
        /// Its first position.
        first: usize,
        /// Its second position.
        second: usize,
    },
    /// Not one rank for each gene.
    #[error("there are {found} gene ranks for {expected} genes")]
    Ranks {
        /// Genes.
        expected: usize,
        /// Ranks.
        found: usize,
    },
    /// A token belongs to two categories, or stands twice in one.
    #[error(
        "the token {token} stands both in `{first}` and in `{second}`; tokens must be unique over \
         all categories\nhint: build a vocabulary without it, `gene-bert vocab build … --leave_out \
         '{second}={}'`, and name it with --vocab_path; --compat perturbgene keeps both",
        token.trim_matches(['[', ']'])
    )]
    DuplicateToken {
        /// The token.
        token: String,
        /// One category.
        first: String,
        /// The other one, or the same.
        second: String,
    },
    /// A token is not of the form `[a_value]`, or is a special token.
    #[error(
        "category `{category}`: {token:?} cannot be a phenotype token; expected a value \
             without spaces in brackets, such as [T_cell], and none of [CLS] [EOS] [MASK] [PAD]"
    )]
    BadToken {
        /// Its category.
        category: String,
        /// The token.
        token: String,
    },
    /// A vocabulary file that holds something else.
    #[error("{}: cannot be used as a vocabulary", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<VocabError>,
    },
    /// A table of genes that cannot be used.
    #[error(
        "{}: {what}\nhint: a table with a line for each gene, named in a column `gene`; `gene-bert \
         genes rank` and `gene-bert genes stats` write such tables", path.display()
    )]
    GeneTable {
        /// The table.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A saved vocabulary contradicts itself or is of an unknown format.
    #[error("{}: {what}\nhint: the folder's tokenizer.json and gene_bert.json must be those that \
             gene-bert wrote together", path.display())]
    Saved {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}
