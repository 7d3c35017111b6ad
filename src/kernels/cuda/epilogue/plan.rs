//! What cuBLASLt is asked for, and how it does it.

use candle_core::DType;
use candle_core::cuda_backend::cudarc::cublaslt::{result, sys};
use result::CublasError;
use sys::{
    cublasComputeType_t as Compute, cublasLtMatmulDescAttributes_t as Attribute,
    cublasLtMatmulPreferenceAttributes_t as Preference, cublasLtReductionScheme_t as Reduction,
    cudaDataType as Kind,
};

use super::{Epilogue, WORKSPACE_BYTES};

pub(super) type Answer<T> = std::result::Result<T, CublasError>;

/// All that an algorithm is chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    /// m, n, k.
    pub sizes: [usize; 3],
    /// The left side, the right one.
    pub turned: [bool; 2],
    /// Of the sides, of the result.
    pub types: [DType; 2],
    pub is_tf32: bool,
    pub epilogue: Epilogue,
    /// What all addresses and rows are multiples of, in bytes.
    pub alignment: u32,
}

/// Something of cuBLASLt's.
struct Owned<T: Copy> {
    raw: T,
    destroy: unsafe fn(T) -> Answer<()>,
}

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it was made for this, and nobody else destroys it.
        let _ = unsafe { (self.destroy)(self.raw) };
    }
}

impl Owned<sys::cublasLtMatmulDesc_t> {
    /// `value` is of the attribute's type.
    fn set<T>(&self, which: Attribute, value: &T) -> Answer<()> {
        let value: *const T = value;
        // SAFETY: the value is read before this returns.
        unsafe { result::set_matmul_desc_attribute(self.raw, which, value.cast(), size_of::<T>()) }
    }
}

impl Owned<sys::cublasLtMatmulPreference_t> {
    /// `value` is of the attribute's type.
    fn set<T>(&self, which: Preference, value: &T) -> Answer<()> {
        let value: *const T = value;
        // SAFETY: as above.
        unsafe { result::set_matmul_pref_attribute(self.raw, which, value.cast(), size_of::<T>()) }
    }
}

/// How a problem is solved. cuBLASLt has matrices column by column, where ours are their
/// transposes: dᵀ = a b with a = rightᵀ and b = leftᵀ, so the bias is that of d's rows, and
/// the sums are those of b's columns.
pub(super) struct Plan {
    operation: Owned<sys::cublasLtMatmulDesc_t>,
    /// Of a, b and d.
    layouts: [Owned<sys::cublasLtMatrixLayout_t>; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Plan {
    /// Asks for an algorithm.
    pub(super) fn find(handle: sys::cublasLtHandle_t, problem: &Problem) -> Answer<Self> {
        let operation = problem.operation()?;
        let layouts = problem.layouts()?;
        let preference = problem.preference()?;
        let [a, b, d] = [0, 1, 2].map(|i: usize| layouts[i].raw);
        // SAFETY: all of them are there.
        let found = unsafe {
            let (operation, preference) = (operation.raw, preference.raw);
            result::get_matmul_algo_heuristic(handle, operation, a, b, d, d, preference)
        }?;
        if found.workspaceSize > WORKSPACE_BYTES {
            return Err(CublasError(
                sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED,
            ));
        }
        Ok(Self {
            operation,
            layouts,
            algorithm: found.algo,
        })
    }

    /// Puts the product of a and b into a stream: added to `beta` times d, with a vector; all by
    /// their addresses.
    ///
    /// # Safety
    /// These are what the problem says, on the device of the stream, whose workspace is given.
    pub(super) unsafe fn enqueue(
        &self,
        handle: sys::cublasLtHandle_t,
        [a, b, d, vector]: [u64; 4],
        beta: f32,
        workspace: u64,
        stream: sys::cudaStream_t,
    ) -> Answer<()> {
        let pointer = Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
        self.operation.set(pointer, &vector)?;
        let one = 1.0f32;
        // SAFETY: the caller's promise.
        unsafe {
            result::matmul(
                handle,
                self.operation.raw,
                (&raw const one).cast(),
                (&raw const beta).cast(),
                a as *const _,
                self.layouts[0].raw,
                b as *const _,
                self.layouts[1].raw,
                d as *const _,
                self.layouts[2].raw,
                d as *mut _,
                self.layouts[2].raw,
                &raw const self.algorithm,
                workspace as *mut _,
                WORKSPACE_BYTES,
                stream,
            )
        }
    }
}

impl Problem {
    fn operation(&self) -> Answer<Owned<sys::cublasLtMatmulDesc_t>> {
        let compute = match self.is_tf32 {
            true => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
            false => Compute::CUBLAS_COMPUTE_32F,
        };
        let operation = Owned {
            raw: result::create_matmul_desc(compute, Kind::CUDA_R_32F)?,
            destroy: result::destroy_matmul_desc,
        };
        let epilogue = match self.epilogue {
            Epilogue::Bias => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            Epilogue::Sums => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BGRADB,
        };
        let [left, right] = self.turned.map(i32::from);
        operation.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &right)?;
        operation.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &left)?;
        operation.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        let kind = kind(self.types[1])?;
        operation.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &kind)?;
        // Heuristics look at the address for its alignment only.
        let address = u64::from(self.alignment);
        operation.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &address)?;
        Ok(operation)
    }

    /// Of a, b and d.
    fn layouts(&self) -> Answer<[Owned<sys::cublasLtMatrixLayout_t>; 3]> {
        let ([m, n, k], [of_sides, of_result]) = (self.sizes, self.types);
        // Rows and columns as they lie here.
        let layout = |dtype, turned, (rows, columns): (usize, usize)| {
            let (rows, columns) = if turned {
                (columns, rows)
            } else {
                (rows, columns)
            };
            let (rows, columns, stride) = (rows as u64, columns as u64, columns as i64);
            Ok::<_, CublasError>(Owned {
                raw: result::create_matrix_layout(kind(dtype)?, columns, rows, stride)?,
                destroy: result::destroy_matrix_layout,
            })
        };
        Ok([
            layout(of_sides, self.turned[1], (k, n))?,
            layout(of_sides, self.turned[0], (m, k))?,
            layout(of_result, false, (m, n))?,
        ])
    }

    fn preference(&self) -> Answer<Owned<sys::cublasLtMatmulPreference_t>> {
        let preference = Owned {
            raw: result::create_matmul_pref()?,
            destroy: result::destroy_matmul_pref,
        };
        let (bytes, alignment) = (WORKSPACE_BYTES as u64, self.alignment);
        // Parts of sums are f32 in the workspace, and a later pass adds them in order.
        let reduction = Reduction::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
        preference.set(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes)?;
        preference.set(
            Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
            &reduction,
        )?;
        for which in [
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            preference.set(which, &alignment)?;
        }
        Ok(preference)
    }
}

fn kind(dtype: DType) -> Answer<Kind> {
    match dtype {
        DType::F32 => Ok(Kind::CUDA_R_32F),
        DType::BF16 => Ok(Kind::CUDA_R_16BF),
        DType::F16 => Ok(Kind::CUDA_R_16F),
        _ => Err(CublasError(
            sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED,
        )),
    }
}
