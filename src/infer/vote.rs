//! The mean of several models' probabilities, for the same cells in the same order.
//!
//! Models are heard one after the other, so all but the last one's probabilities are kept: 4 bytes
//! per cell and value. A single model keeps nothing.

/// Sums of probabilities.
#[derive(Debug, Default)]
pub(super) struct Vote {
    num_models: usize,
    num_cells: usize,
    /// Rows heard so far, over all models.
    num_heard: usize,
    /// Of the models before the last: [cells, values], row after row.
    sums: Vec<f32>,
}

impl Vote {
    /// Of `num_models` models, each of which says `num_cells` rows.
    pub(super) fn of(num_models: usize, num_cells: usize) -> Self {
        Self {
            num_models,
            num_cells,
            ..Self::default()
        }
    }

    /// The next row of the model that speaks; from the last model on, the mean of that cell.
    pub(super) fn add(&mut self, mut row: Vec<f64>) -> Option<Vec<f64>> {
        if self.num_models <= 1 {
            return Some(row);
        }
        let (model, cell) = (
            self.num_heard / self.num_cells,
            self.num_heard % self.num_cells,
        );
        self.num_heard += 1;
        if model == 0 {
            self.sums.extend(row.iter().map(|&p| p as f32));
            return None;
        }
        let sums = &mut self.sums[cell * row.len()..][..row.len()];
        if model + 1 < self.num_models {
            sums.iter_mut()
                .zip(row)
                .for_each(|(sum, p)| *sum += p as f32);
            return None;
        }
        for (p, sum) in row.iter_mut().zip(sums) {
            *p = (*p + f64::from(*sum)) / self.num_models as f64;
        }
        Some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_model_gives_the_mean() {
        let mut vote = Vote::of(3, 2);
        for row in [[1.0, 0.0], [0.5, 0.5], [0.25, 0.75], [0.0, 1.0]] {
            assert_eq!(vote.add(row.to_vec()), None);
        }
        assert_eq!(vote.add(vec![0.25, 0.75]), Some(vec![0.5, 0.5]));
        assert_eq!(vote.add(vec![1.0, 0.0]), Some(vec![0.5, 0.5]));
    }

    #[test]
    fn one_model_speaks_for_itself() {
        let mut vote = Vote::of(1, 2);
        assert_eq!(vote.add(vec![0.25, 0.75]), Some(vec![0.25, 0.75]));
    }
}
