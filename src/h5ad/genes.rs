//! What gene ids look like: Ensembl ids (with or without version), symbols, or something else.

use super::report::GeneStyle;

/// The style of most of `ids`.
pub(super) fn style_of<'a>(ids: impl Iterator<Item = &'a str>) -> GeneStyle {
    let (mut plain, mut versions, mut symbols, mut all) = (0usize, 0usize, 0usize, 0usize);
    for id in ids {
        all += 1;
        match style(id) {
            GeneStyle::Ensembl => plain += 1,
            GeneStyle::EnsemblWithVersion => versions += 1,
            GeneStyle::Symbols => symbols += 1,
            GeneStyle::Other => {}
        }
    }
    if 2 * (plain + versions) > all {
        if versions > plain {
            GeneStyle::EnsemblWithVersion
        } else {
            GeneStyle::Ensembl
        }
    } else if 2 * symbols > all {
        GeneStyle::Symbols
    } else {
        GeneStyle::Other
    }
}

/// The style of one id: `ENS`, a species of capitals, `G`, digits, perhaps `.version`; or a
/// symbol: letters, digits and `. - _ @ ( ) /`, with a letter among them (also `7SK`).
pub fn style(id: &str) -> GeneStyle {
    if let Some(rest) = id.strip_prefix("ENS") {
        let (stem, version) = match rest.split_once('.') {
            Some((stem, version)) => (stem, Some(version)),
            None => (rest, None),
        };
        let letters = stem.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = stem.len() - letters.len();
        let capitals = letters.chars().all(|c| c.is_ascii_uppercase()) && letters.ends_with('G');
        let numbered = |text: &str| text.chars().next().is_some_and(|c| c.is_ascii_digit());
        if capitals && digits >= 6 && version.is_none_or(numbered) {
            return match version {
                Some(_) => GeneStyle::EnsemblWithVersion,
                None => GeneStyle::Ensembl,
            };
        }
    }
    let starts = id.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    let starts = starts && id.chars().any(|c| c.is_ascii_alphabetic());
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-@()/".contains(c);
    let region = id.starts_with("chr") && id.contains(['-', ':', '_']);
    if starts && id.len() <= 30 && id.chars().all(fits) && !region {
        GeneStyle::Symbols
    } else {
        GeneStyle::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_of_known_ids() {
        let known = [
            ("ENSG00000139618", GeneStyle::Ensembl),
            ("ENSMUSG00000064370", GeneStyle::Ensembl),
            ("ENSG00000139618.15", GeneStyle::EnsemblWithVersion),
            ("ENSG00000228572.7_PAR_Y", GeneStyle::EnsemblWithVersion),
            ("ENSA", GeneStyle::Symbols),
            ("HLA-DRB1", GeneStyle::Symbols),
            ("RP11-34P13.7", GeneStyle::Symbols),
            ("7SK", GeneStyle::Symbols),
            ("chr1:100-200", GeneStyle::Other),
            ("17", GeneStyle::Other),
            ("", GeneStyle::Other),
        ];
        for (id, expected) in known {
            assert_eq!(style(id), expected, "{id}");
        }
        assert_eq!(
            style_of(["BRCA2", "ENSG00000139618", "TP53"].into_iter()),
            GeneStyle::Symbols
        );
    }
}
