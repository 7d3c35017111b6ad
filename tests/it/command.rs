//! The real command, run in a folder: the one that was built with the tests, or where these have been
//! taken elsewhere the one that GENE_BERT_PROGRAM names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the command in `folder` with the words of `line`.
pub fn gene_bert(folder: &Path, line: &str) -> Output {
    with_words(folder, line.split_whitespace())
}

/// Runs the command in `folder` with `words`, which may have blanks.
pub fn with_words<W: AsRef<OsStr>>(folder: &Path, words: impl IntoIterator<Item = W>) -> Output {
    program(folder).args(words).output().unwrap()
}

/// The command, to be run in `folder`.
pub fn program(folder: &Path) -> Command {
    let built = || env!("CARGO_BIN_EXE_gene-bert").into();
    let program = std::env::var_os("GENE_BERT_PROGRAM").unwrap_or_else(built);
    let mut command = Command::new(program);
    command.current_dir(folder);
    command
}

/// All that was printed.
pub fn text(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr];
    streams.map(|s| String::from_utf8_lossy(s)).join("\n")
}

/// What a line that must succeed prints: standard output, then standard error.
pub fn done(folder: &Path, line: &str) -> String {
    let output = gene_bert(folder, line);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}\n{said}");
    String::from_utf8(output.stdout).unwrap() + &said
}

/// The message of a line that must fail as the user's mistake, say all of `parts`, and leave
/// `folder` as it was.
pub fn refused(folder: &Path, line: &str, parts: &[&str]) -> String {
    let before = listing(folder);
    let output = gene_bert(folder, line);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{line}\n{text}");
    for part in parts.iter().chain(&["error: "]) {
        assert!(
            text.contains(part),
            "`{line}` does not say `{part}`:\n{text}"
        );
    }
    for part in ["panicked", "internal error"] {
        assert!(!text.contains(part), "{line}\n{text}");
    }
    assert_eq!(listing(folder), before, "{line} left something behind");
    text
}

/// Everything in a folder and the folders in it, sorted.
pub fn listing(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        names.push(path.display().to_string());
        if path.is_dir() {
            names.extend(listing(&path));
        }
    }
    names.sort();
    names
}
