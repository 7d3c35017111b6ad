//! `gene-bert vocab build`: the vocabulary of some files, to look at, to correct and to reuse.
//!
//! Every value of the named obs columns becomes a token, behind those of a vocabulary to start
//! from, if one is given. What is written is either one JSON file (category → tokens: what
//! `--vocab_path` reads), or a folder that also holds genes and bins: `vocab.json`,
//! `tokenizer.json`, `gene_bert.json`. A value that would be a token of two categories is refused;
//! values such as `unknown` can be left out, and are then what `--unknown-phenotype` is about.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::PrepareError;
use super::columns::{ColumnCounts, LeftOut, count};
use super::encoding::{ranked, repeats};
use crate::cell::CellSource;
use crate::config::RunConfig;
use crate::file::{StagedDir, create_parent, expand_paths};
use crate::loader::CellFile;
use crate::tokenize::{GeneMatch, Tokenizer};
use crate::vocab::{GeneVocab, GenesFrom, PhenotypeVocab, VocabError, Vocabulary, build_genes};

/// The files of an output folder.
const FOLDER: [&str; 3] = ["vocab.json", "tokenizer.json", "gene_bert.json"];

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Patterns of h5ad files.
    pub files: Vec<String>,
    /// obs columns; none: the run's `included_phenotypes`.
    pub phenotypes: Vec<String>,
    /// A vocabulary whose tokens come first.
    pub start_from: Option<PathBuf>,
    /// Values without a token: `VALUE` or `COLUMN=VALUE`.
    pub leave_out: Vec<String>,
    /// Which genes count.
    pub genes: GenesFrom,
    /// A `.json` file, or a folder.
    pub output: PathBuf,
    /// Whether what stands there is replaced.
    pub overwrite: bool,
}

/// A vocabulary built from files, and where its parts come from.
#[derive(Debug)]
pub struct Built {
    /// Categories and tokens.
    pub phenotypes: PhenotypeVocab,
    /// Genes, ranked where the settings or var have ranks.
    pub genes: GeneVocab,
    /// The columns read, in the order asked for.
    pub columns: Vec<ColumnCounts>,
    /// Tokens of each category that were there to start from.
    pub started_with: BTreeMap<String, usize>,
    /// Each file, its number of cells and its genes.
    pub files: Vec<(PathBuf, u64, GeneMatch)>,
    /// Genes that every file has.
    pub num_common_genes: usize,
    /// What a user should know although nothing is wrong.
    pub notes: Vec<String>,
}

/// Builds the vocabulary and writes it to the output.
///
/// # Errors
/// An output that exists already, or a folder without bins; files or columns that cannot be read;
/// a token of two categories; an output that cannot be written.
pub fn build(request: &Request, config: &RunConfig) -> Result<Built, PrepareError> {
    let mut config = config.clone();
    if !request.phenotypes.is_empty() {
        config.included_phenotypes.clone_from(&request.phenotypes);
    }
    let to_folder = is_folder(&request.output);
    check_output(request, &config, to_folder)?;
    let options = config.open_options();
    let paths = expand_paths(&request.files)?;
    let files = CellFile::all(&paths, &options)?;
    let built = from_files(request, &config, &files)?;
    if to_folder {
        save_folder(&built, &config, &request.output)?;
    } else {
        create_parent(&request.output)?;
        built.phenotypes.save(&request.output)?;
    }
    Ok(built)
}

fn from_files(
    request: &Request,
    config: &RunConfig,
    files: &[Arc<CellFile>],
) -> Result<Built, PrepareError> {
    if let (true, Some(file)) = (config.included_phenotypes.is_empty(), files.first()) {
        return Err(PrepareError::NoPhenotypes {
            path: file.path().to_owned(),
            columns: file.obs_columns().map_err(PrepareError::Source)?.join(", "),
        });
    }
    let mut phenotypes = match &request.start_from {
        Some(path) => PhenotypeVocab::load(path, repeats(config))?,
        None => PhenotypeVocab::new(BTreeMap::new(), repeats(config))?,
    };
    let started_with = phenotypes.categories();
    let started_with = started_with.map(|(name, tokens)| (name.to_owned(), tokens.len()));
    let started_with = started_with.collect();
    let mut left_out = LeftOut::new(&request.leave_out, &config.included_phenotypes);
    let mut columns = Vec::new();
    for column in &config.included_phenotypes {
        let (counts, labels) = count(files, column, &mut left_out)?;
        let labels = labels.iter().map(|labels| (column.as_str(), labels));
        phenotypes = phenotypes
            .with_values(labels)
            .map_err(|e| duplicate(e, column))?;
        columns.push(counts);
    }
    let sources: Vec<&dyn CellSource> = files.iter().map(|f| f.as_ref() as _).collect();
    let genes = ranked(build_genes(&sources, request.genes)?, config, files)?;
    let num_common_genes = build_genes(&sources, GenesFrom::Intersection)?.len();
    let file = |file: &Arc<CellFile>| {
        let genes = GeneMatch::of(file.gene_ids(), &genes);
        (file.path().to_owned(), file.num_cells(), genes)
    };
    let files: Vec<_> = files.iter().map(file).collect();
    let mut notes: Vec<String> = columns.iter().filter_map(ColumnCounts::note).collect();
    notes.extend(left_out.unused());
    if files.len() > 1 && num_common_genes == 0 {
        notes.push(
            "no gene stands in every file: do all of them spell gene ids alike? \
             --gene_id_column names the column of var that holds them"
                .to_owned(),
        );
    }
    Ok(Built {
        phenotypes,
        genes,
        columns,
        started_with,
        files,
        num_common_genes,
        notes,
    })
}

/// A token of two categories, with what this command offers against it in the column just read.
fn duplicate(error: VocabError, column: &str) -> PrepareError {
    match error {
        VocabError::DuplicateToken {
            token,
            first,
            second,
        } => PrepareError::TwoCategories {
            value: token.trim_matches(['[', ']']).to_owned(),
            token,
            other: if first == column { second } else { first },
            column: column.to_owned(),
        },
        other => other.into(),
    }
}

fn is_folder(output: &Path) -> bool {
    output.is_dir() || output.extension().is_none_or(|ending| ending != "json")
}

/// Before anything is read: is the output free, and is all given that it is to hold?
fn check_output(
    request: &Request,
    config: &RunConfig,
    to_folder: bool,
) -> Result<(), PrepareError> {
    let output = &request.output;
    if to_folder && !config.gives_bins() {
        return Err(PrepareError::FolderWithoutBins {
            path: output.clone(),
        });
    }
    if to_folder {
        config.validate_tokens()?;
    }
    let foreign = to_folder && holds_other_files(output);
    if output.exists() && (foreign || !request.overwrite) {
        return Err(PrepareError::OutputExists {
            path: output.clone(),
            remedy: if foreign {
                "it holds other files than a vocabulary: name another folder"
            } else {
                "name another one, or give --overwrite to replace it"
            },
        });
    }
    Ok(())
}

fn holds_other_files(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return folder.exists();
    };
    let is_ours = |name: std::ffi::OsString| FOLDER.iter().any(|own| name == *own);
    entries.flatten().any(|entry| !is_ours(entry.file_name()))
}

fn save_folder(built: &Built, config: &RunConfig, output: &Path) -> Result<(), PrepareError> {
    let tokenize = config.tokenize_config()?;
    let (phenotypes, genes) = (built.phenotypes.clone(), built.genes.clone());
    let vocabulary = Vocabulary::new(phenotypes, genes, tokenize.bins.num_edges()?);
    let tokenizer = Tokenizer::new(Arc::new(vocabulary), tokenize)?;
    let settings = serde_json::to_value(tokenizer.config()).unwrap_or_default();
    let staged = StagedDir::new(output)?;
    tokenizer.vocabulary().save(staged.path(), &settings)?;
    built.phenotypes.save(&staged.path().join(FOLDER[0]))?;
    Ok(staged.commit()?)
}
