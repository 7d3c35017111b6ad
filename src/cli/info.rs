//! `gene-bert info`: what is in these files, and what is odd about them?

use std::io::Write;
use std::path::Path;

use super::progress::Bar;
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
    let mut bar = Bar::new(path.display().to_string());
    Ok(inspect_with(path, &mut |matrix, share| {
        bar.set_message(format!("{} {matrix}", path.display()));
        bar.show(share);
    })?)
}
