// Attention within each cell of a packed batch on tensor cores, bf16 or f16, heads of 32, 64, 96 or
// 128 numbers: src/kernels/attention.rs. The method is that of FlashAttention-2 (Dao, 2023): scores
// of a 64 × 64 tile live in registers, the softmax is corrected as larger scores come, and the way
// back computes the probabilities once more from the log of each row's sum. Gradients of keys and
// values are summed by the block that has the keys, those of queries by the block that has the
// queries, so that nothing is added atomically and every run gives the same bits.
//
// q, k, v, context [T, H · D]; log_sums, deltas [H, T]. A block of 128 threads has a tile of 64 rows
// of one cell and one head (blockIdx.y). The dropout of a probability is that of the CPU, four bits at
// a time, which are all a lane's own, on the way forward and back. Exponentials are powers of 2, of
// scores times log₂ e.
#include "mma.cuh"

#include "attention.cuh"

WIDTHS(bf16, bf16)
WIDTHS(f16, f16)
