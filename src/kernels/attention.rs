//! Scaled dot-product self-attention within each cell of a packed batch, with dropout inside.
//!
//! Queries are taken in blocks of [`BLOCK`]: scores of one block against all keys of the cell live
//! in a scratch buffer of the thread, never a cell's whole score matrix in memory. The forward
//! pass keeps the log of each row's sum of exponentials; the backward pass recomputes the
//! probabilities from it. One task is one (cell, head, block) forward and one (cell, head)
//! backward, so results do not depend on threads. The dropout mask of a probability follows from
//! its (token, head) and the key's place in the cell.
//!
//! Shapes: q, k, v, context [T, H·d]; the head h is columns h·d..(h+1)·d. log_sums [H, T].

use std::cell::RefCell;
use std::ops::Range;

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::dropout::Dropout;
use super::matmul::{Matrix, MatrixMut, Shared, multiply};
use super::profile::span;
use super::simd::{dot, exp, max, sum, vectorized};
use crate::buffers::{from_vec, read};

/// Queries handled together.
const BLOCK: usize = 128;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Which tokens attend to which, and how.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// Number of heads H.
    pub num_heads: usize,
    /// Start of each cell, [B + 1]; first 0, last T.
    pub cu_seqlens: &'a [u32],
    /// Dropout of the probabilities.
    pub dropout: Option<&'a Dropout>,
}

/// The context of every token [T, H·d], and the log-sums [H · T] that the backward pass needs.
///
/// # Errors
/// Shapes that do not fit, or tensors that are not contiguous f32 on the CPU.
pub fn forward(
    settings: Settings<'_>,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
) -> Result<(Tensor, Vec<f32>)> {
    let (num_tokens, width) = check(settings, &[q, k, v])?;
    let _span = span("attention forward", 4 * pairs(settings) * width);
    let mut context = vec![0.0; num_tokens * width];
    let mut log_sums = vec![0.0; num_tokens * settings.num_heads];
    {
        let (q, k, v) = (read::<f32>(q)?, read::<f32>(k)?, read::<f32>(v)?);
        let heads = Heads::new(settings, width, &q, &k, &v);
        let (to, sums) = (Shared::new(&mut context), Shared::new(&mut log_sums));
        let tasks: Vec<(Range<usize>, usize, Range<usize>)> = heads
            .tasks()
            .flat_map(|(cell, head)| blocks(cell.clone()).map(move |b| (cell.clone(), head, b)))
            .collect();
        tasks
            .into_par_iter()
            .with_max_len(1)
            .for_each(|(cell, head, block)| {
                heads.block_forward(cell, head, block, &to, &sums);
            });
    }
    Ok((from_vec(context, (num_tokens, width))?, log_sums))
}

/// What the forward pass saw and gave.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    /// Queries.
    pub q: &'a Tensor,
    /// Keys.
    pub k: &'a Tensor,
    /// Values.
    pub v: &'a Tensor,
    /// The result.
    pub context: &'a Tensor,
    /// Its log-sums.
    pub log_sums: &'a [f32],
}

/// The gradients of q, k and v from that of the context.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    settings: Settings<'_>,
    saved: Saved<'_>,
    dcontext: &Tensor,
) -> Result<[Tensor; 3]> {
    let tensors = [saved.q, saved.k, saved.v, saved.context, dcontext];
    let (num_tokens, width) = check(settings, &tensors)?;
    let _span = span("attention backward", 8 * pairs(settings) * width);
    if saved.log_sums.len() != num_tokens * settings.num_heads {
        bail!("attention: log-sums of another batch");
    }
    let mut gradients = [(); 3].map(|()| vec![0.0; num_tokens * width]);
    {
        let (q, k, v) = (
            read::<f32>(saved.q)?,
            read::<f32>(saved.k)?,
            read::<f32>(saved.v)?,
        );
        let (context, dcontext) = (read::<f32>(saved.context)?, read::<f32>(dcontext)?);
        let heads = Heads::new(settings, width, &q, &k, &v);
        let outcome = Outcome {
            context: &context,
            dcontext: &dcontext,
            log_sums: saved.log_sums,
        };
        let [dq, dk, dv] = &mut gradients;
        let to = [dq, dk, dv].map(|values| Shared::new(values));
        let tasks: Vec<(Range<usize>, usize)> = heads.tasks().collect();
        tasks
            .into_par_iter()
            .with_max_len(1)
            .for_each(|(cell, head)| {
                heads.head_backward(cell, head, outcome, &to);
            });
    }
    let [dq, dk, dv] = gradients.map(|values| from_vec(values, (num_tokens, width)));
    Ok([dq?, dk?, dv?])
}

#[derive(Clone, Copy)]
struct Outcome<'a> {
    context: &'a [f32],
    dcontext: &'a [f32],
    log_sums: &'a [f32],
}

struct Heads<'a> {
    settings: Settings<'a>,
    num_tokens: usize,
    width: usize,
    head_width: usize,
    scale: f32,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
}

impl<'a> Heads<'a> {
    fn new(settings: Settings<'a>, width: usize, q: &'a [f32], k: &'a [f32], v: &'a [f32]) -> Self {
        let head_width = width / settings.num_heads;
        Self {
            settings,
            num_tokens: q.len() / width,
            width,
            head_width,
            scale: 1.0 / (head_width as f32).sqrt(),
            q,
            k,
            v,
        }
    }

    /// Every (cell, head), empty cells left out.
    fn tasks(&self) -> impl Iterator<Item = (Range<usize>, usize)> {
        let num_heads = self.settings.num_heads;
        let cells = self.settings.cu_seqlens.windows(2);
        let cells = cells
            .map(|w| w[0] as usize..w[1] as usize)
            .filter(|cell| !cell.is_empty());
        cells.flat_map(move |cell| (0..num_heads).map(move |head| (cell.clone(), head)))
    }

    /// The columns of `head` in the rows of `tokens`: [n, d].
    fn view<'v>(&self, values: &'v [f32], tokens: &Range<usize>, head: usize) -> Matrix<'v> {
        let at = tokens.start * self.width + head * self.head_width;
        Matrix::new(&values[at..], tokens.len(), self.head_width, self.width)
    }

    /// The same columns, to write.
    ///
    /// # Safety
    /// No other thread touches this head of these tokens.
    unsafe fn view_mut<'v>(
        &self,
        values: &Shared<'v>,
        tokens: &Range<usize>,
        head: usize,
    ) -> MatrixMut<'v> {
        let at = tokens.start * self.width + head * self.head_width;
        // SAFETY: the caller's promise.
        unsafe { values.matrix(at, tokens.len(), self.head_width, self.width) }
    }

    fn block_forward(
        &self,
        cell: Range<usize>,
        head: usize,
        block: Range<usize>,
        context: &Shared<'_>,
        log_sums: &Shared<'_>,
    ) {
        let (n, m) = (cell.len(), block.len());
        with_scratch(m * n, |scores| {
            let (q, k) = (
                self.view(self.q, &block, head),
                self.view(self.k, &cell, head),
            );
            let mut product = MatrixMut::new(scores, m, n, n);
            multiply(self.scale, q, k.transposed(), false, &mut product);
            let at = head * self.num_tokens + block.start;
            // SAFETY: this task alone has this head of this block's tokens.
            let log_sums = unsafe { log_sums.slice(at..at + m) };
            let rows = Rows::new(&self.settings, &block, head);
            softmax_rows(scores, rows, log_sums);
            let v = self.view(self.v, &cell, head);
            // SAFETY: this task alone has this head of this block's tokens.
            let mut to = unsafe { self.view_mut(context, &block, head) };
            multiply(1.0, Matrix::new(scores, m, n, n), v, false, &mut to);
        });
    }

    fn head_backward(
        &self,
        cell: Range<usize>,
        head: usize,
        outcome: Outcome<'_>,
        to: &[Shared<'_>; 3],
    ) {
        let n = cell.len();
        // SAFETY: this task alone has this head of this cell's tokens, in all three gradients.
        let [mut dk, mut dv] = [&to[1], &to[2]].map(|to| unsafe { self.view_mut(to, &cell, head) });
        let (k, v) = (
            self.view(self.k, &cell, head),
            self.view(self.v, &cell, head),
        );
        with_scratch(2 * BLOCK.min(n) * n, |scratch| {
            for block in blocks(cell.clone()) {
                let (m, add) = (block.len(), block.start > cell.start);
                let (p, ds) = scratch[..2 * m * n].split_at_mut(m * n);
                let q = self.view(self.q, &block, head);
                let dcontext = self.view(outcome.dcontext, &block, head);
                let mut product = MatrixMut::new(p, m, n, n);
                multiply(self.scale, q, k.transposed(), false, &mut product);
                let mut product = MatrixMut::new(ds, m, n, n);
                multiply(1.0, dcontext, v.transposed(), false, &mut product);
                scores_backward(self, &block, head, outcome, p, ds);
                let (p, ds) = (Matrix::new(p, m, n, n), Matrix::new(ds, m, n, n));
                // SAFETY: as above; dq is written once per block.
                let mut dq = unsafe { self.view_mut(&to[0], &block, head) };
                multiply(1.0, ds, k, false, &mut dq);
                multiply(1.0, ds.transposed(), q, add, &mut dk);
                multiply(1.0, p.transposed(), dcontext, add, &mut dv);
            }
        });
    }
}

/// The numbers under which dropout knows the rows of a block of scores.
#[derive(Clone, Copy)]
struct Rows<'a> {
    dropout: Option<&'a Dropout>,
    first: usize,
    step: usize,
}

impl<'a> Rows<'a> {
    fn new(settings: &Settings<'a>, block: &Range<usize>, head: usize) -> Self {
        Self {
            dropout: settings.dropout,
            first: block.start * settings.num_heads + head,
            step: settings.num_heads,
        }
    }
}

vectorized! {
    /// Rows of scores become dropped probabilities; the log of each row's sum of exponentials is
    /// left in `log_sums`.
    fn softmax_rows(scores: &mut [f32], rows: Rows<'_>, log_sums: &mut [f32]) {
        let n = scores.len() / log_sums.len();
        for (i, (scores, log_sum)) in scores.chunks_exact_mut(n).zip(log_sums).enumerate() {
            let largest = max(scores);
            for score in scores.iter_mut() {
                *score = exp(*score - largest);
            }
            let total = sum(scores);
            let inverse = 1.0 / total;
            if let Some(dropout) = rows.dropout {
                let mask = dropout.row(rows.first + i * rows.step);
                let kept = dropout.scale() * inverse;
                for (column, score) in scores.iter_mut().enumerate() {
                    *score *= if mask.keeps(column) { kept } else { 0.0 };
                }
            } else {
                for score in scores.iter_mut() {
                    *score *= inverse;
                }
            }
            *log_sum = largest + total.ln();
        }
    }
}

vectorized! {
    /// Scores `p` become the dropped probabilities, and the gradients `ds` of those the scores'
    /// gradients.
    fn scores_backward(
        heads: &Heads<'_>,
        block: &Range<usize>,
        head: usize,
        outcome: Outcome<'_>,
        p: &mut [f32],
        ds: &mut [f32],
    ) {
        let n = p.len() / block.len();
        let rows = Rows::new(&heads.settings, block, head);
        let log_sums = &outcome.log_sums[head * heads.num_tokens + block.start..];
        let pairs = p.chunks_exact_mut(n).zip(ds.chunks_exact_mut(n)).zip(log_sums);
        for (i, ((p, ds), log_sum)) in pairs.enumerate() {
            let at = (block.start + i) * heads.width + head * heads.head_width;
            let columns = at..at + heads.head_width;
            let delta = dot(&outcome.context[columns.clone()], &outcome.dcontext[columns]);
            if let Some(dropout) = rows.dropout {
                let mask = dropout.row(rows.first + i * rows.step);
                let kept = dropout.scale();
                for (column, (p, ds)) in p.iter_mut().zip(ds).enumerate() {
                    let factor = if mask.keeps(column) { kept } else { 0.0 };
                    let probability = exp(*p - log_sum);
                    *ds = probability * heads.scale * ds.mul_add(factor, -delta);
                    *p = probability * factor;
                }
            } else {
                for (p, ds) in p.iter_mut().zip(ds) {
                    *p = exp(*p - log_sum);
                    *ds = *p * heads.scale * (*ds - delta);
                }
            }
        }
    }
}

/// Pairs of tokens that see each other.
fn pairs(settings: Settings<'_>) -> usize {
    let lengths = settings
        .cu_seqlens
        .windows(2)
        .map(|w| (w[1] - w[0]) as usize);
    lengths.map(|length| length * length).sum()
}

fn blocks(cell: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = cell.end;
    cell.step_by(BLOCK)
        .map(move |start| start..end.min(start + BLOCK))
}

/// Lends `length` values of the thread's scratch memory, holding anything.
fn with_scratch(length: usize, act: impl FnOnce(&mut [f32])) {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < length {
            scratch.resize(length, 0.0);
        }
        act(&mut scratch[..length]);
    });
}

fn check(settings: Settings<'_>, tensors: &[&Tensor]) -> Result<(usize, usize)> {
    let (num_tokens, width) = tensors[0].dims2()?;
    if tensors.iter().any(|t| t.dims() != [num_tokens, width]) {
        bail!("attention: queries, keys, values and gradients of different shapes");
    }
    if width == 0 || settings.num_heads == 0 || width % settings.num_heads != 0 {
        bail!(
            "attention: width {width} cannot be cut into {} heads",
            settings.num_heads
        );
    }
    let starts = settings.cu_seqlens;
    let whole = starts.first() == Some(&0) && starts.last() == Some(&(num_tokens as u32));
    let whole = whole || (starts.is_empty() && num_tokens == 0);
    if !whole || starts.windows(2).any(|w| w[0] > w[1]) {
        bail!("attention: the cells' starts {starts:?} do not cover the {num_tokens} tokens");
    }
    Ok((num_tokens, width))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kernels::dropout::DropoutKey;
    use crate::kernels::testing::{
        Random, assert_close, inner, same_for_any_threads, slopes, wide,
    };

    fn starts(lengths: &[usize]) -> Vec<u32> {
        let ends = lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end as u32)
        });
        std::iter::once(0).chain(ends).collect()
    }

    /// Textbook attention, one (cell, head, query) at a time.
    fn reference(
        settings: Settings<'_>,
        width: usize,
        q: &[f64],
        k: &[f64],
        v: &[f64],
    ) -> Vec<f64> {
        let head_width = width / settings.num_heads;
        let mut context = vec![0.0; q.len()];
        for cell in settings
            .cu_seqlens
            .windows(2)
            .map(|w| w[0] as usize..w[1] as usize)
        {
            for head in 0..settings.num_heads {
                let of = |token: usize| {
                    token * width + head * head_width..token * width + (head + 1) * head_width
                };
                for query in cell.clone() {
                    let score =
                        |key: usize| inner(&q[of(query)], &k[of(key)]) / (head_width as f64).sqrt();
                    let total: f64 = cell.clone().map(|key| score(key).exp()).sum();
                    for (place, key) in cell.clone().enumerate() {
                        let kept = settings.dropout.map_or(1.0, |d| {
                            let keeps = d.row(query * settings.num_heads + head).keeps(place);
                            if keeps { f64::from(d.scale()) } else { 0.0 }
                        });
                        let p = score(key).exp() / total * kept;
                        for (to, from) in of(query).zip(of(key)) {
                            context[to] += p * v[from];
                        }
                    }
                }
            }
        }
        context
    }

    fn gradients(settings: Settings<'_>, [q, k, v, dy]: [&Tensor; 4]) -> (Tensor, [Tensor; 3]) {
        let (context, log_sums) = forward(settings, q, k, v).unwrap();
        let saved = Saved {
            q,
            k,
            v,
            context: &context,
            log_sums: &log_sums,
        };
        let gradients = backward(settings, saved, dy).unwrap();
        (context, gradients)
    }

    #[test]
    fn agrees_with_the_reference_and_with_finite_differences() {
        let dropout = Dropout::new(0.4, Some(DropoutKey { seed: 1, step: 2 }), 3).unwrap();
        let cases: [(&[usize], usize, usize); 6] = [
            (&[1], 1, 1),
            (&[5], 2, 3),
            (&[1, 7, 1], 3, 2),
            (&[0, 2, 0, 11, 0], 1, 4),
            (&[13, 1], 2, 5),
            (&[], 2, 2),
        ];
        for (i, (lengths, num_heads, head_width)) in cases.into_iter().enumerate() {
            let (starts, mut random) = (starts(lengths), Random::new(i as u64));
            let (count, width) = (lengths.iter().sum(), num_heads * head_width);
            let tensors = [(); 4].map(|()| random.tensor(&[count, width]));
            let [q, k, v, dy] = &tensors;
            let [q64, k64, v64, dy64] = [q, k, v, dy].map(wide);
            for dropout in [None, Some(&dropout)] {
                let settings = Settings {
                    num_heads,
                    cu_seqlens: &starts,
                    dropout,
                };
                let (context, [dq, dk, dv]) = gradients(settings, [q, k, v, dy]);
                let expected = reference(settings, width, &q64, &k64, &v64);
                assert_close("context", &wide(&context), &expected);
                let loss = |q: &[f64], k: &[f64], v: &[f64]| {
                    inner(&reference(settings, width, q, k, v), &dy64)
                };
                assert_close("dq", &wide(&dq), &slopes(&q64, |q| loss(q, &k64, &v64)));
                assert_close("dk", &wide(&dk), &slopes(&k64, |k| loss(&q64, k, &v64)));
                assert_close("dv", &wide(&dv), &slopes(&v64, |v| loss(&q64, &k64, v)));
            }
        }
    }

    #[test]
    fn long_cells_of_several_blocks_agree_too_on_any_number_of_threads() {
        let dropout = Dropout::new(0.1, Some(DropoutKey { seed: 1, step: 2 }), 3);
        let lengths = [300, 1, 128, 129];
        let (starts, mut random) = (starts(&lengths), Random::new(9));
        let tensors = [(); 4].map(|()| random.tensor(&[558, 12]));
        let [q, k, v, dy] = &tensors;
        let settings = Settings {
            num_heads: 2,
            cu_seqlens: &starts,
            dropout: dropout.as_ref(),
        };
        let (context, [dq, dk, dv]) = gradients(settings, [q, k, v, dy]);
        let [q64, k64, v64, dy64] = [q, k, v, dy].map(wide);
        assert_close(
            "context",
            &wide(&context),
            &reference(settings, 12, &q64, &k64, &v64),
        );
        // One direction of each gradient, by finite differences.
        let along = random.tensor(&[558, 12]);
        let along = wide(&along);
        let moved = |x: &[f64], step: f64| -> Vec<f64> {
            x.iter().zip(&along).map(|(x, a)| x + step * a).collect()
        };
        for (i, (found, at)) in [(dq, &q64), (dk, &k64), (dv, &v64)].into_iter().enumerate() {
            let slope = slopes(&[0.0], |step| {
                let mut inputs = [&q64, &k64, &v64].map(Vec::as_slice);
                let moved = moved(at, step[0]);
                inputs[i] = &moved;
                inner(
                    &reference(settings, 12, inputs[0], inputs[1], inputs[2]),
                    &dy64,
                )
            });
            assert_close("slope", &[inner(&wide(&found), &along)], &slope);
        }
        same_for_any_threads(|| {
            let (context, [dq, dk, dv]) = gradients(settings, [q, k, v, dy]);
            vec![context, dq, dk, dv]
        });
    }

    #[test]
    fn cells_that_do_not_cover_the_tokens_are_refused() {
        let x = Random::new(1).tensor(&[4, 6]);
        for starts in [&[0, 3][..], &[1, 4], &[0, 3, 2, 4], &[]] {
            let settings = Settings {
                num_heads: 2,
                cu_seqlens: starts,
                dropout: None,
            };
            assert!(forward(settings, &x, &x, &x).is_err());
        }
        let settings = Settings {
            num_heads: 4,
            cu_seqlens: &[0, 4],
            dropout: None,
        };
        assert!(forward(settings, &x, &x, &x).is_err());
    }
}
