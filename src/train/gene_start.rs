//! Where the vectors of genes start (`--init_gene_embeddings components`): genes that vary together
//! over the training cells begin near one another, in place of at random. So a model that sees few
//! cells need not learn from its labels alone what genes have to do with each other.
//!
//! What a gene starts from are its loadings on the first principal components of the cells' bin
//! numbers (0 where it is not expressed), each component as long as the deviation along it, sent to
//! the model's width by a random matrix, and scaled to the deviation that random vectors would have.
//! No label is looked at. The genes that vary most are counted, on cells spread over all files; the
//! others keep their random vectors. The same in spirit as gene2vec's vectors in scBERT (Yang et
//! al., Nature Machine Intelligence 2022), from the cells at hand.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rand::Rng;
use rand_distr::StandardNormal;

use super::data::Data;
use super::start::{Start, Weights};
use crate::buffers;
use crate::cell::{GeneId, PackedBatch};
use crate::classical::{Components, Moments};
use crate::config::{GeneStart, RunConfig};
use crate::loader::{Loader, PlainCollator};
use crate::model::TOKEN_TYPE_TABLE;
use crate::rng::{Stream, stream};

/// Cells looked at, at most.
const MAX_CELLS: u64 = 20_000;
/// Genes whose vectors are set, at most: memory and time go with their square.
const MAX_GENES: usize = 2_000;
const MAX_COMPONENTS: usize = 50;

/// Sets the genes' vectors of new `weights` as the settings say.
///
/// # Errors
/// Unreadable cells, or none in which two genes are expressed differently.
pub(super) fn settle(
    config: &RunConfig,
    start: &Start,
    data: &Data,
    weights: &mut Weights,
) -> Result<()> {
    if config.init_gene_embeddings == GeneStart::Random || start.checkpoint().is_some() {
        return Ok(());
    }
    let (genes, num_cells) = most_variable(config, start, data)?;
    let mut place = vec![None; start.vocabulary.genes().len()];
    for (number, gene) in genes.iter().enumerate() {
        place[*gene] = Some(number as u32);
    }
    let mut moments = Moments::new(genes.len());
    for_each_cell(config, start, data, |expressed| {
        let chosen = expressed.iter();
        let mut chosen: Vec<(u32, f32)> = chosen
            .filter_map(|&(gene, bin)| Some((place[gene]?, bin)))
            .collect();
        chosen.sort_unstable_by_key(|(place, _)| *place);
        let (places, bins): (Vec<u32>, Vec<f32>) = chosen.into_iter().unzip();
        moments.add_sparse(&places, &bins);
    })?;
    let width = start.model_config.hidden_size;
    let components = moments.components(MAX_COMPONENTS.min(width));
    let vectors = vectors(&components, genes.len(), start, config.seed);
    let Some(vectors) = vectors else {
        bail!(
            "the training cells do not differ in any gene\nhint: init_gene_embeddings random needs \
             no cells"
        );
    };
    let table = weights.parameters.get(TOKEN_TYPE_TABLE);
    let table = table.context("the model has no table of token types")?;
    let host = buffers::to_host(table.as_tensor())?;
    let mut rows = buffers::read::<f32>(&host)?.to_vec();
    for (gene, vector) in genes.iter().zip(vectors.chunks_exact(width)) {
        let row = start.vocabulary.gene_type(GeneId(*gene as u32)) as usize;
        rows[row * width..][..width].copy_from_slice(vector);
    }
    buffers::fill(table.as_tensor(), &rows)?;
    weights.origin += &format!(
        "; {} genes from {} components of {num_cells} cells",
        genes.len(),
        components.len()
    );
    Ok(())
}

/// The genes whose bins vary most, the first in the vocabulary first, and the number of cells.
fn most_variable(config: &RunConfig, start: &Start, data: &Data) -> Result<(Vec<usize>, u64)> {
    let num_genes = start.vocabulary.genes().len();
    let (mut sums, mut squares) = (vec![0.0; num_genes], vec![0.0; num_genes]);
    let num_cells = for_each_cell(config, start, data, |expressed| {
        for &(gene, bin) in expressed {
            sums[gene] += f64::from(bin);
            squares[gene] += f64::from(bin) * f64::from(bin);
        }
    })?;
    let count = (num_cells as f64).max(1.0);
    let variance = |gene: usize| squares[gene] / count - (sums[gene] / count).powi(2);
    let mut genes: Vec<usize> = (0..num_genes)
        .filter(|&gene| variance(gene) > 0.0)
        .collect();
    genes.sort_by(|&a, &b| variance(b).total_cmp(&variance(a)));
    genes.truncate(MAX_GENES);
    genes.sort_unstable();
    Ok((genes, num_cells))
}

/// The expressed genes of some training cells and their bin numbers, the same cells every time;
/// returns the number of cells.
fn for_each_cell(
    config: &RunConfig,
    start: &Start,
    data: &Data,
    mut each: impl FnMut(&[(usize, f32)]),
) -> Result<u64> {
    let settings = config.eval_loader_config();
    let sampler = data.looking_sampler(config)?;
    let mut loader = Loader::new(
        Arc::clone(&data.train),
        sampler,
        Arc::new(PlainCollator),
        settings,
    )?;
    let mut num_cells = 0;
    while num_cells < MAX_CELLS {
        let Some(batch) = loader.next_batch()? else {
            break;
        };
        for cell in batch.cu_seqlens.windows(2) {
            each(&expressed(&batch, cell, start));
        }
        num_cells += batch.num_cells() as u64;
    }
    Ok(num_cells)
}

fn expressed(batch: &PackedBatch, cell: &[u32], start: &Start) -> Vec<(usize, f32)> {
    let (vocabulary, tokens) = (&start.vocabulary, cell[0] as usize..cell[1] as usize);
    let bins = vocabulary.bin_ids();
    let pairs = tokens.map(|at| (batch.input_ids[at], batch.token_type_ids[at]));
    let genes = pairs.filter_map(|(id, token_type)| {
        let gene = vocabulary.type_gene(token_type)?;
        Some((gene.0 as usize, id.checked_sub(bins.start)? as f32))
    });
    genes.collect()
}

/// A vector for each gene [genes, D]; `None` where nothing varies.
fn vectors(
    components: &Components,
    num_genes: usize,
    start: &Start,
    seed: u64,
) -> Option<Vec<f32>> {
    let width = start.model_config.hidden_size;
    let mut draws = stream(seed, Stream::GeneStart, 0, 0);
    let directions: Vec<f64> = (0..components.len() * width)
        .map(|_| draws.sample(StandardNormal))
        .collect();
    let mut vectors = vec![0.0; num_genes * width];
    for (gene, vector) in vectors.chunks_exact_mut(width).enumerate() {
        let directions = directions.chunks_exact(width);
        for (loading, direction) in components.loadings(gene).zip(directions) {
            for (to, along) in vector.iter_mut().zip(direction) {
                *to += loading * along;
            }
        }
    }
    let size = vectors.iter().map(|x| x * x).sum::<f64>() / vectors.len() as f64;
    let scale = start.model_config.initializer_range / size.sqrt();
    scale
        .is_finite()
        .then(|| vectors.into_iter().map(|x| (x * scale) as f32).collect())
}
