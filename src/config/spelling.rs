//! The name that was probably meant.

/// The candidate nearest to `typed` in single-letter edits, if it is near enough to be meant: at
/// most a third of the letters differ. `_` and `-` are the same letter.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (typed.chars().count() / 3).max(1);
    let scored = candidates
        .into_iter()
        .map(|name| (edits(typed, name), name));
    let best = scored.min_by_key(|&(edits, _)| edits)?;
    (best.0 <= allowed).then_some(best.1)
}

/// Insertions, deletions, replacements and swaps of neighbours that make `a` into `b`.
fn edits(a: &str, b: &str) -> usize {
    let plain = |text: &str| -> Vec<char> {
        text.chars()
            .map(|c| {
                if c == '-' {
                    '_'
                } else {
                    c.to_ascii_lowercase()
                }
            })
            .collect()
    };
    let (a, b) = (plain(a), plain(b));
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut cost = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                cost = cost.min(before[j - 2] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let names = ["max_length", "max_steps", "seed", "mlm"];
        assert_eq!(nearest("max_lenght", names), Some("max_length"));
        assert_eq!(nearest("max-length", names), Some("max_length"));
        assert_eq!(nearest("sed", names), Some("seed"));
        assert_eq!(nearest("mml", names), Some("mlm"));
        assert_eq!(nearest("0.1", names), None);
        assert_eq!(nearest("gene_order", names), None);
        assert_eq!(nearest("x", []), None);
    }
}
