//! `gene-bert bench read`: how fast cells are read and made into tokens.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::mebibytes;
use crate::cell::CellSource;
use crate::config::{RunConfig, RunFlags};
use crate::file::expand_paths;
use crate::h5ad::H5ad;
use crate::loader::throughput::{Throughput, measure};
use crate::loader::{Collator, DataSet, MlmCollator, PlainCollator, Selection};
use crate::tokenize::{BoundSource, Tokenizer};
use crate::vocab::{GeneVocab, PhenotypeVocab, Repeats, Vocabulary, canonical_gene_id};

/// Cells on which genes are counted where absent ones are drawn by frequency.
const WEIGHT_CELLS: u64 = 1000;

/// Flags of `bench read`: those of a run count, as far as they concern reading and tokens.
#[derive(Debug, clap::Args)]
pub(super) struct ReadArgs {
    /// The h5ad files; brace patterns and globs are understood
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Passes over the files on each number of threads; the fastest is shown
    #[arg(long, value_name = "PASSES", default_value_t = 3)]
    passes: u64,
    /// Read the files as if there were so many copies of each: for a longer measurement
    #[arg(long, value_name = "COPIES", default_value_t = 1)]
    copies: usize,
    /// Mask the cells too, as mlm does
    #[arg(long)]
    masks: bool,
    #[command(flatten)]
    run: RunFlags,
}

pub(super) type Sources = Vec<(Arc<dyn CellSource>, Arc<BoundSource>)>;

/// Measures and prints a table.
///
/// # Errors
/// Files that cannot be read or made into tokens, and settings that cannot work.
pub(super) fn run(args: &ReadArgs) -> anyhow::Result<()> {
    let config = args.run.resolve()?;
    let (sources, vocabulary) = open(&args.files, args.copies, &config)?;
    let (sampler, _) = config.sampler(Selection::All, &DataSet::new(sources.clone()))?;
    let collator: Arc<dyn Collator> = if args.masks {
        masking(&sources, &vocabulary, &config)?
    } else {
        Arc::new(PlainCollator)
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut threads = vec![1, config.threads.unwrap_or(cores)];
    threads.dedup();
    println!("threads      cells  seconds    cells/s     tokens/s  non-zeros/s  peak memory");
    for num_threads in threads {
        if let Some(pass) = measure(&sources, &sampler, &collator, num_threads, args.passes)? {
            print_row(&pass);
        }
    }
    Ok(())
}

/// Masks as training does.
pub(super) fn masking(
    sources: &Sources,
    vocabulary: &Arc<Vocabulary>,
    config: &RunConfig,
) -> anyhow::Result<Arc<dyn Collator>> {
    let (masks, num_genes) = (config.mlm_config(), vocabulary.genes().len());
    let data = DataSet::new(sources.clone());
    let weights = data.expressed_counts(&Selection::All, WEIGHT_CELLS, num_genes)?;
    let weights = Some(weights.as_slice());
    let collator = MlmCollator::training(vocabulary, &masks, config.seed, weights)?;
    Ok(Arc::new(collator))
}

fn print_row(pass: &Throughput) {
    let peak = mebibytes(pass.peak_bytes);
    println!(
        "{:>7} {:>10} {:>8.3} {:>10.0} {:>12.0} {:>12.0} {peak:>12}",
        pass.num_threads,
        pass.cells,
        pass.time.as_secs_f64(),
        pass.per_second(pass.cells),
        pass.per_second(pass.tokens),
        pass.per_second(pass.non_zeros),
    );
}

/// Opens files, each `copies` times, with a vocabulary of all that is in them.
pub(super) fn open(
    files: &[String],
    copies: usize,
    config: &RunConfig,
) -> anyhow::Result<(Sources, Arc<Vocabulary>)> {
    let paths = expand_paths(files)?;
    let options = config.open_options();
    let mut files = Vec::new();
    for path in paths {
        files.push(Arc::new(H5ad::open(&path, &options)?));
    }
    let vocabulary = Arc::new(vocabulary(&files, config)?);
    let tokenizer = Tokenizer::new(Arc::clone(&vocabulary), config.tokenize_config()?)?;
    let mut sources: Sources = Vec::new();
    for file in files {
        let bound = Arc::new(tokenizer.bind(file.as_ref())?);
        sources.extend((0..copies).map(|_| (Arc::clone(&file) as _, Arc::clone(&bound))));
    }
    Ok((sources, vocabulary))
}

/// Every gene and every value of the files.
fn vocabulary(files: &[Arc<H5ad>], config: &RunConfig) -> anyhow::Result<Vocabulary> {
    let mut seen = HashSet::new();
    let ids = files.iter().flat_map(|file| file.gene_ids());
    let ids = ids
        .map(|id| canonical_gene_id(id))
        .filter(|id| seen.insert(*id));
    let genes = GeneVocab::new(ids.map(str::to_owned).collect(), None)?;
    let mut phenotypes = PhenotypeVocab::new(BTreeMap::new(), Repeats::Allowed)?;
    for file in files {
        for category in &config.included_phenotypes {
            let labels = file.obs_labels(category)?;
            phenotypes = phenotypes.with_values([(category.as_str(), &labels)])?;
        }
    }
    let num_bin_edges = config.tokenize_config()?.bins.num_edges()?;
    Ok(Vocabulary::new(phenotypes, genes, num_bin_edges))
}
