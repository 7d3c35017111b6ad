//! By what a run's cells become tokens: the vocabulary and the settings that go with it.
//!
//! Either new, from the files ([`Encoding::from_files`]: phenotypes of `--vocab_path` or of the
//! obs columns, every gene of any file, ranks of `--gene-ranking` or of var), or that of a checkpoint
//! ([`Encoding::from_checkpoint`]), whose vocabulary, genes and bins come along and may not be
//! contradicted; where its run goes on ([`Encoding::resumed`]), nothing else is looked at. Training
//! starts from it, `gene-bert tokenize` shows it. Knows no model.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::PrepareError;
use super::ranking::ranked_by;
use crate::cell::CellSource;
use crate::config::{RunConfig, Settings};
use crate::file::read_string;
use crate::loader::CellFile;
use crate::tokenize::{Compat, TokenizeConfig};
use crate::vocab::{GeneTable, GeneVocab, GenesFrom, PhenotypeVocab, Repeats, Vocabulary};
use crate::vocab::{build_genes, build_phenotypes, canonical_gene_id};

/// The column of var that ranks genes, as scanpy writes it.
const RANK_COLUMN: &str = "highly_variable_rank";

/// A vocabulary and how cells become its tokens.
#[derive(Debug, Clone)]
pub struct Encoding {
    /// Tokens and genes.
    pub vocabulary: Arc<Vocabulary>,
    /// How cells become tokens.
    pub tokenize: TokenizeConfig,
}

impl Encoding {
    /// Made from the files that a run trains on.
    ///
    /// # Errors
    /// No bins, a vocabulary or edge file that cannot be used, an obs column that a file lacks.
    pub fn from_files(config: &RunConfig, files: &[Arc<CellFile>]) -> Result<Self, PrepareError> {
        let tokenize = config.tokenize_config()?;
        let sources: Vec<&dyn CellSource> = files
            .iter()
            .map(|file| file.as_ref() as &dyn CellSource)
            .collect();
        let phenotypes = match &config.vocab_path {
            Some(path) => PhenotypeVocab::load(path, repeats(config))?,
            None => {
                let empty = PhenotypeVocab::default();
                build_phenotypes(empty, &sources, &config.included_phenotypes)?
            }
        };
        let genes = build_genes(&sources, GenesFrom::Union)?;
        let genes = ranked(genes, config, files)?;
        let num_edges = tokenize.bins.num_edges()?;
        let vocabulary = Arc::new(Vocabulary::new(phenotypes, genes, num_edges));
        Ok(Self {
            vocabulary,
            tokenize,
        })
    }

    /// That of a checkpoint whose run goes on or is evaluated: files that `config` names for bins,
    /// phenotypes or ranks are not read, as the checkpoint holds what they said.
    ///
    /// # Errors
    /// No such vocabulary there, or a damaged one.
    pub fn resumed(config: &RunConfig, checkpoint: &Path) -> Result<Self, PrepareError> {
        let (vocabulary, saved) = load(checkpoint)?;
        Ok(Self {
            vocabulary: Arc::new(vocabulary),
            tokenize: config.tokenize_with(saved.bins),
        })
    }

    /// That of a checkpoint to start from: bins, phenotypes and genes are the checkpoint's, ranks too unless
    /// `gene_ranking` gives others; what is shown of a cell (length, phenotypes, order, …) is as
    /// `config` says.
    ///
    /// # Errors
    /// No such vocabulary there, or settings that contradict it.
    pub fn from_checkpoint(config: &RunConfig, checkpoint: &Path) -> Result<Self, PrepareError> {
        let (mut vocabulary, saved) = load(checkpoint)?;
        if let Some(path) = &config.gene_ranking {
            let genes = ranked_by(&GeneTable::load(path)?, vocabulary.genes())?;
            let phenotypes = vocabulary.phenotypes().clone();
            vocabulary = Vocabulary::new(phenotypes, genes, vocabulary.num_bin_edges());
        }
        let bins = if config.gives_bins() {
            config.bins()?
        } else {
            saved.bins.clone()
        };
        if bins != saved.bins {
            let checkpoint = checkpoint.to_owned();
            return Err(PrepareError::OtherBins { checkpoint });
        }
        check_vocabulary(config, checkpoint, &vocabulary)?;
        let (vocabulary, tokenize) = (Arc::new(vocabulary), config.tokenize_with(bins));
        Ok(Self {
            vocabulary,
            tokenize,
        })
    }
}

/// The vocabulary of a checkpoint, and the settings it was used with.
///
/// # Errors
/// No such vocabulary there, or a damaged one.
pub fn load(checkpoint: &Path) -> Result<(Vocabulary, TokenizeConfig), PrepareError> {
    let (vocabulary, saved) = Vocabulary::load(checkpoint)?;
    match serde_json::from_value(saved) {
        Ok(tokenize) => Ok((vocabulary, tokenize)),
        Err(source) => Err(PrepareError::SavedSettings {
            path: checkpoint.join("gene_bert.json"),
            source,
        }),
    }
}

/// How the run of a checkpoint was set, as its `run.toml` says; nothing where it has none.
///
/// # Errors
/// A `run.toml` that cannot be read.
pub fn run_settings(checkpoint: &Path) -> Result<Settings, PrepareError> {
    let path = checkpoint.join("run.toml");
    if !path.is_file() {
        return Ok(Settings::default());
    }
    Ok(Settings::from_toml(&read_string(&path)?, &path)?)
}

/// Whether tokens may repeat between categories: only where the original's mistakes are.
pub fn repeats(config: &RunConfig) -> Repeats {
    match config.compat {
        Some(Compat::Perturbgene) => Repeats::Allowed,
        None => Repeats::Refused,
    }
}

/// With a checkpoint, `--vocab_path` may be given if it says the same.
fn check_vocabulary(
    config: &RunConfig,
    checkpoint: &Path,
    saved: &Vocabulary,
) -> Result<(), PrepareError> {
    let Some(path) = &config.vocab_path else {
        return Ok(());
    };
    if PhenotypeVocab::load(path, repeats(config))? == *saved.phenotypes() {
        return Ok(());
    }
    Err(PrepareError::OtherVocabulary {
        vocab_path: path.clone(),
        checkpoint: checkpoint.to_owned(),
    })
}

/// `genes` with the ranks of the settings, else those of the first file that has any; genes
/// without one come last.
pub(super) fn ranked(
    genes: GeneVocab,
    config: &RunConfig,
    files: &[Arc<CellFile>],
) -> Result<GeneVocab, PrepareError> {
    if let Some(path) = &config.gene_ranking {
        return ranked_by(&GeneTable::load(path)?, &genes);
    }
    let mut found = None;
    for file in files {
        found = file.gene_numbers(RANK_COLUMN)?.map(|ranks| (file, ranks));
        if found.is_some() {
            break;
        }
    }
    let Some((file, numbers)) = found else {
        return Ok(genes);
    };
    let mut ranks = vec![u32::MAX; genes.len()];
    let mut seen = BTreeSet::new();
    for (id, rank) in file.gene_ids().iter().zip(numbers) {
        if let Some(gene) = genes.get(id).filter(|_| seen.insert(canonical_gene_id(id)))
            && rank >= 0.0
        {
            ranks[gene.0 as usize] = rank as u32;
        }
    }
    Ok(GeneVocab::new(genes.ids().to_vec(), Some(ranks))?)
}
