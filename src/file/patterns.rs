//! Path patterns of the command line: braces first, then globs.
//!
//! `{0..43}` counts (zero padding is kept: `{00..43}`, a step may follow: `{0..40..4}`), `{a,b}`
//! chooses, both may nest and repeat; `*`, `?`, `[…]` and `**` match file names, sorted. A path
//! that exists as it is written is taken as it is, whatever signs are in its name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::FileError;

/// More files than anyone means: a slip of the keyboard in a range.
const MAX_PATHS: usize = 1_000_000;

/// The files that `patterns` name, in the order given (a glob's matches sorted).
///
/// # Errors
/// A pattern that matches nothing or names an absent file, a bad pattern, or the same file twice.
pub fn expand_paths(patterns: &[String]) -> Result<Vec<PathBuf>, FileError> {
    let mut paths = Vec::new();
    let mut seen: HashMap<PathBuf, &str> = HashMap::new();
    for pattern in patterns {
        for path in expand_one(pattern)? {
            let key = path.canonicalize().unwrap_or_else(|_| path.clone());
            if let Some(first) = seen.insert(key, pattern) {
                let (first, second) = (first.to_owned(), pattern.clone());
                return Err(FileError::Duplicate {
                    path,
                    first,
                    second,
                });
            }
            paths.push(path);
        }
    }
    Ok(paths)
}

fn expand_one(pattern: &str) -> Result<Vec<PathBuf>, FileError> {
    if Path::new(pattern).exists() {
        return Ok(vec![PathBuf::from(pattern)]);
    }
    let bad = |problem: String, hint: &str| FileError::Pattern {
        pattern: pattern.to_owned(),
        problem,
        hint: hint.to_owned(),
    };
    let words = braces(pattern).map_err(|problem| bad(problem, ""))?;
    let (mut paths, mut absent) = (Vec::new(), Vec::new());
    for word in &words {
        if Path::new(word).exists() {
            paths.push(PathBuf::from(word));
        } else if word.contains(['*', '?', '[']) {
            let matches = glob::glob(word).map_err(|e| bad(e.msg.to_owned(), ""))?;
            let before = paths.len();
            paths.extend(matches.filter_map(Result::ok));
            if paths.len() == before {
                absent.push(word);
            }
        } else {
            absent.push(word);
        }
    }
    let Some(&first) = absent.first() else {
        return Ok(paths);
    };
    if words.len() == 1 && first == pattern && !pattern.contains(['*', '?', '[']) {
        let hint = near_files(Path::new(pattern));
        return Err(FileError::NotFound {
            path: PathBuf::from(pattern),
            hint,
        });
    }
    let hint = near_files(Path::new(first));
    if words.len() == 1 {
        return Err(bad("matches no file".to_owned(), &hint));
    }
    let found = words.len() - absent.len();
    let problem = format!(
        "{} of its {} paths are absent ({found} found), the first is {first}",
        absent.len(),
        words.len()
    );
    Err(bad(problem, &hint))
}

/// A hint: which files lie in the folder where one was looked for.
fn near_files(path: &Path) -> String {
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(parent) else {
        return format!("the folder {} does not exist either", parent.display());
    };
    let extension = path.extension();
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|e| extension.is_none() || Path::new(&e.file_name()).extension() == extension)
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    let shown = names.len().min(5);
    let more = if names.len() > shown { ", …" } else { "" };
    if shown == 0 {
        return format!("the folder {} holds no such files", parent.display());
    }
    format!(
        "the folder {} holds {}{more}",
        parent.display(),
        names[..shown].join(", ")
    )
}

/// Brace expansion of one word. A brace pair without comma or range is literal.
fn braces(word: &str) -> Result<Vec<String>, String> {
    let mut from = 0;
    while let Some(open) = word[from..].find('{').map(|i| i + from) {
        let Some(close) = matching(word, open) else {
            break;
        };
        let inside = &word[open + 1..close];
        let Some(choices) = choices(inside)? else {
            from = open + 1;
            continue;
        };
        let tails = braces(&word[close + 1..])?;
        if choices.len().saturating_mul(tails.len()) > MAX_PATHS {
            return Err(format!("names more than {MAX_PATHS} paths"));
        }
        let head = &word[..open];
        let join = |choice: &String| {
            let tails = tails.iter();
            tails
                .map(|tail| format!("{head}{choice}{tail}"))
                .collect::<Vec<_>>()
        };
        return Ok(choices.iter().flat_map(join).collect());
    }
    Ok(vec![word.to_owned()])
}

/// Position of the brace that closes the one at `open`.
fn matching(word: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, sign) in word.char_indices().skip_while(|&(at, _)| at < open) {
        match sign {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// What the inside of a brace pair stands for; `None` where it is neither list nor range.
fn choices(inside: &str) -> Result<Option<Vec<String>>, String> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0usize, 0);
    for (at, sign) in inside.char_indices() {
        match sign {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&inside[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if parts.is_empty() {
        return range(inside);
    }
    parts.push(&inside[start..]);
    let mut all = Vec::new();
    for part in parts {
        all.extend(braces(part)?);
    }
    Ok(Some(all))
}

/// `a..b` or `a..b..step` of whole numbers, both ends included.
fn range(inside: &str) -> Result<Option<Vec<String>>, String> {
    let mut parts = inside.split("..");
    let (Some(low), Some(high), step, None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Ok(None);
    };
    let number = |text: &str| text.parse::<i64>().ok();
    let (Some(first), Some(last)) = (number(low), number(high)) else {
        return Ok(None);
    };
    let step = match step.map(number) {
        None => 1,
        Some(Some(step)) if step != 0 => step.unsigned_abs(),
        Some(_) => {
            return Err(format!(
                "{{{inside}}}: the step must be a whole number, not 0"
            ));
        }
    };
    let count = first.abs_diff(last) / step + 1;
    if count > MAX_PATHS as u64 {
        return Err(format!(
            "{{{inside}}} names {count} paths, more than {MAX_PATHS}"
        ));
    }
    let digits = |text: &str| text.trim_start_matches('-').len();
    let padded = [low, high]
        .iter()
        .any(|t| digits(t) > 1 && t.trim_start_matches('-').starts_with('0'));
    let width = if padded { low.len().max(high.len()) } else { 0 };
    let name = |i: u64| {
        let offset = i128::from(i) * i128::from(step);
        let value = i128::from(first) + if last >= first { offset } else { -offset };
        format!("{value:0width$}")
    };
    Ok(Some((0..count).map(name).collect()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn braces_expand_as_in_a_shell() {
        let check = |word: &str, expected: &[&str]| assert_eq!(braces(word).unwrap(), expected);
        check(
            "x_{0..3}.h5ad",
            &["x_0.h5ad", "x_1.h5ad", "x_2.h5ad", "x_3.h5ad"],
        );
        check("{08..10}", &["08", "09", "10"]);
        check("{00..10..5}", &["00", "05", "10"]);
        check("{2..0}", &["2", "1", "0"]);
        check("{-1..1}", &["-1", "0", "1"]);
        check("{-01..1}", &["-01", "000", "001"]);
        check("a{b,c}d{1..2}", &["abd1", "abd2", "acd1", "acd2"]);
        check("{a,b{1,2}}", &["a", "b1", "b2"]);
        check("{a,}x", &["ax", "x"]);
        check("{a}", &["{a}"]);
        check("{a}{0..1}", &["{a}0", "{a}1"]);
        check("{a{0..1}}", &["{a0}", "{a1}"]);
        check("{open", &["{open"]);
        check("{x..y}", &["{x..y}"]);
        check("ü{1,2}", &["ü1", "ü2"]);
        check("}{", &["}{"]);
        assert!(braces("{0..99999999999}").is_err());
        assert!(braces("{0..5..0}").is_err());
        assert!(braces("{0..99999}{0..99999}").is_err());
        check(
            "{9223372036854775806..9223372036854775807}",
            &["9223372036854775806", "9223372036854775807"],
        );
    }

    fn in_folder(names: &[&str], patterns: &[&str]) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let root = dir.path().display().to_string();
        let patterns: Vec<String> = patterns.iter().map(|p| format!("{root}/{p}")).collect();
        let strip = |p: PathBuf| p.strip_prefix(&root).unwrap().display().to_string();
        expand_paths(&patterns)
            .map(|paths| paths.into_iter().map(strip).collect())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn files_come_in_order_and_globs_sorted() {
        let files = ["b_10.h5ad", "b_2.h5ad", "a.h5ad", "c[1].h5ad"];
        assert_eq!(
            in_folder(&files, &["b_*.h5ad", "a.h5ad"]).unwrap(),
            ["b_10.h5ad", "b_2.h5ad", "a.h5ad"]
        );
        assert_eq!(in_folder(&files, &["c[1].h5ad"]).unwrap(), ["c[1].h5ad"]);
        assert_eq!(
            in_folder(&files, &["b_{2,10}.h5ad"]).unwrap(),
            ["b_2.h5ad", "b_10.h5ad"]
        );
    }

    #[test]
    fn what_matches_nothing_or_twice_is_refused() {
        let error = |names: &[&str], patterns: &[&str]| in_folder(names, patterns).unwrap_err();
        let text = error(&["a.h5ad"], &["b.h5ad"]);
        assert!(
            text.contains("b.h5ad: no such file") && text.contains("holds a.h5ad"),
            "{text}"
        );
        let text = error(&["a.h5ad"], &["x*.h5ad"]);
        assert!(
            text.contains("x*.h5ad: bad path pattern: matches no file"),
            "{text}"
        );
        let text = error(&["s_0.h5ad"], &["s_{0..2}.h5ad"]);
        assert!(
            text.contains("2 of its 3 paths are absent") && text.contains("s_1"),
            "{text}"
        );
        let text = error(&["a.h5ad"], &["a.h5ad", "*.h5ad"]);
        assert!(text.contains("given twice"), "{text}");
        let text = error(&[], &["no/such/x.h5ad"]);
        assert!(text.contains("does not exist either"), "{text}");
    }
}
