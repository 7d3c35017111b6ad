//! `gene-bert genes`: jobs on the genes of files.

mod map;
mod rank;
mod stats;

/// Flags of `genes`.
#[derive(Debug, clap::Args)]
pub struct GenesArgs {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// What genes are called elsewhere: Ensembl ids of symbols or symbols of Ensembl ids, for
    /// --gene-map
    Map(map::MapArgs),
    /// Rank genes by how much they vary (highly variable genes, as scanpy's seurat_v3), for
    /// --gene-ranking
    Rank(rank::RankArgs),
    /// Mean, variance, detection rate and non-zero median of each gene
    Stats(stats::StatsArgs),
}

/// Does the job and reports.
///
/// # Errors
/// Files or settings that cannot be used; an output that exists or cannot be written.
pub fn run(args: GenesArgs) -> anyhow::Result<()> {
    match args.part {
        Part::Map(args) => map::run(args),
        Part::Rank(args) => rank::run(args),
        Part::Stats(args) => stats::run(args),
    }
}
