// Products of 64 × 64 tiles on tensor cores, for attention. Four warps share a tile; each has 16 of
// its rows, and holds its part of a result as fragments: of a 16 × 8 piece, lane 4 g + t holds the
// numbers (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
//
// A tile in shared memory has 64 rows of D numbers, 16 bytes between rows, so that the eight rows of
// a matrix that ldmatrix reads lie in different banks.
#pragma once
#include "device.cuh"

const int TILE = 64;
const int THREADS = 128;

// Which rows of a cell a block has: those from `first` on of the cell that begins at token `start`.
struct Tile {
    u32 start, length, first;
};

template <int D> struct Pitch {
    static const int ROW = D + 8;
    static const int SIZE = TILE * ROW;
};

// Begins to copy rows [first, first + 64) of a cell to a tile; rows past its end become zero.
// `from` is the head's first number of the cell, `stride` the width of all heads.
template <int D, typename T>
__device__ inline void copy_tile(T *to, const T *from, u32 first, u32 length, u64 stride) {
    const int PIECES = D / 8;
#pragma unroll
    for (int turn = 0; turn < TILE * PIECES / THREADS; turn++) {
        int i = turn * THREADS + threadIdx.x, row = i / PIECES, column = i % PIECES * 8;
        bool there = first + row < length;
        const T *at = from + (there ? first + row : 0) * stride + column;
        copy16(to + row * Pitch<D>::ROW + column, at, there);
    }
}

// Where this lane's row of four 8 × 8 matrices begins that ldmatrix reads from a tile: the lane adds
// `rows` and `columns` once, products add what all lanes share.
template <int D, typename T>
__device__ inline SharedAddress lane_place(const T *tile, int rows, int columns) {
    return shared_address(tile) + (rows * Pitch<D>::ROW + columns) * (int)sizeof(T);
}

// Of the warp's 16 rows of a tile, the 16 columns from `column` on, as the left side of a product.
template <int D, typename T>
__device__ inline void left_side(unsigned (&to)[4], const T *tile, int column) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    SharedAddress at = lane_place<D>(tile, 16 * warp + lane % 16, lane / 16 * 8);
    load_matrices(to, at + column * (int)sizeof(T));
}

// All of the warp's rows of a tile in registers, for a tile that is multiplied with many.
template <int D> struct Kept {
    unsigned pieces[D / 16][4];
    template <typename T> __device__ void take(const T *tile) {
#pragma unroll
        for (int k = 0; k < D; k += 16) left_side<D>(pieces[k / 16], tile, k);
    }
};
// Or read anew each time, where registers are short.
template <int D, typename T> struct Reread {
    const T *tile;
};
template <int D, typename T>
__device__ inline void left_piece(unsigned (&to)[4], const Kept<D> &from, int k, T) {
#pragma unroll
    for (int i = 0; i < 4; i++) to[i] = from.pieces[k / 16][i];
}
template <int D, typename T>
__device__ inline void left_piece(unsigned (&to)[4], const Reread<D, T> &from, int k, T) {
    left_side<D>(to, from.tile, k);
}

// sums [16 × 64] = left · rightᵀ, of the warp's rows of one tile and all rows of the other.
template <int D, typename T, typename Left>
__device__ inline void multiply_tiles(float (&sums)[8][4], const Left &left, const T *right) {
    int lane = threadIdx.x % 32;
    SharedAddress at = lane_place<D>(right, lane % 8 + lane / 16 * 8, lane / 8 % 2 * 8);
#pragma unroll
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 4; j++) sums[i][j] = 0.0f;
#pragma unroll
    for (int k = 0; k < D; k += 16) {
        unsigned a[4], b[4];
        left_piece(a, left, k, T());
#pragma unroll
        for (int i = 0; i < 8; i += 2) {
            load_matrices(b, at + (8 * i * Pitch<D>::ROW + k) * (int)sizeof(T));
            multiply_add(sums[i], a, b[0], b[1], T());
            multiply_add(sums[i + 1], a, b[2], b[3], T());
        }
    }
}

// to [16 × D] += weights [16 × 64] · right [64 × D], the weights rounded to T.
template <int D, typename T>
__device__ inline void multiply_weights(float (&to)[D / 8][4], const float (&weights)[8][4],
                                        const T *right) {
    int lane = threadIdx.x % 32;
    SharedAddress at = lane_place<D>(right, lane % 16, lane / 16 * 8);
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const float(&low)[4] = weights[2 * k], (&high)[4] = weights[2 * k + 1];
        unsigned a[4] = {pair(low[0], low[1], T()), pair(low[2], low[3], T()),
                         pair(high[0], high[1], T()), pair(high[2], high[3], T())};
#pragma unroll
        for (int i = 0; i < D / 8; i += 2) {
            unsigned b[4];
            load_transposed(b, at + (16 * k * Pitch<D>::ROW + 8 * i) * (int)sizeof(T));
            multiply_add(to[i], a, b[0], b[1], T());
            multiply_add(to[i + 1], a, b[2], b[3], T());
        }
    }
}

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
