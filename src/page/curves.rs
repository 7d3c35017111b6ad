//! Curves over the steps of a run.

use super::html::{card, colour, legend};
use super::svg::Frame;

/// Points of a curve that are drawn; more are averaged.
const DRAWN: usize = 300;

/// Places of a curve's points: step and value.
pub type Points = Vec<(f64, f64)>;

/// A curve: its name, its points, whether it is dashed, the number of its colour.
pub type Line<'a> = (String, &'a Points, bool, usize);

/// A card with curves over the steps of a run; `range` is that of the vertical axis.
pub fn chart(title: &str, y_label: &str, range: Option<(f64, f64)>, lines: &[Line<'_>]) -> String {
    let lines: Vec<(&str, Points, bool, String)> = lines
        .iter()
        .filter(|line| !line.1.is_empty())
        .map(|(name, points, dashed, number)| {
            (name.as_str(), thinned(points), *dashed, colour(*number))
        })
        .collect();
    let all = || lines.iter().flat_map(|line| &line.1);
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        let values = || all().map(of);
        (
            values().fold(f64::INFINITY, f64::min),
            values().fold(f64::NEG_INFINITY, f64::max),
        )
    };
    let (low, high) = bounds(|point| point.1);
    let frame = Frame {
        width: 540.0,
        height: 330.0,
        x: (0.0, bounds(|point| point.0).1.max(1.0)),
        y: range.unwrap_or((low - (high - low) * 0.05, high + (high - low) * 0.05)),
        x_label: "step",
        y_label,
    };
    let mut inside = String::new();
    for (_, points, dashed, colour) in &lines {
        inside += &frame.curve(points, colour, *dashed);
        if points.len() <= 30 && !dashed {
            for &(x, y) in points {
                let (x, y) = (frame.at_x(x), frame.at_y(y));
                inside += &format!("<circle cx={x:.1} cy={y:.1} r=3 fill=\"{colour}\" />");
            }
        }
    }
    let names = legend(
        lines
            .iter()
            .map(|(name, _, dashed, colour)| (*name, colour.clone(), *dashed)),
    );
    card(false, title, &(names + &frame.svg(title, &inside)), "")
}

/// At most [`DRAWN`] points, each the mean of neighbours.
fn thinned(points: &Points) -> Points {
    let together = points.len().div_ceil(DRAWN).max(1);
    let mean = |part: &[(f64, f64)]| {
        let num = part.len() as f64;
        let sum = part
            .iter()
            .fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / num, sum.1 / num)
    };
    points.chunks(together).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_thinned_to_means() {
        let points: Points = (0..1000).map(|n| (f64::from(n), 1.0)).collect();
        let thin = thinned(&points);
        assert_eq!((thin.len(), thin[0]), (250, (1.5, 1.0)));
        assert!(thinned(&Vec::new()).is_empty());
    }
}
