//! The tokens of single cells of a file, to look at or to compare: what `gene-bert tokenize` shows.
//!
//! Cells become tokens exactly as in a run with the same settings: the vocabulary is a
//! checkpoint's, or is made from the training files, or, where none are named, from the file
//! itself. A cell reads as JSON ([`CellTokens::to_json`]) or, through `Display`, as one token and
//! its token type per line. Random gene order is that of epoch 0 of a run on this file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::encoding::{self, Encoding};
use super::{PrepareError, RowList};
use crate::cell::{CellSource, CsrBlock, TokenId, TokenizedCell};
use crate::config::{RunConfig, RunFlags, Settings};
use crate::file::expand_paths;
use crate::h5ad::H5ad;
use crate::loader::CellFile;
use crate::tokenize::{BoundSource, Draw, Tokenizer};
use crate::vocab::Vocabulary;

/// Cells read together.
const CELLS_TOGETHER: usize = 256;
/// Rows shown where none are asked for.
const FIRST_ROWS: u64 = 3;

/// A file whose cells can be made into tokens.
pub struct Tokens {
    file: Arc<H5ad>,
    bound: BoundSource,
    vocabulary: Arc<Vocabulary>,
    cell_names: Vec<String>,
    seed: u64,
}

/// One cell and its tokens.
#[derive(Debug)]
pub struct CellTokens<'a> {
    /// The row, from 0.
    pub row: u64,
    /// The cell's name, as the obs index has it.
    pub obs_name: &'a str,
    /// Its tokens; `None` where the settings leave it out, as a phenotype is unknown.
    pub tokens: Option<TokenizedCell>,
    vocabulary: &'a Vocabulary,
}

impl Tokens {
    /// Opens `path` with the settings of `flags`. With a checkpoint as `--pretrained_model_path`,
    /// settings that are not given are the checkpoint's.
    ///
    /// # Errors
    /// Settings that cannot work or contradict the checkpoint; a file that cannot be read; too few
    /// known genes, an obs column that does not exist, an unknown value.
    pub fn open(path: &Path, flags: &RunFlags) -> Result<Self, PrepareError> {
        let (config, checkpoint) = settle(flags)?;
        let file = Arc::new(H5ad::open(path, &config.open_options())?);
        let files = [path.to_owned()];
        let encoding = encoding_of(&config, checkpoint.as_deref(), &files)?;
        let vocabulary = encoding.vocabulary;
        let tokenizer = Tokenizer::new(Arc::clone(&vocabulary), encoding.tokenize)?;
        let bound = tokenizer.bind(file.as_ref())?;
        let cell_names = file.cell_names().map_err(PrepareError::Source)?;
        Ok(Self {
            file,
            bound,
            vocabulary,
            cell_names,
            seed: config.seed,
        })
    }

    /// Number of cells of the file.
    pub fn num_cells(&self) -> u64 {
        self.file.num_cells()
    }

    /// The file, its genes and the vocabulary, on two lines.
    pub fn describe(&self) -> String {
        let vocabulary = &self.vocabulary;
        format!(
            "{}: {} cells, {}, {}\nvocabulary: {} tokens, {} token types, fingerprint {:.12}",
            self.file.path().display(),
            self.num_cells(),
            self.file.matrix(),
            self.bound.gene_match(),
            vocabulary.vocab_size(),
            vocabulary.type_vocab_size(),
            vocabulary.fingerprint(),
        )
    }

    /// The rows asked for, or the first few.
    ///
    /// # Errors
    /// A row that the file does not have.
    pub fn rows(&self, asked: Option<&RowList>) -> Result<RowList, PrepareError> {
        let first = || RowList::first(FIRST_ROWS, self.num_cells());
        let rows = asked.cloned().unwrap_or_else(first);
        rows.check(self.file.path(), self.num_cells())?;
        Ok(rows)
    }

    /// Hands the cells of `rows` to `each`, in the order given.
    ///
    /// # Errors
    /// A cell that cannot be read; whatever keeps `each` from writing.
    pub fn visit(
        &self,
        rows: &RowList,
        each: &mut dyn FnMut(&CellTokens<'_>) -> io::Result<()>,
    ) -> Result<(), PrepareError> {
        let mut rows = rows.iter();
        loop {
            let together: Vec<u64> = rows.by_ref().take(CELLS_TOGETHER).collect();
            if together.is_empty() {
                return Ok(());
            }
            let mut sorted = together.clone();
            sorted.sort_unstable();
            sorted.dedup();
            let ranges: Vec<_> = sorted.iter().map(|&row| row..row + 1).collect();
            let block = self.file.read(&ranges)?;
            for row in together {
                let at = sorted.partition_point(|&other| other < row);
                each(&self.cell(row, &block, at)?).map_err(PrepareError::Output)?;
            }
        }
    }

    /// Row `row` of the file, which stands at `at` in `block`.
    fn cell(&self, row: u64, block: &CsrBlock, at: usize) -> Result<CellTokens<'_>, PrepareError> {
        let stored = block.indptr().outer_inds_sz(at);
        let (columns, values) = (&block.indices()[stored.clone()], &block.data()[stored]);
        let draw = Draw {
            seed: self.seed,
            epoch: 0,
            cell: row,
            augments: false,
        };
        let tokens = self.bound.tokenize(row, columns, values, draw)?;
        let name = self.cell_names.get(row as usize);
        Ok(CellTokens {
            row,
            obs_name: name.map_or("", String::as_str),
            tokens,
            vocabulary: &self.vocabulary,
        })
    }
}

/// The settings of `flags`, those that are not given being of the checkpoint that
/// `--pretrained_model_path` names, and its folder.
pub(super) fn settle(flags: &RunFlags) -> Result<(RunConfig, Option<PathBuf>), PrepareError> {
    flags.refuse_actions()?;
    let mut config = flags.resolve()?;
    let checkpoint = config.pretrained_model_path.clone();
    let checkpoint = checkpoint.filter(|path| path.is_dir());
    if let Some(folder) = &checkpoint {
        config = flags.resolve_over(saved_settings(folder)?)?;
    }
    config.validate_tokens()?;
    Ok((config, checkpoint))
}

/// How cells become tokens: as in the checkpoint, else as the training files say, else `files`.
pub(super) fn encoding_of(
    config: &RunConfig,
    checkpoint: Option<&Path>,
    files: &[PathBuf],
) -> Result<Encoding, PrepareError> {
    match checkpoint {
        Some(folder) => Encoding::from_checkpoint(config, folder),
        None => Encoding::from_files(config, &training_files(config, files)?),
    }
}

/// The files whose genes and values make the vocabulary: the training files, else `file`.
fn training_files(
    config: &RunConfig,
    files: &[PathBuf],
) -> Result<Vec<Arc<CellFile>>, PrepareError> {
    let paths = if config.train_data_paths.is_empty() {
        files.to_vec()
    } else {
        expand_paths(&config.train_data_paths)?
    };
    Ok(CellFile::all(&paths, &config.open_options())?)
}

/// What a checkpoint's run was told about tokens, masks and about where values and gene ids are.
fn saved_settings(checkpoint: &Path) -> Result<Settings, PrepareError> {
    let (_, tokenize) = encoding::load(checkpoint)?;
    let run = encoding::run_settings(checkpoint)?;
    Ok(Settings {
        matrix: run.matrix,
        gene_id_column: run.gene_id_column,
        gene_map: run.gene_map,
        seed: run.seed,
        gene_mask_prob: run.gene_mask_prob,
        phenotype_mask_prob: run.phenotype_mask_prob,
        absent_gene_sampling: run.absent_gene_sampling,
        ..Settings::from(tokenize)
    })
}

/// A cell as one line of JSON.
#[derive(Serialize)]
struct JsonLine<'a> {
    row: u64,
    obs_name: &'a str,
    input_ids: &'a [u32],
    token_type_ids: &'a [u32],
}

impl CellTokens<'_> {
    /// `{"row": …, "obs_name": …, "input_ids": […], "token_type_ids": […]}`; `None` for a cell
    /// that is left out.
    pub fn to_json(&self) -> Option<String> {
        let tokens = self.tokens.as_ref()?;
        let line = JsonLine {
            row: self.row,
            obs_name: self.obs_name,
            input_ids: &tokens.input_ids,
            token_type_ids: &tokens.token_type_ids,
        };
        serde_json::to_string(&line).ok()
    }

    /// The name of a token type: `special`, a phenotype category or a gene id.
    fn type_name(&self, token_type: u32) -> &str {
        let genes = self.vocabulary.genes().ids();
        let gene = self.vocabulary.type_gene(token_type);
        gene.and_then(|gene| genes.get(gene.0 as usize))
            .map(String::as_str)
            .or_else(|| self.vocabulary.type_category(token_type))
            .unwrap_or("special")
    }

    fn num_genes(&self, tokens: &TokenizedCell) -> usize {
        let is_gene = |t: &&u32| self.vocabulary.type_gene(**t).is_some();
        tokens.token_type_ids.iter().filter(is_gene).count()
    }
}

impl fmt::Display for CellTokens<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}, {}: ", self.row, self.obs_name)?;
        let Some(tokens) = &self.tokens else {
            return writeln!(f, "left out, as a phenotype is unknown");
        };
        let (genes, expressed) = (self.num_genes(tokens), tokens.expressed.len());
        write!(f, "{} tokens, ", tokens.input_ids.len())?;
        if genes < expressed {
            writeln!(f, "truncated: {genes} of {expressed} expressed genes")?;
        } else {
            writeln!(f, "not truncated: all {genes} expressed genes")?;
        }
        writeln!(f, "{:>9} {:>13}", "input_id", "token_type_id")?;
        let pairs = tokens.input_ids.iter().zip(&tokens.token_type_ids);
        for (&token, &token_type) in pairs {
            let text = self.vocabulary.token_text(TokenId(token)).unwrap_or("?");
            let name = self.type_name(token_type);
            writeln!(f, "{token:>9} {token_type:>13}  {text} : {name}")?;
        }
        Ok(())
    }
}
