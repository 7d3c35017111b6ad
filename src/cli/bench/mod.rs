//! `gene-bert bench`: how fast the parts are on this machine and these files.

mod data;
mod train;

/// Flags of `bench`.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Read, mix and tokenise cells: cells, tokens and non-zeros per second, entropy, peak memory
    Data(Box<data::DataArgs>),
    /// Train a model with random weights: tokens per second, share of the machine's peak, memory
    Train(Box<train::TrainArgs>),
}

/// Measures and prints.
///
/// # Errors
/// Files that cannot be read or made into tokens, and settings that cannot work.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    match &args.part {
        Part::Data(args) => data::run(args),
        Part::Train(args) => train::run(args),
    }
}

/// Bytes as people read them.
fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(
        || "unknown".to_owned(),
        |bytes| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)),
    )
}
