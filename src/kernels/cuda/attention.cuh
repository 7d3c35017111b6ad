// The bodies of attention's kernels, over whichever products of tiles the including .cu has brought
// in (mma.cuh, wgmma.cuh); so it has no guard. What they compute: attention.cu.
//
// A block has GROUPS groups of 128 threads, each with 64 rows of its own, and goes over the cell in
// tiles of 64 that all of them share. The next tile is fetched while this one is multiplied: what is
// read of a tile was read before the barrier after which the next but one is copied over it. Products
// are begun in order and are there after `finish<n>`, which waits for all but the last n.
const float LOG2_E = 1.44269504f;

struct Heads {
    u64 num_tokens;
    int num_heads;
    float scale;
};

// Begins to copy rows [first, first + 64) of a cell to a tile; rows past its end become zero.
// `from` is the head's first number of the cell, `stride` the width of all heads. A tile has blocks of
// WIDTH columns; in one of them a row is copied by neighbouring threads.
template <int D, int GROUPS, typename T>
__device__ inline void copy_tile(T *to, const T *from, u32 first, u32 length, u64 stride) {
    const int WIDTH = Pitch<D>::WIDTH, PIECES = WIDTH / 8, STEP = GROUPS * GROUP / PIECES;
    int row = threadIdx.x / PIECES, piece = threadIdx.x % PIECES;
    from += (first + row) * stride + piece * 8;
    to += place<D>(row, piece);
#pragma unroll
    for (int i = 0; i < TILE; i += STEP) {
        bool there = first + row + i < length;
#pragma unroll
        for (int block = 0; block < D / WIDTH; block++) {
            copy16(to + i * Pitch<D>::ROW + block * Pitch<D>::BLOCK, from + block * WIDTH, there);
        }
        from += STEP * stride;
    }
}

// The group that a warp belongs to. By a vote, so that the compiler knows it to be the same for all
// lanes, and keeps descriptors where tensor cores read them.
template <int GROUPS> __device__ inline int group_of_warp() {
    return GROUPS > 1 && any_lane(threadIdx.x >= GROUP);
}

// What a block has to do, and what of it is this thread's.
template <int D, int GROUPS> struct Share {
    Tile tile; // from the block's first row on
    int head, lane, group;
    bool is_idle;   // the group has no rows
    u32 row;        // the first of this lane's two rows, g and g + 8 of the warp's 16
    u64 stride, at; // the width of all heads; the head's first number of the cell

    // False where the block has no rows: an entry of the table may be more than a block's.
    __device__ bool take(const Tile *tiles, const Heads &heads) {
        const int ROWS = GROUPS * TILE, BLOCKS = TABLE_ROWS / ROWS;
        tile = tiles[blockIdx.x / BLOCKS];
        tile.first += blockIdx.x % BLOCKS * ROWS;
        head = blockIdx.y, lane = threadIdx.x % 32, group = group_of_warp<GROUPS>();
        is_idle = GROUPS > 1 && any_lane(tile.first + group * TILE >= tile.length);
        row = tile.first + threadIdx.x / 32 * 16 + lane / 4;
        stride = (u64)heads.num_heads * D, at = tile.start * stride + head * D;
        return tile.first < tile.length;
    }
};

// The rows of all groups.
template <int D, int GROUPS, typename T>
__device__ inline void copy_own(T *to, const T *from, const Tile &tile, u64 stride) {
    for (int group = 0; group < GROUPS; group++) {
        u32 first = tile.first + group * TILE;
        copy_tile<D, GROUPS>(to + group * Pitch<D>::SIZE, from, first, tile.length, stride);
    }
}

// Two stages of two tiles each, filled ahead.
template <int D, int GROUPS, typename T> struct Stages {
    T *memory;
    __device__ T *first(int stage) { return memory + (2 * stage) * Pitch<D>::SIZE; }
    __device__ T *second(int stage) { return memory + (2 * stage + 1) * Pitch<D>::SIZE; }
    __device__ void fill(int number, const T *left, const T *right, u32 length, u64 stride) {
        if ((u32)number * TILE < length) {
            copy_tile<D, GROUPS>(first(number % 2), left, number * TILE, length, stride);
            copy_tile<D, GROUPS>(second(number % 2), right, number * TILE, length, stride);
        }
        commit_copies();
    }
};

template <int D, bool DROPS, typename T>
__device__ inline void forward(const T *q, const T *k, const T *v, T *context, float *log_sums,
                               const Tile *tiles, Heads heads, Dropout dropout) {
    const int GROUPS = forward_shape(D).groups;
    Share<D, GROUPS> share;
    if (!share.take(tiles, heads)) return;
    const auto &[tile, head, lane, group, is_idle, row, stride, at] = share;
    T *queries = tile_memory<T>();
    Stages<D, GROUPS, T> stages = {queries + GROUPS * Pitch<D>::SIZE};
    copy_own<D, GROUPS>(queries, q + at, tile, stride);
    stages.fill(0, k + at, v + at, tile.length, stride);

    // Of this lane's two rows.
    float largest[2] = {-INFINITY, -INFINITY}, total[2] = {0.0f, 0.0f};
    u32 key = query_key(dropout, tile.start, row, heads.num_heads, head);
    float sums[D / 8][4] = {};
    float scale = heads.scale * LOG2_E;
    ForwardQueries<D, T> left;
    for (int number = 0; (u32)number * TILE < tile.length; number++) {
        wait_for_tiles();
        stages.fill(number + 1, k + at, v + at, tile.length, stride);
        if (is_idle) continue;
        if (number == 0) left.take(queries + group * Pitch<D>::SIZE);
        float scores[8][4];
        multiply_tiles<D>(scores, left, stages.first(number % 2));
        finish<0>(scores);
        u32 column = number * TILE + 2 * (lane % 4);
        if ((u32)(number + 1) * TILE > tile.length) {
#pragma unroll
            for (int i = 0; i < 8; i++)
                for (int j = 0; j < 4; j++)
                    if (column + 8 * i + j % 2 >= tile.length) scores[i][j] = -INFINITY;
        }
        // The largest score of a row, before the scale, which is above 0.
        float next[2] = {largest[0], largest[1]}, fade[2], shift[2];
#pragma unroll
        for (int i = 0; i < 8; i++)
            for (int j = 0; j < 4; j++) next[j / 2] = fmaxf(next[j / 2], scores[i][j]);
        for (int r = 0; r < 2; r++) {
            next[r] = fmaxf(next[r], __shfl_xor_sync(0xffffffffu, next[r], 1));
            next[r] = fmaxf(next[r], __shfl_xor_sync(0xffffffffu, next[r], 2));
            fade[r] = power_of_2((largest[r] - next[r]) * scale);
            shift[r] = next[r] * scale;
            largest[r] = next[r];
            total[r] *= fade[r];
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            // A square of the mask: keys 8 apart, and rows 8 apart.
            int base = i / 2 * 2, first = i % 2;
            u32 hash = DROPS ? square(key, column + 8 * base + first) : 0;
            for (int of = 0; of < 4; of++) {
                float &score = scores[base + of % 2][first + of / 2 * 2];
                float p = power_of_2(score * scale - shift[of / 2]);
                total[of / 2] += p;
                if (DROPS && !square_keeps(dropout.threshold, hash, of / 2, of % 2)) p = 0.0f;
                score = p;
            }
        }
#pragma unroll
        for (int i = 0; i < D / 8; i++)
            for (int j = 0; j < 4; j++) sums[i][j] *= fade[j / 2];
        Weights<T> weights(scores);
        multiply_weights<D>(sums, weights, stages.second(number % 2));
        finish<0>(sums, weights.pieces);
    }
    float factor[2];
    for (int r = 0; r < 2; r++) {
        total[r] += __shfl_xor_sync(0xffffffffu, total[r], 1);
        total[r] += __shfl_xor_sync(0xffffffffu, total[r], 2);
        factor[r] = dropout.scale / total[r];
        if (lane % 4 == 0 && row + 8 * r < tile.length) {
            u64 to = head * heads.num_tokens + tile.start + row + 8 * r;
            log_sums[to] = largest[r] * heads.scale + logf(total[r]);
        }
    }
    write_rows<D>(context + at, sums, factor[0], factor[1], tile.first, tile.length, stride);
}

// dk and dv of 64 keys: the block goes over all queries of the cell. Scores stand turned, [key,
// query], so that they are the left side of both products.
template <int D, bool DROPS, typename T>
__device__ inline void backward_keys(const T *q, const T *k, const T *v, const T *dcontext,
                                     const float *log_sums, const float *deltas, T *dk, T *dv,
                                     const Tile *tiles, Heads heads, Dropout dropout) {
    const int GROUPS = keys_shape(D).groups;
    SHARED float all_sums[2][TILE], all_deltas[2][TILE];
    SHARED u32 all_keys[2][TILE];
    Share<D, GROUPS> share;
    if (!share.take(tiles, heads)) return;
    const auto &[tile, head, lane, group, is_idle, row, stride, at] = share;
    T *keys = tile_memory<T>(), *values = keys + GROUPS * Pitch<D>::SIZE;
    Stages<D, GROUPS, T> stages = {values + GROUPS * Pitch<D>::SIZE};
    copy_own<D, GROUPS>(keys, k + at, tile, stride);
    copy_own<D, GROUPS>(values, v + at, tile, stride);
    Reread<D, T> left_keys = {keys + group * Pitch<D>::SIZE};
    Reread<D, T> left_values = {values + group * Pitch<D>::SIZE};
    stages.fill(0, q + at, dcontext + at, tile.length, stride);
    float dk_sums[D / 8][4] = {}, dv_sums[D / 8][4] = {};
    float scale = heads.scale * LOG2_E;
    for (int number = 0; (u32)number * TILE < tile.length; number++) {
        float *query_sums = all_sums[number % 2], *query_deltas = all_deltas[number % 2];
        u32 *query_keys = all_keys[number % 2];
        if (threadIdx.x < TILE) {
            u32 query = number * TILE + threadIdx.x;
            u64 token = tile.start + query, from = head * heads.num_tokens + token;
            bool there = query < tile.length;
            query_sums[threadIdx.x] = there ? log_sums[from] * LOG2_E : INFINITY;
            query_deltas[threadIdx.x] = there ? deltas[from] : 0.0f;
            query_keys[threadIdx.x] = query_key(dropout, tile.start, query, heads.num_heads, head);
        }
        wait_for_tiles();
        stages.fill(number + 1, q + at, dcontext + at, tile.length, stride);
        if (is_idle) continue;
        const T *queries = stages.first(number % 2), *gradients = stages.second(number % 2);
        float p[8][4], ds[8][4];
        multiply_tiles<D>(p, left_keys, queries);
        multiply_tiles<D>(ds, left_values, gradients);
        finish<1>(p);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            for (int j = 0; j < 4; j++) {
                int query = 8 * i + 2 * (lane % 4) + j % 2;
                p[i][j] = power_of_2(p[i][j] * scale - query_sums[query]);
            }
        }
        finish<0>(ds);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            // A square of the mask: queries 8 apart, and rows (of keys) 8 apart.
            int left = i / 2 * 2, first = i % 2, query = 8 * left + 2 * (lane % 4) + first;
            u32 hash = DROPS ? square(query_keys[query], row) : 0;
            for (int of = 0; of < 4; of++) {
                float &weight = p[left + of % 2][first + of / 2 * 2];
                float &gradient = ds[left + of % 2][first + of / 2 * 2];
                float probability = weight, factor = DROPS ? dropout.scale : 1.0f;
                bool drops = DROPS && !square_keeps(dropout.threshold, hash, of % 2, of / 2);
                if (drops) weight = factor = 0.0f;
                gradient = probability * (gradient * factor - query_deltas[query + 8 * (of % 2)]);
            }
        }
        Weights<T> dv_weights(p), dk_weights(ds);
        multiply_weights<D>(dv_sums, dv_weights, gradients);
        multiply_weights<D>(dk_sums, dk_weights, queries);
        finish<0>(dv_sums, dk_sums, dv_weights.pieces, dk_weights.pieces);
    }
    write_rows<D>(dk + at, dk_sums, heads.scale, heads.scale, tile.first, tile.length, stride);
    write_rows<D>(dv + at, dv_sums, dropout.scale, dropout.scale, tile.first, tile.length, stride);
}

// dq of 64 queries: the block goes over all keys of the cell.
template <int D, bool DROPS, typename T>
__device__ inline void backward_queries(const T *q, const T *k, const T *v, const T *dcontext,
                                        const float *log_sums, const float *deltas, T *dq,
                                        const Tile *tiles, Heads heads, Dropout dropout) {
    const int GROUPS = queries_shape(D).groups;
    Share<D, GROUPS> share;
    if (!share.take(tiles, heads)) return;
    const auto &[tile, head, lane, group, is_idle, row, stride, at] = share;
    T *queries = tile_memory<T>(), *gradients = queries + GROUPS * Pitch<D>::SIZE;
    Stages<D, GROUPS, T> stages = {gradients + GROUPS * Pitch<D>::SIZE};
    copy_own<D, GROUPS>(queries, q + at, tile, stride);
    copy_own<D, GROUPS>(gradients, dcontext + at, tile, stride);
    Reread<D, T> left_queries = {queries + group * Pitch<D>::SIZE};
    Reread<D, T> left_gradients = {gradients + group * Pitch<D>::SIZE};
    stages.fill(0, k + at, v + at, tile.length, stride);
    float row_sums[2], row_deltas[2];
    u32 key = query_key(dropout, tile.start, row, heads.num_heads, head);
    for (int r = 0; r < 2; r++) {
        bool there = row + 8 * r < tile.length;
        u64 token = tile.start + row + 8 * r, from = head * heads.num_tokens + token;
        row_sums[r] = there ? log_sums[from] * LOG2_E : INFINITY;
        row_deltas[r] = there ? deltas[from] : 0.0f;
    }
    float dq_sums[D / 8][4] = {};
    float scale = heads.scale * LOG2_E;
    for (int number = 0; (u32)number * TILE < tile.length; number++) {
        wait_for_tiles();
        stages.fill(number + 1, k + at, v + at, tile.length, stride);
        if (is_idle) continue;
        const T *keys = stages.first(number % 2), *values = stages.second(number % 2);
        float p[8][4], ds[8][4];
        multiply_tiles<D>(p, left_queries, keys);
        multiply_tiles<D>(ds, left_gradients, values);
        finish<1>(p);
#pragma unroll
        for (int i = 0; i < 8; i++)
            for (int j = 0; j < 4; j++) p[i][j] = power_of_2(p[i][j] * scale - row_sums[j / 2]);
        finish<0>(ds);
        u32 column = number * TILE + 2 * (lane % 4);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int left = i / 2 * 2, first = i % 2;
            u32 hash = DROPS ? square(key, column + 8 * left + first) : 0;
            for (int of = 0; of < 4; of++) {
                float probability = p[left + of % 2][first + of / 2 * 2];
                float &gradient = ds[left + of % 2][first + of / 2 * 2];
                float factor = DROPS ? dropout.scale : 1.0f;
                if (DROPS && !square_keeps(dropout.threshold, hash, of / 2, of % 2)) factor = 0.0f;
                gradient = probability * (gradient * factor - row_deltas[of / 2]);
            }
        }
        if ((u32)(number + 1) * TILE > tile.length) {
            // Beyond the cell's end the probability may be anything.
#pragma unroll
            for (int i = 0; i < 8; i++)
                for (int j = 0; j < 4; j++)
                    if (column + 8 * i + j % 2 >= tile.length) ds[i][j] = 0.0f;
        }
        Weights<T> weights(ds);
        multiply_weights<D>(dq_sums, weights, keys);
        finish<0>(dq_sums, weights.pieces);
    }
    write_rows<D>(dq + at, dq_sums, heads.scale, heads.scale, tile.first, tile.length, stride);
}

// Shared memory: tiles of Pitch<D>::SIZE numbers, 4 and for each group 1 forward, 2 on the way back.
#define BOUNDS(shape) __launch_bounds__(GROUP *shape.groups, shape.blocks)
#define ATTENTION(T, name, D)                                                                          \
    KERNEL BOUNDS(forward_shape(D))                                                                    \
        attention_forward_##name##_##D(const T *q, const T *k, const T *v, T *context,                 \
                                       float *log_sums, const Tile *tiles, Heads heads,                \
                                       Dropout dropout) {                                              \
        if (dropout.threshold) {                                                                       \
            forward<D, true>(q, k, v, context, log_sums, tiles, heads, dropout);                       \
        } else {                                                                                       \
            forward<D, false>(q, k, v, context, log_sums, tiles, heads, dropout);                      \
        }                                                                                              \
    }                                                                                                  \
    KERNEL BOUNDS(keys_shape(D))                                                                       \
        attention_keys_##name##_##D(const T *q, const T *k, const T *v, const T *dcontext,             \
                                    const float *log_sums, const float *deltas, T *dk, T *dv,          \
                                    const Tile *tiles, Heads heads, Dropout dropout) {                 \
        if (dropout.threshold) {                                                                       \
            backward_keys<D, true>(q, k, v, dcontext, log_sums, deltas, dk, dv, tiles, heads,          \
                                   dropout);                                                           \
        } else {                                                                                       \
            backward_keys<D, false>(q, k, v, dcontext, log_sums, deltas, dk, dv, tiles, heads,         \
                                    dropout);                                                          \
        }                                                                                              \
    }                                                                                                  \
    KERNEL BOUNDS(queries_shape(D))                                                                    \
        attention_queries_##name##_##D(const T *q, const T *k, const T *v, const T *dcontext,          \
                                       const float *log_sums, const float *deltas, T *dq,              \
                                       const Tile *tiles, Heads heads, Dropout dropout) {              \
        if (dropout.threshold) {                                                                       \
            backward_queries<D, true>(q, k, v, dcontext, log_sums, deltas, dq, tiles, heads, dropout); \
        } else {                                                                                       \
            backward_queries<D, false>(q, k, v, dcontext, log_sums, deltas, dq, tiles, heads,          \
                                       dropout);                                                       \
        }                                                                                              \
    }
#define WIDTHS(T, name)                                                                                \
    ATTENTION(T, name, 32)                                                                             \
    ATTENTION(T, name, 64)                                                                             \
    ATTENTION(T, name, 96)                                                                             \
    ATTENTION(T, name, 128)
