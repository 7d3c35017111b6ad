//! Attention of the first token of each cell to all tokens of the cell, in f32, for a block of which
//! nothing else is used: the last one of a classifier. Linear in the cell's length, as
//! [`super::attention`] with one query to a cell, and with its dropout masks.
//!
//! Shapes: q and context [B, H·d], k and v [T, H·d]; the head h is columns h·d..(h+1)·d. The
//! probabilities, before dropout, are kept for the backward pass: [T · H], of each cell those of
//! head 0, then those of head 1, … One task is one cell, so results do not depend on threads.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::attention::Settings;
use super::dropout::{Dropout, multiplier, square};
use super::profile::span;
use super::simd::{dot, exp, max, sum, vectorized};
use crate::buffers::{from_vec, read};

/// The context of each cell's first token [B, H·d], and the probabilities [T · H].
///
/// # Errors
/// Shapes that do not fit, or tensors that are not contiguous f32 on the CPU.
pub fn forward(
    settings: Settings<'_>,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
) -> Result<(Tensor, Vec<f32>)> {
    let (num_cells, num_tokens, width) = check(settings, [q, k, v])?;
    let _span = span("first attention forward", 4 * num_tokens * width);
    let mut context = vec![0.0; num_cells * width];
    let mut probabilities = vec![0.0; num_tokens * settings.num_heads];
    {
        let (q, k, v) = (read::<f32>(q)?, read::<f32>(k)?, read::<f32>(v)?);
        let cells = Cell::all(settings, width, [&q, &k, &v]);
        let parts = parts(settings, &mut probabilities, settings.num_heads);
        let tasks = cells.into_par_iter().zip(parts);
        tasks
            .zip(context.par_chunks_mut(width))
            .for_each(|((cell, p), to)| cell_forward(cell, p, to));
    }
    Ok((from_vec(context, (num_cells, width))?, probabilities))
}

/// What the forward pass saw and gave.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    /// Queries [B, H·d].
    pub q: &'a Tensor,
    /// Keys [T, H·d].
    pub k: &'a Tensor,
    /// Values [T, H·d].
    pub v: &'a Tensor,
    /// The probabilities [T · H].
    pub probabilities: &'a [f32],
}

/// The gradients of q, k and v from that of the context [B, H·d].
///
/// # Errors
/// As [`forward`].
pub fn backward(
    settings: Settings<'_>,
    saved: Saved<'_>,
    dcontext: &Tensor,
) -> Result<[Tensor; 3]> {
    let (num_cells, num_tokens, width) = check(settings, [saved.q, saved.k, saved.v])?;
    let _span = span("first attention backward", 8 * num_tokens * width);
    let kept = num_tokens * settings.num_heads;
    if dcontext.dims() != [num_cells, width] || saved.probabilities.len() != kept {
        bail!("first attention: gradients or probabilities of another batch");
    }
    let mut dq = vec![0.0; num_cells * width];
    let [mut dk, mut dv] = [(); 2].map(|()| vec![0.0; num_tokens * width]);
    {
        let (q, k, v) = (
            read::<f32>(saved.q)?,
            read::<f32>(saved.k)?,
            read::<f32>(saved.v)?,
        );
        let dcontext = read::<f32>(dcontext)?;
        let cells = Cell::all(settings, width, [&q, &k, &v]);
        let keys = parts(settings, &mut dk, width);
        let values = parts(settings, &mut dv, width);
        let to = keys.into_par_iter().zip(values);
        let to = dq.par_chunks_mut(width).zip(to);
        let tasks = cells.into_par_iter().zip(dcontext.par_chunks(width));
        tasks
            .zip(to)
            .for_each(|((cell, dcontext), (dq, (dk, dv)))| {
                let place = cell.start * settings.num_heads;
                let p = &saved.probabilities[place..][..cell.len * settings.num_heads];
                cell_backward(cell, p, dcontext, dq, dk, dv);
            });
    }
    let [dk, dv] = [dk, dv].map(|values| from_vec(values, (num_tokens, width)));
    Ok([from_vec(dq, (num_cells, width))?, dk?, dv?])
}

/// One cell's query [H·d], keys and values [n, H·d].
#[derive(Clone, Copy)]
struct Cell<'a> {
    settings: Settings<'a>,
    start: usize,
    len: usize,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
}

impl<'a> Cell<'a> {
    fn all(settings: Settings<'a>, width: usize, [q, k, v]: [&'a [f32]; 3]) -> Vec<Self> {
        let ends = settings.cells.starts.windows(2);
        let cells = ends.zip(q.chunks_exact(width)).map(|(ends, q)| {
            let (start, end) = (ends[0] as usize, ends[1] as usize);
            Self {
                settings,
                start,
                len: end - start,
                q,
                k: &k[start * width..end * width],
                v: &v[start * width..end * width],
            }
        });
        cells.collect()
    }

    /// The dropout of `head`'s probabilities, with its query's key.
    #[inline(always)]
    fn mask(&self, head: usize) -> Option<(&'a Dropout, u32)> {
        let dropout = self.settings.dropout?;
        let heads = (self.settings.num_heads, head);
        Some((dropout, dropout.query_key((self.start, 0), heads)))
    }

    #[inline(always)]
    fn scale(&self) -> f32 {
        let head_width = self.q.len() / self.settings.num_heads;
        1.0 / (head_width as f32).sqrt()
    }
}

#[inline(always)]
fn factor(mask: Option<(&Dropout, u32)>, key: usize) -> f32 {
    let Some((dropout, query_key)) = mask else {
        return 1.0;
    };
    match dropout.keeps(square(query_key, key), multiplier(0, key)) {
        true => dropout.scale(),
        false => 0.0,
    }
}

#[inline(always)]
fn add(to: &mut [f32], factor: f32, from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = factor.mul_add(*from, *to);
    }
}

vectorized! {
    fn cell_forward(cell: Cell<'_>, probabilities: &mut [f32], context: &mut [f32]) {
        let (width, scale) = (cell.q.len(), cell.scale());
        let head_width = width / cell.settings.num_heads;
        for (head, p) in probabilities.chunks_exact_mut(cell.len).enumerate() {
            let columns = head * head_width..(head + 1) * head_width;
            let q = &cell.q[columns.clone()];
            for (score, key) in p.iter_mut().zip(cell.k.chunks_exact(width)) {
                *score = scale * dot(q, &key[columns.clone()]);
            }
            let largest = max(p);
            for score in p.iter_mut() {
                *score = exp(*score - largest);
            }
            let inverse = 1.0 / sum(p);
            let mask = cell.mask(head);
            let rows = p.iter_mut().zip(cell.v.chunks_exact(width));
            for (column, (p, value)) in rows.enumerate() {
                *p *= inverse;
                let kept = *p * factor(mask, column);
                add(&mut context[columns.clone()], kept, &value[columns.clone()]);
            }
        }
    }
}

vectorized! {
    fn cell_backward(
        cell: Cell<'_>,
        probabilities: &[f32],
        dcontext: &[f32],
        dq: &mut [f32],
        dk: &mut [f32],
        dv: &mut [f32],
    ) {
        let (width, scale) = (cell.q.len(), cell.scale());
        let head_width = width / cell.settings.num_heads;
        for (head, p) in probabilities.chunks_exact(cell.len).enumerate() {
            let columns = head * head_width..(head + 1) * head_width;
            let (q, dcontext) = (&cell.q[columns.clone()], &dcontext[columns.clone()]);
            let mask = cell.mask(head);
            // The gradient of each probability waits in dk's first column until their mean is known.
            let mut mean = 0.0;
            let rows = cell.v.chunks_exact(width).zip(dk.chunks_exact_mut(width));
            for (column, (p, (value, dk))) in p.iter().zip(rows).enumerate() {
                let dp = factor(mask, column) * dot(dcontext, &value[columns.clone()]);
                dk[columns.start] = dp;
                mean = p.mul_add(dp, mean);
            }
            let keys = cell.k.chunks_exact(width).zip(dk.chunks_exact_mut(width));
            let rows = keys.zip(dv.chunks_exact_mut(width));
            for (column, (p, ((key, dk), dv))) in p.iter().zip(rows).enumerate() {
                let dscore = p * scale * (dk[columns.start] - mean);
                dk[columns.start] = 0.0;
                add(&mut dk[columns.clone()], dscore, q);
                add(&mut dq[columns.clone()], dscore, &key[columns.clone()]);
                add(&mut dv[columns.clone()], p * factor(mask, column), dcontext);
            }
        }
    }
}

/// The part of each cell, `per_token` values of each token.
fn parts<'v>(
    settings: Settings<'_>,
    mut values: &'v mut [f32],
    per_token: usize,
) -> Vec<&'v mut [f32]> {
    let lengths = settings
        .cells
        .starts
        .windows(2)
        .map(|w| (w[1] - w[0]) as usize);
    let mut parts = Vec::with_capacity(settings.cells.starts.len());
    for length in lengths {
        let (part, rest) = values.split_at_mut(length * per_token);
        parts.push(part);
        values = rest;
    }
    parts
}

/// Numbers of cells and tokens, and the width.
fn check(settings: Settings<'_>, [q, k, v]: [&Tensor; 3]) -> Result<(usize, usize, usize)> {
    let ((num_cells, width), (num_tokens, _)) = (q.dims2()?, k.dims2()?);
    if k.dims() != [num_tokens, width] || v.dims() != k.dims() {
        bail!("first attention: queries, keys and values of different shapes");
    }
    if width == 0 || settings.num_heads == 0 || width % settings.num_heads != 0 {
        let heads = settings.num_heads;
        bail!("first attention: width {width} cannot be cut into {heads} heads");
    }
    let starts = settings.cells.starts;
    let whole = starts.len() == num_cells + 1 && starts[num_cells] as usize == num_tokens;
    if !whole || starts[0] != 0 || starts.windows(2).any(|w| w[0] >= w[1]) {
        bail!("first attention: the cells' starts {starts:?} do not fit {num_cells} queries");
    }
    Ok((num_cells, num_tokens, width))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kernels::attention;
    use crate::kernels::attention::Cells;
    use crate::kernels::dropout::{Dropout, DropoutKey};
    use crate::kernels::lists::Numbers;
    use crate::kernels::products::Precision;
    use crate::kernels::rows::{gather, scatter};
    use crate::kernels::testing::{Random, assert_close, same_for_any_threads, wide};

    /// The same from attention of all tokens, of which only the first are looked at.
    fn of_all(
        settings: Settings<'_>,
        [q, k, v, dy]: [&Tensor; 4],
        firsts: &[u32],
    ) -> (Tensor, [Tensor; 3]) {
        let (context, log_sums) = attention::forward(settings, q, k, v).unwrap();
        let dcontext = scatter(dy, firsts, q.dims()[0]).unwrap();
        let saved = attention::Saved {
            q,
            k,
            v,
            context: &context,
            log_sums: &log_sums,
        };
        let gradients = attention::backward(settings, saved, &dcontext).unwrap();
        let [dq, dk, dv] = gradients.map(|gradient| gradient.to_tensor().unwrap());
        let dq = gather(&dq, firsts).unwrap();
        (gather(&context, firsts).unwrap(), [dq, dk, dv])
    }

    fn of_firsts(settings: Settings<'_>, [q, k, v, dy]: [&Tensor; 4]) -> (Tensor, [Tensor; 3]) {
        let (context, probabilities) = forward(settings, q, k, v).unwrap();
        let saved = Saved {
            q,
            k,
            v,
            probabilities: &probabilities,
        };
        (context, backward(settings, saved, dy).unwrap())
    }

    #[test]
    fn agrees_with_attention_of_all_tokens_with_and_without_dropout() {
        let dropout = Dropout::new(0.4, Some(DropoutKey { seed: 1, step: 2 }), 3).unwrap();
        let cases: [(&[u32], usize, usize); 3] = [
            (&[0, 1], 1, 1),
            (&[0, 5, 6, 45], 2, 3),
            (&[0, 7, 200], 3, 35),
        ];
        for (i, (starts, num_heads, head_width)) in cases.into_iter().enumerate() {
            let (mut random, width) = (Random::new(i as u64), num_heads * head_width);
            let (cells, tokens) = (starts.len() - 1, starts[starts.len() - 1] as usize);
            let [q, k, v] = [(); 3].map(|()| random.tensor(&[tokens, width]));
            let dy = random.tensor(&[cells, width]);
            let firsts = &starts[..cells];
            let starts = &Numbers::from(starts);
            for dropout in [None, Some(&dropout)] {
                let settings = Settings {
                    num_heads,
                    cells: starts.into(),
                    dropout,
                    precision: Precision::F32,
                };
                let expected = of_all(settings, [&q, &k, &v, &dy], firsts);
                let first = gather(&q, firsts).unwrap();
                let found = of_firsts(settings, [&first, &k, &v, &dy]);
                assert_close("context", &wide(&found.0), &wide(&expected.0));
                for (found, expected) in found.1.iter().zip(&expected.1) {
                    assert_close("gradients", &wide(found), &wide(expected));
                }
                same_for_any_threads(|| {
                    let (context, gradients) = of_firsts(settings, [&first, &k, &v, &dy]);
                    std::iter::once(context).chain(gradients).collect()
                });
            }
        }
    }

    #[test]
    fn a_cell_without_tokens_and_other_shapes_are_refused() {
        let x = from_vec(vec![0.0; 4], (2, 2)).unwrap();
        let [good, empty, few] =
            [&[0, 1, 2][..], &[0, 2, 2], &[0, 2]].map(|starts: &[u32]| Numbers::from(starts));
        let settings = |starts| Settings {
            num_heads: 1,
            cells: Cells::from(starts),
            dropout: None,
            precision: Precision::F32,
        };
        assert!(forward(settings(&good), &x, &x, &x).is_ok());
        assert!(forward(settings(&empty), &x, &x, &x).is_err());
        assert!(forward(settings(&few), &x, &x, &x).is_err());
        let odd = Settings {
            num_heads: 3,
            ..settings(&good)
        };
        assert!(forward(odd, &x, &x, &x).is_err());
    }
}
