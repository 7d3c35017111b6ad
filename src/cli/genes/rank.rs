//! `gene-bert genes rank`: highly variable genes.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::cli::files::{FileFlags, GenesFlag, OutputFlags};
use crate::cli::progress::Bar;
use crate::prepare::ranking::{Flavor, Request, rank};

/// Flags of `genes rank`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: gene-bert genes rank 'atlas_{0..43}.h5ad' --batch-key donor_id --output \
                  RANK.csv\n         gene-bert mlm --gene-ranking RANK.csv --num-top-genes 2000 …"
)]
pub(super) struct RankArgs {
    #[command(flatten)]
    files: FileFlags,
    /// Genes that count as highly variable
    #[arg(long, value_name = "GENES", default_value_t = 2000)]
    n_top_genes: usize,
    /// How genes that vary in several batches are ordered: by median rank (seurat_v3), or first by
    /// the number of batches (seurat_v3_paper)
    #[arg(
        long, value_name = "METHOD", default_value = "seurat_v3",
        value_parser = PossibleValuesParser::new(["seurat_v3", "seurat_v3_paper"]).map(flavor)
    )]
    flavor: Flavor,
    /// Column of obs: genes are ranked among the cells of each of its values, and the median counts
    #[arg(long, value_name = "COLUMN")]
    batch_key: Option<String>,
    /// Share of the genes that each piece of the curve of variance over mean is fitted to
    #[arg(long, value_name = "SHARE", default_value_t = 0.3)]
    span: f64,
    /// Rank also by values that are no counts
    #[arg(long)]
    allow_fractions: bool,
    #[command(flatten)]
    genes: GenesFlag,
    #[command(flatten)]
    output: OutputFlags,
}

#[allow(clippy::needless_pass_by_value)] // The shape that clap's `map` takes.
fn flavor(name: String) -> Flavor {
    match name.as_str() {
        "seurat_v3_paper" => Flavor::SeuratV3Paper,
        _ => Flavor::SeuratV3,
    }
}

/// Ranks, writes and reports.
pub(super) fn run(args: RankArgs) -> anyhow::Result<()> {
    args.output.check()?;
    let request = Request {
        choice: args.files.choice(false),
        num_top_genes: args.n_top_genes,
        flavor: args.flavor,
        batch_key: args.batch_key,
        span: args.span,
        genes: args.genes.genes,
        allow_fractions: args.allow_fractions,
    };
    let mut bar = Bar::new("ranking genes");
    let ranking = rank(&request, &mut |share| bar.show(share))?;
    drop(bar);
    for note in &ranking.notes {
        eprintln!("note: {note}");
    }
    ranking.save(&args.output.output)?;
    print!("{ranking}");
    println!("written: {}", args.output.output.display());
    Ok(())
}
