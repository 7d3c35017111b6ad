//! Embedding: the sum of a word row and a type row for each token; gradients as rows of the table.
//!
//! The type table has a row per gene, of which a batch touches few: its gradient is the list of
//! touched rows ([`scatter`]). Tokens are sorted by id ([`Order`], known from the batch alone), each
//! run of equal ids is cut into pieces of fixed length that are summed in parallel, and the pieces are
//! added in order.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

#[cfg(feature = "cuda")]
use super::cuda::Cut;
use super::dropout::{self, Dropout};
use super::layer_norm::{self, Norm};
use super::lists::Numbers;
use super::parallel::rows_per_task;
use super::products::Precision;
use super::profile::span;
use super::simd::vectorized;
use crate::buffers::{from_vec, read};

/// The two tables, and which of their rows the tokens are.
#[derive(Debug, Clone, Copy)]
pub struct Tables<'a> {
    /// Row per token id, [words, D].
    pub word: &'a Tensor,
    /// Row per token type id, [types, D].
    pub types: &'a Tensor,
    /// Token ids, `[T]`.
    pub ids: &'a Numbers,
    /// Token type ids, `[T]`.
    pub type_ids: &'a Numbers,
}

/// `dropout(LayerNorm(word[ids] + types[type_ids]))` → `[T, D]`, and what the norm's way back
/// needs. On a GPU the result is of the type that products are computed in.
///
/// # Errors
/// As [`forward`] and [`layer_norm::forward`].
pub fn normalized(
    tables: Tables<'_>,
    norm: Norm<'_>,
    dropout: Option<&Dropout>,
    precision: Precision,
) -> Result<(Tensor, layer_norm::Saved)> {
    check(tables)?;
    on_gpu!(tables.word, {
        let _span = span("embedding forward", 0);
        let [kept, y, inverse] = super::cuda::embed(tables, norm, dropout, precision.into())?;
        Ok((y, layer_norm::Saved::new(kept, inverse)))
    });
    // The CPU rounds where it multiplies.
    let _ = precision;
    let x = forward(tables)?;
    let (y, saved) = layer_norm::forward(norm, x, None, None)?;
    Ok((dropout::apply(y, dropout)?, saved))
}

/// Tokens of one id that one task sums.
const PIECE: usize = 128;

/// `word[ids] + types[type_ids]` → `[T, D]`.
///
/// # Errors
/// An id is beyond its table, tables of different widths, or lists of different lengths.
pub fn forward(tables: Tables<'_>) -> Result<Tensor> {
    let _span = span("embedding forward", 0);
    let width = check(tables)?;
    let Tables {
        word,
        types,
        ids,
        type_ids,
    } = tables;
    let mut x = vec![0.0; ids.len() * width];
    {
        let (word, types) = (read::<f32>(word)?, read::<f32>(types)?);
        let (word, types) = (&*word, &*types);
        let rows = rows_per_task(width);
        let tasks = x.par_chunks_mut(rows * width.max(1)).enumerate();
        tasks.for_each(|(task, x)| {
            let at = task * rows;
            add_pairs(x, word, types, &ids[at..], &type_ids[at..], width);
        });
    }
    from_vec(x, (ids.len(), width))
}

/// The width of the tables.
fn check(tables: Tables<'_>) -> Result<usize> {
    let (word, types) = (tables.word, tables.types);
    let ((num_words, width), (num_types, type_width)) = (word.dims2()?, types.dims2()?);
    if width != type_width || tables.ids.len() != tables.type_ids.len() {
        bail!(
            "embedding: tables {:?} and {:?}",
            word.shape(),
            types.shape()
        );
    }
    within("token id", tables.ids, num_words)?;
    within("token type id", tables.type_ids, num_types)?;
    Ok(width)
}

/// The tokens of a batch by the row of a table that they are.
#[derive(Debug, Clone)]
pub struct Order {
    /// The rows that occur, ascending.
    pub rows: Numbers,
    /// The tokens of each row, one row after the other.
    pub(super) tokens: Numbers,
    /// Where each row's tokens end.
    ends: Vec<u32>,
    /// Number of tokens of the batch, those that are left out included.
    num_tokens: usize,
    /// The same in pieces, for a GPU.
    #[cfg(feature = "cuda")]
    cut: Option<Cut>,
}

impl Order {
    /// Tokens by `ids`; those whose id is `skip` (padding) are left out.
    pub fn new(ids: &[u32], skip: Option<u32>) -> Self {
        let pairs = (0u64..).zip(ids).filter(|(_, id)| Some(**id) != skip);
        let mut pairs: Vec<u64> = pairs
            .map(|(token, id)| u64::from(*id) << 32 | token)
            .collect();
        pairs.sort_unstable();
        let runs = pairs.chunk_by(|a, b| a >> 32 == b >> 32);
        let ends = runs.clone().scan(0, |end, run| {
            *end += run.len() as u32;
            Some(*end)
        });
        Self {
            rows: runs.clone().map(|run| (run[0] >> 32) as u32).collect(),
            ends: ends.collect(),
            tokens: pairs.iter().map(|pair| *pair as u32).collect(),
            num_tokens: ids.len(),
            #[cfg(feature = "cuda")]
            cut: None,
        }
    }

    /// The tokens of the row that is number `at` of those that occur.
    fn run(&self, at: usize) -> &[u32] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.tokens[start as usize..self.ends[at] as usize]
    }
}

/// The orders in which the gradients of both tables are summed.
#[derive(Debug, Clone)]
pub struct Orders {
    /// Of the table of tokens.
    pub words: Order,
    /// Of the table of token types.
    pub types: Order,
}

impl Orders {
    /// Of tokens and token types; `pad` is no word.
    pub fn new(ids: &[u32], type_ids: &[u32], pad: u32) -> Self {
        Self {
            words: Order::new(ids, Some(pad)),
            types: Order::new(type_ids, None),
        }
    }

    /// The same with what a GPU needs.
    #[cfg(feature = "cuda")]
    pub(super) fn cut(mut self) -> Self {
        for order in [&mut self.words, &mut self.types] {
            order.cut = Some(Cut::new(&order.ends));
        }
        self
    }

    /// Every list that a GPU reads.
    #[cfg(feature = "cuda")]
    pub(super) fn all(&mut self) -> Vec<&mut Numbers> {
        let mut all = Vec::new();
        for order in [&mut self.words, &mut self.types] {
            all.extend([&mut order.rows, &mut order.tokens]);
            let cut = order.cut.iter_mut();
            all.extend(cut.flat_map(|cut| [&mut cut.pieces, &mut cut.runs]));
        }
        all
    }
}

/// The gradient of a table: the rows of dx [T, D] summed by `order`, one for each row of the table
/// that occurs [R, D].
///
/// # Errors
/// The order is not that of as many tokens.
pub fn scatter(dx: &Tensor, order: &Order) -> Result<Tensor> {
    let _span = span("embedding backward", 0);
    let (count, width) = dx.dims2()?;
    if count != order.num_tokens {
        bail!("embedding: {count} gradients for {} ids", order.num_tokens);
    }
    on_gpu!(dx, {
        let made = order.cut.is_none().then(|| Cut::new(&order.ends));
        match order.cut.as_ref().or(made.as_ref()) {
            Some(cut) => super::cuda::scatter_embedding(dx, order, cut),
            None => bail!("embedding: an order without pieces"),
        }
    });
    let num_rows = order.rows.len();
    let mut values = vec![0.0; num_rows * width];
    let dx = read::<f32>(dx)?;
    let dx = &*dx;
    let tasks = values.par_chunks_mut(width.max(1)).enumerate();
    tasks.with_min_len(16).for_each(|(at, sum)| {
        let run = order.run(at);
        if run.len() <= PIECE {
            add_rows(sum, dx, run);
        } else {
            let pieces = run.par_chunks(PIECE).map(|piece| {
                let mut part = vec![0.0; width];
                add_rows(&mut part, dx, piece);
                part
            });
            for part in pieces.collect::<Vec<_>>() {
                sum.iter_mut()
                    .zip(part)
                    .for_each(|(sum, part)| *sum += part);
            }
        }
    });
    from_vec(values, (num_rows, width))
}

vectorized! {
    /// The sums of word and type rows of some tokens.
    fn add_pairs(
        x: &mut [f32],
        word: &[f32],
        types: &[f32],
        ids: &[u32],
        type_ids: &[u32],
        width: usize,
    ) {
        let pairs = ids.iter().zip(type_ids);
        for (x, (&id, &type_id)) in x.chunks_exact_mut(width).zip(pairs) {
            let word = &word[id as usize * width..][..width];
            let types = &types[type_id as usize * width..][..width];
            for ((x, a), b) in x.iter_mut().zip(word).zip(types) {
                *x = a + b;
            }
        }
    }
}

vectorized! {
    /// Adds the rows of dx that `run` names.
    fn add_rows(sum: &mut [f32], dx: &[f32], run: &[u32]) {
        for &row in run {
            let from = &dx[row as usize * sum.len()..][..sum.len()];
            for (sum, from) in sum.iter_mut().zip(from) {
                *sum += from;
            }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kernels::testing::{Random, assert_close, same_for_any_threads, wide};

    #[test]
    fn agrees_with_the_reference() {
        for (count, width, num_words, num_types) in [(0, 3, 2, 2), (1, 1, 1, 1), (900, 5, 4, 300)] {
            let mut random = Random::new(count as u64);
            let (word, types) = (
                random.tensor(&[num_words, width]),
                random.tensor(&[num_types, width]),
            );
            let (ids, type_ids) = (random.ids(count, num_words), random.ids(count, num_types));
            let (ids, type_ids) = (Numbers::from(ids), Numbers::from(type_ids));
            let x = forward(Tables {
                word: &word,
                types: &types,
                ids: &ids,
                type_ids: &type_ids,
            })
            .unwrap();
            let (word64, types64) = (wide(&word), wide(&types));
            let mut expected = Vec::new();
            for (&id, &type_id) in ids.iter().zip(type_ids.iter()) {
                for column in 0..width {
                    let word = word64[id as usize * width + column];
                    expected.push(word + types64[type_id as usize * width + column]);
                }
            }
            assert_close("x", &wide(&x), &expected);
            let dx = random.tensor(&[count, width]);
            let skip = 1;
            let order = Order::new(&ids, Some(skip));
            let (rows, values) = (&order.rows, scatter(&dx, &order).unwrap());
            assert!(rows.windows(2).all(|w| w[0] < w[1]) && !rows.contains(&skip));
            let dx = wide(&dx);
            let mut expected = vec![0.0; num_words * width];
            let mut found = expected.clone();
            for (token, &id) in ids.iter().enumerate().filter(|(_, id)| **id != skip) {
                for column in 0..width {
                    expected[id as usize * width + column] += dx[token * width + column];
                }
            }
            for (row, values) in rows.iter().zip(wide(&values).chunks(width)) {
                found[*row as usize * width..][..width].copy_from_slice(values);
            }
            assert_close("dword", &found, &expected);
        }
    }

    #[test]
    fn an_id_beyond_the_table_is_named() {
        let mut random = Random::new(1);
        let (word, types) = (random.tensor(&[3, 2]), random.tensor(&[4, 2]));
        let error = forward(Tables {
            word: &word,
            types: &types,
            ids: &(&[0, 2]).into(),
            type_ids: &(&[1, 4]).into(),
        })
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("token type id 4 at position 1") && error.contains("has 4"),
            "{error}"
        );
        assert!(
            forward(Tables {
                word: &word,
                types: &types,
                ids: &(&[3]).into(),
                type_ids: &(&[0]).into()
            })
            .unwrap_err()
            .to_string()
            .contains("token id 3")
        );
    }

    #[test]
    fn threads_do_not_matter() {
        let mut random = Random::new(2);
        let (dx, ids) = (random.tensor(&[3000, 9]), random.ids(3000, 5));
        same_for_any_threads(|| vec![scatter(&dx, &Order::new(&ids, None)).unwrap()]);
    }
}
