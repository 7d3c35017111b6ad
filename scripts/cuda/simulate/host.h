// A block of CUDA threads on the CPU, so that kernels are proved right before a GPU is asked.
//
// Each thread of a block is a fiber with a stack of its own; a barrier, a shuffle or a tensor-core
// instruction hands over to the next fiber until all have come. Fibers go on in a random order, so
// that a forgotten barrier changes the result. Shared memory begins as NaN, a copy to it arrives
// at once or when it is waited for, as chance will have it, and reads outside a buffer are found by the
// address sanitizer (x86-64). Products of a warpgroup: warpgroup.h.
// Blocks run one after the other, in random order too. Knows one warp size (32) and what
// src/kernels/cuda uses, nothing else.
#pragma once

#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>

#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "numbers.h"

#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
#define SHARED static
#ifndef KERNEL
#define KERNEL static void
#endif

struct Place {
    unsigned x = 0, y = 0, z = 0;
};
inline Place threadIdx, blockIdx, blockDim, gridDim;

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

// A product of a warpgroup that is under way, as one thread has it.
struct Product {
    float *sums;
    unsigned count;                    // of them
    std::vector<float> result;         // what they will be
    const unsigned *left;              // registers, or none
    unsigned left_was[4];
    std::vector<const unsigned char *> read; // 16 bytes each, of what tensor cores see
    std::vector<unsigned char> was;          // what was there
    int group;
};

struct Fiber {
    void *place;  // where its stack ends while another runs
    std::vector<char> stack;
    bool done;
    int waits_for;  // -2: running, -1: whole block, else: its warp
    int group;      // of copies
    std::vector<Copy> copies;
    std::vector<void *> unpublished; // copies that arrived, but not yet for tensor cores
    std::vector<Product> products;
    int product_group;
    bool opened;        // products may begin
    unsigned exchanges; // so far
};

// What the lanes of a warp show each other, of this exchange and the one before, and the product that
// the first of them computes for all.
struct Warp {
    uint64_t words[2][32][6];
    float products[16][8];
    unsigned multiplied_at; // the exchange that the product is of
};

struct Block {
    std::vector<Fiber> fibers;
    void *scheduler = nullptr;
    unsigned current = 0;
    std::vector<unsigned char> shared, published; // for threads, for tensor cores
    std::function<void()> body;
    std::mt19937 random{1};
    Warp warps[32];
};
inline Block block;

// Puts numbers or blocks in a random order, quickly: every so many-th, from anywhere on.
template <typename T> void disorder(std::vector<T> &all, std::vector<T> &scratch) {
    static const size_t PRIMES[] = {4294967291, 4294967279, 4294967231, 4294967197};
    size_t count = all.size();
    if (count < 2) return;
    uint32_t random = block.random();
    size_t at = random % count, step = PRIMES[random >> 30] % count;
    scratch.clear();
    for (size_t i = 0; i < count; i++) {
        scratch.push_back(all[at]);
        at += step;
        if (at >= count) at -= count;
    }
    all.swap(scratch);
}

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
    if (!fiber.products.empty()) fprintf(stderr, "a product that is not waited for\n"), abort();
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
    static std::vector<unsigned> ready, scratch;
    ready.resize(count);
    for (Warp &warp : block.warps) warp.multiplied_at = 0;
    for (unsigned i = 0; i < count; i++) {
        Fiber &fiber = block.fibers[i];
        // As if `fiber_main` had been about to begin: six registers, its address, and the place of
        // a return address, so that the stack is aligned as after a call.
        // The frames of an earlier block have left marks.
        ASAN_UNPOISON_MEMORY_REGION(fiber.stack.data(), fiber.stack.size());
        // Stacks begin at other places of their pages, or all would meet in the same lines of a cache.
        size_t skew = i % 64 * 320;
        uintptr_t end = (uintptr_t)(fiber.stack.data() + fiber.stack.size() - skew);
        void **top = (void **)(end & ~(uintptr_t)15);
        top -= 8;
        memset(top, 0, 8 * sizeof(void *));
        top[6] = (void *)fiber_main;
        fiber.place = top;
        fiber.done = false;
        fiber.waits_for = -2;
        fiber.group = 0;
        fiber.copies.clear();
        fiber.unpublished.clear();
        fiber.products.clear();
        fiber.product_group = 0;
        fiber.opened = false;
        fiber.exchanges = 0;
        ready[i] = i;
    }
    // Warps go on together, or one of them as far as it can before the next.
    static std::vector<unsigned> turns;
    turns.resize((count + 31) / 32);
    std::iota(turns.begin(), turns.end(), 0);
    disorder(turns, scratch);
    bool is_strict = block.random() % 2;
    while (left) {
        disorder(ready, scratch);
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
        for (unsigned warp : turns) {
            if (is_strict && !ready.empty()) break;
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
    std::vector<Place> scratch;
    disorder(places, scratch);
    for (Place place : places) {
        blockIdx = place;
        block.shared.assign(shared, 0xff);
        block.shared.shrink_to_fit();
        block.published = block.shared;
        run_block();
    }
}

// --- What the instructions do ----------------------------------------------------------------------

inline unsigned char *dynamic_shared() { return block.shared.data(); }
// Shared memory begins behind what the system has of it.
const unsigned SHARED_BEGIN = 1024;
typedef unsigned SharedAddress;
inline SharedAddress shared_address(const void *at) {
    return (const unsigned char *)at - block.shared.data() + SHARED_BEGIN;
}
inline const unsigned char *at_shared(SharedAddress address) {
    return block.shared.data() + (address - SHARED_BEGIN);
}

// What tensor cores see of shared memory at `at`.
inline unsigned char *published(const void *at) {
    size_t offset = (const unsigned char *)at - block.shared.data();
    if (offset + 16 > block.shared.size()) fprintf(stderr, "not in shared memory\n"), abort();
    return block.published.data() + offset;
}

inline void copy16(void *to, const void *from, bool there) {
    if ((uintptr_t)to % 16 || (there && (uintptr_t)from % 16)) {
        fprintf(stderr, "a copy of 16 bytes that is not aligned\n"), abort();
    }
    Fiber &fiber = block.fibers[block.current];
    Copy copy{to, {}, fiber.group};
    if (there) memcpy(copy.bytes, from, 16);
    if (block.random() % 2) memcpy(to, copy.bytes, 16);
    memset(published(to), 0xff, 16);
    fiber.copies.push_back(copy);
}
inline void commit_copies() { block.fibers[block.current].group++; }
template <int PENDING> inline void wait_copies() {
    Fiber &fiber = block.fibers[block.current];
    auto arrives = [&](const Copy &copy) {
        bool now = copy.group < fiber.group - PENDING;
        if (now) memcpy(copy.to, copy.bytes, 16), fiber.unpublished.push_back(copy.to);
        return now;
    };
    auto later = std::remove_if(fiber.copies.begin(), fiber.copies.end(), arrives);
    fiber.copies.erase(later, fiber.copies.end());
}

// Every lane's words, seen by all lanes of its warp until the exchange after the next.
inline uint64_t (&exchange(std::initializer_list<uint64_t> words))[32][6] {
    Warp &warp = block.warps[block.current / 32];
    unsigned lane = block.current % 32, turn = ++block.fibers[block.current].exchanges % 2;
    std::copy(words.begin(), words.end(), warp.words[turn][lane]);
    __syncwarp();
    return warp.words[turn];
}

inline float __shfl_xor_sync(unsigned, float x, int apart) {
    auto &words = exchange({as_bits(x)});
    return as_float(words[(block.current % 32) ^ apart][0]);
}
inline float __shfl_sync(unsigned, float x, int from) {
    auto &words = exchange({as_bits(x)});
    return as_float(words[from][0]);
}

inline bool any_lane(bool is_so) {
    auto &words = exchange({is_so});
    return std::any_of(words, words + 32, [](auto &of_lane) { return of_lane[0] != 0; });
}

inline void load_tiles(unsigned (&to)[4], SharedAddress row, bool transposed) {
    if (row % 16) fprintf(stderr, "a row of a matrix that is not aligned\n"), abort();
    auto &words = exchange({row});
    unsigned lane = block.current % 32;
    for (unsigned i = 0; i < 4; i++) {
        uint16_t half[2];
        for (unsigned j = 0; j < 2; j++) {
            unsigned r = lane / 4, c = 2 * (lane % 4) + j;
            if (transposed) std::swap(r, c);
            memcpy(&half[j], at_shared((SharedAddress)words[8 * i + r][0]) + 2 * c, 2);
        }
        to[i] = half[0] | (unsigned)half[1] << 16;
    }
}
inline void load_matrices(unsigned (&to)[4], SharedAddress row) { load_tiles(to, row, false); }
inline void load_transposed(unsigned (&to)[4], SharedAddress row) { load_tiles(to, row, true); }

template <typename T> inline float half_of(uint64_t word, unsigned which) {
    return to_float(T{(uint16_t)(word >> (16 * which))});
}

// products [16 × 8] of the fragments of a warp; their layout is that of PTX's mma.m16n8k16.
template <typename T> void multiply_fragments(float (&to)[16][8], const uint64_t (&words)[32][6]) {
    float right[16][8];
    for (unsigned k = 0; k < 16; k++) {
        for (unsigned column = 0; column < 8; column++) {
            right[k][column] = half_of<T>(words[4 * column + k % 8 / 2][4 + k / 8], k % 2);
        }
    }
    for (unsigned row = 0; row < 16; row++) {
        float sums[8] = {};
        for (unsigned k = 0; k < 16; k++) {
            float left = half_of<T>(words[4 * (row % 8) + k % 8 / 2][row / 8 + 2 * (k / 8)], k % 2);
            for (unsigned column = 0; column < 8; column++) sums[column] += left * right[k][column];
        }
        std::copy(sums, sums + 8, to[row]);
    }
}

template <typename T>
inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, T) {
    auto &words = exchange({a[0], a[1], a[2], a[3], b0, b1});
    Warp &warp = block.warps[block.current / 32];
    unsigned now = block.fibers[block.current].exchanges, lane = block.current % 32;
    if (warp.multiplied_at != now) multiply_fragments<T>(warp.products, words);
    warp.multiplied_at = now;
    for (unsigned i = 0; i < 4; i++) {
        c[i] += warp.products[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
    }
}

template <typename T> inline unsigned pair(float low, float high, T) {
    return from_float<T>(low).bits | (unsigned)from_float<T>(high).bits << 16;
}

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float power_of_2(float x) { return exp2f(x); }
inline float reciprocal(float x) { return 1.0f / x; }
