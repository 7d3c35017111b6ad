// Tiles of 64 rows, for attention: what is the same for both sets of products, mma.cuh (any device of
// ours) and wgmma.cuh (Hopper's own instructions). 128 threads, a group, have 64 rows of a result in
// registers, each warp 16 of them as fragments: of a 16 × 8 piece, lane 4 g + t holds the numbers
// (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
#pragma once
#include "device.cuh"

const int TILE = 64;
const int GROUP = 128;
// Rows that an entry of the table of tiles stands for: the most of a block.
const int TABLE_ROWS = 2 * TILE;

// Which rows of a cell a block has: those from `first` on of the cell that begins at token `start`.
struct Tile {
    u32 start, length, first;
};

// The left side [64 × 64] of a product, rounded to T: of each 16 columns what a tensor core takes.
template <typename T> struct Weights {
    unsigned pieces[4][4];
    __device__ explicit Weights(const float (&from)[8][4]) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const float(&low)[4] = from[2 * k], (&high)[4] = from[2 * k + 1];
            pieces[k][0] = pair(low[0], low[1], T());
            pieces[k][1] = pair(low[2], low[3], T());
            pieces[k][2] = pair(high[0], high[1], T());
            pieces[k][3] = pair(high[2], high[3], T());
        }
    }
};

// Writes the warp's rows that the cell has, times `factors` (of rows g and g + 8).
template <int D, typename T>
__device__ inline void write_rows(T *to, const float (&from)[D / 8][4], float low, float high,
                                  u32 first, u32 length, u64 stride) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 row = first + 16 * warp + lane / 4;
    T *at = to + row * stride + 2 * (lane % 4);
#pragma unroll
    for (int i = 0; i < D / 8; i++) {
        if (row < length) {
            unsigned both = pair(from[i][0] * low, from[i][1] * low, T());
            *reinterpret_cast<unsigned *>(at + 8 * i) = both;
        }
        if (row + 8 < length) {
            unsigned both = pair(from[i][2] * high, from[i][3] * high, T());
            *reinterpret_cast<unsigned *>(at + 8 * stride + 8 * i) = both;
        }
    }
}
