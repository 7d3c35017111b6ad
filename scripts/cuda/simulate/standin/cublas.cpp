// The functions of cuBLAS that the program and candle call. Types, leading dimensions and extents are
// checked as the library does, and operands must lie in memory of the device when the product is
// computed.
#include "products.h"

const int TF32_MATH = 3;

namespace {
struct Handle {
    void *stream;
    int math;
};
} // namespace

EXPORT int cublasCreate_v2(void **handle) {
    if (!standin_has_context()) return NOT_READY_YET;
    *handle = new Handle{nullptr, 0};
    return SUCCESS;
}

EXPORT int cublasDestroy_v2(void *handle) {
    delete (Handle *)handle;
    return SUCCESS;
}

EXPORT int cublasSetStream_v2(void *handle, void *stream) {
    ((Handle *)handle)->stream = stream;
    return SUCCESS;
}

EXPORT int cublasSetMathMode(void *handle, int mode) {
    if (mode != 0 && mode != TF32_MATH) die("the math mode %d is not known here", mode);
    ((Handle *)handle)->math = mode;
    return SUCCESS;
}

EXPORT int cublasGetMathMode(void *handle, int *mode) {
    *mode = ((Handle *)handle)->math;
    return SUCCESS;
}

EXPORT int cublasGemmStridedBatchedEx(void *handle, int op_a, int op_b, int m, int n, int k,
                                      const void *alpha, const void *a, int type_a, int lda,
                                      long long stride_a, const void *b, int type_b, int ldb,
                                      long long stride_b, const void *beta, void *c, int type_c,
                                      int ldc, long long stride_c, int count, int compute, int) {
    if (!standin_has_context()) return NOT_READY_YET;
    if (compute != COMPUTE_32F) die("products are not computed as %d here", compute);
    if (!is_known(type_a) || !is_known(type_c)) die("products of types %d, %d", type_a, type_c);
    if (type_a != type_b || (type_c != type_a && type_c != F32)) return NOT_SUPPORTED;
    if (m < 0 || n < 0 || k < 0 || op_a > TURNED || op_b > TURNED) return BAD_VALUE;
    Matrix left = {a, type_a, op_a ? k : m, op_a ? m : k, lda, op_a == TURNED};
    Matrix right = {b, type_b, op_b ? n : k, op_b ? k : n, ldb, op_b == TURNED};
    Matrix result = {c, type_c, m, n, ldc, false};
    for (const Matrix *matrix : {&left, &right, &result}) {
        if (matrix->leading < matrix->rows || matrix->leading < 1) return BAD_VALUE;
        if ((uintptr_t)matrix->at % matrix->width()) return BAD_VALUE;
    }
    float factor, old;
    memcpy(&factor, alpha, 4);
    memcpy(&old, beta, 4);
    const Handle &of = *(Handle *)handle;
    bool tf32 = of.math == TF32_MATH && type_a == F32;
    auto work = [=]() mutable {
        for (int i = 0; i < count && m && n; i++) {
            multiply(left, right, result, k, factor, old, tf32);
            left.at = (const char *)left.at + stride_a * left.width();
            right.at = (const char *)right.at + stride_b * right.width();
            result.at = (const char *)result.at + stride_c * result.width();
        }
    };
    enqueue(of.stream, "a matrix product", work);
    return SUCCESS;
}

EXPORT int cublasGemmEx(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha,
                        const void *a, int type_a, int lda, const void *b, int type_b, int ldb,
                        const void *beta, void *c, int type_c, int ldc, int compute, int algorithm) {
    return cublasGemmStridedBatchedEx(handle, op_a, op_b, m, n, k, alpha, a, type_a, lda, 0, b, type_b,
                                      ldb, 0, beta, c, type_c, ldc, 0, 1, compute, algorithm);
}

EXPORT int cublasSgemmStridedBatched(void *handle, int op_a, int op_b, int m, int n, int k,
                                     const float *alpha, const float *a, int lda, long long stride_a,
                                     const float *b, int ldb, long long stride_b, const float *beta,
                                     float *c, int ldc, long long stride_c, int count) {
    return cublasGemmStridedBatchedEx(handle, op_a, op_b, m, n, k, alpha, a, F32, lda, stride_a, b, F32,
                                      ldb, stride_b, beta, c, F32, ldc, stride_c, count, COMPUTE_32F, 0);
}
