//! Several matrix products in one pass of all threads.
//!
//! A [`Products`] lists left sides, right sides and jobs: a job is a matrix to write, the sum of
//! products of listed sides. [`Products::run`] cuts every job into tiles, by shape alone, and has
//! each tile computed and finished (a bias, an activation) by one thread while it is in cache.
//! In bf16 every side is rounded and packed once, before, whatever number of jobs uses it; a side
//! that was packed earlier, for another product, is taken as it is, or turned.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::bf16::{self, Packed, Packing};
use super::matmul;
use super::matrix::{Fresh, Matrix, MatrixMut, Shared};
use super::parallel::in_order;

/// In what matrix products are computed; everything else, and their sums, are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit factors.
    #[default]
    F32,
    /// Factors rounded to bf16.
    Bf16,
    /// Factors rounded to f16, on a GPU; the CPU computes these in f32.
    F16,
}

impl From<Precision> for candle_core::DType {
    /// The type of activations on a GPU.
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::BF16,
            Precision::F16 => Self::F16,
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
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
            Self::F32 | Self::F16 => Side::Plain(a),
            Self::Bf16 => Side::Packed(Packed::left_here(a)),
        }
    }

    /// A right side.
    pub(super) fn right(self, b: Matrix<'_>) -> Side<'_> {
        match self {
            Self::F32 | Self::F16 => Side::Plain(b),
            Self::Bf16 => Side::Packed(Packed::right_here(b)),
        }
    }
}

/// c = a b, or c += a b with `add`, in the calling thread; both sides of one
/// precision.
pub(super) fn multiply(a: &Side<'_>, b: &Side<'_>, add: bool, c: &mut MatrixMut<'_>) {
    match (a, b) {
        (Side::Plain(a), Side::Plain(b)) => matmul::multiply(*a, *b, add, c),
        (Side::Packed(a), Side::Packed(b)) => {
            bf16::multiply((a, a.all()), (b, b.all()), add, c);
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

/// Where a job's matrix goes.
#[derive(Clone, Copy)]
pub(super) enum To<'a> {
    /// Is written.
    Write(&'a Shared<'a>),
    /// Is added to.
    Add(&'a Shared<'a>),
    /// Is seen by `finish` only, tile by tile.
    Finish,
}

/// What is known of a side before it is packed.
#[derive(Clone, Copy)]
enum Source<'a> {
    Values(Matrix<'a>),
    /// A packed left side.
    Tiles(&'a Packed),
    /// Its transpose as a left side, or itself as a right one.
    Turned(&'a Packed),
}

impl Source<'_> {
    /// Rows of a left side; columns of a right one, of which `Values` are the transpose.
    fn length(&self) -> usize {
        match self {
            Self::Values(m) => m.rows,
            Self::Tiles(tiles) => tiles.length,
            Self::Turned(tiles) => tiles.inner,
        }
    }

    fn inner(&self) -> usize {
        match self {
            Self::Values(m) => m.columns,
            Self::Tiles(tiles) => tiles.inner,
            Self::Turned(tiles) => tiles.length,
        }
    }
}

struct Job<'a> {
    to: To<'a>,
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
    left: Vec<Source<'a>>,
    right: Vec<Source<'a>>,
    jobs: Vec<Job<'a>>,
}

/// About so many tiles are made of all jobs: in f32 each packs its sides anew, in bf16 they are packed
/// already, and smaller tiles leave no thread without work for long.
fn num_tiles(precision: Precision) -> usize {
    match precision {
        Precision::F32 | Precision::F16 => 32,
        Precision::Bf16 => 96,
    }
}

/// One of so many tiles is cut in four.
const SMALL: usize = 4;
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
        self.listed_left(Source::Values(a))
    }

    /// Lists a right side.
    pub(super) fn right(&mut self, b: Matrix<'a>) -> Right {
        self.listed_right(Source::Values(b.transposed()))
    }

    /// Lists a packed left side as it is; in bf16 only, as the next two.
    pub(super) fn left_tiles(&mut self, a: &'a Packed) -> Left {
        assert!(self.precision == Precision::Bf16, "tiles are of bf16");
        self.listed_left(Source::Tiles(a))
    }

    /// Lists the transpose of a packed left side as a left side.
    pub(super) fn left_of_turned(&mut self, a: &'a Packed) -> Left {
        assert!(self.precision == Precision::Bf16, "tiles are of bf16");
        self.listed_left(Source::Turned(a))
    }

    /// Lists a packed left side as a right side.
    pub(super) fn right_of_left(&mut self, a: &'a Packed) -> Right {
        assert!(self.precision == Precision::Bf16, "tiles are of bf16");
        self.listed_right(Source::Turned(a))
    }

    fn listed_left(&mut self, a: Source<'a>) -> Left {
        self.left.push(a);
        Left(self.left.len() - 1)
    }

    fn listed_right(&mut self, b: Source<'a>) -> Right {
        self.right.push(b);
        Right(self.right.len() - 1)
    }

    /// Lists a job: the sum of `terms` (one at least, all of one shape). Its rows lie one after the
    /// other where it goes.
    ///
    /// # Safety
    /// Until [`Products::run`] is through, nobody but its `finish` touches where it goes, which no
    /// other job writes.
    pub(super) unsafe fn job(&mut self, to: To<'a>, terms: Vec<(Left, Right)>) {
        let shape = |(a, b): &(Left, Right)| (self.left[a.0].length(), self.right[b.0].length());
        assert!(
            terms
                .windows(2)
                .all(|pair| shape(&pair[0]) == shape(&pair[1])),
            "terms of one shape"
        );
        self.jobs.push(Job { to, terms });
    }

    fn shape(&self, job: &Job<'_>) -> (usize, usize) {
        let (left, right) = job.terms[0];
        (self.left[left.0].length(), self.right[right.0].length())
    }

    /// Computes every job; `finish` is called once for each tile with its values, by the thread
    /// that has it.
    pub(super) fn run(self, finish: impl Fn(&Tile, &mut MatrixMut<'_>) + Sync) {
        self.run_beside((0, &|_| ()), finish);
    }

    /// As [`Products::run`]; the threads do some other tasks on the way, each once, by its number.
    pub(super) fn run_beside(
        self,
        (num_others, other): (usize, &(dyn Fn(usize) + Sync)),
        finish: impl Fn(&Tile, &mut MatrixMut<'_>) + Sync,
    ) {
        let tiles = self.tiles();
        match self.precision {
            Precision::F32 | Precision::F16 => {
                in_order(tiles.len() + num_others, |task| match tiles.get(task) {
                    Some(tile) => self.compute(tile, &finish),
                    None => other(task - tiles.len()),
                });
            }
            Precision::Bf16 => {
                let packed = self.pack((num_others, other));
                let sides = Sides {
                    left: ready(&self.left, &packed),
                    right: ready(&self.right, &packed[packings(&self.left)..]),
                };
                in_order(tiles.len(), |tile| {
                    self.compute_packed(&tiles[tile], &sides, &finish)
                });
            }
        }
    }

    /// Packs what is not packed yet, left sides first.
    fn pack(&self, others: (usize, &(dyn Fn(usize) + Sync))) -> Vec<Packed> {
        let left = self.left.iter().filter_map(|side| match *side {
            Source::Values(a) => Some(Packing::left(a)),
            Source::Tiles(_) => None,
            Source::Turned(a) => Some(Packing::left_of_turned(a)),
        });
        let right = self.right.iter().filter_map(|side| match *side {
            Source::Values(b) => Some(Packing::right(b.transposed())),
            Source::Tiles(_) => None,
            Source::Turned(a) => Some(Packing::right_of_left(a)),
        });
        bf16::pack_beside(left.chain(right).collect(), others)
    }

    fn tiles(&self) -> Vec<Tile> {
        let shapes: Vec<_> = self.jobs.iter().map(|job| self.shape(job)).collect();
        let depth = |job: &Job<'_>| self.left[job.terms[0].0.0].inner() * job.terms.len();
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
        // The last ones are small, so that the threads are through at about the same time.
        let small = tiles.split_off(tiles.len() - tiles.len() / SMALL);
        tiles.extend(small.iter().flat_map(Tile::quarters));
        tiles
    }

    fn compute(&self, tile: &Tile, finish: &(impl Fn(&Tile, &mut MatrixMut<'_>) + Sync)) {
        let job = &self.jobs[tile.job];
        self.with_place(tile, |to, add| {
            for (i, (a, b)) in job.terms.iter().enumerate() {
                let (Source::Values(a), Source::Values(b)) = (self.left[a.0], self.right[b.0])
                else {
                    continue; // refused when they were listed
                };
                let inner = 0..a.columns;
                let a = a.part(tile.rows.clone(), inner.clone());
                let b = b.part(tile.columns.clone(), inner).transposed();
                matmul::multiply(a, b, add || i > 0, to);
            }
            finish(tile, to);
        });
    }

    fn compute_packed(
        &self,
        tile: &Tile,
        sides: &Sides<'_>,
        finish: &(impl Fn(&Tile, &mut MatrixMut<'_>) + Sync),
    ) {
        let job = &self.jobs[tile.job];
        let tiles = |range: &Range<usize>| range.start / bf16::SIDE..range.end.div_ceil(bf16::SIDE);
        let (rows, columns) = (tiles(&tile.rows), tiles(&tile.columns));
        self.with_place(tile, |to, add| {
            for (i, (a, b)) in job.terms.iter().enumerate() {
                let a = (sides.left[a.0], rows.clone());
                let b = (sides.right[b.0], columns.clone());
                bf16::multiply(a, b, add || i > 0, to);
            }
            finish(tile, to);
        });
    }

    /// Calls `with` with the tile's place, and whether it is added to what is there.
    fn with_place(&self, tile: &Tile, with: impl FnOnce(&mut MatrixMut<'_>, bool)) {
        let job = &self.jobs[tile.job];
        let (height, width) = (tile.rows.len(), tile.columns.len());
        let (shared, add) = match job.to {
            To::Write(shared) => (shared, false),
            To::Add(shared) => (shared, true),
            To::Finish => {
                let mut fresh = Fresh::new(height * width);
                // SAFETY: nobody else has it; it is written before `finish` reads it.
                let mut place = unsafe { fresh.shared().matrix(0, height, width, width) };
                return with(&mut place, false);
            }
        };
        let stride = self.shape(job).1;
        let at = tile.rows.start * stride + tile.columns.start;
        // SAFETY: this task alone has this tile, as the job's caller promised.
        let mut place = unsafe { shared.matrix(at, height, width, stride) };
        with(&mut place, add);
    }
}

impl Tile {
    /// The same in four parts, or as many as it has.
    fn quarters(&self) -> impl Iterator<Item = Self> {
        let halves = |range: &Range<usize>| {
            let (start, end) = (range.start, range.end);
            let middle = start + (range.len() / 2).next_multiple_of(STEP).min(range.len());
            [start..middle, middle..end]
                .into_iter()
                .filter(|half| !half.is_empty())
        };
        let (job, columns) = (self.job, self.columns.clone());
        halves(&self.rows).flat_map(move |rows| {
            halves(&columns).map(move |columns| Self {
                job,
                rows: rows.clone(),
                columns,
            })
        })
    }
}

/// Packed sides, by their numbers.
struct Sides<'a> {
    left: Vec<&'a Packed>,
    right: Vec<&'a Packed>,
}

/// How many of `sides` are packed for this run.
fn packings(sides: &[Source<'_>]) -> usize {
    let made = |side: &&Source<'_>| !matches!(side, Source::Tiles(_));
    sides.iter().filter(made).count()
}

/// Every side: as given, or the next of `packed`.
fn ready<'a>(sides: &[Source<'a>], packed: &'a [Packed]) -> Vec<&'a Packed> {
    let mut packed = packed.iter();
    let one = |side: &Source<'a>| match *side {
        Source::Tiles(tiles) => Some(tiles),
        Source::Values(_) | Source::Turned(_) => packed.next(),
    };
    sides.iter().filter_map(one).collect()
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
            products.job(To::Write(&to[0]), vec![(a, b)]);
            products.job(To::Add(&to[1]), vec![(c, d)]);
            products.job(To::Add(&to[2]), vec![(none, b)]);
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
