//! The command line as people type it, put into the one form that clap reads.
//!
//! Commands of the original must run as they stand, so flags may be spelled with `_` or `-`, may
//! stand before the subcommand, and a list of values ends where a subcommand's name begins.
//! [`normalise`] moves the subcommand to the front, what stood before it to the end (so that a
//! list cannot swallow a positional argument), and spells flag names with `-`. Values, and
//! everything after `--`, stay as they are. Knows no flag itself: `takes_one` tells which take
//! exactly one value, so that a folder may be called `mlm`.

use std::ffi::OsString;

/// Flags that were given without any subcommand to take them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no subcommand given: one of {} is needed{}", .known.join(", "), meant(.nearest))]
pub struct NoSubcommand {
    known: Vec<String>,
    nearest: Option<(String, String)>,
}

fn meant(nearest: &Option<(String, String)>) -> String {
    let Some((typed, name)) = nearest else {
        return "\nhint: `gene-bert --help` says what each one does".to_owned();
    };
    format!("\nhint: is `{typed}` meant to be `{name}`?")
}

/// `argv` (program first) with its subcommand first and its flags spelled with `-`.
///
/// `takes_one` is asked with a flag's name as `--like-this`.
///
/// # Errors
/// Flags but no subcommand among `subcommands`.
pub fn normalise(
    argv: impl IntoIterator<Item = OsString>,
    subcommands: &[String],
    takes_one: impl Fn(&str) -> bool,
) -> Result<Vec<OsString>, NoSubcommand> {
    let mut argv = argv.into_iter();
    let program = argv.next().unwrap_or_else(|| "gene-bert".into());
    let mut words: Vec<OsString> = argv.collect();
    let end = words.iter().position(|w| w == "--").unwrap_or(words.len());
    let rest = words.split_off(end);
    for word in &mut words {
        if let Some(flag) = word.to_str().and_then(dashed) {
            *word = flag.into();
        }
    }
    let Some(at) = find(&words, subcommands, &takes_one) else {
        return without_subcommand(program, words, rest, subcommands);
    };
    let before: Vec<OsString> = words.drain(..at).collect();
    let words = words.into_iter().chain(before).chain(rest);
    Ok(std::iter::once(program).chain(words).collect())
}

/// Position of the first word that is a subcommand's name and not the value of a one-value flag.
fn find(
    words: &[OsString],
    subcommands: &[String],
    takes_one: impl Fn(&str) -> bool,
) -> Option<usize> {
    let mut is_value = false;
    for (at, word) in words.iter().enumerate() {
        let Some(text) = word.to_str() else {
            is_value = false;
            continue;
        };
        if !is_value && subcommands.iter().any(|name| name == text) {
            return Some(at);
        }
        is_value = !is_value && text.starts_with("--") && !text.contains('=') && takes_one(text);
    }
    None
}

/// `--a_b=c_d` as `--a-b=c_d`; `None` for what is no long flag.
fn dashed(word: &str) -> Option<String> {
    let flag = word.strip_prefix("--").filter(|flag| !flag.is_empty())?;
    Some(match flag.split_once('=') {
        Some((name, value)) => format!("--{}={value}", name.replace('_', "-")),
        None => format!("--{}", flag.replace('_', "-")),
    })
}

fn without_subcommand(
    program: OsString,
    words: Vec<OsString>,
    rest: Vec<OsString>,
    subcommands: &[String],
) -> Result<Vec<OsString>, NoSubcommand> {
    const OWN: [&str; 4] = ["--help", "-h", "--version", "-V"];
    let leads_with_flag = words.first().and_then(|w| w.to_str()).is_some_and(|w| {
        w.starts_with('-') && !words.iter().any(|w| OWN.iter().any(|own| w == own))
    });
    if !leads_with_flag {
        let words = words.into_iter().chain(rest);
        return Ok(std::iter::once(program).chain(words).collect());
    }
    let typed = words
        .iter()
        .filter_map(|w| w.to_str())
        .filter(|w| !w.starts_with('-'));
    let known = subcommands
        .iter()
        .filter(|name| *name != "help")
        .cloned()
        .collect();
    let close = |word: &str| {
        let name = crate::config::nearest(word, subcommands.iter().map(String::as_str))?;
        Some((word.to_owned(), name.to_owned()))
    };
    Err(NoSubcommand {
        known,
        nearest: typed.filter_map(close).next(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn run(line: &str) -> Result<String, NoSubcommand> {
        let argv = line.split(' ').map(OsString::from);
        let subcommands = ["mlm", "vocab", "help"].map(str::to_owned);
        let takes_one = |flag: &str| flag == "--output-dir" || flag == "--max-length";
        let words = normalise(argv, &subcommands, takes_one)?;
        Ok(words
            .iter()
            .map(|w| w.to_str().unwrap())
            .collect::<Vec<_>>()
            .join(" "))
    }

    #[test]
    fn the_subcommand_comes_first() {
        let check = |line: &str, expected: &str| assert_eq!(run(line).unwrap(), expected, "{line}");
        check(
            "g --max_length 5 mlm --a_b c_d",
            "g mlm --a-b c_d --max-length 5",
        );
        check("g mlm --a_b=c_d -x", "g mlm --a-b=c_d -x");
        check("g --list a_1 b mlm", "g mlm --list a_1 b");
        check("g --list a b vocab build F", "g vocab build F --list a b");
        check("g --output_dir mlm mlm --x", "g mlm --x --output-dir mlm");
        check("g --output_dir=o mlm", "g mlm --output-dir=o");
        check(
            "g --output_dir mlm --max_length 5 mlm",
            "g mlm --output-dir mlm --max-length 5",
        );
        check("g mlm --list mlm vocab", "g mlm --list mlm vocab");
        check("g --a_b mlm x -- --c_d mlm", "g mlm x --a-b -- --c_d mlm");
        check("g --help mlm", "g mlm --help");
        check("g help mlm", "g help mlm");
    }

    #[test]
    fn without_a_subcommand_clap_or_we_say_so() {
        for line in ["g", "g --help", "g -V", "g frobnicate --x", "g -- mlm"] {
            assert_eq!(run(line).unwrap(), line);
        }
        let text = run("g --max_length 5 mml --x").unwrap_err().to_string();
        assert!(text.contains("one of mlm, vocab is needed"), "{text}");
        assert!(text.contains("is `mml` meant to be `mlm`?"), "{text}");
        let text = run("g --max_length 5").unwrap_err().to_string();
        assert!(text.contains("--help"), "{text}");
    }

    #[cfg(unix)]
    #[test]
    fn words_that_are_not_text_pass_through() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(vec![b'-', b'-', 0xff]);
        let argv = ["g".into(), odd.clone(), "mlm".into()];
        let words = normalise(argv, &["mlm".to_owned()], |_| false).unwrap();
        assert_eq!(words, ["g".into(), "mlm".into(), odd]);
    }
}
