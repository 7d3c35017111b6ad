//! Settings checked against a vocabulary, and a source matched with both.

use std::sync::Arc;

use super::TokenizeError;
use super::bins::Edges;
use super::config::{Compat, GeneOrder, TokenizeConfig, UnknownPhenotype};
use super::matching::{GeneMatch, check_overlap, match_genes};
use super::transform::{BoundTransform, Needs};
use crate::cell::{CellSource, GeneId, Labels};
use crate::vocab::{NO_GENE, Vocabulary};

/// Stands for a value without a token.
const NO_TOKEN: u32 = u32::MAX;

/// How cells become tokens of one vocabulary.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    vocabulary: Arc<Vocabulary>,
    config: TokenizeConfig,
    edges: Edges,
    order: GeneOrder,
    /// Whether each gene is among the `num_top_genes`.
    kept: Vec<bool>,
}

/// One phenotype of a source: the token of each row.
#[derive(Debug, Clone)]
pub(super) struct BoundPhenotype {
    pub category: String,
    pub token_type: u32,
    labels: Labels,
    /// The token of each code.
    tokens: Vec<u32>,
}

impl BoundPhenotype {
    /// The token of a row; `None` where its value is missing or unknown.
    pub fn token(&self, row: u64) -> Option<u32> {
        let code = usize::try_from(*self.labels.codes.get(row as usize)?).ok()?;
        self.tokens
            .get(code)
            .copied()
            .filter(|&token| token != NO_TOKEN)
    }

    pub fn describe(&self, row: u64) -> String {
        match self.labels.value(row as usize) {
            Some(value) => format!("{value:?}"),
            None => "a missing value".to_owned(),
        }
    }
}

/// A source that is ready to be tokenized: its columns and values are matched.
#[derive(Debug, Clone)]
pub struct BoundSource {
    pub(super) source_path: String,
    pub(super) phenotypes: Vec<BoundPhenotype>,
    /// Gene of each column, or none.
    pub(super) columns: Vec<u32>,
    pub(super) columns_ascend: bool,
    pub(super) gene_names: Arc<[String]>,
    pub(super) edges: Edges,
    pub(super) order: GeneOrder,
    pub(super) ranks: Option<Vec<u32>>,
    pub(super) transform: BoundTransform,
    pub(super) augment: BoundTransform,
    pub(super) unknown: UnknownPhenotype,
    pub(super) allow_scaled: bool,
    pub(super) compat: Option<Compat>,
    pub(super) max_length: usize,
    pub(super) first_bin: u32,
    pub(super) first_gene_type: u32,
    measured: Vec<u32>,
    gene_match: GeneMatch,
    num_genes: usize,
}

impl Tokenizer {
    /// Checks the settings against the vocabulary.
    ///
    /// # Errors
    /// Bins that cannot work or are not as many as the vocabulary's, a phenotype that it does not
    /// have, ranks asked for where there are none, a `max_length` without room for a gene.
    pub fn new(vocabulary: Arc<Vocabulary>, config: TokenizeConfig) -> Result<Self, TokenizeError> {
        let setting = |key, what: String| TokenizeError::Setting { key, what };
        config.transform.require(Needs::Values, "transform")?;
        config.augment.require(Needs::Draws, "augment")?;
        let edges = config.bins.resolve(vocabulary.genes())?;
        let (found, expected) = (config.bins.num_edges()?, vocabulary.num_bin_edges());
        if found != expected {
            let what = format!("{found} edges, but the vocabulary was made for {expected}");
            return Err(setting("bin_edges", what));
        }
        for category in &config.included_phenotypes {
            if vocabulary.category_type(category).is_none() {
                let names = vocabulary.phenotypes().categories().map(|(name, _)| name);
                let names: Vec<&str> = names.collect();
                let known = if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                };
                return Err(TokenizeError::UnknownCategory {
                    category: category.clone(),
                    known,
                });
            }
        }
        let least = config.included_phenotypes.len() + 3;
        if config.max_length < least {
            let what = format!(
                "is {}; set {least} or more: [CLS], {} phenotypes, a gene, [EOS]",
                config.max_length,
                config.included_phenotypes.len()
            );
            return Err(setting("max_length", what));
        }
        let kept = kept_genes(&vocabulary, config.num_top_genes)?;
        let order = match (config.gene_order, vocabulary.genes().ranks()) {
            (Some(GeneOrder::Rank), None) => {
                let what = "is rank, but the genes have no rank; set file, expression or random, \
                            or gene_ranking, which `gene-bert genes rank` makes";
                return Err(setting("gene_order", what.to_owned()));
            }
            (Some(order), _) => order,
            (None, Some(_)) => GeneOrder::Rank,
            (None, None) => GeneOrder::File,
        };
        Ok(Self {
            vocabulary,
            config,
            edges,
            order,
            kept,
        })
    }

    /// The vocabulary.
    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    /// The settings.
    pub fn config(&self) -> &TokenizeConfig {
        &self.config
    }

    /// Matches a source's columns and phenotype values with the vocabulary.
    ///
    /// # Errors
    /// Too few known genes, an obs column that does not exist, and where unknown values are
    /// errors, the first of them.
    pub fn bind(&self, source: &dyn CellSource) -> Result<BoundSource, TokenizeError> {
        self.bind_showing(source, &self.config.included_phenotypes)
    }

    /// As [`Tokenizer::bind`], with the values of the phenotypes `visible` only: the others, whose
    /// columns the source need not have, are `[MASK]` (or unknown, if masking is not the policy).
    ///
    /// # Errors
    /// As [`Tokenizer::bind`], and a visible phenotype that is not among those included.
    pub fn bind_showing(
        &self,
        source: &dyn CellSource,
        visible: &[String],
    ) -> Result<BoundSource, TokenizeError> {
        let included = &self.config.included_phenotypes;
        if let Some(category) = visible.iter().find(|name| !included.contains(name)) {
            return Err(TokenizeError::UnknownCategory {
                category: category.clone(),
                known: included.join(", "),
            });
        }
        let source_path = source.path().display().to_string();
        let genes = self.vocabulary.genes();
        let (mut columns, gene_match) = match_genes(source.gene_ids(), genes);
        let place = (source_path.clone(), source.gene_ids());
        check_overlap(&gene_match, place, genes, self.config.min_gene_overlap)?;
        for gene in &mut columns {
            if *gene != NO_GENE && !self.kept[*gene as usize] {
                *gene = NO_GENE;
            }
        }
        let mut measured: Vec<u32> = columns.iter().copied().filter(|&g| g != NO_GENE).collect();
        let columns_ascend = measured.is_sorted();
        measured.sort_unstable();
        let phenotypes = self.config.included_phenotypes.iter();
        let phenotypes = phenotypes.map(|category| {
            let shown = visible.contains(category);
            self.phenotype(shown.then_some(source), category)
        });
        let bound = BoundSource {
            source_path,
            phenotypes: phenotypes.collect::<Result<_, _>>()?,
            columns,
            columns_ascend,
            gene_names: source.gene_ids().into(),
            edges: self.edges.clone(),
            order: self.order,
            ranks: genes.ranks().map(<[u32]>::to_vec),
            transform: self.config.transform.bind(source.gene_ids())?,
            augment: self.config.augment.bind(source.gene_ids())?,
            unknown: self.config.unknown_phenotype,
            allow_scaled: self.config.allow_scaled,
            compat: self.config.compat,
            max_length: self.config.max_length,
            first_bin: self.vocabulary.bin_ids().start,
            first_gene_type: self.vocabulary.gene_type(GeneId(0)),
            measured,
            gene_match,
            num_genes: genes.len(),
        };
        bound.check_phenotypes(source.num_cells())?;
        Ok(bound)
    }

    fn phenotype(
        &self,
        source: Option<&dyn CellSource>,
        category: &str,
    ) -> Result<BoundPhenotype, TokenizeError> {
        let labels = match source {
            Some(source) => source.labels(category).map_err(TokenizeError::Source)?,
            None => Labels {
                categories: Vec::new(),
                codes: Vec::new(),
            },
        };
        let token = |value: &String| {
            self.vocabulary
                .phenotype_id(category, value)
                .map_or(NO_TOKEN, |id| id.0)
        };
        Ok(BoundPhenotype {
            category: category.to_owned(),
            token_type: self.vocabulary.category_type(category).unwrap_or(0),
            tokens: labels.categories.iter().map(token).collect(),
            labels,
        })
    }
}

fn kept_genes(vocabulary: &Vocabulary, top: Option<usize>) -> Result<Vec<bool>, TokenizeError> {
    let genes = vocabulary.genes();
    let Some(top) = top.filter(|&top| top < genes.len()) else {
        return Ok(vec![true; genes.len()]);
    };
    let Some(ranks) = genes.ranks() else {
        let what = format!(
            "is {top}, but the {} genes have no rank to choose by; leave it out, or set \
             gene_ranking, which `gene-bert genes rank` makes",
            genes.len()
        );
        return Err(TokenizeError::Setting {
            key: "num_top_genes",
            what,
        });
    };
    let mut best: Vec<usize> = (0..genes.len()).collect();
    best.sort_unstable_by_key(|&gene| (ranks[gene], gene));
    let mut kept = vec![false; genes.len()];
    best.iter().take(top).for_each(|&gene| kept[gene] = true);
    Ok(kept)
}

impl BoundSource {
    /// The genes that the source measures and `num_top_genes` keeps, ascending.
    pub fn measured_genes(&self) -> &[u32] {
        &self.measured
    }

    /// The gene of each column of the source; `None` for one that is not read.
    pub fn genes_of_columns(&self) -> impl ExactSizeIterator<Item = Option<u32>> + Clone {
        let gene = |gene: &u32| Some(*gene).filter(|gene| *gene != NO_GENE);
        self.columns.iter().map(gene)
    }

    /// Number of genes of the vocabulary.
    pub fn num_genes(&self) -> usize {
        self.num_genes
    }

    /// How the source's genes met the vocabulary's.
    pub fn gene_match(&self) -> &GeneMatch {
        &self.gene_match
    }

    /// Number of rows that `--unknown-phenotype skip` leaves out, or `mask` hides something of.
    pub fn num_unknown(&self, num_cells: u64) -> u64 {
        (0..num_cells)
            .filter(|&row| self.phenotypes.iter().any(|p| p.token(row).is_none()))
            .count() as u64
    }

    /// Where unknown values are errors: the first of them, before anything is read.
    fn check_phenotypes(&self, num_cells: u64) -> Result<(), TokenizeError> {
        if self.unknown != UnknownPhenotype::Error {
            return Ok(());
        }
        for phenotype in &self.phenotypes {
            if let Some(row) = (0..num_cells).find(|&row| phenotype.token(row).is_none()) {
                return Err(TokenizeError::UnknownValue {
                    source_path: self.source_path.clone(),
                    row,
                    column: phenotype.category.clone(),
                    value: phenotype.describe(row),
                });
            }
        }
        Ok(())
    }
}
