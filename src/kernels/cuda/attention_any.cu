// Attention for what attention.cu has no tensor cores for: f32, and heads of any width up to 256. A
// warp has one row (a query; a key on the way to dk and dv); lanes take 32 partners at a time for
// the scores, and every 32nd column for the sums. The same layout, dropout and order in every run.
#include "device.cuh"

// Rows that a block works on at once, a warp each.
const int ROWS = 4;
// Columns that a lane sums: heads of up to 256 numbers.
const int COLUMNS = 8;

// What a row needs to know. `cells` [num_cells + 1] holds the first token of each cell.
struct Packed {
    const u32 *cells;
    u32 num_cells;
    u64 num_tokens;
    int num_heads, head_width;
    float scale;
};

struct Row {
    u64 token, first; // of all tokens; the first of the cell
    u32 length;       // of the cell
    u64 stride;
};

__device__ inline Row row_of(const Packed &packed, u64 token) {
    u32 low = 0, high = packed.num_cells;
    while (high - low > 1) {
        u32 middle = (low + high) / 2;
        if (packed.cells[middle] <= token) low = middle;
        else high = middle;
    }
    u32 first = packed.cells[low];
    return {token, first, packed.cells[low + 1] - first,
            (u64)packed.num_heads * packed.head_width};
}

template <typename T> __device__ inline float dot(const float *left, const T *right, int count) {
    float sum = 0.0f;
    for (int i = 0; i < count; i++) sum += left[i] * to_float(right[i]);
    return sum;
}

// to += Σ weight of lane j · row `first + j` of `rows`, over the lanes below `count`.
template <typename T>
__device__ inline void add_rows(float (&to)[COLUMNS], float weight, const T *rows, u32 count,
                                u64 stride, int width) {
    for (u32 j = 0; j < count; j++) {
        float w = __shfl_sync(0xffffffffu, weight, j);
        for (int i = 0; i < COLUMNS; i++) {
            int column = threadIdx.x % 32 + 32 * i;
            if (column < width) to[i] += w * to_float(rows[j * stride + column]);
        }
    }
}

template <typename T>
__device__ inline void write(T *to, const float (&from)[COLUMNS], float factor, int width) {
    for (int i = 0; i < COLUMNS; i++) {
        int column = threadIdx.x % 32 + 32 * i;
        if (column < width) to[column] = from_float<T>(from[i] * factor);
    }
}

// This warp's place for a row of numbers in f32.
template <typename T> __device__ inline float *own_row(const T *from, int which, int width) {
    int row = threadIdx.x / 32 * 2 + which;
    float *to = reinterpret_cast<float *>(dynamic_shared()) + row * width;
    for (int column = threadIdx.x % 32; column < width; column += 32) {
        to[column] = to_float(from[column]);
    }
    __syncwarp();
    return to;
}

template <typename T>
__device__ inline void forward(const T *q, const T *k, const T *v, T *context, float *log_sums,
                               const Packed &packed, Dropout dropout) {
    u64 token = (u64)blockIdx.x * ROWS + threadIdx.x / 32;
    if (token >= packed.num_tokens) return;
    int head = blockIdx.y, lane = threadIdx.x % 32, width = packed.head_width;
    Row row = row_of(packed, token);
    u64 at = row.first * row.stride + head * width, own = token * row.stride + head * width;
    const float *query = own_row(q + own, 0, width);
    u32 own_place = (u32)(token - row.first);
    u32 key = query_key(dropout, row.first, own_place, packed.num_heads, head);
    float largest = -INFINITY, total = 0.0f, sums[COLUMNS] = {};
    for (u32 first = 0; first < row.length; first += 32) {
        u32 count = row.length - first < 32 ? row.length - first : 32, place = first + lane;
        bool there = place < row.length;
        float score = -INFINITY;
        if (there) score = packed.scale * dot(query, k + at + place * row.stride, width);
        float next = fmaxf(largest, warp_max(score)), fade = expf(largest - next);
        largest = next;
        float p = there ? expf(score - largest) : 0.0f;
        total = total * fade + warp_sum(p);
        for (int i = 0; i < COLUMNS; i++) sums[i] *= fade;
        if (kept_square(dropout, key, own_place, place) == 0.0f) p = 0.0f;
        add_rows(sums, p, v + at + first * row.stride, count, row.stride, width);
    }
    write(context + own, sums, dropout.scale / total, width);
    if (lane == 0) log_sums[head * packed.num_tokens + token] = largest + logf(total);
}

template <typename T>
__device__ inline void backward_queries(const T *q, const T *k, const T *v, const T *dcontext,
                                        const float *log_sums, const float *deltas, T *dq,
                                        const Packed &packed, Dropout dropout) {
    u64 token = (u64)blockIdx.x * ROWS + threadIdx.x / 32;
    if (token >= packed.num_tokens) return;
    int head = blockIdx.y, lane = threadIdx.x % 32, width = packed.head_width;
    Row row = row_of(packed, token);
    u64 at = row.first * row.stride + head * width, own = token * row.stride + head * width;
    const float *query = own_row(q + own, 0, width), *gradient = own_row(dcontext + own, 1, width);
    u64 number = head * packed.num_tokens + token;
    float log_sum = log_sums[number], delta = deltas[number];
    u32 own_place = (u32)(token - row.first);
    u32 key = query_key(dropout, row.first, own_place, packed.num_heads, head);
    float sums[COLUMNS] = {};
    for (u32 first = 0; first < row.length; first += 32) {
        u32 count = row.length - first < 32 ? row.length - first : 32, place = first + lane;
        float ds = 0.0f;
        if (place < row.length) {
            u64 from = at + place * row.stride;
            float p = expf(packed.scale * dot(query, k + from, width) - log_sum);
            float dp = dot(gradient, v + from, width);
            dp *= kept_square(dropout, key, own_place, place);
            ds = p * packed.scale * (dp - delta);
        }
        add_rows(sums, ds, k + at + first * row.stride, count, row.stride, width);
    }
    write(dq + own, sums, 1.0f, width);
}

template <typename T>
__device__ inline void backward_keys(const T *q, const T *k, const T *v, const T *dcontext,
                                     const float *log_sums, const float *deltas, T *dk, T *dv,
                                     const Packed &packed, Dropout dropout) {
    u64 token = (u64)blockIdx.x * ROWS + threadIdx.x / 32;
    if (token >= packed.num_tokens) return;
    int head = blockIdx.y, lane = threadIdx.x % 32, width = packed.head_width;
    Row row = row_of(packed, token);
    u64 at = row.first * row.stride + head * width, own = token * row.stride + head * width;
    const float *key = own_row(k + own, 0, width), *value = own_row(v + own, 1, width);
    u32 place = (u32)(token - row.first);
    float dk_sums[COLUMNS] = {}, dv_sums[COLUMNS] = {};
    for (u32 first = 0; first < row.length; first += 32) {
        u32 count = row.length - first < 32 ? row.length - first : 32;
        float ds = 0.0f, dropped = 0.0f;
        if (first + lane < row.length) {
            u64 query = row.first + first + lane, from = query * row.stride + head * width;
            u64 number = head * packed.num_tokens + query;
            float p = expf(packed.scale * dot(key, q + from, width) - log_sums[number]);
            u32 query_place = first + lane;
            u32 hash_key = query_key(dropout, row.first, query_place, packed.num_heads, head);
            float factor = kept_square(dropout, hash_key, query_place, place);
            float dp = dot(value, dcontext + from, width) * factor;
            dropped = p * factor;
            ds = p * packed.scale * (dp - deltas[number]);
        }
        add_rows(dk_sums, ds, q + at + first * row.stride, count, row.stride, width);
        add_rows(dv_sums, dropped, dcontext + at + first * row.stride, count, row.stride, width);
    }
    write(dk + own, dk_sums, 1.0f, width);
    write(dv + own, dv_sums, 1.0f, width);
}

// deltas [H, T]: context · dcontext of a head, which is what the softmax's gradient subtracts.
template <typename T>
__device__ inline void delta(const T *context, const T *dcontext, float *deltas, u64 num_tokens,
                             int num_heads, int width) {
    u64 token = (u64)blockIdx.x * ROWS + threadIdx.x / 32;
    if (token >= num_tokens) return;
    int head = blockIdx.y, lane = threadIdx.x % 32;
    u64 at = (token * num_heads + head) * width;
    float sum = 0.0f;
    for (int column = lane; column < width; column += 32) {
        sum += to_float(context[at + column]) * to_float(dcontext[at + column]);
    }
    sum = warp_sum(sum);
    if (lane == 0) deltas[head * num_tokens + token] = sum;
}

// Blocks of 128 threads take 4 rows of a head (blockIdx.y); shared memory: 8 · head_width floats.
#define ATTENTION(T, name)                                                                             \
    KERNEL attention_forward_##name##_any(const T *q, const T *k, const T *v, T *context,              \
                                          float *log_sums, Packed packed, Dropout dropout) {           \
        forward(q, k, v, context, log_sums, packed, dropout);                                          \
    }                                                                                                  \
    KERNEL attention_keys_##name##_any(const T *q, const T *k, const T *v, const T *dcontext,          \
                                       const float *log_sums, const float *deltas, T *dk, T *dv,       \
                                       Packed packed, Dropout dropout) {                               \
        backward_keys(q, k, v, dcontext, log_sums, deltas, dk, dv, packed, dropout);                   \
    }                                                                                                  \
    KERNEL attention_queries_##name##_any(const T *q, const T *k, const T *v, const T *dcontext,       \
                                          const float *log_sums, const float *deltas, T *dq,           \
                                          Packed packed, Dropout dropout) {                            \
        backward_queries(q, k, v, dcontext, log_sums, deltas, dq, packed, dropout);                    \
    }                                                                                                  \
    KERNEL attention_delta_##name(const T *context, const T *dcontext, float *deltas, u64 num_tokens,  \
                                  int num_heads, int width) {                                          \
        delta(context, dcontext, deltas, num_tokens, num_heads, width);                                \
    }
FOR_EACH_TYPE(ATTENTION)
