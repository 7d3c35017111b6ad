//! Pieces of HTML.

use std::fmt::Write;

/// Colours of the first classes: distinct, and readable on light and dark.
const COLOURS: [&str; 12] = [
    "#4c8fd6", "#e58a3c", "#4dab6d", "#d65f5f", "#9a7bd0", "#a8795c", "#df7fbf", "#8a949e",
    "#b9b23a", "#3fb3bf", "#6f7fe8", "#c44e8a",
];

/// A text, so that it means itself.
pub fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// The colour of class `number`; beyond the first few, hues a golden angle apart.
pub fn colour(number: usize) -> String {
    match COLOURS.get(number) {
        Some(colour) => (*colour).to_owned(),
        None => {
            let hue = (number as f64 * 137.508) % 360.0;
            let light = [52, 62, 44][number % 3];
            format!("hsl({hue:.0} 55% {light}%)")
        }
    }
}

/// A figure, to three places.
pub fn figure(value: f64) -> String {
    format!("{value:.3}")
}

/// A count, in groups of three digits.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// At most `length` characters; the rest is told by an ellipsis.
pub fn shortened(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    let start: String = text.chars().take(length.saturating_sub(1)).collect();
    format!("{}…", start.trim_end())
}

/// A table; what stands in the cells is HTML already, and `class` attributes may go before it.
pub fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let mut out = String::from("<div class=scroll><table><thead><tr>");
    for name in head {
        let _ = write!(out, "<th>{}</th>", text(name));
    }
    out += "</tr></thead><tbody>";
    for row in rows {
        out += "<tr>";
        for (place, cell) in row.iter().enumerate() {
            let class = if place == 0 { " class=name" } else { "" };
            let _ = write!(out, "<td{class}>{cell}</td>");
        }
        out += "</tr>";
    }
    out + "</tbody></table></div>"
}

/// Names with their colours; dashed ones mark lines.
pub fn legend<'a>(entries: impl Iterator<Item = (&'a str, String, bool)>) -> String {
    let mut out = String::from("<div class=legend>");
    for (name, colour, dashed) in entries {
        let class = if dashed { " class=dash" } else { "" };
        let _ = write!(
            out,
            "<span><i{class} style=\"--c:{colour}\"></i>{}</span>",
            text(name)
        );
    }
    out + "</div>"
}

/// A card with a heading.
pub fn card(wide: bool, heading: &str, inside: &str, caption: &str) -> String {
    let class = if wide { "card wide" } else { "card" };
    let caption = if caption.is_empty() {
        String::new()
    } else {
        format!("<figcaption>{caption}</figcaption>")
    };
    format!(
        "<figure class=\"{class}\"><h3>{}</h3>{inside}{caption}</figure>\n",
        text(heading)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_mean_themselves() {
        assert_eq!(text("<b> & 'c'"), "&lt;b&gt; &amp; &#39;c&#39;");
        assert_eq!(shortened("T helper cell", 9), "T helper…");
        assert_eq!(
            (count(7), count(1_234_567)),
            ("7".into(), "1\u{2009}234\u{2009}567".into())
        );
        assert_ne!(colour(13), colour(14));
    }
}
