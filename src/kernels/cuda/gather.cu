// Rows picked and put back, and dropout by itself: src/kernels/rows.rs, dropout.rs.
#include "device.cuh"

// y [gridDim.x, width] = the rows of x at `positions`; a block each.
#define GATHER(T, name)                                                                                \
    KERNEL gather_##name(const T *x, const u32 *positions, T *y, int width) {                          \
        const T *from = x + (u64)positions[blockIdx.x] * width;                                        \
        T *to = y + (u64)blockIdx.x * width;                                                           \
        for (int column = threadIdx.x; column < width; column += blockDim.x) to[column] = from[column];\
    }
FOR_EACH_TYPE(GATHER)

// The rows of dy [gridDim.x, width] written to their `positions` in dx, which is zero elsewhere and
// where no position stands twice.
#define SCATTER(T, name)                                                                               \
    KERNEL scatter_##name(const T *dy, const u32 *positions, T *dx, int width) {                       \
        const T *from = dy + (u64)blockIdx.x * width;                                                  \
        T *to = dx + (u64)positions[blockIdx.x] * width;                                               \
        for (int column = threadIdx.x; column < width; column += blockDim.x) to[column] = from[column];\
    }
FOR_EACH_TYPE(SCATTER)

// The rows of dy [gridDim.x, width] added to their `positions` in x, of which none stands twice.
KERNEL add_rows(const float *dy, const u32 *positions, float *x, int width) {
    const float *from = dy + (u64)blockIdx.x * width;
    float *to = x + (u64)positions[blockIdx.x] * width;
    for (int column = threadIdx.x; column < width; column += blockDim.x) to[column] += from[column];
}

// Dropout of row blockIdx.x, in place.
#define DROP(T, name)                                                                                  \
    KERNEL dropout_##name(T *x, Dropout dropout, int width) {                                          \
        u32 key = row_key(dropout, blockIdx.x);                                                        \
        T *row = x + (u64)blockIdx.x * width;                                                          \
        for (int column = threadIdx.x; column < width; column += blockDim.x) {                         \
            row[column] = from_float<T>(to_float(row[column]) * kept(dropout, key, column));           \
        }                                                                                              \
    }
FOR_EACH_TYPE(DROP)
