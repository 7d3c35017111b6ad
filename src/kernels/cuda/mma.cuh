// Products of 64 × 64 tiles by mma.sync, for attention (attention.cuh). A group's four warps share a
// tile; each multiplies 16 of its rows, fragment by fragment, and has the result when it goes on.
//
// A tile in shared memory has 64 rows of D numbers, 16 bytes between rows, so that the eight rows of
// a matrix that ldmatrix reads lie in different banks.
#pragma once
#include "tiles.cuh"

// Groups of a block, and blocks that are to fit on a multiprocessor (0: as many as do).
struct Shape {
    int groups, blocks;
};
constexpr Shape forward_shape(int) { return {1, 0}; }
constexpr Shape keys_shape(int) { return {1, 0}; }
constexpr Shape queries_shape(int) { return {1, 0}; }

template <int D> struct Pitch {
    static const int WIDTH = D % 64 ? 32 : 64;
    static const int ROW = D + 8;
    static const int BLOCK = WIDTH;
    static const int SIZE = TILE * ROW;
};

template <typename T> __device__ inline T *tile_memory() {
    return reinterpret_cast<T *>(dynamic_shared());
}

// Where a tile has piece `piece` of 8 numbers of a row.
template <int D> __device__ inline int place(int row, int piece) {
    return row * Pitch<D>::ROW + piece * 8;
}

// Waits until what all threads have copied is there.
__device__ inline void wait_for_tiles() {
    wait_copies<0>();
    __syncthreads();
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
template <int D, typename T> struct Kept {
    unsigned pieces[D / 16][4];
    __device__ void take(const T *tile) {
#pragma unroll
        for (int k = 0; k < D; k += 16) left_side<D>(pieces[k / 16], tile, k);
    }
};
// Queries of the forward pass stay in registers.
template <int D, typename T> using ForwardQueries = Kept<D, T>;
// Or read anew each time, where registers are short.
template <int D, typename T> struct Reread {
    const T *tile;
};
template <int D, typename T>
__device__ inline void left_piece(unsigned (&to)[4], const Kept<D, T> &from, int k) {
#pragma unroll
    for (int i = 0; i < 4; i++) to[i] = from.pieces[k / 16][i];
}
template <int D, typename T>
__device__ inline void left_piece(unsigned (&to)[4], const Reread<D, T> &from, int k) {
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
        left_piece(a, left, k);
#pragma unroll
        for (int i = 0; i < 8; i += 2) {
            load_matrices(b, at + (8 * i * Pitch<D>::ROW + k) * (int)sizeof(T));
            multiply_add(sums[i], a, b[0], b[1], T());
            multiply_add(sums[i + 1], a, b[2], b[3], T());
        }
    }
}

// to [16 × D] += weights [16 × 64] · right [64 × D].
template <int D, typename T>
__device__ inline void multiply_weights(float (&to)[D / 8][4], const Weights<T> &weights,
                                        const T *right) {
    int lane = threadIdx.x % 32;
    SharedAddress at = lane_place<D>(right, lane % 16, lane / 16 * 8);
#pragma unroll
    for (int k = 0; k < 4; k++) {
#pragma unroll
        for (int i = 0; i < D / 8; i += 2) {
            unsigned b[4];
            load_transposed(b, at + (16 * k * Pitch<D>::ROW + 8 * i) * (int)sizeof(T));
            multiply_add(to[i], weights.pieces[k], b[0], b[1], T());
            multiply_add(to[i + 1], weights.pieces[k], b[2], b[3], T());
        }
    }
}

// Products are done when they are called.
template <int PENDING, typename... Held> __device__ inline void finish(Held &...) {}
