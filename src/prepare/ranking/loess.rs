//! A smooth curve through scattered points: local quadratic regression (Cleveland and Grosse,
//! *Computational methods for local regression*, 1991), as R's and scikit-misc's `loess` compute it
//! with their default settings, to rounding.
//!
//! The curve is fitted at a few places only, the borders of cells that each hold about the same
//! number of points, and runs between them as the cubic that has their values and slopes. At such
//! a place, the nearest `span` of all points count, with tricube weights by distance.

/// Points of a cell, as a share of those that a fit takes.
const CELL: f64 = 0.2;
/// How far the outermost borders lie beyond the points, as a share of their range.
const MARGIN: f64 = 0.005;
/// Singular values below this share of the largest count as none.
const SINGULAR: f64 = 100.0 * f64::EPSILON;
/// A parabola has three coefficients.
const TERMS: usize = 3;

/// The least number of points that a curve with this span can be fitted to.
pub(super) fn least_points(span: f64) -> usize {
    let fits = |n: &usize| neighbours(*n, span) > TERMS;
    (1..).find(fits).unwrap_or(usize::MAX)
}

/// The curve's value at each x; `None` where there are fewer than [`least_points`].
pub(super) fn smooth(x: &[f64], y: &[f64], span: f64) -> Option<Vec<f64>> {
    let num_near = neighbours(x.len(), span);
    if num_near <= TERMS || x.len() != y.len() {
        return None;
    }
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
    let sorted: Vec<f64> = order.iter().map(|&i| x[i]).collect();
    let values: Vec<f64> = order.iter().map(|&i| y[i]).collect();
    let cell_points = (x.len() as f64 * span * CELL).floor() as usize;
    let borders = borders(&sorted, cell_points);
    let fits: Vec<(f64, f64)> = borders
        .iter()
        .map(|&at| fit(&sorted, &values, at, num_near, span))
        .collect();
    Some(x.iter().map(|&x| between(&borders, &fits, x)).collect())
}

fn neighbours(num_points: usize, span: f64) -> usize {
    num_points.min((num_points as f64 * span + 1e-5).floor() as usize)
}

/// Where the curve is fitted, ascending: cells are halved at their middle point until none has
/// more than `cell_points`. Equal points stay together.
fn borders(sorted: &[f64], cell_points: usize) -> Vec<f64> {
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else {
        return Vec::new();
    };
    let least = 1e-10 * first.abs().max(last.abs()) + 1e-30;
    let margin = MARGIN * (last - first).max(least);
    let mut borders = vec![first - margin, last + margin];
    let mut cells = vec![(0, sorted.len() - 1, borders[0], borders[1])];
    while let Some((first, last, low, high)) = cells.pop() {
        if last - first < cell_points.max(1) {
            continue;
        }
        let middle = middle(sorted, first, last);
        let cut = sorted[middle];
        if cut == low || cut == high {
            continue;
        }
        borders.push(cut);
        cells.push((first, middle, low, cut));
        if middle < last {
            cells.push((middle + 1, last, cut, high));
        }
    }
    borders.sort_by(f64::total_cmp);
    borders
}

/// The last of the lower half of `first..=last`, moved to the nearest end of a run of equal points.
fn middle(sorted: &[f64], first: usize, last: usize) -> usize {
    let middle = first.midpoint(last);
    let mut offset = 0isize;
    while let Some(at) = middle.checked_add_signed(offset) {
        if at < first || at >= last {
            break;
        }
        if sorted[at] != sorted[at + 1] {
            return at;
        }
        offset = if offset > 0 { -offset } else { 1 - offset };
    }
    middle
}

/// Value and slope, at `at`, of the parabola through the nearest `num_near` points.
fn fit(sorted: &[f64], values: &[f64], at: f64, num_near: usize, span: f64) -> (f64, f64) {
    let first = nearest(sorted, at, num_near);
    let near = first..first + num_near;
    let (near_x, near_y) = (&sorted[near.clone()], &values[near]);
    let farthest = (near_x[num_near - 1] - at)
        .abs()
        .max((at - near_x[0]).abs());
    let reach = farthest * farthest * span.max(1.0);
    if reach <= 0.0 {
        // All of them at one place: their mean.
        return (near_y.iter().sum::<f64>() / num_near as f64, 0.0);
    }
    let mut columns: Vec<Vec<f64>> = vec![Vec::new(); TERMS];
    let mut target = Vec::with_capacity(num_near);
    for (x, y) in near_x.iter().zip(near_y) {
        let away = x - at;
        let share = (away * away / reach).sqrt();
        let weight = (1.0 - share.powi(3)).powi(3).max(0.0).sqrt();
        columns[0].push(weight);
        columns[1].push(weight * away);
        columns[2].push(weight * away * away);
        target.push(weight * y);
    }
    let [value, slope, _] = least_squares(columns, target);
    (value, slope)
}

/// The first of the `count` points nearest to `at`.
fn nearest(sorted: &[f64], at: f64, count: usize) -> usize {
    let (mut low, mut high) = (0, sorted.len() - count);
    while low < high {
        let middle = low.midpoint(high);
        if at - sorted[middle] > sorted[middle + count] - at {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// The shortest coefficients with the least squared error: an orthogonal basis of the scaled
/// columns, then the singular values of what relates the two.
fn least_squares(mut columns: Vec<Vec<f64>>, mut target: Vec<f64>) -> [f64; TERMS] {
    let mut scales = [1.0; TERMS];
    for (column, scale) in columns.iter_mut().zip(&mut scales) {
        let norm = dot(column, column).sqrt();
        if norm > 0.0 {
            *scale = norm;
            column.iter_mut().for_each(|v| *v /= norm);
        }
    }
    // Column j of `triangle` holds what column j is made of.
    let mut triangle = [[0.0; TERMS]; TERMS];
    let mut projected = [0.0; TERMS];
    for j in 0..TERMS {
        let (_, rest) = columns.split_at_mut(j);
        let Some((column, later)) = rest.split_first_mut() else {
            break;
        };
        let norm = dot(column, column).sqrt();
        triangle[j][j] = norm;
        if norm > 0.0 {
            column.iter_mut().for_each(|v| *v /= norm);
        }
        for (k, other) in (j + 1..).zip(later) {
            triangle[k][j] = subtract(other, column);
        }
        projected[j] = subtract(&mut target, column);
    }
    let mut solved = pseudo_solve(triangle, projected);
    solved.iter_mut().zip(scales).for_each(|(c, s)| *c /= s);
    solved
}

/// Takes its part along `unit` out of `column`, and tells how much that was.
fn subtract(column: &mut [f64], unit: &[f64]) -> f64 {
    let part = dot(column, unit);
    column
        .iter_mut()
        .zip(unit)
        .for_each(|(v, u)| *v -= part * u);
    part
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Solves for the coefficients of `columns` that make `target`, leaving out directions that the
/// columns hardly span: one-sided Jacobi rotations make the columns orthogonal.
fn pseudo_solve(mut columns: [[f64; TERMS]; TERMS], target: [f64; TERMS]) -> [f64; TERMS] {
    let mut turned = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    for _ in 0..60 {
        let mut changed = false;
        for (p, q) in [(0, 1), (0, 2), (1, 2)] {
            let (a, b) = (dot(&columns[p], &columns[p]), dot(&columns[q], &columns[q]));
            let c = dot(&columns[p], &columns[q]);
            if c.abs() <= f64::EPSILON * (a * b).sqrt() {
                continue;
            }
            changed = true;
            let zeta = (b - a) / (2.0 * c);
            let tangent = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
            let cosine = 1.0 / tangent.hypot(1.0);
            for matrix in [&mut columns, &mut turned] {
                let (x, y) = (matrix[p], matrix[q]);
                matrix[p] = std::array::from_fn(|row| cosine * (x[row] - tangent * y[row]));
                matrix[q] = std::array::from_fn(|row| cosine * (y[row] + tangent * x[row]));
            }
        }
        if !changed {
            break;
        }
    }
    let norms = columns.map(|column| dot(&column, &column).sqrt());
    let largest = norms.iter().copied().fold(0.0, f64::max);
    let mut solved = [0.0; TERMS];
    for ((column, direction), norm) in columns.iter().zip(turned).zip(norms) {
        if norm > SINGULAR * largest {
            let share = dot(column, &target) / (norm * norm);
            for (coefficient, part) in solved.iter_mut().zip(direction) {
                *coefficient += share * part;
            }
        }
    }
    solved
}

/// The cubic between the borders around `x`, which has their values and slopes.
fn between(borders: &[f64], fits: &[(f64, f64)], x: f64) -> f64 {
    let above = borders.partition_point(|&border| border < x);
    let above = above.clamp(1, borders.len() - 1);
    let (low, high) = (borders[above - 1], borders[above]);
    let ((v0, s0), (v1, s1)) = (fits[above - 1], fits[above]);
    let h = (x - low) / (high - low);
    let values = (1.0 - h).powi(2) * (1.0 + 2.0 * h) * v0 + h * h * (3.0 - 2.0 * h) * v1;
    let slopes = h * (1.0 - h).powi(2) * s0 + h * h * (h - 1.0) * s1;
    values + slopes * (high - low)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_parabola_is_its_own_curve() {
        let x: Vec<f64> = (0..400).map(|i| f64::from(i * i) / 9e3 - 3.0).collect();
        let y: Vec<f64> = x.iter().map(|x| 2.0 - x + 0.5 * x * x).collect();
        // A parabola is also what the cubics between its points are.
        for (y, found) in y.iter().zip(smooth(&x, &y, 0.3).unwrap()) {
            assert!((y - found).abs() < 1e-12, "{y} {found}");
        }
    }

    #[test]
    fn points_at_few_places_have_a_curve_too() {
        for places in 1..4 {
            let x: Vec<f64> = (0..60).map(|i| f64::from(i % places)).collect();
            let y: Vec<f64> = x.iter().map(|x| 3.0 * x + 1.0).collect();
            for (y, found) in y.iter().zip(smooth(&x, &y, 0.5).unwrap()) {
                assert!((y - found).abs() < 1e-9, "{places}: {y} {found}");
            }
        }
    }

    #[test]
    fn too_few_points_have_no_curve() {
        assert_eq!(least_points(0.3), 14);
        let line = |n: usize| (0..n).map(|i| i as f64).collect::<Vec<_>>();
        assert!(smooth(&line(13), &line(13), 0.3).is_none());
        assert!(smooth(&line(14), &line(14), 0.3).is_some());
    }

    #[test]
    fn equal_points_stay_together() {
        let sorted = [0.0, 1.0, 1.0, 1.0, 2.0, 3.0];
        assert_eq!(middle(&sorted, 0, 5), 3);
        assert_eq!(middle(&sorted, 1, 3), 2);
        assert_eq!(middle(&[0.0, 1.0, 1.0, 1.0, 1.0, 1.0], 0, 5), 0);
    }
}
