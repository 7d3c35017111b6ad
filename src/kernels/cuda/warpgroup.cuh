// Hopper's products of a warpgroup (`wgmma`, sm_90a): 128 threads, a group, multiply 64 rows at once,
// beside whatever else they do. The host's counterpart, with the same rules, is
// scripts/cuda/simulate/warpgroup.h.
//
// A product is begun by all threads of a group in order: `open_products` (what was written to the
// registers counts), `multiply_group`, one or several, `commit_products`. Until `wait_products<n>` says
// that all but the last n are done, nobody may touch the registers of sums and left sides, nor write to
// the tiles that are read. What ordinary copies have put into shared memory is seen by the tensor cores
// only after `publish_copies` in the thread that copied, and a barrier.
//
// A matrix in shared memory is named by 64 bits: bits 0 to 13 its address, 16 to 29 the leading offset,
// 32 to 45 the stride, each in 16 bytes; 49 to 51 the offset of its pattern (0: patterns begin at
// multiples of their size); 62 and 63 the swizzle: 1 of 128 bytes, 2 of 64. See wgmma.cuh.
#pragma once
#include "device.cuh"

#ifdef GENE_BERT_SIMULATE
#include "warpgroup.h"
#else

// Memory of the block whose patterns of swizzling begin at its begin.
__device__ inline unsigned char *patterned_shared() {
    extern __shared__ __align__(1024) unsigned char patterned[];
    return patterned;
}

__device__ inline void publish_copies() {
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}
__device__ inline void open_products() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ inline void commit_products() {
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
template <int PENDING> __device__ inline void wait_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(PENDING) : "memory");
}

// Here the compiler must have written the registers, and has not read them or given them to others.
template <int N> __device__ inline void hold(float (&sums)[N][4]) {
#pragma unroll
    for (int i = 0; i < N; i++)
        for (int j = 0; j < 4; j++) asm volatile("" : "+f"(sums[i][j])::"memory");
}
template <int N> __device__ inline void hold(unsigned (&pieces)[N][4]) {
#pragma unroll
    for (int i = 0; i < N; i++)
        for (int j = 0; j < 4; j++) asm volatile("" : "+r"(pieces[i][j])::"memory");
}

// The registers of the sums, as the instruction's text and as operands.
#define TEXT_4(a, b, c, d) "%" #a ", %" #b ", %" #c ", %" #d
#define TEXT_32                                                                                        \
    TEXT_4(0, 1, 2, 3) ", " TEXT_4(4, 5, 6, 7) ", " TEXT_4(8, 9, 10, 11) ", " TEXT_4(12, 13, 14, 15)
#define TEXT_64                                                                                        \
    TEXT_32 ", " TEXT_4(16, 17, 18, 19) ", " TEXT_4(20, 21, 22, 23) ", " TEXT_4(24, 25, 26, 27) ", "   \
        TEXT_4(28, 29, 30, 31)
#define TEXT_96                                                                                        \
    TEXT_64 ", " TEXT_4(32, 33, 34, 35) ", " TEXT_4(36, 37, 38, 39) ", " TEXT_4(40, 41, 42, 43) ", "   \
        TEXT_4(44, 45, 46, 47)
#define TEXT_128                                                                                       \
    TEXT_96 ", " TEXT_4(48, 49, 50, 51) ", " TEXT_4(52, 53, 54, 55) ", " TEXT_4(56, 57, 58, 59) ", "   \
        TEXT_4(60, 61, 62, 63)
#define SUMS_4(i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define SUMS_32 SUMS_4(0), SUMS_4(1), SUMS_4(2), SUMS_4(3)
#define SUMS_64 SUMS_32, SUMS_4(4), SUMS_4(5), SUMS_4(6), SUMS_4(7)
#define SUMS_96 SUMS_64, SUMS_4(8), SUMS_4(9), SUMS_4(10), SUMS_4(11)
#define SUMS_128 SUMS_96, SUMS_4(12), SUMS_4(13), SUMS_4(14), SUMS_4(15)

// c [64 × N] = a [64 × 16] · b [16 × N], added to c where `is_added`; f32 sums. Of c and a the group's
// warp w holds rows 16 w to 16 w + 15, as mma.sync's fragments. b is a matrix in shared memory, where a
// column's 16 numbers lie side by side or, TRANSPOSED, a row's. The last numbers are those of the
// operands after the sums: the pieces of a, b, `is_added` and TRANSPOSED.
#define MULTIPLY_GROUP(T, type, N, a0, a1, a2, a3, at, adds, order)                                    \
    template <bool TRANSPOSED>                                                                         \
    __device__ inline void multiply_group(float (&c)[N / 8][4], const unsigned (&a)[4], u64 b,         \
                                          bool is_added, T) {                                          \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #adds ", 0;\n"                               \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type " {" TEXT_##N     \
                     "}, {" TEXT_4(a0, a1, a2, a3) "}, %" #at ", p, 1, 1, %" #order ";\n}\n"           \
                     : SUMS_##N                                                                        \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)is_added),         \
                       "n"((int)TRANSPOSED));                                                          \
    }
#define MULTIPLY_GROUPS(T, type)                                                                       \
    MULTIPLY_GROUP(T, type, 32, 16, 17, 18, 19, 20, 21, 22)                                            \
    MULTIPLY_GROUP(T, type, 64, 32, 33, 34, 35, 36, 37, 38)                                            \
    MULTIPLY_GROUP(T, type, 96, 48, 49, 50, 51, 52, 53, 54)                                            \
    MULTIPLY_GROUP(T, type, 128, 64, 65, 66, 67, 68, 69, 70)                                           \
    /* The same with a in shared memory, by rows. */                                                   \
    template <bool TRANSPOSED>                                                                         \
    __device__ inline void multiply_group(float (&c)[8][4], u64 a, u64 b, bool is_added, T) {          \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"                                      \
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" TEXT_64          \
                     "}, %32, %33, p, 1, 1, 0, %35;\n}\n"                                              \
                     : SUMS_64                                                                         \
                     : "l"(a), "l"(b), "r"((int)is_added), "n"((int)TRANSPOSED));                      \
    }
MULTIPLY_GROUPS(bf16, "bf16")
MULTIPLY_GROUPS(f16, "f16")
#endif
