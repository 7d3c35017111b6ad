//! `gene-bert convert`: h5ad files written again, as one or in shards, shuffled or not.

use std::io::IsTerminal;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};

use crate::file::expand_paths;
use crate::h5ad::writer::Storage;
use crate::h5ad::{GeneMap, MatrixKey, OpenOptions};
use crate::prepare::convert::{
    Compression, ConvertConfig, Dtype, GeneChoice, MemorySize, convert, convert_to_archive,
};

/// Flags of `convert`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "obs and var are kept; other matrices, obsm, varm, obsp, varp and uns are left \
                  out, by name. The output is there whole or not at all."
)]
pub struct ConvertArgs {
    /// The h5ad files; brace patterns and globs are understood
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// The file to write; OUT_0.h5ad, OUT_1.h5ad … with --cells-per-file
    #[arg(long, value_name = "OUT.h5ad")]
    output: PathBuf,
    /// What to write: h5ad files, or a folder in the SCDL format of bionemo-scdl
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write files of so many cells each
    #[arg(long, value_name = "CELLS", value_parser = clap::value_parser!(u64).range(1..))]
    cells_per_file: Option<u64>,
    /// Put the cells of all files into a random order
    #[arg(long)]
    shuffle: bool,
    /// Seed of the random order
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// gzip, gzip:LEVEL (1 to 9) or none [default: gzip:4]
    #[arg(long, value_name = "HOW")]
    compression: Option<Compression>,
    /// Values of one chunk
    #[arg(long, value_name = "VALUES", default_value_t = 65_536,
          value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    chunk: u32,
    /// Store each array in one piece, uncompressed: the largest files, and the fastest to read
    #[arg(long)]
    contiguous: bool,
    /// Type of the values: keep, narrowest (that holds them all exactly), or int8 … float64
    #[arg(long, value_name = "TYPE", default_value = "keep")]
    dtype: Dtype,
    /// Where the files have different genes: same (an error), union, intersection, or ragged (each
    /// its own: SCDL only)
    #[arg(long, value_name = "WHICH", default_value = "same")]
    genes: GeneChoice,
    /// The graph of cells in obsp whose edges become an archive's neighbours (bionemo-scdl's own
    /// default: next_cell_ids)
    #[arg(long, value_name = "NAME")]
    neighbors: Option<String>,
    /// The matrix to read: X, layers.NAME or raw.X; it becomes X
    #[arg(long, default_value = "X", value_name = "MATRIX")]
    matrix: MatrixKey,
    /// The column of var that holds the gene ids [default: its index]
    #[arg(long, value_name = "COLUMN")]
    gene_id_column: Option<String>,
    /// Other names for the files' gene ids: a table with the columns gene and mapped_to, such as
    /// `gene-bert genes map` writes
    #[arg(long, value_name = "FILE")]
    gene_map: Option<PathBuf>,
    /// Memory for cells under way, such as 300MB or 2GiB
    #[arg(long, value_name = "BYTES", default_value = "1GiB")]
    memory: MemorySize,
    /// Go on where a conversion with the same settings was killed: finished files are kept, of an
    /// archive every half gigabyte
    #[arg(long)]
    resume: bool,
}

/// What is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    #[default]
    H5ad,
    Scdl,
}

impl ConvertArgs {
    /// Refuses what an archive cannot have.
    fn check_format(&self) -> anyhow::Result<()> {
        let given = [
            ("--cells-per-file", self.cells_per_file.is_some()),
            ("--compression", self.compression.is_some()),
            ("--contiguous", self.contiguous),
        ];
        let given = given.into_iter().find(|(_, given)| *given);
        match (self.format, given) {
            (Format::Scdl, Some((flag, _))) => anyhow::bail!(
                "{flag} has no meaning for --format scdl\n\
                 hint: leave it out, or write h5ad files"
            ),
            (Format::H5ad, _) if self.neighbors.is_some() => anyhow::bail!(
                "--neighbors has a meaning for --format scdl only\n\
                 hint: h5ad files keep no graphs here"
            ),
            _ => Ok(()),
        }
    }
}

/// The level of gzip where none is asked for.
const DEFAULT_LEVEL: u32 = 4;
/// Less memory than this is not enough for a chunk of each array and thread.
const LEAST_MEMORY: u64 = 32 << 20;

/// Converts, and says what was written.
///
/// # Errors
/// Files that cannot be read, matched or written.
pub fn run(args: ConvertArgs) -> anyhow::Result<()> {
    args.check_format()?;
    let storage = match (args.contiguous, args.compression) {
        (true, None | Some(Compression(None))) => Storage::Contiguous,
        (true, Some(_)) => {
            anyhow::bail!(
                "--contiguous arrays cannot be compressed\nhint: drop --compression gzip, or --contiguous"
            )
        }
        (false, how) => Storage::Chunked {
            len: args.chunk,
            gzip: how.map_or(Some(DEFAULT_LEVEL), |Compression(gzip)| gzip),
        },
    };
    if args.memory.0 < LEAST_MEMORY {
        anyhow::bail!(
            "--memory {} is too little\nhint: give at least 32MiB",
            args.memory
        );
    }
    let config = ConvertConfig {
        inputs: expand_paths(&args.files)?,
        output: args.output,
        open: OpenOptions {
            matrix: args.matrix,
            gene_id_column: args.gene_id_column,
            gene_map: args.gene_map.as_deref().map(GeneMap::at),
            ..OpenOptions::default()
        },
        cells_per_file: args.cells_per_file,
        shuffle: args.shuffle.then_some(args.seed),
        storage,
        dtype: args.dtype,
        genes: args.genes,
        neighbors: args.neighbors,
        memory_bytes: args.memory.0,
        resume: args.resume,
    };
    let bar = new_bar();
    let mut progress = |what: &'static str, share: f64| {
        bar.set_message(what);
        bar.set_position((share * 1000.0) as u64);
    };
    let done = match args.format {
        Format::H5ad => convert(&config, &mut progress),
        Format::Scdl => convert_to_archive(&config, &mut progress),
    };
    bar.finish_and_clear();
    let done = done?;
    if done.num_changed > 0 {
        eprintln!(
            "warning: {} values are not exactly what they were: {} does not hold them\n\
             hint: --dtype narrowest finds a type that does",
            done.num_changed,
            done.kind.name()
        );
    }
    if !done.left_out.is_empty() {
        eprintln!("note: left out: {}", done.left_out.join(", "));
    }
    for output in &done.outputs {
        println!("{}", output.display());
    }
    eprintln!(
        "{} cells × {} genes, values of {}",
        done.num_cells,
        done.num_genes,
        done.kind.name()
    );
    Ok(())
}

fn new_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} % {eta}");
    let bar = ProgressBar::new(1000);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
