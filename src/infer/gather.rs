//! Rows of a batch's states.

use candle_core::{Result, Tensor};

use crate::cell::PackedBatch;

/// The position of token type `kind` in each cell, `[B]`; cells without it give their first token.
pub(super) fn positions_of(batch: &PackedBatch, kind: u32) -> Vec<u32> {
    let find = |bounds: &[u32]| {
        let cell = bounds[0] as usize..bounds[1] as usize;
        let at = batch.token_type_ids[cell].iter().position(|&k| k == kind);
        bounds[0] + at.unwrap_or(0) as u32
    };
    batch.cu_seqlens.windows(2).map(find).collect()
}

/// The mean over the tokens of each cell, `[B, D]`, of `states` `[T, D]`.
pub(super) fn mean_of_cells(batch: &PackedBatch, states: &Tensor) -> Result<Tensor> {
    let width = states.dim(1)?;
    let states = states.flatten_all()?.to_vec1::<f32>()?;
    let mut means = Vec::with_capacity(batch.num_cells() * width);
    for bounds in batch.cu_seqlens.windows(2) {
        let rows = &states[bounds[0] as usize * width..bounds[1] as usize * width];
        let mut sum = vec![0f64; width];
        for row in rows.chunks_exact(width) {
            sum.iter_mut()
                .zip(row)
                .for_each(|(sum, &x)| *sum += f64::from(x));
        }
        let num = f64::from((bounds[1] - bounds[0]).max(1));
        means.extend(sum.iter().map(|sum| (sum / num) as f32));
    }
    Tensor::from_vec(means, (batch.num_cells(), width), &candle_core::Device::Cpu)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn means_and_positions_stay_within_their_cell() {
        let batch = PackedBatch {
            input_ids: vec![0, 2, 9, 0, 9, 2],
            token_type_ids: vec![0, 3, 7, 0, 7, 3],
            cu_seqlens: vec![0, 3, 6],
            labels: Vec::new(),
            cells: vec![0, 1],
        };
        assert_eq!(positions_of(&batch, 3), [1, 5]);
        let states = [1f32, 2.0, 6.0, 10.0, 20.0, 60.0].map(|x| [x, -x]);
        let states = Tensor::new(&states, &candle_core::Device::Cpu).unwrap();
        let means = mean_of_cells(&batch, &states)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        assert_eq!(means, [[3.0, -3.0], [30.0, -30.0]]);
    }
}
