//! ln(1 + x), as scanpy's `log1p`.

pub(super) fn apply(values: &mut [f32]) {
    for value in values {
        *value = value.ln_1p();
    }
}
