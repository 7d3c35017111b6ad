//! Several matrix products in one pass of all threads.
//!
//! A [`Products`] lists left sides, right sides and jobs: a job is a matrix to write, the sum of
//! products of listed sides. [`Products::run`] cuts every job into tiles, by shape alone, and has
//! each tile computed and finished (a bias, an activation) by one thread while it is in cache.
//! In bf16 every side is rounded and packed once, before, whatever number of jobs uses it.

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bf16::{self, Packed};
use super::matmul;
use super::matrix::{Matrix, MatrixMut, Shared};

/// In what matrix products are computed; everything else, and their sums, are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit factors.
    #[default]
    F32,
    /// Factors rounded to bf16.
    Bf16,
}

impl From<Precision> for candle_core::DType {
    /// The type of activations on a GPU.
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::BF16,
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl Precision {
    /// What the rounded form of a matrix takes, of what the matrix does.
    pub fn packed_share(self) -> f64 {
        match self {
            Self::F32 => 0.0,
            Self::Bf16 => 0.5,
        }
    }
}

/// One side of a product that is computed in one thread.
pub(super) enum Side<'a> {
    Plain(Matrix<'a>),
    Packed(Packed),
}

impl Precision {
    /// A left side.
    pub(super) fn left(self, a: Matrix<'_>) -> Side<'_> {
        match self {
            Self::F32 => Side::Plain(a),
            Self::Bf16 => Side::Packed(Packed::left_here(a)),
        }
    }

    /// A right side.
    pub(super) fn right(self, b: Matrix<'_>) -> Side<'_> {
        match self {
            Self::F32 => Side::Plain(b),
            Self::Bf16 => Side::Packed(Packed::right_here(b)),
        }
    }
}

/// c = factor · a b, or c += factor · a b with `add`, in the calling thread; both sides of one
/// precision.
pub(super) fn multiply(factor: f32, a: &Side<'_>, b: &Side<'_>, add: bool, c: &mut MatrixMut<'_>) {
    match (a, b) {
        (Side::Plain(a), Side::Plain(b)) => matmul::multiply(factor, *a, *b, add, c),
        (Side::Packed(a), Side::Packed(b)) => {
            bf16::multiply(factor, (a, a.all()), (b, b.all()), add, c);
        }
        _ => {}
    }
}

/// A listed left side.
#[derive(Clone, Copy)]
pub(super) struct Left(usize);
/// A listed right side.
#[derive(Clone, Copy)]
pub(super) struct Right(usize);

struct Job<'a> {
    to: &'a Shared<'a>,
    add: bool,
    terms: Vec<(Left, Right)>,
}

/// A finished tile.
pub(super) struct Tile {
    /// Number of the job, in the order they were listed.
    pub(super) job: usize,
    /// Its rows of the job's matrix.
    pub(super) rows: Range<usize>,
    /// Its columns.
    pub(super) columns: Range<usize>,
}

/// What to compute.
pub(super) struct Products<'a> {
    precision: Precision,
    left: Vec<Matrix<'a>>,
    right: Vec<Matrix<'a>>,
    jobs: Vec<Job<'a>>,
}

/// About so many tiles are made of all jobs: in f32 each packs its sides anew, in bf16 they are packed
/// already, and smaller tiles leave no thread without work for long.
fn num_tiles(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 32,
        Precision::Bf16 => 96,
    }
}

/// Sides of a tile are multiples of this, and at least twice it.
const STEP: usize = 64;
/// A tile is at most so many rows or columns.
const LONGEST: usize = 1024;

impl<'a> Products<'a> {
    pub(super) fn new(precision: Precision) -> Self {
        Self {
            precision,
            left: Vec::new(),
            right: Vec::new(),
            jobs: Vec::new(),
        }
    }

    /// Lists a left side.
    pub(super) fn left(&mut self, a: Matrix<'a>) -> Left {
        self.left.push(a);
        Left(self.left.len() - 1)
    }

    /// Lists a right side.
    pub(super) fn right(&mut self, b: Matrix<'a>) -> Right {
        self.right.push(b);
        Right(self.right.len() - 1)
    }

    /// Lists a job: the sum of `terms` (one at least, all of one shape) written to `to`, or added
    /// to it with `add`. Its rows lie one after the other in `to`.
    ///
    /// # Safety
    /// Until [`Products::run`] is through, nobody but its `finish` touches `to`, which no other
    /// job writes.
    pub(super) unsafe fn job(&mut self, to: &'a Shared<'a>, add: bool, terms: Vec<(Left, Right)>) {
        let shape = |(a, b): &(Left, Right)| (self.left[a.0].rows, self.right[b.0].columns);
        assert!(
            terms
                .windows(2)
                .all(|pair| shape(&pair[0]) == shape(&pair[1])),
            "terms of one shape"
        );
        self.jobs.push(Job { to, add, terms });
    }

    fn shape(&self, job: &Job<'_>) -> (usize, usize) {
        let (left, right) = job.terms[0];
        (self.left[left.0].rows, self.right[right.0].columns)
    }

    /// Computes every job; `finish` is called once for each tile, by the thread that has it.
    pub(super) fn run(self, finish: impl Fn(&Tile) + Sync) {
        self.run_beside((0, &|_| ()), finish);
    }

    /// As [`Products::run`]; the threads do some other tasks on the way, each once, by its number.
    pub(super) fn run_beside(
        self,
        (num_others, other): (usize, &(dyn Fn(usize) + Sync)),
        finish: impl Fn(&Tile) + Sync,
    ) {
        let tiles = self.tiles();
        match self.precision {
            Precision::F32 => {
                let tasks = (0..num_others + tiles.len()).into_par_iter();
                tasks.with_max_len(1).for_each(|task| {
                    let Some(tile) = task.checked_sub(num_others) else {
                        return other(task);
                    };
                    self.compute(&tiles[tile]);
                    finish(&tiles[tile]);
                });
            }
            Precision::Bf16 => {
                let sides = (self.left.as_slice(), self.right.as_slice());
                let (left, right) = bf16::pack_beside(sides, (num_others, other));
                tiles.par_iter().with_max_len(1).for_each(|tile| {
                    self.compute_packed(tile, &left, &right);
                    finish(tile);
                });
            }
        }
    }

    fn tiles(&self) -> Vec<Tile> {
        let shapes: Vec<_> = self.jobs.iter().map(|job| self.shape(job)).collect();
        let depth = |job: &Job<'_>| self.left[job.terms[0].0.0].columns * job.terms.len();
        let work = |(job, (m, n)): (&Job<'_>, &(usize, usize))| m * n * depth(job).max(1);
        let total: usize = self.jobs.iter().zip(&shapes).map(work).sum();
        let mut tiles = Vec::new();
        for (job, &(rows, columns)) in shapes.iter().enumerate() {
            let area = total / num_tiles(self.precision) / depth(&self.jobs[job]).max(1);
            let (height, width) = tile_shape(area, rows, columns);
            for row in (0..rows).step_by(height) {
                for column in (0..columns).step_by(width) {
                    tiles.push(Tile {
                        job,
                        rows: row..rows.min(row + height),
                        columns: column..columns.min(column + width),
                    });
                }
            }
        }
        tiles
    }

    fn compute(&self, tile: &Tile) {
        let job = &self.jobs[tile.job];
        for (i, (a, b)) in job.terms.iter().enumerate() {
            let (a, b) = (self.left[a.0], self.right[b.0]);
            let (inner, stride) = (0..a.columns, b.columns);
            let a = a.part(tile.rows.clone(), inner.clone());
            let b = b.part(inner, tile.columns.clone());
            // SAFETY: this task alone has this tile, as the job's caller promised.
            let mut to = unsafe { tile.of(job.to, stride) };
            matmul::multiply(1.0, a, b, job.add || i > 0, &mut to);
        }
    }

    fn compute_packed(&self, tile: &Tile, left: &[Packed], right: &[Packed]) {
        let job = &self.jobs[tile.job];
        let tiles = |range: &Range<usize>| range.start / bf16::SIDE..range.end.div_ceil(bf16::SIDE);
        let (rows, columns) = (tiles(&tile.rows), tiles(&tile.columns));
        for (i, (a, b)) in job.terms.iter().enumerate() {
            // SAFETY: as in `compute`.
            let mut to = unsafe { tile.of(job.to, self.right[b.0].columns) };
            let (a, b) = ((&left[a.0], rows.clone()), (&right[b.0], columns.clone()));
            bf16::multiply(1.0, a, b, job.add || i > 0, &mut to);
        }
    }
}

impl Tile {
    /// The tile's part of its job's matrix, of `stride` columns.
    ///
    /// # Safety
    /// Nobody else touches it.
    unsafe fn of<'v>(&self, to: &Shared<'v>, stride: usize) -> MatrixMut<'v> {
        let at = self.rows.start * stride + self.columns.start;
        // SAFETY: the caller's promise.
        unsafe { to.matrix(at, self.rows.len(), self.columns.len(), stride) }
    }

    /// Each of its rows within its job's matrix, of `stride` columns: (row, values).
    ///
    /// # Safety
    /// As for [`Products::job`]; to be used in `finish` only.
    pub(super) unsafe fn each_row<'v>(
        &self,
        to: &Shared<'v>,
        stride: usize,
    ) -> impl Iterator<Item = (usize, &'v mut [f32])> {
        self.rows.clone().map(move |row| {
            let at = row * stride;
            // SAFETY: the caller's promise.
            (row, unsafe {
                to.slice(at + self.columns.start..at + self.columns.end)
            })
        })
    }
}

/// Rows and columns of a tile of about `area`, near to square, of a matrix of this shape.
fn tile_shape(area: usize, rows: usize, columns: usize) -> (usize, usize) {
    let side = |length: usize, most: usize| {
        length
            .next_multiple_of(STEP)
            .clamp(2 * STEP, LONGEST)
            .min(most.max(1).next_multiple_of(STEP))
    };
    let square = area.isqrt();
    let (height, width) = (side(square, rows), side(square, columns));
    // Where the matrix is too short in one direction, the tile is longer in the other.
    let height = side((area / width).max(height), rows);
    (height, side((area / height).max(width), columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_job_once() {
        let values = vec![0.0; 300 * 200];
        let mut out = [vec![0.0; 300 * 300], vec![0.0; 200 * 200], Vec::new()];
        let [first, second, third] = &mut out;
        let to = [Shared::new(first), Shared::new(second), Shared::new(third)];
        let m = Matrix::new(&values, 300, 200, 200);
        let mut products = Products::new(Precision::F32);
        let (a, b) = (products.left(m), products.right(m.transposed()));
        let (c, d) = (products.left(m.transposed()), products.right(m));
        let none = products.left(m.part(0..0, 0..200));
        // SAFETY: three matrices, each written by one job.
        unsafe {
            products.job(&to[0], false, vec![(a, b)]);
            products.job(&to[1], true, vec![(c, d)]);
            products.job(&to[2], true, vec![(none, b)]);
        }
        let mut covered = [vec![0; 300 * 300], vec![0; 200 * 200]];
        for tile in products.tiles() {
            let columns = [300, 200][tile.job];
            for row in tile.rows.clone() {
                for column in tile.columns.clone() {
                    covered[tile.job][row * columns + column] += 1;
                }
            }
        }
        assert!(covered.iter().flatten().all(|times| *times == 1));
        assert_eq!(tile_shape(1 << 20, 4096, 256), (1024, 256));
        assert_eq!(tile_shape(1 << 16, 4096, 4096), (256, 256));
        assert_eq!(tile_shape(10, 4096, 4096), (128, 128));
    }
}
