//! Matrix products by cuBLASLt with an epilogue: what would be a pass over the result, or over a
//! side, is done by the product itself while it has the numbers at hand.
//!
//! [`Ended::run`] says whether it was done; where it says no, the caller computes the product by
//! cuBLAS ([`super::product`]) and makes the pass. That is so for results without numbers, sums of
//! nothing, rows that do not begin at multiples of 16 bytes, and whatever cuBLASLt has no algorithm
//! for. A [`Plan`] is what its heuristics answer for a [`Problem`]: it is asked for once and kept.
//! The answer depends on nothing but the problem, the GPU and the library's version, and parts of
//! sums are never added in place or rounded, so results have the same bits in every run.
//!
//! Types are those of NVIDIA's table for `cublasLtMatmul`: the vector is of the result's type. tf32
//! is taken from the math mode of the device's cuBLAS handle. A stream has a handle and a workspace,
//! made at its first product and kept.

mod plan;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, OnceLock};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublaslt::{result, sys};
use candle_core::{DType, Error, Result, Tensor, bail};
use plan::{Plan, Problem};

use super::Gpu;
use super::product::{Product, is_tf32};

/// Bytes of a workspace: what NVIDIA advises for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;
/// What addresses and rows are multiples of, at least, and the most that is told apart, in bytes.
const LEAST_ALIGNMENT: u64 = 16;
const MOST_ALIGNMENT: u64 = 256;
/// Plans that are kept: a batch of another length asks for new ones.
pub(super) const MOST_PLANS: usize = 1024;

/// What a product does besides, with a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Epilogue {
    /// Adds it [n] to every row of the result.
    Bias,
    /// Leaves the sums of the left side's rows in it [m], each over k numbers.
    Sums,
}

/// A product that ends in an epilogue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended<'a> {
    pub product: Product<'a>,
    pub epilogue: Epilogue,
    pub vector: &'a Tensor,
}

impl Ended<'_> {
    /// Computes it, or does nothing and returns false.
    pub(super) fn run(&self, gpu: &Gpu) -> Result<bool> {
        let Some(problem) = self.problem(gpu)? else {
            return Ok(false);
        };
        let product = self.product;
        let [a, b, d] = [product.right.tensor, product.left.tensor, product.to];
        let [a, b, d, vector] = [a, b, d, self.vector].map(|tensor| gpu.address(tensor));
        let addresses = [a?, b?, d?, vector?];
        let stream = gpu.inner.cuda_stream();
        stream.context().bind_to_thread().w()?;
        with_engine(gpu, |engine| {
            let (handle, workspace) = (engine.handle, gpu.address(&engine.workspace)?);
            let (beta, stream) = (product.beta(), stream.cu_stream().cast());
            let found = engine.plan(problem);
            // SAFETY: addresses, types and sizes are those of tensors on this device, and the
            // workspace belongs to the stream.
            let is_done = found.as_ref().is_some_and(|plan| unsafe {
                plan.enqueue(handle, addresses, beta, workspace, stream)
                    .is_ok()
            });
            if !is_done {
                // It is not asked again.
                *found = None;
            }
            Ok(is_done)
        })
    }

    /// What cuBLASLt is asked for, or nothing where it is not asked.
    fn problem(&self, gpu: &Gpu) -> Result<Option<Problem>> {
        let Product {
            left, right, to, ..
        } = self.product;
        let sizes @ [m, n, k] = self.product.sizes()?;
        let length = match self.epilogue {
            Epilogue::Bias => n,
            Epilogue::Sums => m,
        };
        if self.vector.dims() != [length] || self.vector.dtype() != to.dtype() {
            let (shape, dtype) = (self.vector.shape(), self.vector.dtype());
            bail!(
                "{:?} takes a vector of {length} {:?}, given are {shape:?} {dtype:?}",
                self.epilogue,
                to.dtype(),
            );
        }
        if m * n * k == 0 {
            return Ok(None);
        }
        let mut places = MOST_ALIGNMENT | gpu.address(self.vector)?;
        for tensor in [left.tensor, right.tensor, to] {
            let row_bytes = tensor.dim(1)? * tensor.dtype().size_in_bytes();
            places |= gpu.address(tensor)? | row_bytes as u64;
        }
        let alignment = 1 << places.trailing_zeros();
        Ok((alignment >= LEAST_ALIGNMENT).then_some(Problem {
            sizes,
            turned: [left.turned, right.turned],
            types: [left.tensor.dtype(), to.dtype()],
            is_tf32: left.tensor.dtype() == DType::F32 && is_tf32(gpu)?,
            epilogue: self.epilogue,
            alignment: alignment as u32,
        }))
    }
}

/// What a stream keeps.
struct Engine {
    handle: sys::cublasLtHandle_t,
    workspace: Tensor,
    /// Nothing where there is no algorithm.
    plans: HashMap<Problem, Option<Plan>>,
}

// SAFETY: cuBLASLt's objects may be used by any thread; a lock gives them to one at a time.
unsafe impl Send for Engine {}

impl Engine {
    fn new(gpu: &Gpu) -> Result<Self> {
        Ok(Self {
            workspace: gpu.fresh(WORKSPACE_BYTES / 4, DType::U32)?,
            handle: result::create_handle().map_err(Error::wrap)?,
            plans: HashMap::new(),
        })
    }

    fn plan(&mut self, problem: Problem) -> &mut Option<Plan> {
        if self.plans.len() >= MOST_PLANS && !self.plans.contains_key(&problem) {
            self.plans.clear();
        }
        let find = || Plan::find(self.handle, &problem).ok();
        self.plans.entry(problem).or_insert_with(find)
    }
}

/// Lends what the device's stream keeps.
fn with_engine<T>(gpu: &Gpu, act: impl FnOnce(&mut Engine) -> Result<T>) -> Result<T> {
    static ENGINES: OnceLock<Mutex<HashMap<usize, Engine>>> = OnceLock::new();
    let Ok(mut engines) = ENGINES.get_or_init(Mutex::default).lock() else {
        bail!("a thread failed while it computed a matrix product");
    };
    match engines.entry(gpu.inner.cuda_stream().cu_stream() as usize) {
        Entry::Occupied(engine) => act(engine.into_mut()),
        Entry::Vacant(place) => act(place.insert(Engine::new(gpu)?)),
    }
}

/// How many problems of the device's stream have an algorithm, and how many have none.
#[cfg(test)]
pub(super) fn plans(gpu: &Gpu) -> Result<[usize; 2]> {
    with_engine(gpu, |engine| {
        let found = engine.plans.values().flatten().count();
        Ok([found, engine.plans.len() - found])
    })
}
