// Attention within each cell of a packed batch on tensor cores, bf16 or f16, heads of 32, 64, 96 or
// 128 numbers: src/kernels/attention.rs. The method is that of FlashAttention-2 (Dao, 2023): scores
// of a 64 × 64 tile live in registers, the softmax is corrected as larger scores come, and the way
// back computes the probabilities once more from the log of each row's sum. Gradients of keys and
// values are summed by the block that has the keys, those of queries by the block that has the
// queries, so that nothing is added atomically and every run gives the same bits.
//
// q, k, v, context [T, H · D]; log_sums, deltas [H, T]. A block of 128 threads has a tile of 64 rows
// of one cell and one head (blockIdx.y). The dropout of a probability is that of the CPU: row
// token · H + head, column the key's place in its cell. Exponentials are powers of 2, of scores times
// log₂ e.
#include "tiles.cuh"

#include "attention.cuh"

// Shared memory in tiles of 64 · (D + 8) numbers: 5 forward, 6 on the way back.
#define ATTENTION(T, name, D)                                                                          \
    KERNEL __launch_bounds__(THREADS)\
        attention_forward_##name##_##D(const T *q, const T *k, const T *v, T *context,                 \
                                       float *log_sums, const Tile *tiles, Heads heads,                \
                                       Dropout dropout) {                                              \
        if (dropout.threshold) {                                                                       \
            forward<D, true>(q, k, v, context, log_sums, tiles, heads, dropout);                       \
        } else {                                                                                       \
            forward<D, false>(q, k, v, context, log_sums, tiles, heads, dropout);                      \
        }                                                                                              \
    }                                                                                                  \
    KERNEL __launch_bounds__(THREADS)\
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
    KERNEL __launch_bounds__(THREADS)\
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
WIDTHS(bf16, bf16)
WIDTHS(f16, f16)
