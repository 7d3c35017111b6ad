//! Charts of one column: the confusion matrix as a heat map, the reliability curve.

use std::fmt::Write;

use crate::metrics::Reliability;
use crate::page::html::{count, shortened, text};
use crate::page::svg::Frame;

/// Classes drawn one by one; the rarer ones are drawn as one.
const SHOWN: usize = 32;
/// Up to this many classes, each cell has its number in it.
const WITH_NUMBERS: usize = 14;
/// Characters of a class's name.
const NAME_LENGTH: usize = 22;

/// Counts by true class (rows) and answer (columns), shaded by the share of the row.
pub(super) fn heat_map(names: &[&str], counts: &[Vec<u64>]) -> String {
    let (names, counts) = folded(names, counts);
    let n = names.len();
    let longest = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0);
    let margin = (longest as f64 * 6.6 + 14.0).max(60.0);
    let side = (if n <= 6 { 64.0 } else { 400.0 / n as f64 }).clamp(13.0, 64.0);
    let below = longest as f64 * 6.6 * 0.64 + 26.0;
    let (width, height) = (margin + side * n as f64 + 26.0, side * n as f64 + below);
    let mut out = format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" style=\"max-width:{width:.0}px;margin:auto\" \
         role=img aria-label=\"confusion matrix\">"
    );
    for (row, (name, cells)) in names.iter().zip(&counts).enumerate() {
        let total: u64 = cells.iter().sum();
        let y = row as f64 * side;
        let _ = write!(
            out,
            "<text class=strong x={:.1} y={:.1} text-anchor=end>{}</text>",
            margin - 8.0,
            y + side / 2.0 + 4.0,
            text(name)
        );
        for (column, &number) in cells.iter().enumerate() {
            let share = number as f64 / (total as f64).max(1.0);
            out += &cell((margin + column as f64 * side, y, side), share, number, n);
            let _ = write!(
                out,
                "<title>{} → {}: {} ({:.1} %)</title></g>",
                text(name),
                text(&names[column]),
                count(number),
                share * 100.0
            );
        }
    }
    for (column, name) in names.iter().enumerate() {
        let (x, y) = (
            margin + (column as f64 + 0.5) * side,
            side * n as f64 + 14.0,
        );
        let _ = write!(
            out,
            "<text class=strong transform=\"translate({:.1} {y:.1}) rotate(-40)\" \
             text-anchor=end>{}</text>",
            x + 4.0,
            text(name)
        );
    }
    out + "</svg>"
}

/// One cell, its group left open for a title.
fn cell((x, y, side): (f64, f64, f64), share: f64, number: u64, num_classes: usize) -> String {
    let inner = side - if side > 24.0 { 2.0 } else { 1.0 };
    let mut out = format!(
        "<g><rect class=empty x={x:.1} y={y:.1} width={inner:.1} height={inner:.1} rx=2 />"
    );
    if number > 0 {
        let _ = write!(
            out,
            "<rect class=cell fill-opacity={:.3} x={x:.1} y={y:.1} width={inner:.1} \
             height={inner:.1} rx=2 />",
            share.max(0.02)
        );
    }
    if num_classes <= WITH_NUMBERS && number > 0 {
        let class = if share > 0.6 { "inside" } else { "strong" };
        let _ = write!(
            out,
            "<text class={class} x={:.1} y={:.1} text-anchor=middle>{}</text>",
            x + inner / 2.0,
            y + inner / 2.0 + 4.0,
            brief(number)
        );
    }
    out
}

fn brief(number: u64) -> String {
    if number < 10_000 {
        number.to_string()
    } else {
        format!("{:.0}k", number as f64 / 1000.0)
    }
}

/// The classes with the most cells, and all others as one.
fn folded(names: &[&str], counts: &[Vec<u64>]) -> (Vec<String>, Vec<Vec<u64>>) {
    let short = |name: &&str| shortened(name, NAME_LENGTH);
    if names.len() <= SHOWN {
        return (names.iter().map(short).collect(), counts.to_vec());
    }
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|&class| std::cmp::Reverse(counts[class].iter().sum::<u64>()));
    let mut kept: Vec<usize> = order[..SHOWN - 1].to_vec();
    kept.sort_unstable();
    let place = |class: usize| kept.iter().position(|&k| k == class).unwrap_or(SHOWN - 1);
    let mut folded = vec![vec![0; SHOWN]; SHOWN];
    for (truth, row) in counts.iter().enumerate() {
        for (answer, &number) in row.iter().enumerate() {
            folded[place(truth)][place(answer)] += number;
        }
    }
    let others = format!("{} others", names.len() - kept.len());
    let shown = kept.iter().map(|&class| short(&names[class]));
    (shown.chain([others]).collect(), folded)
}

/// How often answers are right, by the probability that they were given.
pub(super) fn reliability(curve: &Reliability) -> String {
    let frame = Frame {
        width: 460.0,
        height: 340.0,
        x: (0.0, 1.0),
        y: (0.0, 1.0),
        x_label: "probability of the answer",
        y_label: "share that is right",
    };
    let most = curve
        .bins
        .iter()
        .map(|bin| bin.count)
        .max()
        .unwrap_or(0)
        .max(1);
    let mut inside = String::new();
    let width = 1.0 / curve.bins.len() as f64;
    for (place, bin) in curve
        .bins
        .iter()
        .enumerate()
        .filter(|(_, bin)| bin.count > 0)
    {
        let low = place as f64 * width;
        let top = frame.at_y(0.3 * bin.count as f64 / most as f64);
        let _ = write!(
            inside,
            "<rect class=count x={:.1} y={top:.1} width={:.1} height={:.1}><title>{} answers with \
             a probability of {:.1} to {:.1}: {:.1} % are right</title></rect>",
            frame.at_x(low) + 1.0,
            frame.at_x(low + width) - frame.at_x(low) - 2.0,
            frame.at_y(0.0) - top,
            count(bin.count),
            low,
            low + width,
            bin.accuracy * 100.0
        );
    }
    let _ = write!(
        inside,
        "<path class=ideal d=\"M{:.1} {:.1}L{:.1} {:.1}\"/>",
        frame.at_x(0.0),
        frame.at_y(0.0),
        frame.at_x(1.0),
        frame.at_y(1.0)
    );
    let filled = curve.bins.iter().filter(|bin| bin.count > 0);
    let points: Vec<(f64, f64)> = filled.map(|bin| (bin.confidence, bin.accuracy)).collect();
    inside += &frame.curve(&points, "var(--accent)", false);
    for (x, y) in points {
        let (x, y) = (frame.at_x(x), frame.at_y(y));
        let _ = write!(inside, "<circle class=cell cx={x:.1} cy={y:.1} r=3.5 />");
    }
    frame.svg("reliability curve", &inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_classes_become_one_and_no_cell_is_lost() {
        let names: Vec<String> = (0..50).map(|n| format!("class {n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let row = |truth: u64| {
            (0..50)
                .map(|answer| u64::from(answer == truth) * truth)
                .collect()
        };
        let counts: Vec<Vec<u64>> = (0..50).map(row).collect();
        let (shown, folded) = folded(&names, &counts);
        assert_eq!((shown.len(), shown[31].as_str()), (32, "19 others"));
        let sum = |counts: &[Vec<u64>]| counts.iter().flatten().sum::<u64>();
        assert_eq!(sum(&folded), sum(&counts));
        assert_eq!(folded[31][31], (0..19).sum::<u64>());
        assert!(heat_map(&names, &counts).contains("class 49"));
    }
}
