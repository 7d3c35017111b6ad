// Embeddings: dropout(LayerNorm(word[id] + type[type id])) in one pass, and the gradient of a table
// as sums over the tokens of each id: src/kernels/embedding.rs. The host sorts the tokens by id; a
// long run is cut into pieces whose sums are added in order, so nothing is added atomically.
#include "rows.cuh"

template <int N, typename T>
__device__ inline void embed_rows(const float *word, const float *types, const u32 *ids,
                                  const u32 *type_ids, Normalized<T> to, u64 rows, int width) {
    float *cache = reinterpret_cast<float *>(dynamic_shared()) + threadIdx.x / 32 * placed(width);
    u64 row = (u64)blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= rows) return;
    const float *left = word + (u64)ids[row] * width, *right = types + (u64)type_ids[row] * width;
    auto read = [&](int column, float(&values)[N]) {
        float more[N];
        load<N>(values, left + column);
        load<N>(more, right + column);
        for (int i = 0; i < N; i++) values[i] += more[i];
    };
    normalize_row<N>(to, row, width, cache, read);
}

// Blocks of 128 threads take 4 tokens; shared memory: 4 · placed(width) floats.
#define FORWARD(T, name)                                                                               \
    KERNEL embedding_forward_##name(const float *word, const float *types, const u32 *ids,             \
                                    const u32 *type_ids, const float *weight, const float *bias,       \
                                    float eps, T *normalized, T *y, float *inverse, Dropout dropout,   \
                                    u64 rows, int width) {                                             \
        Normalized<T> to = {weight, bias, eps, dropout, normalized, y, inverse};                       \
        WITH_VECTORS(T, width, (embed_rows<N, T>(word, types, ids, type_ids, to, rows, width)))        \
    }
FOR_EACH_TYPE(FORWARD)

// Tokens order[first .. first + count] have one id: their gradients' sum goes to row `row` of the
// values, or of the parts where the id has other pieces.
struct Piece {
    u32 first, count, row, is_part;
};

template <typename T>
__device__ inline void add_piece(const T *dx, const u32 *order, const Piece *pieces, float *values,
                                 float *parts, int width) {
    Piece piece = pieces[blockIdx.x];
    float *to = (piece.is_part ? parts : values) + (u64)piece.row * width;
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        float sum = 0.0f;
        for (u32 i = 0; i < piece.count; i++) {
            sum += to_float(dx[(u64)order[piece.first + i] * width + column]);
        }
        to[column] = sum;
    }
}

// A block for each piece.
#define SCATTER(T, name)                                                                               \
    KERNEL embedding_scatter_##name(const T *dx, const u32 *order, const Piece *pieces, float *values, \
                                    float *parts, int width) {                                         \
        add_piece(dx, order, pieces, values, parts, width);                                            \
    }
FOR_EACH_TYPE(SCATTER)

// Parts [first .. first + count] are those of row `row` of the values.
struct Run {
    u32 first, count, row;
};

// A block for each run of several pieces.
KERNEL embedding_join(const float *parts, const Run *runs, float *values, int width) {
    Run run = runs[blockIdx.x];
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        float sum = 0.0f;
        for (u32 i = 0; i < run.count; i++) sum += parts[(u64)(run.first + i) * width + column];
        values[(u64)run.row * width + column] = sum;
    }
}
