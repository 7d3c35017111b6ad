// A row for a warp: lanes take turns at vectors of N numbers, so that a warp reads 512 bytes at once
// where rows are aligned. Nothing here is shared between lanes but what warp_sum adds up.
#pragma once
#include "device.cuh"

// Rows that a block works on at once, a warp each.
const int WARPS = 4;

template <typename T, int N> struct alignas(N * sizeof(T)) Pack {
    T values[N];
};

template <int N, typename T> __device__ inline void load(float (&to)[N], const T *from) {
    Pack<T, N> pack = *reinterpret_cast<const Pack<T, N> *>(from);
    for (int i = 0; i < N; i++) to[i] = to_float(pack.values[i]);
}
template <int N, typename T> __device__ inline void store(T *to, const float (&from)[N]) {
    Pack<T, N> pack;
    for (int i = 0; i < N; i++) pack.values[i] = from_float<T>(from[i]);
    *reinterpret_cast<Pack<T, N> *>(to) = pack;
}

// Numbers of 16 bytes of T.
template <typename T> struct Vector {
    static const int SIZE = 16 / sizeof(T);
};

// Calls `body<N>()` with the widest vector that divides rows of `width`.
#define WITH_VECTORS(T, width, call)                                                                   \
    if ((width) % Vector<T>::SIZE == 0) {                                                              \
        const int N = Vector<T>::SIZE;                                                                 \
        call;                                                                                          \
    } else {                                                                                           \
        const int N = 1;                                                                               \
        call;                                                                                          \
    }

// What is normalised: y = x̂ · weight + bias, then dropout.
template <typename T> struct Normalized {
    const float *weight, *bias;
    float eps;
    Dropout dropout;
    T *normalized, *y;
    float *inverse;
};

// Where a lane puts number `i` of its piece of N that begins at `column`: the lanes' numbers lie side
// by side, so that they meet in no bank.
template <int N> __device__ inline int place(int column, int i) {
    int in_turn = column % (32 * N);
    return column - in_turn + i * 32 + in_turn / N;
}
// What `width` numbers take when they are placed so, for every N there is.
__device__ inline int placed(int width) { return (width + 255) / 256 * 256; }

// Normalises the row that `read(column, values)` gives in pieces of N. `cache` is the warp's, of
// `placed(width)` numbers; a lane finds there only what it has put there.
template <int N, typename T, typename Read>
__device__ inline void normalize_row(const Normalized<T> &to, u64 row, int width, float *cache,
                                     Read read) {
    int lane = threadIdx.x % 32;
    float sum = 0.0f, squares = 0.0f, values[N];
    for (int column = lane * N; column < width; column += 32 * N) {
        read(column, values);
        for (int i = 0; i < N; i++) {
            cache[place<N>(column, i)] = values[i];
            sum += values[i];
        }
    }
    float mean = warp_sum(sum) / width;
    for (int column = lane * N; column < width; column += 32 * N) {
        for (int i = 0; i < N; i++) {
            float centered = cache[place<N>(column, i)] - mean;
            squares += centered * centered;
        }
    }
    float inverse = 1.0f / sqrtf(warp_sum(squares) / width + to.eps);
    if (lane == 0) to.inverse[row] = inverse;
    u32 key = row_key(to.dropout, row);
    for (int column = lane * N; column < width; column += 32 * N) {
        float weight[N], bias[N], y[N];
        load<N>(weight, to.weight + column);
        load<N>(bias, to.bias + column);
        for (int i = 0; i < N; i++) {
            values[i] = (cache[place<N>(column, i)] - mean) * inverse;
            y[i] = values[i] * weight[i] + bias[i];
            if (to.dropout.threshold) y[i] *= kept(to.dropout, key, column + i);
        }
        store<N>(to.normalized + row * width + column, values);
        store<N>(to.y + row * width + column, y);
    }
}
