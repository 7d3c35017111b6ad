//! `gene-bert bench`: how fast the parts are on this machine and these files.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::cell::CellSource;
use crate::config::{RunConfig, RunFlags};
use crate::file::expand_paths;
use crate::h5ad::H5ad;
use crate::loader::throughput::{Throughput, measure};
use crate::loader::{Collator, DataSet, MlmCollator, PlainCollator, Sampler, Selection};
use crate::tokenize::{BoundSource, Tokenizer};
use crate::vocab::{GeneVocab, PhenotypeVocab, Repeats, Vocabulary, canonical_gene_id};

/// Cells on which genes are counted where absent ones are drawn by frequency.
const WEIGHT_CELLS: u64 = 1000;

/// Flags of `bench`.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Read and tokenise cells: cells, tokens and non-zeros per second, and peak memory
    Read(Box<ReadArgs>),
}

/// Flags of `bench read`: those of a run count, as far as they concern reading and tokens.
#[derive(Debug, clap::Args)]
struct ReadArgs {
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

type Sources = Vec<(Arc<dyn CellSource>, Arc<BoundSource>)>;

/// Measures and prints a table.
///
/// # Errors
/// Files that cannot be read or made into tokens, and settings that cannot work.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let Part::Read(args) = &args.part;
    let config = args.run.resolve()?;
    let (sources, vocabulary) = open(args, &config)?;
    let num_cells = sources.iter().map(|(source, _)| source.num_cells()).sum();
    let sampler = Sampler::new(config.sampler_config(), Selection::All, num_cells)?;
    let collator: Arc<dyn Collator> = if args.masks {
        let (masks, num_genes) = (config.mlm_config(), vocabulary.genes().len());
        let data = DataSet::new(sources.clone());
        let weights = data.expressed_counts(&Selection::All, WEIGHT_CELLS, num_genes)?;
        let weights = Some(weights.as_slice());
        Arc::new(MlmCollator::training(
            &vocabulary,
            &masks,
            config.seed,
            weights,
        )?)
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

fn print_row(pass: &Throughput) {
    let peak = pass.peak_bytes.map_or_else(
        || "unknown".to_owned(),
        |bytes| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)),
    );
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

fn open(args: &ReadArgs, config: &RunConfig) -> anyhow::Result<(Sources, Arc<Vocabulary>)> {
    let options = config.open_options();
    let mut files = Vec::new();
    for path in expand_paths(&args.files)? {
        files.push(Arc::new(H5ad::open(&path, &options)?));
    }
    let vocabulary = Arc::new(vocabulary(&files, config)?);
    let tokenizer = Tokenizer::new(Arc::clone(&vocabulary), config.tokenize_config()?)?;
    let mut sources: Sources = Vec::new();
    for file in files {
        let bound = Arc::new(tokenizer.bind(file.as_ref())?);
        sources.extend((0..args.copies).map(|_| (Arc::clone(&file) as _, Arc::clone(&bound))));
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
