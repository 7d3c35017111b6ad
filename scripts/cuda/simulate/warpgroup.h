// Hopper's products of a warpgroup on the CPU, src/kernels/cuda/warpgroup.cuh, by the rules of the
// PTX manual. Matrices in shared memory are found as the hardware finds them, from the bits of descriptors
// and the swizzle of addresses. Tensor cores have a view of shared memory of their own, where a copy is
// NaN until the thread that copied has published it.
//
// Until a product is waited for its sums are NaN. When it is, what it has read (registers of the left
// side, shared memory as tensor cores see it) must be what it was when the product began, and its sums
// must still be NaN: whoever touches any of it too early ends the process. So does a product before
// which registers were not opened, one that is not committed, and one that nobody waits for.
#pragma once
#include "host.h"

[[noreturn]] inline void misuse(const char *what) {
    fprintf(stderr, "thread %u: %s\n", block.current, what);
    abort();
}

inline unsigned char *patterned_shared() { return dynamic_shared(); }

inline void publish_copies() {
    Fiber &fiber = block.fibers[block.current];
    for (void *at : fiber.unpublished) memcpy(published(at), at, 16);
    fiber.unpublished.clear();
}

// A matrix in shared memory by its descriptor.
struct Matrix {
    unsigned start, leading, stride, bits;

    explicit Matrix(uint64_t descriptor) {
        start = (descriptor & 0x3fff) << 4;
        leading = (descriptor >> 16 & 0x3fff) << 4;
        stride = (descriptor >> 32 & 0x3fff) << 4;
        unsigned swizzle = descriptor >> 62, base = descriptor >> 49 & 7;
        if (descriptor & 0x3ff1c000c000c000) misuse("a descriptor with bits that mean nothing");
        if (!swizzle || base) misuse("a descriptor of a kind that is not written here");
        bits = 4 - swizzle;
        // The pattern of rows must begin where the swizzle does.
        if (start % (8 * pitch()) >= pitch()) misuse("a matrix that begins within a pattern");
    }
    unsigned pitch() const { return 16u << bits; }
    const unsigned char *at(unsigned offset) const {
        unsigned address = start + offset;
        address ^= (address >> 7 & ((1u << bits) - 1)) << 4;
        if (address < SHARED_BEGIN) misuse("a matrix before shared memory");
        return published(at_shared(address));
    }
    // Numbers [8 half, 8 half + 8) of 16 of a row, where rows lie one after the other.
    const unsigned char *of_row(unsigned row, unsigned half) const {
        return at(row % 8 * pitch() + row / 8 * stride + 16 * half);
    }
    // Numbers [8 piece, 8 piece + 8) of number `depth` of 16, where those lie one after the other.
    const unsigned char *of_depth(unsigned depth, unsigned piece) const {
        unsigned wide = 1u << bits, of_piece = piece % wide * 16 + piece / wide * leading;
        return at(of_piece + depth % 8 * pitch() + depth / 8 * stride);
    }
};

inline void open_products() {
    __syncwarp();
    block.fibers[block.current].opened = true;
}
inline void commit_products() {
    Fiber &fiber = block.fibers[block.current];
    fiber.product_group++;
    fiber.opened = false;
}

// Of a warp: what its first thread found for the product that all of them begin.
struct Begun {
    float left[16][16], right[16][128], products[16][128];
    std::vector<const unsigned char *> read;
    std::vector<unsigned char> was;
    unsigned at; // the exchange that this is of

    template <typename T> void take(float *to, unsigned step, const unsigned char *from) {
        T numbers[8];
        read.push_back(from);
        was.insert(was.end(), from, from + 16);
        memcpy((void *)numbers, from, 16);
        for (unsigned i = 0; i < 8; i++) to[i * step] = to_float(numbers[i]);
    }
    template <typename T> void take_right(uint64_t descriptor, bool transposed, unsigned count) {
        Matrix matrix(descriptor);
        for (unsigned i = 0; i < 2 * count; i++) {
            if (transposed) {
                unsigned depth = i % 16, piece = i / 16;
                take<T>(&right[depth][8 * piece], 1, matrix.of_depth(depth, piece));
            } else {
                unsigned row = i / 2, half = i % 2;
                take<T>(&right[8 * half][row], 128, matrix.of_row(row, half));
            }
        }
    }
    void multiply(unsigned count) {
        memset(products, 0, sizeof products);
        for (unsigned row = 0; row < 16; row++)
            for (unsigned k = 0; k < 16; k++)
                for (unsigned i = 0; i < count; i++) products[row][i] += left[row][k] * right[k][i];
    }
};
inline Begun begun[32];

// A NaN that any arithmetic makes another one.
const uint32_t UNDER_WAY = 0x7f80dead;

// What the sums will be when this product is done, from what they are or are going to be.
inline void begin_product(float *sums, unsigned count, const unsigned *left, const Begun &of_warp,
                          bool is_added) {
    Fiber &fiber = block.fibers[block.current];
    unsigned lane = block.current % 32;
    Product product = {sums, count, {}, left, {}, {}, {}, fiber.product_group};
    const float *before = sums;
    for (const Product &earlier : fiber.products)
        if (earlier.sums == sums) before = earlier.result.data();
    for (unsigned i = 0; i < count; i++) {
        float more = of_warp.products[lane / 4 + 8 * (i / 2 % 2)][i / 4 * 8 + 2 * (lane % 4) + i % 2];
        product.result.push_back(is_added ? before[i] + more : more);
    }
    if (left) std::copy(left, left + 4, product.left_was);
    if (!lane) product.read = of_warp.read, product.was = of_warp.was;
    std::fill(sums, sums + count, as_float(UNDER_WAY));
    fiber.products.push_back(std::move(product));
}

inline void check_opened() {
    if (blockDim.x % 128) misuse("a block that is not of whole warpgroups");
    if (!block.fibers[block.current].opened) misuse("a product before open_products");
}

// With the left side in registers.
template <bool TRANSPOSED, size_t PIECES, typename T>
void multiply_group(float (&c)[PIECES][4], const unsigned (&a)[4], uint64_t b, bool is_added, T) {
    check_opened();
    auto &words = exchange({a[0], a[1], a[2], a[3], b});
    unsigned now = block.fibers[block.current].exchanges;
    Begun &of_warp = begun[block.current / 32];
    if (of_warp.at != now) {
        of_warp.at = now;
        of_warp.read.clear(), of_warp.was.clear();
        for (unsigned i = 0; i < 256; i++) {
            unsigned row = i / 16, k = i % 16, lane = 4 * (row % 8) + k % 8 / 2;
            of_warp.left[row][k] = half_of<T>(words[lane][row / 8 + 2 * (k / 8)], k % 2);
        }
        of_warp.take_right<T>(b, TRANSPOSED, 8 * PIECES);
        of_warp.multiply(8 * PIECES);
    }
    if (words[0][4] != b) misuse("threads that name other matrices");
    begin_product(c[0], 4 * PIECES, a, of_warp, is_added);
}

// With the left side in shared memory.
template <bool TRANSPOSED, size_t PIECES, typename T>
void multiply_group(float (&c)[PIECES][4], uint64_t a, uint64_t b, bool is_added, T) {
    check_opened();
    auto &words = exchange({a, b});
    unsigned now = block.fibers[block.current].exchanges;
    Begun &of_warp = begun[block.current / 32];
    if (of_warp.at != now) {
        of_warp.at = now;
        of_warp.read.clear(), of_warp.was.clear();
        Matrix matrix(a);
        for (unsigned i = 0; i < 32; i++) {
            unsigned row = block.current / 32 % 4 * 16 + i / 2, half = i % 2;
            of_warp.take<T>(&of_warp.left[i / 2][8 * half], 1, matrix.of_row(row, half));
        }
        of_warp.take_right<T>(b, TRANSPOSED, 8 * PIECES);
        of_warp.multiply(8 * PIECES);
    }
    if (words[0][0] != a || words[0][1] != b) misuse("threads that name other matrices");
    begin_product(c[0], 4 * PIECES, nullptr, of_warp, is_added);
}

inline void end_product(const Product &product, bool is_last) {
    if (product.left && !std::equal(product.left_was, product.left_was + 4, product.left))
        misuse("the left side of a product was written to before it was done");
    for (size_t i = 0; i < product.read.size(); i++)
        if (memcmp(product.read[i], &product.was[16 * i], 16))
            misuse("shared memory was written to while a product read it");
    for (unsigned i = 0; i < product.count; i++)
        if (as_bits(product.sums[i]) != UNDER_WAY) misuse("sums of a product that was not done");
    if (is_last) std::copy(product.result.begin(), product.result.end(), product.sums);
}

template <int PENDING> inline void wait_products() {
    __syncwarp();
    Fiber &fiber = block.fibers[block.current];
    std::vector<Product> &all = fiber.products;
    if (!all.empty() && all.back().group == fiber.product_group) misuse("a product without its commit");
    size_t done = 0;
    while (done < all.size() && all[done].group < fiber.product_group - PENDING) {
        auto is_same = [&](const Product &later) { return later.sums == all[done].sums; };
        bool is_last = std::none_of(all.begin() + done + 1, all.end(), is_same);
        end_product(all[done++], is_last);
    }
    all.erase(all.begin(), all.begin() + done);
}

// For the compiler of the device alone.
template <typename Registers> inline void hold(Registers &) {}
