//! What a run starts from: vocabulary, tokenization, model shape and weights. Either new (a config
//! file or built-in config, vocabulary and genes from the training files), or those of a checkpoint
//! (`--pretrained_model_path FOLDER` or `--resume`), whose vocabulary, genes and bins come along.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::data::Files;
use crate::cell::CellSource;
use crate::config::RunConfig;
use crate::h5ad::{H5ad, VarColumn};
use crate::model::{GeneBertConfig, GeneBertForMaskedLM, Parameters};
use crate::tokenize::{Compat, TokenizeConfig};
use crate::vocab::{GeneVocab, GenesFrom, PhenotypeVocab, Repeats, Vocabulary};
use crate::vocab::{build_genes, build_phenotypes, canonical_gene_id};

/// The column of var that ranks genes, as scanpy writes it.
const RANK_COLUMN: &str = "highly_variable_rank";

/// What a run starts from.
pub struct Start {
    /// Tokens and genes.
    pub vocabulary: Arc<Vocabulary>,
    /// How cells become tokens.
    pub tokenize: TokenizeConfig,
    /// The model's shape.
    pub model_config: GeneBertConfig,
    /// All weights.
    pub parameters: Parameters,
    /// Where the weights come from, for the screen.
    pub origin: String,
}

impl Start {
    /// Settles all of it.
    ///
    /// # Errors
    /// A file that cannot be read, settings that contradict the checkpoint, weights that do not
    /// fit the model.
    pub fn new(config: &RunConfig, resume: Option<&Path>, files: &Files) -> Result<Self> {
        let path = config.pretrained_model_path.as_deref();
        let checkpoint = resume.or(path.filter(|path| path.is_dir()));
        match checkpoint {
            Some(checkpoint) => Self::from_checkpoint(config, checkpoint),
            None => Self::anew(config, files),
        }
    }

    fn anew(config: &RunConfig, files: &Files) -> Result<Self> {
        let model_config = config.model_config()?;
        let tokenize = config.tokenize_config()?;
        let vocabulary = Arc::new(vocabulary(config, &tokenize, files)?);
        let model_config = shaped(model_config, config, &vocabulary)?;
        let parameters = GeneBertForMaskedLM::init_parameters(&model_config, config.seed)?;
        let origin = "random weights".to_owned();
        Ok(Self {
            vocabulary,
            tokenize,
            model_config,
            parameters,
            origin,
        })
    }

    fn from_checkpoint(config: &RunConfig, checkpoint: &Path) -> Result<Self> {
        let (vocabulary, saved) = Vocabulary::load(checkpoint)?;
        let saved: TokenizeConfig = serde_json::from_value(saved)
            .with_context(|| format!("{}/gene_bert.json: tokenize", checkpoint.display()))?;
        // Bins and genes are the checkpoint's; what is shown of a cell is the run's.
        let bins = if config.gives_bins() {
            config.bins()?
        } else {
            saved.bins.clone()
        };
        if bins != saved.bins {
            bail!(
                "{}: this checkpoint was trained with other bins than this run is told to use\n\
                 hint: leave --bin_edges and its like out: the checkpoint's are used",
                checkpoint.display()
            );
        }
        let tokenize = config.tokenize_with(bins);
        let vocabulary = Arc::new(vocabulary);
        check_vocabulary(config, checkpoint, &vocabulary)?;
        let model_config = GeneBertConfig::from_file(&checkpoint.join("config.json"))?;
        let model_config = shaped(model_config, config, &vocabulary)?;
        let parameters = GeneBertForMaskedLM::init_parameters(&model_config, config.seed)?;
        let report = parameters.load(&checkpoint.join("model.safetensors"))?;
        let mut origin = format!("weights of {}", checkpoint.display());
        if !report.missing.is_empty() {
            origin += &format!("; random, as not in there: {}", report.missing.join(", "));
        }
        if !report.unexpected.is_empty() {
            origin += &format!("; in there but not used: {}", report.unexpected.join(", "));
        }
        Ok(Self {
            vocabulary,
            tokenize,
            model_config,
            parameters,
            origin,
        })
    }
}

/// The config with the run's dropout and the vocabulary's sizes.
fn shaped(
    mut model: GeneBertConfig,
    config: &RunConfig,
    vocabulary: &Vocabulary,
) -> Result<GeneBertConfig> {
    if let Some(dropout) = config.hidden_dropout_prob {
        model.hidden_dropout_prob = dropout;
    }
    if let Some(dropout) = config.attention_probs_dropout_prob {
        model.attention_probs_dropout_prob = dropout;
    }
    let model = model.with_vocabulary(vocabulary.vocab_size(), vocabulary.type_vocab_size());
    model.validate()?;
    Ok(model)
}

/// With a checkpoint, `--vocab_path` may be given if it says the same.
fn check_vocabulary(config: &RunConfig, checkpoint: &Path, saved: &Vocabulary) -> Result<()> {
    let Some(path) = &config.vocab_path else {
        return Ok(());
    };
    let given = PhenotypeVocab::load(path, repeats(config))?;
    if given != *saved.phenotypes() {
        bail!(
            "{}: this vocabulary is not that of the checkpoint {}\nhint: leave --vocab_path out: \
             the checkpoint's own vocabulary is used",
            path.display(),
            checkpoint.display()
        );
    }
    Ok(())
}

fn repeats(config: &RunConfig) -> Repeats {
    match config.compat {
        Some(Compat::Perturbgene) => Repeats::Allowed,
        None => Repeats::Refused,
    }
}

fn vocabulary(config: &RunConfig, tokenize: &TokenizeConfig, files: &Files) -> Result<Vocabulary> {
    let sources: Vec<&dyn CellSource> = files
        .train
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
    let ranks = gene_ranks(&files.train, &genes)?;
    let genes = GeneVocab::new(genes.ids().to_vec(), ranks)?;
    Ok(Vocabulary::new(
        phenotypes,
        genes,
        tokenize.bins.num_edges()?,
    ))
}

/// Ranks from the first training file that has any; genes without one come last.
fn gene_ranks(files: &[Arc<H5ad>], genes: &GeneVocab) -> Result<Option<Vec<u32>>> {
    let is_ranked = |file: &&Arc<H5ad>| file.var_column_names().iter().any(|c| c == RANK_COLUMN);
    let Some(file) = files.iter().find(is_ranked) else {
        return Ok(None);
    };
    let VarColumn::Numbers(numbers) = file.var_column(RANK_COLUMN)? else {
        return Ok(None);
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
    Ok(Some(ranks))
}
