// Sums in a fixed order: columns of a matrix (gradients of biases and norms) and the squares of all
// gradients. A first pass sums blocks of rows, a second adds their sums one after the other.
#include "sums.cuh"

// Column sums of rows [first, last) in 8 interleaved groups of rows, which are added in order; a
// block of 256 threads has 32 columns. Only threads of the first warp get the result.
template <typename T>
__device__ inline float column_sum(const T *x, u64 first, u64 last, int width, int column) {
    SHARED float groups[8][32];
    int group = threadIdx.x / 32, lane = threadIdx.x % 32;
    float sum = 0.0f;
    if (column < width) {
        for (u64 row = first + group; row < last; row += 8) sum += to_float(x[row * width + column]);
    }
    groups[group][lane] = sum;
    __syncthreads();
    float total = 0.0f;
    for (int i = 0; i < 8; i++) total += groups[i][lane];
    return total;
}

// x [rows, width] → parts [gridDim.y, width], each of rows_per_block rows.
#define PARTS(T, name)                                                                                 \
    KERNEL column_parts_##name(const T *x, float *parts, u64 rows, int width, int rows_per_block) {    \
        int column = blockIdx.x * 32 + threadIdx.x % 32;                                               \
        u64 first = (u64)blockIdx.y * rows_per_block;                                                  \
        u64 last = first + rows_per_block < rows ? first + rows_per_block : rows;                      \
        float sum = column_sum(x, first, last, width, column);                                         \
        if (threadIdx.x < 32 && column < width) parts[(u64)blockIdx.y * width + column] = sum;         \
    }
FOR_EACH_TYPE(PARTS)

// parts [count, width] → their column sums: the first `split` to `left`, the others to `right`;
// written, or added where `add` says so.
KERNEL add_parts(const float *parts, u64 count, int width, int split, float *left, float *right,
                 int add_left, int add_right) {
    int column = blockIdx.x * 32 + threadIdx.x % 32;
    float sum = column_sum(parts, 0, count, width, column);
    if (threadIdx.x >= 32 || column >= width) return;
    bool is_left = column < split;
    float *to = is_left ? left + column : right + (column - split);
    *to = (is_left ? add_left : add_right) ? *to + sum : sum;
}

// One tensor of many; its first chunk of CHUNK numbers has this number among those of all.
struct Span {
    const float *values;
    u64 count, first_chunk;
};

// parts[chunk] = the sum of the squares of a chunk; a block of 256 threads each.
KERNEL square_parts(const Span *spans, u32 num_spans, double *parts) {
    const Span &span = entry_of(spans, num_spans, blockIdx.x);
    u64 first = (blockIdx.x - span.first_chunk) * CHUNK;
    u64 last = first + CHUNK < span.count ? first + CHUNK : span.count;
    float sum = 0.0f;
    for (u64 i = first + threadIdx.x; i < last; i += 256) sum += span.values[i] * span.values[i];
    double total = ordered_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = total;
}

// *to = the sum of all parts, by one block of 256 threads.
KERNEL sum_parts(const double *parts, u64 count, double *to) {
    double total = sum_of(parts, count);
    if (threadIdx.x == 0) *to = total;
}
