//! Principal components from sums over rows, so that rows need not be in memory.

use super::eigen::{dot, largest};

/// Sums over rows of one width: their number, their sum, and the products of all pairs of columns.
#[derive(Debug, Clone)]
pub struct Moments {
    width: usize,
    count: u64,
    sums: Vec<f64>,     // [width]
    products: Vec<f64>, // [width, width], of which only j ≥ i is filled
}

/// The directions in which rows vary most.
#[derive(Debug, Clone)]
pub struct Components {
    width: usize,
    mean: Vec<f64>,
    axes: Vec<f64>, // [components, width]
    /// The variance along each, descending.
    pub variances: Vec<f64>,
    /// The variance along all directions.
    pub total_variance: f64,
}

impl Moments {
    /// Of no row yet.
    pub fn new(width: usize) -> Self {
        Self {
            width,
            count: 0,
            sums: vec![0.0; width],
            products: vec![0.0; width * width],
        }
    }

    /// Counts a row.
    pub fn add(&mut self, row: &[f32]) {
        let columns: Vec<u32> = (0..row.len() as u32).collect();
        self.add_sparse(&columns, row);
    }

    /// Counts a row that is zero but in these `columns`, which ascend.
    pub fn add_sparse(&mut self, columns: &[u32], values: &[f32]) {
        self.count += 1;
        for (n, (&i, &x)) in columns.iter().zip(values).enumerate() {
            let x = f64::from(x);
            self.sums[i as usize] += x;
            let products = &mut self.products[i as usize * self.width..][..self.width];
            for (&j, &y) in columns[n..].iter().zip(&values[n..]) {
                products[j as usize] += x * f64::from(y);
            }
        }
    }

    /// At most `num` components: no more than columns, or than rows − 1.
    pub fn components(&self, num: usize) -> Components {
        let (width, count) = (self.width, self.count as f64);
        let mean: Vec<f64> = self.sums.iter().map(|sum| sum / count.max(1.0)).collect();
        let mut covariance = vec![0.0; width * width];
        for i in 0..width {
            for j in i..width {
                let product = self.products[i * width + j] - count * mean[i] * mean[j];
                covariance[i * width + j] = product / (count - 1.0).max(1.0);
                covariance[j * width + i] = covariance[i * width + j];
            }
        }
        let total_variance = (0..width).map(|i| covariance[i * width + i]).sum();
        let num = num.min(self.count.saturating_sub(1) as usize);
        let (variances, mut axes) = largest(&covariance, width, num);
        axes.chunks_exact_mut(width.max(1)).for_each(settle_sign);
        Components {
            width,
            mean,
            axes,
            variances,
            total_variance,
        }
    }
}

/// A direction and its opposite are the same: the largest entry is made positive.
fn settle_sign(axis: &mut [f64]) {
    let largest = axis
        .iter()
        .copied()
        .fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
    if largest < 0.0 {
        axis.iter_mut().for_each(|x| *x = -*x);
    }
}

impl Components {
    /// Number of components.
    pub fn len(&self) -> usize {
        self.variances.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.variances.is_empty()
    }

    /// The entry of each axis in `column`, times the deviation along the axis.
    pub fn loadings(&self, column: usize) -> impl Iterator<Item = f64> {
        let axes = self.axes.chunks_exact(self.width.max(1));
        let both = axes.zip(&self.variances);
        both.map(move |(axis, variance)| axis[column] * variance.max(0.0).sqrt())
    }

    /// The place of a row along each component.
    pub fn project(&self, row: &[f32]) -> Vec<f32> {
        let centred: Vec<f64> = row
            .iter()
            .zip(&self.mean)
            .map(|(&x, m)| f64::from(x) - m)
            .collect();
        let axes = self.axes.chunks_exact(self.width.max(1));
        axes.map(|axis| dot(axis, &centred) as f32).collect()
    }

    /// That of a row that is zero but in these `columns`.
    pub fn project_sparse(&self, columns: &[u32], values: &[f32]) -> Vec<f32> {
        let mut row = vec![0.0; self.width];
        for (&column, &value) in columns.iter().zip(values) {
            row[column as usize] = value;
        }
        self.project(&row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_of_points_on_a_line_and_across() {
        let mut moments = Moments::new(3);
        for (t, s) in [
            (-2.0, 1.0),
            (-1.0, -1.0),
            (0.0, 0.0),
            (1.0, -1.0),
            (2.0, 1.0f32),
        ] {
            moments.add(&[1.0 + 3.0 * t, 4.0 * t, s]);
        }
        let components = moments.components(9);
        assert_eq!(components.len(), 3);
        let expected = [62.5, 1.0, 0.0];
        for (found, expected) in components.variances.iter().zip(expected) {
            assert!(
                (found - expected).abs() < 1e-9,
                "{:?}",
                components.variances
            );
        }
        assert!((components.total_variance - 63.5).abs() < 1e-9);
        let place = components.project(&[4.0, 4.0, 0.0]);
        assert!(
            (place[0] - 5.0).abs() < 1e-5 && place[1].abs() < 1e-5,
            "{place:?}"
        );
        assert_eq!(components.project_sparse(&[0, 1], &[4.0, 4.0]), place);
        // Column 1 varies along the first axis only, by 4/5 of its deviation √62.5.
        let loadings: Vec<f64> = components.loadings(1).collect();
        assert!(
            (loadings[0] - 0.8 * 62.5f64.sqrt()).abs() < 1e-9,
            "{loadings:?}"
        );
        assert!(
            loadings[1].abs() < 1e-9 && loadings[2].abs() < 1e-4,
            "{loadings:?}"
        );
    }
}
