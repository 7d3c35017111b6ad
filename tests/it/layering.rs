//! The rules of the house, checked on the source text: rooms use lower ranks only, ∘ rooms never
//! name candle, `unsafe` stands in `kernels` only, no file is longer than 600 lines, README's tree
//! names every room. The ranks are read from the table in `src/lib.rs`, so they stand once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const MAX_LINES: usize = 600;

struct Room {
    rank: u32,
    without_candle: bool,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Rows `//! | 0 | [`cell`] ∘ | … |` of the table in `src/lib.rs`.
fn rooms() -> BTreeMap<String, Room> {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! |"));
    rows.filter_map(|row| {
        let mut cells = row.split('|').map(str::trim);
        let rank = cells.next()?.parse().ok()?;
        let name = cells.next()?;
        let room = name.trim_start_matches("[`").split('`').next()?.to_owned();
        Some((
            room,
            Room {
                rank,
                without_candle: name.contains('∘'),
            },
        ))
    })
    .collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The text without comments and without what stands between double quotes.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(sign) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else if let Some(skipped) = raw_string(rest) {
            rest = &rest[skipped..];
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest = &rest[rest[1..].find('\'').unwrap() + 2..];
        } else if sign == '"' {
            rest = after_string(&rest[1..]);
        } else {
            code.push(sign);
            rest = &rest[sign.len_utf8()..];
        }
    }
    code
}

/// Length of the raw string literal at the start of `text`.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r')?;
    let number = hashes.len() - hashes.trim_start_matches('#').len();
    let inside = hashes[number..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(number));
    Some(inside.find(&end)? + end.len() + number + 2)
}

fn after_string(text: &str) -> &str {
    let mut escaped = false;
    for (at, sign) in text.char_indices() {
        match sign {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

/// Names of the rooms that `code` reaches through `crate::`.
fn uses(code: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let mut found = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        let after = &code[at + start.len()..];
        let Some(group) = after.strip_prefix('{') else {
            found.push(name(after));
            continue;
        };
        let (mut depth, mut word_starts) = (0usize, true);
        for (at, sign) in group.char_indices() {
            match sign {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => word_starts = true,
                _ if word_starts && depth == 0 && !sign.is_whitespace() => {
                    found.push(name(&group[at..]));
                    word_starts = false;
                }
                _ => {}
            }
        }
    }
    found
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_'))
}

/// The room a file of `src/` belongs to; `None` for `lib.rs` and `main.rs`.
fn room_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap();
    let room = Path::new(first.as_os_str())
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    (room != "lib" && room != "main").then_some(room)
}

#[test]
fn the_table_lists_the_rooms_there_are() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let modules = text
        .lines()
        .filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';'));
    let mut modules: Vec<&str> = modules.collect();
    modules.sort_unstable();
    assert_eq!(
        rooms().keys().map(String::as_str).collect::<Vec<_>>(),
        modules
    );
}

#[test]
fn rooms_use_lower_ranks_only() {
    let rooms = rooms();
    let mut wrong = Vec::new();
    for path in rust_files(&root().join("src")) {
        let Some(room) = room_of(&path) else { continue };
        let rank = rooms[&room].rank;
        for used in uses(&code(&fs::read_to_string(&path).unwrap())) {
            if used != room && rooms.get(&used).is_some_and(|other| other.rank >= rank) {
                wrong.push(format!("{}: {room} ({rank}) uses {used}", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "a room uses lower ranks only:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn candle_and_unsafe_stay_in_their_rooms() {
    let rooms = rooms();
    let mut wrong = Vec::new();
    for path in rust_files(&root().join("src")) {
        let code = code(&fs::read_to_string(&path).unwrap());
        let room = room_of(&path);
        let without_candle = room.as_ref().is_some_and(|room| rooms[room].without_candle);
        for word in words(&code) {
            if word.starts_with("candle") && without_candle {
                wrong.push(format!("{}: names {word} in a ∘ room", path.display()));
            }
            if word == "unsafe" && room.as_deref() != Some("kernels") {
                wrong.push(format!("{}: unsafe outside of kernels", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let mut long = Vec::new();
    for folder in ["src", "tests"] {
        for path in rust_files(&root().join(folder)) {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            if lines > MAX_LINES {
                long.push(format!("{}: {lines} lines", path.display()));
            }
        }
    }
    assert!(
        long.is_empty(),
        "split at {MAX_LINES} lines:\n{}",
        long.join("\n")
    );
}

#[test]
fn the_readme_names_every_room() {
    let Ok(readme) = fs::read_to_string(root().join("README.md")) else {
        return;
    };
    let absent: Vec<String> = rooms()
        .into_keys()
        .filter(|room| {
            !readme.contains(&format!("{room}/")) && !readme.contains(&format!("{room}.rs"))
        })
        .collect();
    assert!(absent.is_empty(), "README's tree does not name {absent:?}");
}

#[test]
fn the_reader_of_source_text_sees_code_only() {
    let text = "use crate::a; // crate::b\nlet s = \"crate::c \\\" unsafe\"; r#\"crate::d\"#; '\"';\
                use crate::{e::{f, g}, h, i as j};/* crate::k */";
    assert_eq!(uses(&code(text)), ["a", "e", "h", "i"]);
    assert!(!words(&code(text)).any(|word| word == "unsafe"));
}
