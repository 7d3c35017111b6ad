//! `gene-bert genes stats`: figures of each gene.

use crate::cli::files::{FileFlags, OutputFlags};
use crate::cli::progress::Bar;
use crate::prepare::gene_stats::{Request, gene_stats};
use crate::tokenize::Transform;

/// Flags of `genes stats`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Columns: gene, n_cells (of the files that have it), n_cells_by_counts, \
                  detection_rate, pct_dropout_by_counts, total_counts, mean_counts, variance, \
                  nonzero_median (exact where a gene has at most 512 different values, as counts \
                  do)."
)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    files: FileFlags,
    /// What is done to each cell before: none, log1p, normalize_total:1e4+log1p, ...
    #[arg(long, value_name = "TRANSFORM", default_value = "none")]
    transform: Transform,
    /// Accept values that look scaled rather than counts or their logs
    #[arg(long)]
    allow_scaled: bool,
    #[command(flatten)]
    output: OutputFlags,
}

/// Reads, writes and reports.
pub(super) fn run(args: StatsArgs) -> anyhow::Result<()> {
    args.output.check()?;
    let request = Request {
        choice: args.files.choice(args.allow_scaled),
        transform: args.transform,
    };
    let mut bar = Bar::new("reading cells");
    let stats = gene_stats(&request, &mut |share| bar.show(share))?;
    drop(bar);
    for note in &stats.notes {
        eprintln!("note: {note}");
    }
    stats.save(&args.output.output)?;
    let never = stats.genes.iter().filter(|gene| gene.num_expressing == 0);
    println!(
        "{} cells of {} files, {} genes, {} of them never expressed",
        stats.num_cells,
        stats.num_files,
        stats.genes.len(),
        never.count()
    );
    println!("written: {}", args.output.output.display());
    Ok(())
}
