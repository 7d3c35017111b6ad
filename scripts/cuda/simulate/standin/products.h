// Matrix products as cuBLAS and cuBLASLt define them: matrices column by column, f32 sums in a fixed
// order.
#pragma once
#include <string.h>

#include <algorithm>

#include "../numbers.h"
#include "machine.h"

// Codes and types of both libraries.
const int NOT_SUPPORTED = 15, BAD_VALUE = 7, NOT_READY_YET = 1;
const int F32 = 0, F16 = 2, BF16 = 14;
const int AS_IT_LIES = 0, TURNED = 1;
const int COMPUTE_32F = 68, COMPUTE_TF32 = 77;

EXPORT int standin_has_context();

struct Matrix {
    const void *at;
    int type, rows, columns, leading; // as it lies, column by column
    bool turned;
    size_t width() const { return type == F32 ? 4 : 2; }
    size_t extent() const {
        return columns && rows ? ((size_t)leading * (columns - 1) + rows) * width() : 0;
    }
};

inline bool is_known(int type) { return type == F32 || type == F16 || type == BF16; }

inline float number(const void *at, int type, size_t index) {
    if (type == F32) return ((const float *)at)[index];
    uint16_t bits = ((const uint16_t *)at)[index];
    return type == BF16 ? to_float(bf16{bits}) : to_float(f16{bits});
}

inline void set_number(void *at, int type, size_t index, float value) {
    if (type == F32) {
        ((float *)at)[index] = value;
    } else {
        uint16_t bits = type == BF16 ? from_float<bf16>(value).bits : from_float<f16>(value).bits;
        ((uint16_t *)at)[index] = bits;
    }
}

// What tensor cores take of an f32: 10 bits after the point, ties to even.
inline float rounded_to_tf32(float x) {
    if (x - x != 0) return x;
    uint32_t bits = as_bits(x);
    return as_float((bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu);
}

// op(matrix), in f32, row by row where `by_rows`, else column by column.
inline std::vector<float> unpacked(const Matrix &m, bool by_rows, bool tf32) {
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

// c = alpha · op(a) · op(b) + beta · c, and a vector of c's type to each column, if there is one;
// c [m, n], k numbers a sum.
inline void multiply(const Matrix &a, const Matrix &b, const Matrix &c, int k, float alpha, float beta,
                     bool tf32, const void *bias = nullptr) {
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
            if (bias) sum += number(bias, c.type, row);
            set_number((void *)c.at, c.type, at, sum);
        }
    }
}
