// The functions of cuBLAS that the program and candle call: matrices column by column, f32 sums, in a
// fixed order. Types, leading dimensions and extents are checked as the library does, and operands
// must lie in memory of the device when the product is computed.
#include <string.h>

#include "../numbers.h"
#include "machine.h"

const int NOT_SUPPORTED = 15, BAD_VALUE = 7, NOT_READY_YET = 1;
const int F32 = 0, F16 = 2, BF16 = 14;
const int AS_IT_LIES = 0, TURNED = 1;
const int TF32_MATH = 3, COMPUTE_32F = 68;

EXPORT int standin_has_context();

namespace {
struct Handle {
    void *stream;
    int math;
};

struct Matrix {
    const void *at;
    int type, rows, columns, leading; // as it lies, column by column
    bool turned;
    size_t width() const { return type == F32 ? 4 : 2; }
    size_t extent() const {
        return columns && rows ? ((size_t)leading * (columns - 1) + rows) * width() : 0;
    }
};

float number(const void *at, int type, size_t index) {
    if (type == F32) return ((const float *)at)[index];
    uint16_t bits = ((const uint16_t *)at)[index];
    return type == BF16 ? to_float(bf16{bits}) : to_float(f16{bits});
}

void set_number(void *at, int type, size_t index, float value) {
    if (type == F32) {
        ((float *)at)[index] = value;
    } else {
        uint16_t bits = type == BF16 ? from_float<bf16>(value).bits : from_float<f16>(value).bits;
        ((uint16_t *)at)[index] = bits;
    }
}

// What tensor cores take of an f32: 10 bits after the point, ties to even.
float rounded_to_tf32(float x) {
    if (x - x != 0) return x;
    uint32_t bits = as_bits(x);
    return as_float((bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu);
}

// op(matrix), in f32, row by row where `by_rows`, else column by column.
std::vector<float> unpacked(const Matrix &m, bool by_rows, bool tf32) {
    size_t outer = m.turned ? m.rows : m.columns, inner = m.turned ? m.columns : m.rows;
    std::vector<float> numbers((size_t)m.rows * m.columns);
    for (int column = 0; column < m.columns; column++) {
        for (int row = 0; row < m.rows; row++) {
            float x = number(m.at, m.type, (size_t)column * m.leading + row);
            size_t i = m.turned ? column : row, j = m.turned ? row : column;
            numbers[by_rows ? i * outer + j : j * inner + i] = tf32 ? rounded_to_tf32(x) : x;
        }
    }
    return numbers;
}

// c = alpha · op(a) · op(b) + beta · c; c [m, n], k numbers a sum.
void multiply(const Matrix &a, const Matrix &b, const Matrix &c, int k, float alpha, float beta,
              bool tf32) {
    const Matrix *operands[] = {&a, &b, &c};
    for (const Matrix *matrix : operands) {
        if (matrix->extent()) standin_memory(matrix->at, matrix->extent(), "matrix product");
    }
    int m = c.rows, n = c.columns;
    std::vector<float> left = unpacked(a, false, tf32), right = unpacked(b, false, tf32), sums(m);
    for (int column = 0; column < n; column++) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (int i = 0; i < k; i++) {
            float factor = right[(size_t)column * k + i];
            const float *from = left.data() + (size_t)i * m;
            for (int row = 0; row < m; row++) sums[row] += factor * from[row];
        }
        for (int row = 0; row < m; row++) {
            size_t at = (size_t)column * c.leading + row;
            float sum = alpha * sums[row];
            if (beta != 0.0f) sum += beta * number(c.at, c.type, at);
            set_number((void *)c.at, c.type, at, sum);
        }
    }
}

bool is_known(int type) { return type == F32 || type == F16 || type == BF16; }
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
