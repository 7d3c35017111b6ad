//! One file per subcommand: its flags (`XArgs`) and its `run`, no logic.
//!
//! To add one: a file, a `mod` line, and a line in each of [`Command`] and [`Command::run`].
//! [`arguments`] puts what people type into the form that clap reads, [`shown`] keeps helps short,
//! [`failure`] says how errors look. Exit codes: 0; 1 for what the user can
//! put right (also bad flags); 2 for our own faults; 3 where a process of the run was lost.

pub mod arguments;
mod bench;
mod cells;
mod check;
mod cls;
mod convert;
mod device;
mod embed;
mod eval;
mod eval_set;
pub mod failure;
mod files;
mod genes;
mod info;
mod launch;
mod mlm;
mod predict;
mod progress;
mod quickstart;
mod reading;
mod runs;
mod shown;
mod split;
mod sweep;
mod tokenize;
mod track;
mod vocab;

use std::ffi::OsString;

use crate::config::{Job, RunFlags};
use clap::{CommandFactory, Parser, Subcommand};

/// Pretrain, fine-tune and evaluate positionless transformers on single-cell atlases, straight
/// from h5ad files.
#[derive(Debug, Parser)]
#[command(name = "gene-bert", version, arg_required_else_help = true)]
#[command(
    after_help = "Flags may be spelled with _ or -, and stand before or after the subcommand."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure how fast the parts are on this machine and these files
    Bench(bench::BenchArgs),
    /// Train a classifier that tells one value of an obs column from all others
    Bincls(Box<cls::ClsArgs>),
    /// Figures of cells
    Cells(cells::CellsArgs),
    /// Check the settings of a run and print them all, without running it
    Check(Box<check::CheckArgs>),
    /// Train a classifier of cells, from scratch or from a pretrained model
    Cls(Box<cls::ClsArgs>),
    /// Write h5ad files again: as one, in shards, shuffled, in other types
    Convert(Box<convert::ConvertArgs>),
    /// Embed cells or genes with a trained model
    Embed(embed::EmbedArgs),
    /// Evaluate a trained model: every figure next to its baseline, with confidence intervals
    Eval(Box<eval::EvalArgs>),
    /// Mask cells once, for every later evaluation: JSON as PerturbGene reads it
    EvalSet(Box<eval_set::EvalSetArgs>),
    /// Rank genes, tell their figures
    Genes(genes::GenesArgs),
    /// What is in h5ad files: shape, encoding, values, obs columns, gene ids, and what is odd
    Info(info::InfoArgs),
    /// Train in several processes on this machine
    Launch(launch::LaunchArgs),
    /// Pretrain by masking genes and phenotypes
    Mlm(Box<mlm::MlmArgs>),
    /// Predict labels of cells with a trained model
    Predict(predict::PredictArgs),
    /// Pretrain a small model in about a minute, on simulated cells or on yours
    Quickstart(quickstart::QuickstartArgs),
    /// List runs, how far and how good they are; compare two
    Runs(runs::RunsArgs),
    /// Decide which cells train, which validate, which test
    Split(Box<split::SplitArgs>),
    /// Run a study: many runs with other settings, by a grid, at random or by the results so far
    Sweep(sweep::SweepArgs),
    /// Show the tokens of single cells, as a run with these settings sees them
    Tokenize(Box<tokenize::TokenizeArgs>),
    /// Send to trackers what they missed of a run
    Track(track::TrackArgs),
    /// Build vocabularies
    Vocab(vocab::VocabArgs),
}

impl Command {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Bench(args) => bench::run(&args),
            Self::Bincls(args) => cls::run(*args, Job::Bincls),
            Self::Cells(args) => cells::run(args),
            Self::Check(args) => check::run(*args),
            Self::Cls(args) => cls::run(*args, Job::Cls),
            Self::Convert(args) => convert::run(*args),
            Self::Embed(args) => embed::run(args),
            Self::Eval(args) => eval::run(*args),
            Self::EvalSet(args) => eval_set::run(&args),
            Self::Genes(args) => genes::run(args),
            Self::Info(args) => info::run(args),
            Self::Launch(args) => launch::run(args),
            Self::Mlm(args) => mlm::run(*args),
            Self::Predict(args) => predict::run(args),
            Self::Quickstart(args) => quickstart::run(args),
            Self::Runs(args) => runs::run(&args),
            Self::Split(args) => split::run(&args),
            Self::Sweep(args) => sweep::run(args),
            Self::Tokenize(args) => tokenize::run(&args),
            Self::Track(args) => track::run(args),
            Self::Vocab(args) => vocab::run(args),
        }
    }
}

impl Cli {
    /// The command line as typed (program first).
    ///
    /// # Errors
    /// What clap has to say, usage errors and `--help` alike.
    pub fn from_words(argv: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let names: Vec<String> = command
            .get_subcommands()
            .map(|c| c.get_name().to_owned())
            .collect();
        let names: Vec<String> = names.into_iter().chain(["help".to_owned()]).collect();
        let takes_one = one_value_flags(&command);
        let words = arguments::normalise(argv, &names, |flag| takes_one.iter().any(|f| f == flag))
            .map_err(|e| command.error(clap::error::ErrorKind::MissingSubcommand, e))?;
        Self::try_parse_from(words)
    }

    /// The flags of a command that trains.
    fn training_flags(&self) -> Option<&RunFlags> {
        match &self.command {
            Command::Mlm(args) => Some(args.flags()),
            Command::Cls(args) | Command::Bincls(args) => Some(args.flags()),
            _ => None,
        }
    }

    /// Runs the subcommand.
    ///
    /// # Errors
    /// Whatever it met, with context.
    pub fn run(self) -> anyhow::Result<()> {
        self.command.run()
    }
}

/// `--names` of the flags of any subcommand that take exactly one value.
fn one_value_flags(command: &clap::Command) -> Vec<String> {
    let one = |arg: &&clap::Arg| {
        let one = arg
            .get_num_args()
            .is_none_or(|n| n.min_values() == 1 && n.max_values() == 1);
        arg.get_action().takes_values() && one
    };
    let subcommands = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments);
    subcommands
        .filter(one)
        .filter_map(|a| a.get_long())
        .map(|name| format!("--{name}"))
        .collect()
}
