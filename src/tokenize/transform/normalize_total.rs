//! Scales a cell so that its values sum to `target`, as scanpy's `normalize_total`. A cell whose
//! sum is 0 stays as it is. The sum is over every column of the source, so that it does not depend
//! on the vocabulary.

pub(super) fn apply(values: &mut [f32], target: f64) {
    let total: f64 = values.iter().map(|&value| f64::from(value)).sum();
    if total > 0.0 {
        let scale = target / total;
        for value in values {
            *value = (f64::from(*value) * scale) as f32;
        }
    }
}
