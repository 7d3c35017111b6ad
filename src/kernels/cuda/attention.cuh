// The bodies of attention's kernels, over whichever products of tiles the including .cu has brought
// in; so it has no guard. What they compute and how: attention.cu.
const float LOG2_E = 1.44269504f;

struct Heads {
    u64 num_tokens;
    int num_heads;
    float scale;
};

// Two stages of two tiles each, filled ahead.
template <int D, typename T> struct Stages {
    T *memory;
    __device__ T *first(int stage) { return memory + (2 * stage) * Pitch<D>::SIZE; }
    __device__ T *second(int stage) { return memory + (2 * stage + 1) * Pitch<D>::SIZE; }
    __device__ void fill(int number, const T *left, const T *right, u32 length, u64 stride) {
        if ((u32)number * TILE < length) {
            copy_tile<D>(first(number % 2), left, number * TILE, length, stride);
            copy_tile<D>(second(number % 2), right, number * TILE, length, stride);
        }
        commit_copies();
    }
};

template <int D, bool DROPS, typename T>
__device__ inline void forward(const T *q, const T *k, const T *v, T *context, float *log_sums,
                               const Tile *tiles, Heads heads, Dropout dropout) {
    const Tile tile = tiles[blockIdx.x];
    int head = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u64 stride = (u64)heads.num_heads * D, at = tile.start * stride + head * D;
    T *queries = reinterpret_cast<T *>(dynamic_shared());
    Stages<D, T> stages = {queries + Pitch<D>::SIZE};
    copy_tile<D>(queries, q + at, tile.first, tile.length, stride);
    stages.fill(0, k + at, v + at, tile.length, stride);

    // Of this lane's two rows, g and g + 8 of the warp's.
    u32 row = tile.first + 16 * warp + lane / 4;
    float largest[2] = {-INFINITY, -INFINITY}, total[2] = {0.0f, 0.0f};
    u32 key = query_key(dropout, tile.start, row, heads.num_heads, head);
    float sums[D / 8][4] = {};
    float scale = heads.scale * LOG2_E;
    Kept<D> kept_queries;
    for (int number = 0; (u32)number * TILE < tile.length; number++) {
        stages.fill(number + 1, k + at, v + at, tile.length, stride);
        wait_copies<1>();
        __syncthreads();
        if (number == 0) kept_queries.take(queries);
        float scores[8][4];
        multiply_tiles<D>(scores, kept_queries, stages.first(number % 2));
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
            int left = i / 2 * 2, first = i % 2;
            u32 hash = DROPS ? square(key, column + 8 * left + first) : 0;
            for (int of = 0; of < 4; of++) {
                float &score = scores[left + of % 2][first + of / 2 * 2];
                float p = power_of_2(score * scale - shift[of / 2]);
                total[of / 2] += p;
                if (DROPS && !square_keeps(dropout.threshold, hash, of / 2, of % 2)) p = 0.0f;
                score = p;
            }
        }
#pragma unroll
        for (int i = 0; i < D / 8; i++)
            for (int j = 0; j < 4; j++) sums[i][j] *= fade[j / 2];
        multiply_weights<D>(sums, scores, stages.second(number % 2));
        __syncthreads();
    }
    wait_copies<0>();
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
    SHARED float query_sums[TILE], query_deltas[TILE];
    SHARED u32 query_keys[TILE];
    const Tile tile = tiles[blockIdx.x];
    int head = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u64 stride = (u64)heads.num_heads * D, at = tile.start * stride + head * D;
    T *keys = reinterpret_cast<T *>(dynamic_shared()), *values = keys + Pitch<D>::SIZE;
    Stages<D, T> stages = {values + Pitch<D>::SIZE};
    copy_tile<D>(keys, k + at, tile.first, tile.length, stride);
    copy_tile<D>(values, v + at, tile.first, tile.length, stride);
    stages.fill(0, q + at, dcontext + at, tile.length, stride);
    u32 row = tile.first + 16 * warp + lane / 4;
    float dk_sums[D / 8][4] = {}, dv_sums[D / 8][4] = {};
    float scale = heads.scale * LOG2_E;
    for (int number = 0; (u32)number * TILE < tile.length; number++) {
        stages.fill(number + 1, q + at, dcontext + at, tile.length, stride);
        if (threadIdx.x < TILE) {
            u32 query = number * TILE + threadIdx.x;
            u64 token = tile.start + query, from = head * heads.num_tokens + token;
            bool there = query < tile.length;
            query_sums[threadIdx.x] = there ? log_sums[from] * LOG2_E : INFINITY;
            query_deltas[threadIdx.x] = there ? deltas[from] : 0.0f;
            query_keys[threadIdx.x] = query_key(dropout, tile.start, query, heads.num_heads, head);
        }
        wait_copies<1>();
        __syncthreads();
        const T *queries = stages.first(number % 2), *gradients = stages.second(number % 2);
        float p[8][4], ds[8][4];
        multiply_tiles<D>(p, Reread<D, T>{keys}, queries);
        multiply_tiles<D>(ds, Reread<D, T>{values}, gradients);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            // A square of the mask: queries 8 apart, and rows (of keys) 8 apart.
            int left = i / 2 * 2, first = i % 2, query = 8 * left + 2 * (lane % 4) + first;
            u32 hash = DROPS ? square(query_keys[query], row) : 0;
            for (int of = 0; of < 4; of++) {
                int column = query + 8 * (of % 2);
                float &weight = p[left + of % 2][first + of / 2 * 2];
                float &gradient = ds[left + of % 2][first + of / 2 * 2];
                float probability = power_of_2(weight * scale - query_sums[column]);
                float factor = DROPS ? dropout.scale : 1.0f;
                bool drops = DROPS && !square_keeps(dropout.threshold, hash, of % 2, of / 2);
                weight = drops ? 0.0f : probability;
                gradient = probability * (gradient * (drops ? 0.0f : factor) - query_deltas[column]);
            }
        }
        multiply_weights<D>(dv_sums, p, gradients);
        multiply_weights<D>(dk_sums, ds, queries);
        __syncthreads();
    }
    wait_copies<0>();
    write_rows<D>(dk + at, dk_sums, heads.scale, heads.scale, tile.first, tile.length, stride);
    write_rows<D>(dv + at, dv_sums, dropout.scale, dropout.scale, tile.first, tile.length, stride);
}

// dq of 64 queries: the block goes over all keys of the cell.
template <int D, bool DROPS, typename T>
__device__ inline void backward_queries(const T *q, const T *k, const T *v, const T *dcontext,
                                        const float *log_sums, const float *deltas, T *dq,
                                        const Tile *tiles, Heads heads, Dropout dropout) {
    const Tile tile = tiles[blockIdx.x];
    int head = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u64 stride = (u64)heads.num_heads * D, at = tile.start * stride + head * D;
    T *queries = reinterpret_cast<T *>(dynamic_shared()), *gradients = queries + Pitch<D>::SIZE;
    Stages<D, T> stages = {gradients + Pitch<D>::SIZE};
    copy_tile<D>(queries, q + at, tile.first, tile.length, stride);
    copy_tile<D>(gradients, dcontext + at, tile.first, tile.length, stride);
    stages.fill(0, k + at, v + at, tile.length, stride);
    u32 row = tile.first + 16 * warp + lane / 4;
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
        stages.fill(number + 1, k + at, v + at, tile.length, stride);
        wait_copies<1>();
        __syncthreads();
        const T *keys = stages.first(number % 2), *values = stages.second(number % 2);
        float p[8][4], ds[8][4];
        multiply_tiles<D>(p, Reread<D, T>{queries}, keys);
        multiply_tiles<D>(ds, Reread<D, T>{gradients}, values);
        u32 column = number * TILE + 2 * (lane % 4);
        bool is_partial = (u32)(number + 1) * TILE > tile.length;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int left = i / 2 * 2, first = i % 2;
            u32 hash = DROPS ? square(key, column + 8 * left + first) : 0;
            for (int of = 0; of < 4; of++) {
                float weight = p[left + of % 2][first + of / 2 * 2];
                float &gradient = ds[left + of % 2][first + of / 2 * 2];
                float probability = power_of_2(weight * scale - row_sums[of / 2]);
                float factor = DROPS ? dropout.scale : 1.0f;
                if (DROPS && !square_keeps(dropout.threshold, hash, of / 2, of % 2)) factor = 0.0f;
                gradient = probability * (gradient * factor - row_deltas[of / 2]);
                // Beyond the cell's end the probability may be anything.
                bool there = column + 8 * (left + of % 2) + first < tile.length;
                if (is_partial && !there) gradient = 0.0f;
            }
        }
        multiply_weights<D>(dq_sums, ds, keys);
        __syncthreads();
    }
    wait_copies<0>();
    write_rows<D>(dq + at, dq_sums, heads.scale, heads.scale, tile.first, tile.length, stride);
}
