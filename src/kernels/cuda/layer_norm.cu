// LayerNorm of residual + dropout(x), forward and backward: src/kernels/layer_norm.rs. A warp has a
// row; gradients of weight and bias are summed by blocks of rows and then, in order, by `reduce.cu`.
#include "rows.cuh"

template <int N, typename T>
__device__ inline void forward_rows(T *x, const T *residual, Normalized<T> to, Dropout dropout,
                                    u64 rows, int width) {
    float *cache = reinterpret_cast<float *>(dynamic_shared()) + threadIdx.x / 32 * placed(width);
    u64 row = (u64)blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= rows) return;
    u32 key = row_key(dropout, row);
    auto read = [&](int column, float(&values)[N]) {
        load<N>(values, x + row * width + column);
        if (dropout.threshold) {
            for (int i = 0; i < N; i++) values[i] *= kept(dropout, key, column + i);
        }
        if (residual) {
            float more[N];
            load<N>(more, residual + row * width + column);
            for (int i = 0; i < N; i++) values[i] += more[i];
        }
    };
    normalize_row<N>(to, row, width, cache, read);
}

template <int N, typename T>
__device__ inline void backward_rows(T *dy, const T *normalized, const float *inverse,
                                     const float *weight, T *dropped, float *sums, Dropout before,
                                     u64 rows, int width, int rows_per_block) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int half = placed(width);
    float *mine = reinterpret_cast<float *>(dynamic_shared()) + warp * 2 * half;
    for (int column = lane; column < 2 * half; column += 32) mine[column] = 0.0f;
    __syncwarp();
    u64 first = (u64)blockIdx.x * rows_per_block;
    u64 last = first + rows_per_block < rows ? first + rows_per_block : rows;
    float g[N], x[N], w[N];
    for (u64 row = first + warp; row < last; row += WARPS) {
        u32 key = row_key(before, row);
        auto gradient = [&](int column) {
            load<N>(g, dy + row * width + column);
            load<N>(x, normalized + row * width + column);
            load<N>(w, weight + column);
        };
        float sum = 0.0f, slope = 0.0f;
        for (int column = lane * N; column < width; column += 32 * N) {
            gradient(column);
            for (int i = 0; i < N; i++) {
                mine[place<N>(column, i)] += g[i] * x[i];
                mine[half + place<N>(column, i)] += g[i];
                sum += g[i] * w[i];
                slope += g[i] * w[i] * x[i];
            }
        }
        float mean = warp_sum(sum) / width, along = warp_sum(slope) / width;
        for (int column = lane * N; column < width; column += 32 * N) {
            gradient(column);
            for (int i = 0; i < N; i++) g[i] = inverse[row] * (g[i] * w[i] - mean - x[i] * along);
            store<N>(dy + row * width + column, g);
            if (dropped) {
                for (int i = 0; i < N; i++) g[i] *= kept(before, key, column + i);
                store<N>(dropped + row * width + column, g);
            }
        }
    }
    __syncthreads();
    float *all = reinterpret_cast<float *>(dynamic_shared());
    for (int column = threadIdx.x; column < 2 * width; column += blockDim.x) {
        float sum = 0.0f;
        int of_row = column % width, at = place<N>(of_row, of_row % N) + column / width * half;
        for (int i = 0; i < WARPS; i++) sum += all[i * 2 * half + at];
        sums[(u64)blockIdx.x * 2 * width + column] = sum;
    }
}

// x [rows, width] becomes x̂. Blocks of 128 threads take 4 rows; shared memory: 4 ·
// placed(width) floats.
#define FORWARD(T, name)                                                                               \
    KERNEL layer_norm_forward_##name(T *x, const T *residual, const float *weight, const float *bias,  \
                                     float eps, T *y, float *inverse, Dropout dropout, u64 rows,       \
                                     int width) {                                                      \
        Normalized<T> to = {weight, bias, eps, {0, 0, 1.0f}, x, y, inverse};                           \
        WITH_VECTORS(T, width, (forward_rows<N, T>(x, residual, to, dropout, rows, width)))            \
    }
FOR_EACH_TYPE(FORWARD)

// dy becomes the gradient of the norm's input; `dropped` (or null) that of x before its dropout.
// sums [blocks, 2, width]: partial gradients of weight and bias. Shared memory: 8 · placed(width)
// floats.
#define BACKWARD(T, name)                                                                              \
    KERNEL layer_norm_backward_##name(T *dy, const T *normalized, const float *inverse,                \
                                      const float *weight, T *dropped, float *sums, Dropout before,    \
                                      u64 rows, int width, int rows_per_block) {                       \
        WITH_VECTORS(T, width,                                                                         \
                     (backward_rows<N, T>(dy, normalized, inverse, weight, dropped, sums, before,      \
                                          rows, width, rows_per_block)))                               \
    }
FOR_EACH_TYPE(BACKWARD)
