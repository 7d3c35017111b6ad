//! A frame with two axes, in which curves and points are drawn.

use std::fmt::Write;

use super::html::text;

/// Where the plot lies, and what its axes mean.
#[derive(Debug, Clone)]
pub struct Frame<'a> {
    /// Of the whole picture, in its own units.
    pub width: f64,
    /// Likewise.
    pub height: f64,
    /// Range of the horizontal axis.
    pub x: (f64, f64),
    /// Of the vertical one.
    pub y: (f64, f64),
    /// Name of the horizontal axis.
    pub x_label: &'a str,
    /// Of the vertical one.
    pub y_label: &'a str,
}

const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 40.0;
/// Lines of the grid in each direction, about.
const NUM_TICKS: f64 = 5.0;

impl Frame<'_> {
    /// The place of a value on the horizontal axis.
    pub fn at_x(&self, x: f64) -> f64 {
        let share = (x - self.x.0) / (self.x.1 - self.x.0).max(1e-300);
        LEFT + share * (self.width - LEFT - RIGHT)
    }

    /// On the vertical one.
    pub fn at_y(&self, y: f64) -> f64 {
        let share = (y - self.y.0) / (self.y.1 - self.y.0).max(1e-300);
        self.height - BOTTOM - share * (self.height - TOP - BOTTOM)
    }

    /// The picture: `inside` over the grid.
    pub fn svg(&self, label: &str, inside: &str) -> String {
        let mut out = format!(
            "<svg viewBox=\"0 0 {} {}\" role=img aria-label=\"{}\">",
            self.width,
            self.height,
            text(label)
        );
        let (left, right) = (LEFT, self.width - RIGHT);
        let (top, bottom) = (TOP, self.height - BOTTOM);
        for tick in ticks(self.y) {
            let y = self.at_y(tick);
            let _ = write!(
                out,
                "<path class=grid-line d=\"M{left} {y:.1}H{right}\"/><text x={} y={:.1} \
                 text-anchor=end>{}</text>",
                left - 7.0,
                y + 4.0,
                number(tick)
            );
        }
        for tick in ticks(self.x) {
            let x = self.at_x(tick);
            let _ = write!(
                out,
                "<path class=axis d=\"M{x:.1} {bottom}v4\"/><text x={x:.1} y={} \
                 text-anchor=middle>{}</text>",
                bottom + 18.0,
                number(tick)
            );
        }
        let _ = write!(
            out,
            "<path class=axis d=\"M{left} {bottom}H{right}\"/>\
             <text x={:.1} y={} text-anchor=middle>{}</text>\
             <text transform=\"translate(12 {:.1}) rotate(-90)\" text-anchor=middle>{}</text>",
            (left + right) / 2.0,
            self.height - 4.0,
            text(self.x_label),
            (top + bottom) / 2.0,
            text(self.y_label),
        );
        out + inside + "</svg>"
    }

    /// A line through points.
    pub fn curve(&self, points: &[(f64, f64)], colour: &str, dashed: bool) -> String {
        let place = |(n, &(x, y)): (usize, &(f64, f64))| {
            let letter = if n == 0 { 'M' } else { 'L' };
            format!("{letter}{:.1} {:.1}", self.at_x(x), self.at_y(y))
        };
        let path: String = points.iter().enumerate().map(place).collect();
        let dash = if dashed {
            " stroke-dasharray=\"5 4\" stroke-opacity=.8"
        } else {
            ""
        };
        format!("<path class=curve stroke=\"{colour}\"{dash} d=\"{path}\"/>")
    }
}

/// Round numbers within a range.
pub fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let rough = (high - low) / NUM_TICKS;
    if !rough.is_finite() || rough <= 0.0 {
        return vec![low];
    }
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|times| times * power);
    let step = steps
        .into_iter()
        .find(|&step| step >= rough)
        .unwrap_or(rough);
    let (first, last) = (
        (low / step - 1e-9).ceil() as i64,
        (high / step + 1e-9).floor() as i64,
    );
    (first..=last).map(|n| n as f64 * step).collect()
}

/// A number of an axis, as short as it can be.
pub fn number(value: f64) -> String {
    let size = value.abs();
    let rounded = (value * 1e6).round() / 1e6;
    match size {
        _ if size >= 1e6 => format!("{}M", (value / 1e4).round() / 100.0),
        _ if size >= 1e4 => format!("{}k", (value / 10.0).round() / 100.0),
        _ if size > 0.0 && size < 1e-4 => format!("{value:e}"),
        _ => format!("{rounded}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(
            ticks((0.0, 1.0)),
            [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]
        );
        assert_eq!(ticks((3.0, 47.0)), [10.0, 20.0, 30.0, 40.0]);
        assert_eq!(ticks((2.0, 2.0)), [2.0]);
        assert_eq!(number(0.6000000000000001), "0.6");
        assert_eq!(
            (number(15_000.0), number(2.5e6)),
            ("15k".into(), "2.5M".into())
        );
    }
}
