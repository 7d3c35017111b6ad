// What every kernel stands on: number types, counted dropout, sums over a block, and the few
// instructions that have no name in C++ (asynchronous copies, tensor-core products).
//
// The same text compiles as plain C++ against scripts/cuda/simulate/host.h, which runs the threads
// of a block one after the other between barriers; so kernels take shared memory by SHARED and
// dynamic_shared(), and every instruction that the host lacks stands here and there.
#pragma once

#ifdef GENE_BERT_SIMULATE
#include "host.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef __nv_bfloat16 bf16;
typedef __half f16;

#define SHARED __shared__
#define KERNEL extern "C" __global__ void

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __bfloat162float(x); }
__device__ inline float to_float(f16 x) { return __half2float(x); }
template <typename T> __device__ T from_float(float x);
template <> __device__ inline float from_float<float>(float x) { return x; }
template <> __device__ inline bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ inline f16 from_float<f16>(float x) { return __float2half_rn(x); }

__device__ inline unsigned char *dynamic_shared() {
    extern __shared__ __align__(16) unsigned char memory[];
    return memory;
}

// A place in shared memory, in bytes.
typedef unsigned SharedAddress;
__device__ inline SharedAddress shared_address(const void *at) {
    return (SharedAddress)__cvta_generic_to_shared(at);
}

// Copies 16 bytes from global to shared memory without waiting; zeros where `there` is false.
__device__ inline void copy16(void *to, const void *from, bool there) {
    SharedAddress at = shared_address(to);
    int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(at), "l"(from), "r"(bytes));
}
// Ends a group of copies.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;\n" ::); }
// Waits until at most `PENDING` of this thread's groups are still under way.
template <int PENDING> __device__ inline void wait_copies() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(PENDING));
}

// Four 8 × 8 matrices of 16-bit numbers; lane 8 i + r gives the address of row r of matrix i. Lane l
// receives of each matrix the numbers (l / 4, 2 (l % 4)) and the one to its right.
__device__ inline void load_matrices(unsigned (&to)[4], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row));
}
// The same of the matrices' transposes.
__device__ inline void load_transposed(unsigned (&to)[4], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row));
}

// c [16 × 8] += a [16 × 16] · b [16 × 8] on tensor cores, f32 sums. Lane l = 4 g + t holds of c the
// numbers (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
__device__ inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                    bf16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                    f16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Whether it is so for any lane of the warp.
__device__ inline bool any_lane(bool is_so) { return __any_sync(0xffffffffu, is_so); }

// 2 to the power of x.
__device__ inline float power_of_2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1 / x, within an ulp.
__device__ inline float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Two numbers in one register, the first in the lower half.
__device__ inline unsigned pair(float low, float high, bf16) {
    __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<unsigned *>(&both);
}
__device__ inline unsigned pair(float low, float high, f16) {
    __half2 both = __floats2half2_rn(low, high);
    return *reinterpret_cast<unsigned *>(&both);
}
#endif

typedef unsigned int u32;
typedef unsigned long long u64;

// Defines the kernel NAME_f32, NAME_bf16 and NAME_f16 of a template `NAME<T>`.
#define FOR_EACH_TYPE(DEFINE)                                                                          \
    DEFINE(float, f32)                                                                                 \
    DEFINE(bf16, bf16)                                                                                 \
    DEFINE(f16, f16)

// Dropout of one place in the model: the bits of src/kernels/dropout.rs. A threshold of 0 keeps all.
struct Dropout {
    u64 key;
    u32 threshold;
    float scale;
};

__device__ inline u32 row_key(const Dropout &dropout, u64 row) {
    u64 mixed = (row ^ dropout.key) * 0x9E3779B97F4A7C15ull;
    mixed = (mixed ^ (mixed >> 32)) * 0xD6E8FEB86659FD93ull;
    return (u32)(mixed ^ (mixed >> 32));
}

__device__ inline bool keeps(u32 threshold, u32 key, u32 column) {
    u32 hash = (column * 0x9E3779B1u) ^ key;
    hash = (hash ^ (hash >> 16)) * 0x7FEB352Du;
    hash = (hash ^ (hash >> 15)) * 0x846CA68Bu;
    return (hash ^ (hash >> 16)) >= threshold;
}

// Attention's masks: four bits share a hash, those of queries q and q + 8 and keys k and k + 8, where
// neither place in the cell has the bit 8. `key` is the row_key of the query's token, as if it had
// not that bit, and the head.
const u32 APART = 8;

__device__ inline u32 query_key(const Dropout &dropout, u64 start, u32 place, int num_heads, int head) {
    return row_key(dropout, (start + (place & ~APART)) * num_heads + head);
}
__device__ inline u32 square(u32 key, u32 column) {
    u32 hash = ((column & ~APART) * 0x9E3779B1u) ^ key;
    hash = (hash ^ (hash >> 16)) * 0x7FEB352Du;
    return hash ^ (hash >> 15);
}
// Of the queries and of the keys of a square: the first (0) or the second (1).
__device__ inline bool square_keeps(u32 threshold, u32 square, int query, int key) {
    u32 first = key ? 0x2C1B3C6Du : 0x846CA68Bu, second = key ? 0xD3833E81u : 0x297A2D39u;
    return square * (query ? second : first) >= threshold;
}
// What the probability of the query in `row` of its cell for the key in `column` is multiplied by.
__device__ inline float kept_square(const Dropout &dropout, u32 key, u32 row, u32 column) {
    int second_row = row / APART % 2, second_column = column / APART % 2;
    u32 hash = square(key, column);
    return square_keeps(dropout.threshold, hash, second_row, second_column) ? dropout.scale : 0.0f;
}

// What the number in `column` of the row of `key` is multiplied by.
__device__ inline float kept(const Dropout &dropout, u32 key, u32 column) {
    return keeps(dropout.threshold, key, column) ? dropout.scale : 0.0f;
}

// Sum over the 32 lanes, the same in all of them.
__device__ inline float warp_sum(float x) {
    for (int apart = 16; apart > 0; apart /= 2) x += __shfl_xor_sync(0xffffffffu, x, apart);
    return x;
}
__device__ inline float warp_max(float x) {
    for (int apart = 16; apart > 0; apart /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, apart));
    return x;
}

// Sum over a block of whole warps (at most 32), the same in all threads; `scratch` holds 32 numbers.
__device__ inline float block_sum(float x, float *scratch) {
    x = warp_sum(x);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    __syncthreads();
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    x = lane < (int)(blockDim.x / 32) ? scratch[lane] : 0.0f;
    return warp_sum(x);
}
__device__ inline float block_max(float x, float *scratch) {
    x = warp_max(x);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    __syncthreads();
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    x = lane < (int)(blockDim.x / 32) ? scratch[lane] : -INFINITY;
    return warp_max(x);
}
