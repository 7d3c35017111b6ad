//! `gene-bert info`: what is in these files, and what is odd about them?

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::file::expand_paths;
use crate::h5ad::{Report, inspect_with};

/// Flags of `info`.
#[derive(Debug, clap::Args)]
pub struct InfoArgs {
    /// The h5ad files; brace patterns and globs are understood
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// One JSON object per file and line instead of text
    #[arg(long)]
    json: bool,
}

/// How long a scan may take before it shows its progress.
const PATIENCE: Duration = Duration::from_secs(2);

/// Prints a report of each file.
///
/// # Errors
/// A file that cannot be read at all; the files before it have been reported.
pub fn run(args: InfoArgs) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for path in expand_paths(&args.files)? {
        let report = inspect(&path)?;
        if args.json {
            serde_json::to_writer(&mut out, &report)?;
            writeln!(out)?;
        } else {
            write!(out, "{report}")?;
        }
        out.flush()?;
    }
    Ok(())
}

/// Inspects a file, with a bar on the terminal once it takes long.
fn inspect(path: &Path) -> anyhow::Result<Report> {
    let start = Instant::now();
    let mut bar: Option<ProgressBar> = None;
    let visible = std::io::stderr().is_terminal();
    let report = inspect_with(path, &mut |matrix, share| {
        if visible && start.elapsed() > PATIENCE {
            let bar = bar.get_or_insert_with(new_bar);
            bar.set_message(format!("{} {matrix}", path.display()));
            bar.set_position((share * 100.0) as u64);
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(report?)
}

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} %");
    let bar = ProgressBar::new(100);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
