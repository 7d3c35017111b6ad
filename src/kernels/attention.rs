//! Scaled dot-product self-attention within each cell of a packed batch, with dropout inside.
//!
//! Queries are taken in blocks of at most [`BLOCK`]: scores of one block against all keys of the cell
//! live in a scratch buffer of the thread, never a cell's whole score matrix in memory. They lie key
//! by key, a row of queries each, as products of so few columns are computed fastest, and sums over
//! keys are those of whole rows. The forward pass keeps the log of each query's sum of exponentials;
//! the backward pass recomputes the probabilities from it. One task is one (cell, head, block)
//! forward and one (cell, head) backward, so results do not depend on threads. The dropout mask of a
//! probability follows from the cell's first token, the head and the two places in the cell.
//!
//! Shapes: q, k, v, context [T, H·d]; the head h is columns h·d..(h+1)·d. log_sums [H, T].

use std::cell::RefCell;
use std::ops::Range;

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::bf16::{self, DEPTH};
use super::dropout::Dropout;
use super::linear::OutputGradient;
use super::lists::Numbers;
use super::matrix::{Fresh, Matrix, MatrixMut, Shared};
use super::parallel::{PartialSums, add_rows, in_order};
use super::products::{Precision, Side, multiply};
use super::profile::span;
use super::simd::dot;
use crate::buffers::{from_vec, read};

mod scores;

use scores::{LANES, Mask, exponentials, gradients_of_scores};

/// Queries handled together, at most.
const BLOCK: usize = 128;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Where the cells of a batch begin.
#[derive(Debug, Clone, Copy)]
pub struct Cells<'a> {
    /// Start of each cell, [B + 1]; first 0, last T.
    pub starts: &'a Numbers,
    /// The tiles that a GPU cuts them into, where they are known.
    pub tiles: Option<&'a Numbers>,
}

impl<'a> From<&'a Numbers> for Cells<'a> {
    fn from(starts: &'a Numbers) -> Self {
        let tiles = None;
        Self { starts, tiles }
    }
}

/// Which tokens attend to which, and how.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// Number of heads H.
    pub num_heads: usize,
    /// Where cells begin.
    pub cells: Cells<'a>,
    /// Dropout of the probabilities.
    pub dropout: Option<&'a Dropout>,
    /// In what the products are computed.
    pub precision: Precision,
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
) -> Result<(Tensor, Tensor)> {
    let (num_tokens, width) = check(settings, &[q, k, v])?;
    let _span = span("attention forward", 4 * pairs(settings) * width);
    on_gpu!(q, super::cuda::attention_forward(settings, [q, k, v]));
    let mut context = Fresh::new(num_tokens * width);
    let mut log_sums = vec![0.0; num_tokens * settings.num_heads];
    {
        let (q, k, v) = (read::<f32>(q)?, read::<f32>(k)?, read::<f32>(v)?);
        let heads = Heads::new(settings, width, &q, &k, &v);
        let (to, sums) = (context.shared(), Shared::new(&mut log_sums));
        let pairs: Vec<(Range<usize>, usize)> = heads.tasks().collect();
        let sides: Vec<_> = pairs
            .par_iter()
            .map(|(cell, head)| heads.keys_and_values(cell, *head))
            .collect();
        let tasks: Vec<(usize, Range<usize>)> = (0..pairs.len())
            .flat_map(|pair| blocks(pairs[pair].0.clone()).map(move |block| (pair, block)))
            .collect();
        in_order(tasks.len(), |task| {
            let (pair, block) = &tasks[task];
            let (cell, head) = &pairs[*pair];
            let block = block.clone();
            heads.block_forward(cell, *head, block, &sides[*pair], (&to, &sums));
        });
    }
    // SAFETY: the cells cover all tokens, their blocks the cells, and the heads all columns.
    let context = unsafe { context.written() };
    let log_sums = from_vec(log_sums, num_tokens * settings.num_heads)?;
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
    pub log_sums: &'a Tensor,
}

/// The gradients of q, k and v from that of the context; in bf16 they are rounded as soon as they are
/// known, where heads are as wide as some tiles.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    settings: Settings<'_>,
    saved: Saved<'_>,
    dcontext: &Tensor,
) -> Result<[OutputGradient; 3]> {
    let tensors = [saved.q, saved.k, saved.v, saved.context, dcontext];
    let (num_tokens, width) = check(settings, &tensors)?;
    let _span = span("attention backward", 8 * pairs(settings) * width);
    if saved.log_sums.elem_count() != num_tokens * settings.num_heads {
        bail!("attention: log-sums of another batch");
    }
    on_gpu!(
        saved.q,
        super::cuda::attention_backward(settings, saved, dcontext)
            .map(|gradients| gradients.map(OutputGradient::from))
    );
    let (q, k, v) = (
        read::<f32>(saved.q)?,
        read::<f32>(saved.k)?,
        read::<f32>(saved.v)?,
    );
    let (context, dcontext) = (read::<f32>(saved.context)?, read::<f32>(dcontext)?);
    let log_sums = read::<f32>(saved.log_sums)?;
    let heads = Heads::new(settings, width, &q, &k, &v);
    let outcome = Outcome {
        context: &context,
        dcontext: &dcontext,
        log_sums: &log_sums,
    };
    let tasks: Vec<(Range<usize>, usize)> = heads.tasks().collect();
    let run = |to: &To<'_>| {
        in_order(tasks.len(), |task| {
            let (cell, head) = &tasks[task];
            heads.head_backward(cell.clone(), *head, outcome, to);
        });
    };
    let in_tiles = settings.precision == Precision::Bf16 && heads.head_width.is_multiple_of(DEPTH);
    if !in_tiles {
        let mut gradients = [(); 3].map(|()| Fresh::new(num_tokens * width));
        run(&To::Values(gradients.each_mut().map(Fresh::shared)));
        // SAFETY: as in `forward`; each (cell, head) has written its part of all three.
        let gradients = gradients.map(|fresh| unsafe { fresh.written() });
        let [dq, dk, dv] = gradients.map(|values| from_vec(values, (num_tokens, width)));
        return Ok([dq?, dk?, dv?].map(OutputGradient::from));
    }
    let rounded = [(); 3].map(|()| (bf16::Rows::new(num_tokens, width), PartialSums::default()));
    run(&To::Tiles(&rounded));
    // SAFETY: as above.
    let done = |(rows, sums): (bf16::Rows, PartialSums)| unsafe { (rows.written(), sums) };
    let rounded = rounded.map(done);
    Ok(rounded.map(|(rows, sums)| OutputGradient::rounded(rows, sums.done(width))))
}

/// Where the gradients of q, k and v go: [T, H·d] each, and what their columns add up to.
enum To<'a> {
    Values([Shared<'a>; 3]),
    Tiles(&'a [(bf16::Rows, PartialSums); 3]),
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

    /// Every (cell, head), the longest cells first, so that no thread begins one when the others are
    /// through; empty cells left out.
    fn tasks(&self) -> impl Iterator<Item = (Range<usize>, usize)> {
        let num_heads = self.settings.num_heads;
        let cells = self.settings.cells.starts.windows(2);
        let cells = cells.map(|w| w[0] as usize..w[1] as usize);
        let mut cells: Vec<Range<usize>> = cells.filter(|cell| !cell.is_empty()).collect();
        cells.sort_by_key(|cell| std::cmp::Reverse(cell.len()));
        let heads = move |cell: Range<usize>| (0..num_heads).map(move |head| (cell.clone(), head));
        cells.into_iter().flat_map(heads)
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

    /// Keys of a head as a left side, its values as a right one.
    fn keys_and_values(&self, cell: &Range<usize>, head: usize) -> [Side<'a>; 2] {
        let [k, v] = [self.k, self.v].map(|values| self.view(values, cell, head));
        let precision = self.settings.precision;
        [precision.left(k), precision.right(v)]
    }

    /// The keys of the dropout of a block's queries.
    fn mask(&self, cell: &Range<usize>, block: &Range<usize>, head: usize) -> Mask<'a> {
        let (start, heads) = (cell.start, (self.settings.num_heads, head));
        Mask(self.settings.dropout.map(|dropout| {
            let key = |token| dropout.query_key((start, token - start), heads);
            (dropout, block.clone().map(key).collect())
        }))
    }

    fn block_forward(
        &self,
        cell: &Range<usize>,
        head: usize,
        block: Range<usize>,
        [k, v]: &[Side<'_>; 2],
        (context, log_sums): (&Shared<'_>, &Shared<'_>),
    ) {
        let (n, m, precision) = (cell.len(), block.len(), self.settings.precision);
        let stride = m.next_multiple_of(LANES);
        with_scratch(n * stride, |scores| {
            let q = self.view(self.q, &block, head);
            let q = precision.right(q.transposed());
            multiply(k, &q, false, &mut MatrixMut::new(scores, n, m, stride));
            let at = head * self.num_tokens + block.start;
            // SAFETY: this task alone has this head of this block's tokens.
            let log_sums = unsafe { log_sums.slice(at..at + m) };
            let mut factors = [0.0; BLOCK];
            let (mask, factors) = (self.mask(cell, &block, head), &mut factors[..m]);
            exponentials(self.scale, scores, &mask, log_sums, factors);
            let p = precision.left(Matrix::new(scores, n, m, stride).transposed());
            // SAFETY: this task alone has this head of this block's tokens.
            let mut to = unsafe { self.view_mut(context, &block, head) };
            multiply(&p, v, false, &mut to);
            for (row, factor) in factors.iter().enumerate() {
                let values = to.row_mut(row, 0..self.head_width);
                values.iter_mut().for_each(|x| *x *= factor);
            }
        });
    }

    fn head_backward(&self, cell: Range<usize>, head: usize, outcome: Outcome<'_>, to: &To<'_>) {
        let (n, width, precision) = (cell.len(), self.head_width, self.settings.precision);
        let [k, v] = [self.k, self.v].map(|values| self.view(values, &cell, head));
        let left = [k, v].map(|side| precision.left(side));
        let k = precision.right(k);
        let largest = BLOCK.min(n.next_multiple_of(LANES));
        let (scores, own) = match to {
            To::Values(_) => (2 * n * largest, 0),
            To::Tiles(_) => (2 * n * largest, 3 * n * width),
        };
        with_scratch(scores + own, |scratch| {
            let (scratch, own) = scratch.split_at_mut(scores);
            let shared = Shared::new(own);
            // SAFETY: this task alone has this head of this cell's tokens, in all three gradients,
            // and its scratch; no two of the views below are of the same places at a time.
            let place = |which: usize, tokens: &Range<usize>| unsafe {
                match to {
                    To::Values(to) => self.view_mut(&to[which], tokens, head),
                    To::Tiles(_) => {
                        let at = (which * n + tokens.start - cell.start) * width;
                        shared.matrix(at, tokens.len(), width, width)
                    }
                }
            };
            let (mut dk, mut dv) = (place(1, &cell), place(2, &cell));
            for block in blocks(cell.clone()) {
                let (m, add) = (block.len(), block.start > cell.start);
                let stride = m.next_multiple_of(LANES);
                let (p, ds) = scratch[..2 * n * stride].split_at_mut(n * stride);
                let q = self.view(self.q, &block, head);
                let dcontext = self.view(outcome.dcontext, &block, head);
                for ((left, right), to) in left.iter().zip([q, dcontext]).zip([&mut *p, ds]) {
                    let right = precision.right(right.transposed());
                    multiply(left, &right, false, &mut MatrixMut::new(to, n, m, stride));
                }
                self.scores_backward((&cell, &block), head, outcome, p, ds);
                let [p, ds] = [p, ds].map(|scores| Matrix::new(scores, n, m, stride));
                let turned = precision.left(ds.transposed());
                multiply(&turned, &k, false, &mut place(0, &block));
                let [p, ds] = [p, ds].map(|side| precision.left(side));
                multiply(&ds, &precision.right(q), add, &mut dk);
                multiply(&p, &precision.right(dcontext), add, &mut dv);
            }
            if let To::Tiles(rounded) = to {
                for (values, to) in own.chunks_exact(n * width).zip(*rounded) {
                    self.round_head(values, &cell, head, to);
                }
            }
        });
    }

    /// Scores `p` [n, m], before they are scaled, become the dropped probabilities, and the gradients
    /// `ds` of those the scores' gradients.
    fn scores_backward(
        &self,
        (cell, block): (&Range<usize>, &Range<usize>),
        head: usize,
        outcome: Outcome<'_>,
        p: &mut [f32],
        ds: &mut [f32],
    ) {
        let at = head * self.num_tokens + block.start;
        let log_sums = &outcome.log_sums[at..at + block.len()];
        let deltas = block.clone().map(|token| {
            let at = token * self.width + head * self.head_width;
            let columns = at..at + self.head_width;
            dot(
                &outcome.context[columns.clone()],
                &outcome.dcontext[columns],
            )
        });
        let deltas: Vec<f32> = deltas.collect();
        gradients_of_scores(
            self.scale,
            p,
            ds,
            &self.mask(cell, block, head),
            log_sums,
            &deltas,
        );
    }

    /// Takes the gradient [n, d] of a head of a cell.
    fn round_head(
        &self,
        values: &[f32],
        cell: &Range<usize>,
        head: usize,
        (rows, sums): &(bf16::Rows, PartialSums),
    ) {
        let column = head * self.head_width;
        let values_of = values.chunks_exact(self.head_width);
        for (row, values) in cell.clone().zip(values_of) {
            // SAFETY: this task alone has this head of this cell's tokens.
            unsafe { rows.put(row, column, values) };
        }
        let mut sum = vec![0.0; self.head_width];
        add_rows(values, &mut sum);
        sums.take((column, cell.start), sum);
    }
}

/// Pairs of tokens that see each other.
fn pairs(settings: Settings<'_>) -> usize {
    let lengths = settings.cells.starts.windows(2);
    let lengths = lengths.map(|w| (w[1] - w[0]) as usize);
    lengths.map(|length| length * length).sum()
}

/// A cell's queries in blocks of about one size.
fn blocks(cell: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let (end, count) = (cell.end, cell.len().div_ceil(BLOCK).max(1));
    let size = cell.len().div_ceil(count).next_multiple_of(LANES);
    cell.step_by(size.max(1))
        .map(move |start| start..end.min(start + size))
}

/// Lends `length` values of the thread's scratch memory, holding anything, from the start of a cache
/// line on.
fn with_scratch(length: usize, act: impl FnOnce(&mut [f32])) {
    const LINE: usize = 64;
    SCRATCH.with_borrow_mut(|scratch| {
        let needed = length + LINE / size_of::<f32>();
        if scratch.len() < needed {
            scratch.resize(needed, 0.0);
        }
        let before = scratch.as_ptr().align_offset(LINE).min(needed - length);
        act(&mut scratch[before..before + length]);
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
    let starts = settings.cells.starts;
    let whole = starts.first() == Some(&0) && starts.last() == Some(&(num_tokens as u32));
    let whole = whole || (starts.is_empty() && num_tokens == 0);
    if !whole || starts.windows(2).any(|w| w[0] > w[1]) {
        bail!("attention: the cells' starts {starts:?} do not cover the {num_tokens} tokens");
    }
    Ok((num_tokens, width))
}

#[cfg(test)]
mod tests;
