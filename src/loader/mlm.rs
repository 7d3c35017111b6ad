//! Masks for masked language modelling: always `[MASK]`, each position an independent draw.
//!
//! * Genes: with `gene_mask_prob`; the label is the bin. So that `bin_0` (not expressed) is a
//!   label too, every masked gene is marked with q = 1/((n+1)·0.9), n = number of bin edges, and
//!   in nine sequences of ten the marked ones become a gene that the whole cell lacks, with label
//!   `bin_0`; which then is 1/(n+1) of the gene labels. A cell that lacks too few genes keeps its
//!   own for the rest.
//! * Phenotypes: with `phenotype_mask_prob`; in training one masked phenotype in ten is dropped
//!   instead: left out of the sequence, without a label. (Compat: an attended `[PAD]` of type 0.)
//!   A phenotype that is `[MASK]` already, because its value is unknown, is left as it is.
//!
//! Draws come from (seed, epoch, cell); those of evaluation from (seed, cell) in a stream of its
//! own, so that every evaluation of a run sees the same masks.

use rand::RngCore;

use super::absent::{GeneWeights, Genes, draw_uniform, draw_weighted};
use super::collator::{CollatedCell, Collator};
use super::error::LoaderError;
use super::masking::{AbsentGeneSampling, EvalMasking, MlmConfig};
use crate::cell::{GeneId, Label, TokenizedCell};
use crate::rng::{self, ChaCha8Rng, Stream};
use crate::tokenize::Compat;
use crate::vocab::{MASK, PAD, Vocabulary};

/// Share of the sequences in which marked genes are exchanged for absent ones.
const EXCHANGED_SEQUENCES: f64 = 0.9;
/// Share of the masked phenotypes that are dropped in training.
const DROPPED_PHENOTYPES: f64 = 0.1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hidden {
    Training,
    Random,
    /// The phenotype of this token type.
    Phenotype(u32),
    AllPhenotypes,
}

/// Masks cells for masked language modelling.
#[derive(Debug, Clone)]
pub struct MlmCollator {
    seed: u64,
    hidden: Hidden,
    keep_dropped_as_pad: bool,
    gene_mask: Chance,
    phenotype_mask: Chance,
    mark: Chance,
    exchange: Chance,
    drop: Chance,
    weights: Option<GeneWeights>,
    /// Token type of gene 0; smaller ones above 0 are phenotypes.
    first_gene_type: u32,
    bin_0: u32,
}

/// What becomes of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Shown,
    Hidden,
    /// Hidden, and exchanged for an absent gene in most sequences.
    Marked,
    Dropped,
}

/// A probability in steps of 2⁻³²; 1 is certain, 0 impossible.
#[derive(Debug, Clone, Copy)]
struct Chance(u64);

impl Chance {
    fn new(probability: f64) -> Self {
        Self((probability.clamp(0.0, 1.0) * 4_294_967_296.0).round() as u64)
    }

    fn hits(self, rng: &mut ChaCha8Rng) -> bool {
        u64::from(rng.next_u32()) < self.0
    }
}

impl MlmCollator {
    /// Masks of training. `gene_weights` (one per gene of the vocabulary: how often it is
    /// expressed) are needed, and used, when absent genes are drawn by frequency.
    ///
    /// # Errors
    /// A setting that cannot work, or weights that are missing or cannot be drawn from.
    pub fn training(
        vocabulary: &Vocabulary,
        config: &MlmConfig,
        seed: u64,
        gene_weights: Option<&[f64]>,
    ) -> Result<Self, LoaderError> {
        Self::new(vocabulary, config, seed, gene_weights, Hidden::Training)
    }

    /// Masks of evaluation, as `masking` says; otherwise as [`MlmCollator::training`].
    ///
    /// # Errors
    /// As [`MlmCollator::training`], or a category that the vocabulary does not have.
    pub fn evaluation(
        vocabulary: &Vocabulary,
        config: &MlmConfig,
        seed: u64,
        gene_weights: Option<&[f64]>,
        masking: &EvalMasking,
    ) -> Result<Self, LoaderError> {
        let hidden = match masking {
            EvalMasking::Random => Hidden::Random,
            EvalMasking::AllPhenotypes => Hidden::AllPhenotypes,
            EvalMasking::Phenotype(category) => {
                let unknown = || {
                    let expected = "a phenotype category of the vocabulary";
                    LoaderError::setting("hidden phenotype", expected, category)
                };
                Hidden::Phenotype(vocabulary.category_type(category).ok_or_else(unknown)?)
            }
        };
        Self::new(vocabulary, config, seed, gene_weights, hidden)
    }

    fn new(
        vocabulary: &Vocabulary,
        config: &MlmConfig,
        seed: u64,
        gene_weights: Option<&[f64]>,
        hidden: Hidden,
    ) -> Result<Self, LoaderError> {
        config.validate()?;
        let weights = match config.absent_gene_sampling {
            AbsentGeneSampling::Uniform => None,
            AbsentGeneSampling::Frequency => {
                let weights = gene_weights.and_then(GeneWeights::new).ok_or_else(|| {
                    let expected = "to come with a weight ≥ 0 for every gene, not all 0";
                    LoaderError::setting("absent_gene_sampling", expected, "frequency")
                })?;
                Some(weights)
            }
        };
        let bin_0 = vocabulary.bin_id(0).0;
        let num_bins = vocabulary.num_bin_edges() as f64 + 1.0;
        let drop = if hidden == Hidden::Training {
            DROPPED_PHENOTYPES
        } else {
            0.0
        };
        Ok(Self {
            seed,
            hidden,
            keep_dropped_as_pad: config.compat == Some(Compat::Perturbgene),
            gene_mask: Chance::new(config.gene_mask_prob),
            phenotype_mask: Chance::new(config.phenotype_mask_prob),
            mark: Chance::new(1.0 / (num_bins * EXCHANGED_SEQUENCES)),
            exchange: Chance::new(EXCHANGED_SEQUENCES),
            drop: Chance::new(drop),
            weights,
            first_gene_type: vocabulary.gene_type(GeneId(0)),
            bin_0,
        })
    }

    /// Hides the phenotypes whose token type `chosen` accepts.
    fn hide_phenotypes(&self, cell: &mut CollatedCell, chosen: impl Fn(u32) -> bool) {
        let kinds = cell.token_type_ids.iter();
        for (position, (input, &kind)) in (0..).zip(cell.input_ids.iter_mut().zip(kinds)) {
            let phenotype = 0 < kind && kind < self.first_gene_type && *input != MASK;
            if phenotype && chosen(kind) {
                cell.labels.push(Label {
                    position,
                    token: *input,
                });
                *input = MASK;
            }
        }
    }

    /// Masks of training and of evaluations at random.
    fn hide_at_random(
        &self,
        tokens: &TokenizedCell,
        measured: &[u32],
        id: u64,
        rng: &mut ChaCha8Rng,
    ) -> CollatedCell {
        let num_tokens = tokens.input_ids.len();
        let mut cell = CollatedCell {
            input_ids: Vec::with_capacity(num_tokens),
            token_type_ids: Vec::with_capacity(num_tokens),
            labels: Vec::new(),
            id,
        };
        let mut marked = Vec::new(); // indices into `cell.labels`
        let exchange = self.exchange.hits(rng);
        for (&token, &kind) in tokens.input_ids.iter().zip(&tokens.token_type_ids) {
            let fate = self.draw_fate(token, kind, rng);
            let (input, kind) = match fate {
                Fate::Shown => (token, kind),
                Fate::Hidden | Fate::Marked => (MASK, kind),
                Fate::Dropped if self.keep_dropped_as_pad => (PAD, 0),
                Fate::Dropped => continue,
            };
            if fate == Fate::Marked {
                marked.push(cell.labels.len());
            }
            if input == MASK && token != MASK {
                cell.labels.push(Label {
                    position: cell.input_ids.len() as u32,
                    token,
                });
            }
            cell.input_ids.push(input);
            cell.token_type_ids.push(kind);
        }
        if exchange {
            let genes = Genes {
                measured,
                expressed: &tokens.expressed,
            };
            self.exchange_marked(&marked, &genes, &mut cell, rng);
        }
        cell
    }

    fn draw_fate(&self, token: u32, kind: u32, rng: &mut ChaCha8Rng) -> Fate {
        let (mask, special, special_fate) = match kind {
            _ if kind == 0 || token == MASK => return Fate::Shown,
            _ if kind < self.first_gene_type => (self.phenotype_mask, self.drop, Fate::Dropped),
            _ => (self.gene_mask, self.mark, Fate::Marked),
        };
        if !mask.hits(rng) {
            Fate::Shown
        } else if special.hits(rng) {
            special_fate
        } else {
            Fate::Hidden
        }
    }

    /// The marked genes become absent ones; where those run out, the last keep their own.
    fn exchange_marked(
        &self,
        marked: &[usize],
        genes: &Genes<'_>,
        cell: &mut CollatedCell,
        rng: &mut ChaCha8Rng,
    ) {
        let drawn = match &self.weights {
            None => draw_uniform(genes, marked.len(), rng),
            Some(weights) => draw_weighted(genes, weights, marked.len(), rng),
        };
        for (&label, gene) in marked.iter().zip(drawn) {
            let label = &mut cell.labels[label];
            label.token = self.bin_0;
            cell.token_type_ids[label.position as usize] = self.first_gene_type + gene;
        }
    }
}

impl Collator for MlmCollator {
    fn collate(&self, cell: TokenizedCell, measured: &[u32], epoch: u64, id: u64) -> CollatedCell {
        let at_random = |mut rng| self.hide_at_random(&cell, measured, id, &mut rng);
        let only = match self.hidden {
            Hidden::Training => return at_random(rng::stream(self.seed, Stream::Mask, epoch, id)),
            Hidden::Random => return at_random(rng::stream(self.seed, Stream::EvalMask, 0, id)),
            Hidden::Phenotype(kind) => Some(kind),
            Hidden::AllPhenotypes => None,
        };
        let TokenizedCell {
            input_ids,
            token_type_ids,
            ..
        } = cell;
        let mut cell = CollatedCell {
            input_ids,
            token_type_ids,
            labels: Vec::new(),
            id,
        };
        self.hide_phenotypes(&mut cell, |kind| only.is_none_or(|only| only == kind));
        cell
    }
}
