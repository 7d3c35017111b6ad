//! Embedding: the sum of a word row and a type row for each token; gradients as rows of the table.
//!
//! The type table has a row per gene, of which a batch touches few: its gradient is the list of
//! touched rows ([`scatter`]). Tokens are sorted by id, each run of equal ids is cut into pieces
//! of fixed length that are summed in parallel, and the pieces are added in order.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::parallel::rows_per_task;
use super::simd::vectorized;
use crate::buffers::{from_vec, read};

/// Tokens of one id that one task sums.
const PIECE: usize = 128;

/// `word[ids] + types[type_ids]` → `[T, D]`.
///
/// # Errors
/// An id is beyond its table, tables of different widths, or lists of different lengths.
pub fn forward(word: &Tensor, types: &Tensor, ids: &[u32], type_ids: &[u32]) -> Result<Tensor> {
    let ((num_words, width), (num_types, type_width)) = (word.dims2()?, types.dims2()?);
    if width != type_width || ids.len() != type_ids.len() {
        bail!(
            "embedding: tables {:?} and {:?}",
            word.shape(),
            types.shape()
        );
    }
    within("token id", ids, num_words)?;
    within("token type id", type_ids, num_types)?;
    let mut x = vec![0.0; ids.len() * width];
    {
        let (word, types) = (read::<f32>(word)?, read::<f32>(types)?);
        let (word, types) = (&*word, &*types);
        let rows = rows_per_task(width);
        let tasks = x.par_chunks_mut(rows * width.max(1)).enumerate();
        tasks.for_each(|(task, x)| {
            vectorized(|| {
                let pairs = ids[task * rows..].iter().zip(&type_ids[task * rows..]);
                for (x, (&id, &type_id)) in x.chunks_exact_mut(width).zip(pairs) {
                    let word = &word[id as usize * width..][..width];
                    let types = &types[type_id as usize * width..][..width];
                    for ((x, a), b) in x.iter_mut().zip(word).zip(types) {
                        *x = a + b;
                    }
                }
            });
        });
    }
    from_vec(x, (ids.len(), width))
}

/// The gradient of a table: the rows of dx [T, D] summed by id. Rows of `skip` (padding) are left
/// out. Returns the ids that occur, ascending, and their gradients [R, D].
///
/// # Errors
/// There are not as many ids as rows.
pub fn scatter(dx: &Tensor, ids: &[u32], skip: Option<u32>) -> Result<(Vec<u32>, Tensor)> {
    let (count, width) = dx.dims2()?;
    if count != ids.len() {
        bail!("embedding: {count} gradients for {} ids", ids.len());
    }
    let mut order: Vec<(u32, u32)> = ids.iter().copied().zip(0..).collect();
    order.retain(|(id, _)| Some(*id) != skip);
    order.par_sort_unstable();
    let runs: Vec<&[(u32, u32)]> = order.chunk_by(|a, b| a.0 == b.0).collect();
    let rows = runs.iter().map(|run| run[0].0).collect::<Vec<u32>>();
    let mut values = vec![0.0; rows.len() * width];
    let dx = read::<f32>(dx)?;
    let dx = &*dx;
    let tasks = values
        .par_chunks_mut(width.max(1))
        .zip(runs)
        .with_min_len(16);
    tasks.for_each(|(sum, run)| {
        if run.len() <= PIECE {
            vectorized(|| add_rows(sum, dx, run));
        } else {
            let pieces = run.par_chunks(PIECE).map(|piece| {
                let mut part = vec![0.0; width];
                vectorized(|| add_rows(&mut part, dx, piece));
                part
            });
            for part in pieces.collect::<Vec<_>>() {
                sum.iter_mut()
                    .zip(part)
                    .for_each(|(sum, part)| *sum += part);
            }
        }
    });
    let values = from_vec(values, (rows.len(), width))?;
    Ok((rows, values))
}

#[inline(always)]
fn add_rows(sum: &mut [f32], dx: &[f32], run: &[(u32, u32)]) {
    for &(_, row) in run {
        let from = &dx[row as usize * sum.len()..][..sum.len()];
        for (sum, from) in sum.iter_mut().zip(from) {
            *sum += from;
        }
    }
}

fn within(what: &str, ids: &[u32], count: usize) -> Result<()> {
    match ids.iter().position(|&id| id as usize >= count) {
        None => Ok(()),
        Some(at) => bail!(
            "{what} {} at position {at} of the batch, but the model has {count}\n\
             hint: the tokens were made with another vocabulary than the model's",
            ids[at]
        ),
    }
}
