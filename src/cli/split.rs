//! `gene-bert split`: which cells train, which validate, which test.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::files::OutputFlags;
use crate::file::expand_paths;
use crate::loader::split::{By, FoldChoice, Held, Part, PartChoice, SplitConfig};
use crate::prepare::split::split;

/// Flags of `split`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --by, --by-file or --from, single cells are drawn. --val and --test are shares of all cells,
or, from 1 on, numbers of cells; whole groups come as close as they can.

Examples:
  gene-bert split 'atlas_{0..43}.h5ad' --by donor_id --stratify-by cell_type --output SPLIT.json
  gene-bert split CELLS.h5ad --stratify-by cell_type --folds 5 --output FOLDS.json
  gene-bert split a.h5ad b.h5ad --by batch --test-values dropseq --output SPLIT.json
  gene-bert mlm --train_data_paths 'atlas_{0..43}.h5ad' --split_file SPLIT.json …   trains and evaluates
  gene-bert predict 'atlas_{0..43}.h5ad' --split-file SPLIT.json --part test …      reads one part")]
pub struct SplitArgs {
    /// The h5ad files, with braces ({0..43}, {a,b}) and globs
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
    /// Keep cells with the same value of this obs column together, such as donor_id
    #[arg(long, value_name = "COLUMN", conflicts_with_all = ["by_file", "from"])]
    by: Option<String>,
    /// Keep the cells of each file together
    #[arg(long, conflicts_with = "from")]
    by_file: bool,
    /// Take over an obs column whose values are train, val and test
    #[arg(
        long, value_name = "COLUMN",
        conflicts_with_all = ["folds", "val", "test", "stratify_by", "val_values", "test_values"]
    )]
    from: Option<String>,
    /// Every value of this obs column has the same share in every part, such as cell_type
    #[arg(long, value_name = "COLUMN")]
    stratify_by: Option<String>,
    /// Share or number of the cells that validate: for choosing the best checkpoint
    #[arg(
        long,
        value_name = "SHARE|CELLS",
        default_value = "0.1",
        allow_negative_numbers = true
    )]
    val: String,
    /// Share or number of the cells that test
    #[arg(
        long,
        value_name = "SHARE|CELLS",
        default_value = "0.1",
        conflicts_with = "folds"
    )]
    test: String,
    /// Cross-validation: so many folds, in each of which another part of the cells tests
    #[arg(long, value_name = "FOLDS")]
    folds: Option<usize>,
    /// Values of --by (or names of files) that validate; all that are named nowhere train
    #[arg(long, value_name = "VALUE", num_args = 1.., conflicts_with_all = ["val", "test", "folds"])]
    val_values: Vec<String>,
    /// Values of --by (or names of files) that test; all that are named nowhere train
    #[arg(long, value_name = "VALUE", num_args = 1.., conflicts_with_all = ["val", "test", "folds"])]
    test_values: Vec<String>,
    /// Seed of what is drawn
    #[arg(long, default_value_t = 42)]
    seed: u64,
    #[command(flatten)]
    output: OutputFlags,
}

/// Which part of a split is read.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct PartFlags {
    /// Read only one part of the cells, by this file of `gene-bert split`
    #[arg(long, value_name = "FILE", requires = "part")]
    split_file: Option<PathBuf>,
    /// The part: train, val or test
    #[arg(long, value_name = "PART", requires = "split_file")]
    part: Option<Part>,
    /// The fold, from 0, of a split with several
    #[arg(long, value_name = "FOLD", requires = "split_file")]
    fold: Option<usize>,
}

impl PartFlags {
    /// The part that was asked for, if one was.
    pub(super) fn choice(&self) -> Result<Option<PartChoice>> {
        let (Some(path), Some(part)) = (&self.split_file, self.part) else {
            return Ok(None);
        };
        let fold = FoldChoice::load(path, self.fold)?;
        Ok(Some(PartChoice { fold, part }))
    }
}

/// Splits, writes, and says what came of it.
///
/// # Errors
/// Files that cannot be read, shares that cannot be had, an output that cannot be written.
pub fn run(args: &SplitArgs) -> Result<()> {
    args.output.check()?;
    let config = config(args)?;
    let report = split(&expand_paths(&args.files)?, &config)?;
    report.split.save(&args.output.output)?;
    if let Some(warning) = &report.warning {
        eprintln!("warning: {warning}");
    }
    print!("{report}");
    println!("written: {}", args.output.output.display());
    Ok(())
}

fn config(args: &SplitArgs) -> Result<SplitConfig> {
    let by = match (&args.by, args.by_file, &args.from) {
        (Some(column), _, _) => By::Column(column.clone()),
        (None, true, _) => By::Files,
        (None, false, Some(column)) => By::PartColumn(column.clone()),
        (None, false, None) => By::Cells,
    };
    let named = !args.val_values.is_empty() || !args.test_values.is_empty();
    anyhow::ensure!(
        !named || !matches!(by, By::Cells),
        "--val-values, --test-values: values of what?\nhint: add --by COLUMN, or --by-file"
    );
    let held = |flag, given: &str, values: &Vec<String>| {
        if named {
            Ok(Held::Groups(values.clone()))
        } else {
            held(flag, given)
        }
    };
    Ok(SplitConfig {
        by,
        stratify_by: args.stratify_by.clone(),
        val: held("--val", &args.val, &args.val_values)?,
        test: held("--test", &args.test, &args.test_values)?,
        folds: args.folds,
        seed: args.seed,
    })
}

/// A share, or a number of cells from 1 on.
fn held(flag: &str, given: &str) -> Result<Held> {
    let wrong = || {
        format!(
            "{flag} {given}: expected a share of the cells from 0 to below 1, or a number of them"
        )
    };
    if let Ok(cells) = given.parse::<u64>() {
        return Ok(if cells == 0 {
            Held::Share(0.0)
        } else {
            Held::Cells(cells)
        });
    }
    let share: f64 = given.parse().with_context(wrong)?;
    anyhow::ensure!((0.0..1.0).contains(&share), wrong());
    Ok(Held::Share(share))
}
