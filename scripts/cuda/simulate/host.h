// A block of CUDA threads on the CPU, so that kernels are proved right before a GPU is asked.
//
// Each thread of a block is a fiber with a stack of its own; a barrier, a shuffle or a tensor-core
// instruction hands over to the next fiber until all have come. Fibers go on in a random order, so
// that a forgotten barrier changes the result. Shared memory begins as NaN, a copy to it arrives
// only when it is waited for, and reads outside a buffer are found by the address sanitizer (x86-64).
// Blocks run one after the other, in random order too. Knows one warp size (32) and what
// src/kernels/cuda uses, nothing else.
#pragma once

#include <math.h>
#include <sanitizer/asan_interface.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <functional>
#include <random>
#include <vector>

#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
#define SHARED static
#define KERNEL static void

struct Place {
    unsigned x = 0, y = 0, z = 0;
};
static Place threadIdx, blockIdx, blockDim, gridDim;

struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};

inline float as_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline uint32_t as_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return as_float((uint32_t)x.bits << 16); }
inline float to_float(f16 x) {
    int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
    float size = exponent == 31  ? (fraction ? NAN : INFINITY)
                 : exponent == 0 ? ldexpf((float)fraction, -24)
                                 : ldexpf((float)(1024 + fraction), exponent - 25);
    return x.bits >> 15 ? -size : size;
}
template <typename T> T from_float(float x);
template <> inline float from_float<float>(float x) { return x; }
template <> inline bf16 from_float<bf16>(float x) {
    uint32_t bits = as_bits(x);
    if (isnan(x)) return {(uint16_t)(bits >> 16 | 64)};
    return {(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
template <> inline f16 from_float<f16>(float x) {
    uint16_t sign = as_bits(x) >> 16 & 0x8000;
    float size = fabsf(x);
    if (isnan(x)) return {(uint16_t)(sign | 0x7e00)};
    if (size == 0) return {sign};
    if (size >= 65520.0f) return {(uint16_t)(sign | 0x7c00)};
    int exponent;
    frexpf(size, &exponent);
    exponent = std::max(exponent, -13);
    // Ulps of the number's binade; nearbyintf rounds to even.
    int ulps = (int)nearbyintf(ldexpf(size, 11 - exponent));
    return {(uint16_t)(sign | (((exponent + 13) << 10) + ulps))};
}

// --- Fibers ---------------------------------------------------------------------------------------

struct Copy {
    void *to;
    unsigned char bytes[16];
    int group;
};

// Puts the registers that a call keeps on the stack, hands over from one stack to another, and takes
// that one's back. `from` is left pointing at what was put aside.
extern "C" void switch_stack(void **from, void *to);
asm(R"(
.text
.globl switch_stack
switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

struct Fiber {
    void *place;  // where its stack ends while another runs
    std::vector<char> stack;
    bool done;
    int waits_for;  // -2: running, -1: whole block, else: its warp
    int group;      // of copies
    std::vector<Copy> copies;
};

struct Block {
    std::vector<Fiber> fibers;
    void *scheduler = nullptr;
    unsigned current = 0;
    std::vector<unsigned char> shared;
    std::function<void()> body;
    std::mt19937 random{1};
    uint64_t exchange[64][32][8];
};
static Block block;

inline void hand_over(int waits_for) {
    unsigned me = block.current;
    block.fibers[me].waits_for = waits_for;
    switch_stack(&block.fibers[me].place, block.scheduler);
    threadIdx.x = me;
}
inline void __syncthreads() { hand_over(-1); }
inline void __syncwarp(unsigned = 0xffffffffu) { hand_over(block.current / 32); }

inline void fiber_main() {
    block.body();
    Fiber &fiber = block.fibers[block.current];
    if (!fiber.copies.empty()) {
        for (const Copy &copy : fiber.copies)
            if (copy.group == fiber.group) fprintf(stderr, "a copy without its commit\n"), abort();
    }
    fiber.done = true;
    switch_stack(&fiber.place, block.scheduler);
}

// Whether every fiber that is not through, of [from, to), waits for `what`.
inline bool all_wait(unsigned from, unsigned to, int what) {
    for (unsigned i = from; i < to; i++) {
        if (block.fibers[i].done) {
            fprintf(stderr, "a thread left before a barrier that others wait at\n");
            abort();
        }
        if (block.fibers[i].waits_for != what) return false;
    }
    return true;
}

inline void run_block() {
    unsigned count = blockDim.x, left = count;
    std::vector<unsigned> ready(count);
    for (unsigned i = 0; i < count; i++) {
        Fiber &fiber = block.fibers[i];
        // As if `fiber_main` had been about to begin: six registers, its address, and the place of
        // a return address, so that the stack is aligned as after a call.
        // The frames of an earlier block have left marks.
        ASAN_UNPOISON_MEMORY_REGION(fiber.stack.data(), fiber.stack.size());
        void **top = (void **)((uintptr_t)(fiber.stack.data() + fiber.stack.size()) & ~(uintptr_t)15);
        top -= 8;
        memset(top, 0, 8 * sizeof(void *));
        top[6] = (void *)fiber_main;
        fiber.place = top;
        fiber.done = false;
        fiber.waits_for = -2;
        fiber.group = 0;
        fiber.copies.clear();
        ready[i] = i;
    }
    while (left) {
        std::shuffle(ready.begin(), ready.end(), block.random);
        for (unsigned i : ready) {
            block.current = i;
            threadIdx.x = i;
            switch_stack(&block.scheduler, block.fibers[i].place);
            left -= block.fibers[i].done;
        }
        ready.clear();
        auto release = [&](unsigned from, unsigned to) {
            for (unsigned i = from; i < to; i++) {
                block.fibers[i].waits_for = -2;
                ready.push_back(i);
            }
        };
        for (unsigned warp = 0; warp * 32 < count; warp++) {
            unsigned from = warp * 32, to = std::min(count, from + 32);
            if (!block.fibers[from].done && block.fibers[from].waits_for == (int)warp &&
                all_wait(from, to, warp))
                release(from, to);
        }
        if (ready.empty() && left) {
            if (!all_wait(0, count, -1)) fprintf(stderr, "a barrier never opens\n"), abort();
            release(0, count);
        }
    }
}

// Runs `kernel` with `arguments` on grid × threads, with `shared` bytes of dynamic shared memory.
template <typename Kernel, typename... Arguments>
void launch(Kernel kernel, Place grid, unsigned threads, size_t shared, Arguments... arguments) {
    if (threads % 32 || threads > 1024) fprintf(stderr, "%u threads\n", threads), abort();
    blockDim = {threads, 1, 1};
    gridDim = grid;
    if (block.fibers.size() < threads) {
        block.fibers.resize(threads);
        for (Fiber &fiber : block.fibers) fiber.stack.resize(64 * 1024);
    }
    block.body = [=] { kernel(arguments...); };
    std::vector<Place> places;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) places.push_back({x, y, z});
    std::shuffle(places.begin(), places.end(), block.random);
    for (Place place : places) {
        blockIdx = place;
        block.shared.assign(shared, 0xff);
        block.shared.shrink_to_fit();
        run_block();
    }
}

// --- What the instructions do ----------------------------------------------------------------------

inline unsigned char *dynamic_shared() { return block.shared.data(); }

inline void copy16(void *to, const void *from, bool there) {
    if ((uintptr_t)to % 16 || (there && (uintptr_t)from % 16)) {
        fprintf(stderr, "a copy of 16 bytes that is not aligned\n"), abort();
    }
    Fiber &fiber = block.fibers[block.current];
    Copy copy{to, {}, fiber.group};
    if (there) memcpy(copy.bytes, from, 16);
    fiber.copies.push_back(copy);
}
inline void commit_copies() { block.fibers[block.current].group++; }
template <int PENDING> inline void wait_copies() {
    Fiber &fiber = block.fibers[block.current];
    std::vector<Copy> later;
    for (const Copy &copy : fiber.copies) {
        if (copy.group < fiber.group - PENDING) {
            memcpy(copy.to, copy.bytes, 16);
        } else {
            later.push_back(copy);
        }
    }
    fiber.copies = later;
}

// Every lane's words, seen by all lanes of its warp.
inline uint64_t (&exchange(std::initializer_list<uint64_t> words))[32][8] {
    unsigned warp = block.current / 32, lane = block.current % 32, i = 0;
    __syncwarp();
    for (uint64_t word : words) block.exchange[warp][lane][i++] = word;
    __syncwarp();
    return block.exchange[warp];
}

inline float __shfl_xor_sync(unsigned, float x, int apart) {
    auto &words = exchange({as_bits(x)});
    return as_float(words[(block.current % 32) ^ apart][0]);
}
inline float __shfl_sync(unsigned, float x, int from) {
    auto &words = exchange({as_bits(x)});
    return as_float(words[from][0]);
}

inline void load_tiles(unsigned (&to)[4], const void *row, bool transposed) {
    if ((uintptr_t)row % 16) fprintf(stderr, "a row of a matrix that is not aligned\n"), abort();
    auto &words = exchange({(uint64_t)row});
    unsigned lane = block.current % 32;
    for (unsigned i = 0; i < 4; i++) {
        uint16_t half[2];
        for (unsigned j = 0; j < 2; j++) {
            unsigned r = lane / 4, c = 2 * (lane % 4) + j;
            if (transposed) std::swap(r, c);
            memcpy(&half[j], (const char *)words[8 * i + r][0] + 2 * c, 2);
        }
        to[i] = half[0] | (unsigned)half[1] << 16;
    }
}
inline void load_matrices(unsigned (&to)[4], const void *row) { load_tiles(to, row, false); }
inline void load_transposed(unsigned (&to)[4], const void *row) { load_tiles(to, row, true); }

template <typename T> inline float half_of(uint64_t word, unsigned which) {
    return to_float(T{(uint16_t)(word >> (16 * which))});
}

// The fragments' layout is that of PTX's mma.m16n8k16.
template <typename T>
inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, T) {
    auto &words = exchange({a[0], a[1], a[2], a[3], b0, b1});
    unsigned lane = block.current % 32;
    for (unsigned i = 0; i < 4; i++) {
        unsigned row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
        for (unsigned k = 0; k < 16; k++) {
            unsigned holder = 4 * (row % 8) + k % 8 / 2;
            float left = half_of<T>(words[holder][row / 8 + 2 * (k / 8)], k % 2);
            holder = 4 * column + k % 8 / 2;
            float right = half_of<T>(words[holder][4 + k / 8], k % 2);
            c[i] += left * right;
        }
    }
}

template <typename T> inline unsigned pair(float low, float high, T) {
    return from_float<T>(low).bits | (unsigned)from_float<T>(high).bits << 16;
}

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float power_of_2(float x) { return exp2f(x); }
