// Products of 64 × 64 tiles by Hopper's warpgroups, for attention (attention.cuh); instructions and
// their rules: warpgroup.cuh.
//
// A tile of 64 rows of D numbers lies in shared memory as blocks of WIDTH columns (64; 32 for heads of
// 32 and 96), one after the other, each with its 64 rows one after the other, 2 · WIDTH bytes apart.
// So that eight rows lie in different banks, the 16-byte pieces of a row change places: place p of row
// r has piece p ^ (r % 8) of 8, or p ^ (r / 2 % 4) of 4, which is the swizzle of 128 or 64 bytes: of an
// address, bits 4 to 6 (4, 5) are those of the piece xor bits 7 to 9 (7, 8), which are the row's.
// Patterns repeat every 8 rows; tiles begin at multiples of 1024 bytes.
//
// Read by rows (`ByRows`, K-major: 16 numbers of each of 64 rows) a descriptor has the stride of 8
// rows; the leading offset is not used, as 16 numbers lie within a pattern, and the start moves 32
// bytes for each 16 numbers, the swizzle being that of the address that results. Read by columns
// (`ByColumns`, MN-major: all D numbers of each of 16 rows) the stride is that of 8 rows too, the
// leading offset that of blocks, and the start moves 16 rows. Both as in the PTX manual's canonical
// layouts, in CUTLASS's make_gmma_desc and in ThunderKittens's st_descriptor.
#pragma once
#include <type_traits>

#include "tiles.cuh"
#include "warpgroup.cuh"

// Groups of a block, and blocks that are to fit on a multiprocessor.
struct Shape {
    int groups, blocks;
};
constexpr Shape forward_shape(int) { return {2, 2}; }
constexpr Shape keys_shape(int d) { return {1, d <= 64 ? 3 : 2}; }
constexpr Shape queries_shape(int d) {
    return d <= 64 ? Shape{2, 2} : d <= 96 ? Shape{1, 3} : Shape{1, 2};
}

template <int D> struct Pitch {
    static const int WIDTH = D % 64 ? 32 : 64;
    static const int ROW = WIDTH;
    static const int BLOCK = TILE * WIDTH;
    static const int SIZE = TILE * D;
};

template <typename T> __device__ inline T *tile_memory() {
    return reinterpret_cast<T *>(patterned_shared());
}

// Where a tile has piece `piece` of 8 numbers of a row of a block of columns.
template <int D> __device__ inline int place(int row, int piece) {
    const int WIDTH = Pitch<D>::WIDTH;
    return row * WIDTH + (piece ^ (WIDTH == 64 ? row % 8 : row / 2 % 4)) * 8;
}

// Waits until what all threads have copied is there, for tensor cores as well.
__device__ inline void wait_for_tiles() {
    wait_copies<0>();
    publish_copies();
    __syncthreads();
}

template <int D, typename T> __device__ inline u64 descriptor(const T *tile, u32 leading) {
    const u64 SWIZZLE = Pitch<D>::WIDTH == 64 ? 1 : 2, STRIDE = 8 * Pitch<D>::ROW * sizeof(T);
    return shared_address(tile) / 16 | (u64)(leading / 16) << 16 | STRIDE / 16 << 32 | SWIZZLE << 62;
}
// A matrix that begins so many numbers further; addresses have room for it.
template <typename T> __device__ inline u64 moved(u64 matrix, u32 numbers, T) {
    return (matrix >> 32 << 32) | ((u32)matrix + numbers * (u32)sizeof(T) / 16);
}
// Rows of a tile, of 16 columns from 16 k on.
template <int D, typename T> struct ByRows {
    u64 first;
    __device__ explicit ByRows(const T *tile) : first(descriptor<D>(tile, 16)) {}
    __device__ u64 piece(int k) const {
        const int WIDTH = Pitch<D>::WIDTH;
        return moved(first, 16 * k / WIDTH * Pitch<D>::BLOCK + 16 * k % WIDTH, T());
    }
};
// Columns of a tile, of 16 rows from 16 k on.
template <int D, typename T> struct ByColumns {
    u64 first;
    __device__ explicit ByColumns(const T *tile)
        : first(descriptor<D>(tile, Pitch<D>::BLOCK * sizeof(T))) {}
    __device__ u64 piece(int k) const { return moved(first, 16 * k * Pitch<D>::ROW, T()); }
};

// All of the group's rows of a tile in registers, for a tile that is multiplied with many.
template <int D, typename T> struct Kept {
    unsigned pieces[D / 16][4];
    __device__ void take(const T *tile) {
        int lane = threadIdx.x % 32, row = threadIdx.x % GROUP / 32 * 16 + lane % 16;
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
            int piece = 2 * k + lane / 16, block = piece / (Pitch<D>::WIDTH / 8);
            const T *at = tile + block * Pitch<D>::BLOCK + place<D>(row, piece % (Pitch<D>::WIDTH / 8));
            load_matrices(pieces[k], shared_address(at));
        }
    }
    __device__ const unsigned (&piece(int k) const)[4] { return pieces[k]; }
};
// Or read anew each time, where registers are short.
template <int D, typename T> struct Reread {
    const T *tile;
    __device__ void take(const T *from) { tile = from; }
    __device__ u64 piece(int k) const { return ByRows<D, T>(tile).piece(k); }
};
template <int D, typename T>
using ForwardQueries = std::conditional_t<D <= 64, Kept<D, T>, Reread<D, T>>;

// Begins sums [64 × 64] = left · rightᵀ, of the group's rows of one tile and all rows of the other.
template <int D, typename T, typename Left>
__device__ inline void multiply_tiles(float (&sums)[8][4], const Left &left, const T *right) {
    ByRows<D, T> rows(right);
    open_products();
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        multiply_group<false>(sums, left.piece(k), rows.piece(k), k > 0, T());
    commit_products();
}

// Begins to [64 × D] += weights [64 × 64] · right [64 × D].
template <int D, typename T>
__device__ inline void multiply_weights(float (&to)[D / 8][4], Weights<T> &weights, const T *right) {
    ByColumns<D, T> columns(right);
    hold(to), hold(weights.pieces);
    open_products();
#pragma unroll
    for (int k = 0; k < 4; k++)
        multiply_group<true>(to, weights.pieces[k], columns.piece(k), true, T());
    commit_products();
}

// Waits for all products but the last PENDING; `held` is what those that are done now had in registers.
template <int PENDING, typename... Held> __device__ inline void finish(Held &...held) {
    wait_products<PENDING>();
    (hold(held), ...);
}
