// All attentions, forward and backward, against the textbook's in f64: cells of odd lengths, of one
// token, of many tiles, empty ones in between, with and without dropout.
#include "reference.h"
#include "tiles.cuh"
#include "warpgroup.cuh"

namespace any_device {
#include "../../../src/kernels/cuda/attention.cu"
}
namespace hopper {
#include "../../../src/kernels/cuda/attention_hopper.cu"
}
#undef ATTENTION
namespace any_width {
#include "../../../src/kernels/cuda/attention_any.cu"
}

struct Answer {
    Numbers context, log_sums, dq, dk, dv;
};

// One (cell, head, query) at a time.
static Answer reference(const std::vector<u32> &cells, int num_heads, int width, const Numbers &q,
                        const Numbers &k, const Numbers &v, const Numbers &dcontext,
                        const Dropout &dropout) {
    size_t num_tokens = cells.back(), size = num_tokens * num_heads * width;
    Answer to = {Numbers(size), Numbers(num_heads * num_tokens), Numbers(size), Numbers(size),
                 Numbers(size)};
    double scale = 1 / sqrt((double)width);
    for (size_t cell = 0; cell + 1 < cells.size(); cell++) {
        u32 first = cells[cell], count = cells[cell + 1] - first;
        for (int head = 0; head < num_heads; head++) {
            auto at = [&](u32 place) { return ((size_t)(first + place) * num_heads + head) * width; };
            auto dot = [&](const Numbers &x, size_t i, const Numbers &y, size_t j) {
                double sum = 0;
                for (int c = 0; c < width; c++) sum += x[i + c] * y[j + c];
                return sum;
            };
            for (u32 i = 0; i < count; i++) {
                u32 key = query_key(dropout, first, i, num_heads, head);
                Numbers p(count), dp(count);
                double total = 0, delta = 0;
                for (u32 j = 0; j < count; j++) total += p[j] = exp(scale * dot(q, at(i), k, at(j)));
                to.log_sums[head * num_tokens + first + i] = log(total);
                for (u32 j = 0; j < count; j++) {
                    p[j] /= total;
                    double kept = kept_square(dropout, key, i, j);
                    dp[j] = dot(dcontext, at(i), v, at(j)) * kept;
                    delta += p[j] * dp[j];
                    for (int c = 0; c < width; c++) {
                        to.context[at(i) + c] += p[j] * kept * v[at(j) + c];
                        to.dv[at(j) + c] += p[j] * kept * dcontext[at(i) + c];
                    }
                }
                for (u32 j = 0; j < count; j++) {
                    double ds = p[j] * (dp[j] - delta) * scale;
                    for (int c = 0; c < width; c++) {
                        to.dq[at(i) + c] += ds * k[at(j) + c];
                        to.dk[at(j) + c] += ds * q[at(i) + c];
                    }
                }
            }
        }
    }
    return to;
}

// Normal numbers, or such near `middle`, so that all scores lie far from 0.
template <typename T> std::vector<T> side(size_t count, float middle) {
    std::vector<T> numbers = random_numbers<T>(count, middle ? 0.1 : 1.0);
    for (T &x : numbers) x = from_float<T>(to_float(x) + middle);
    return numbers;
}

template <typename T> struct Case {
    std::vector<u32> cells;
    int num_heads, width;
    size_t num_tokens, size;
    Dropout dropout;
    Buffer<T> q, k, v, dcontext, context, dq, dk, dv;
    Buffer<float> log_sums, deltas;
    Answer expected;

    Case(const std::vector<u32> &cells, int num_heads, int width, bool drops, float far = 0)
        : cells(cells), num_heads(num_heads), width(width), num_tokens(cells.back()),
          size(num_tokens * num_heads * width), dropout(random_dropout(drops)),
          q(side<T>(size, far)), k(side<T>(size, -far)), v(random_numbers<T>(size)),
          dcontext(random_numbers<T>(size)), context(size), dq(size), dk(size), dv(size),
          log_sums(num_heads * num_tokens), deltas(num_heads * num_tokens),
          expected(reference(cells, num_heads, width, q.wide(), k.wide(), v.wide(), dcontext.wide(),
                             dropout)) {}

    // What kernels have written.
    void forget() {
        for (Buffer<T> *of : {&context, &dq, &dk, &dv}) of->forget();
        for (Buffer<float> *of : {&log_sums, &deltas}) of->forget();
    }

    void compare_all(const char *which, double allowed) {
        std::string name = std::string(which) + " " + std::to_string(num_heads) + " heads of " +
                           std::to_string(width) + ", " + std::to_string(cells.size() - 1) +
                           " cells, " + std::to_string(num_tokens) + " tokens: ";
        compare(name + "context", context.wide(), expected.context, allowed);
        compare(name + "log-sums", log_sums.wide(), expected.log_sums, allowed);
        compare(name + "dq", dq.wide(), expected.dq, allowed);
        compare(name + "dk", dk.wide(), expected.dk, allowed);
        compare(name + "dv", dv.wide(), expected.dv, allowed);
    }
};

template <typename T> struct Any;
#define ANY(T, name)                                                                                   \
    template <> struct Any<T> {                                                                        \
        static constexpr auto forward = any_width::attention_forward_##name##_any;                     \
        static constexpr auto keys = any_width::attention_keys_##name##_any;                           \
        static constexpr auto queries = any_width::attention_queries_##name##_any;                     \
        static constexpr auto delta = any_width::attention_delta_##name;                               \
    };
FOR_EACH_TYPE(ANY)

template <typename T> void delta(Case<T> &c) {
    Place rows = {(unsigned)(c.num_tokens + 3) / 4, (unsigned)c.num_heads, 1};
    launch(Any<T>::delta, rows, 128, 0, c.context.at, c.dcontext.at, c.deltas.at, (u64)c.num_tokens,
           c.num_heads, c.width);
}

template <typename T>
void try_any(const std::vector<u32> &cells, int num_heads, int width, bool drops) {
    Case<T> c(cells, num_heads, width, drops);
    Buffer<u32> starts(cells);
    any_width::Packed packed = {starts.at, (u32)cells.size() - 1, c.num_tokens, num_heads, width,
                                1 / sqrtf((float)width)};
    Place rows = {(unsigned)(c.num_tokens + 3) / 4, (unsigned)num_heads, 1};
    size_t shared = 8 * width * sizeof(float);
    launch(Any<T>::forward, rows, 128, shared, c.q.at, c.k.at, c.v.at, c.context.at, c.log_sums.at,
           packed, c.dropout);
    delta(c);
    launch(Any<T>::keys, rows, 128, shared, c.q.at, c.k.at, c.v.at, c.dcontext.at, c.log_sums.at,
           c.deltas.at, c.dk.at, c.dv.at, packed, c.dropout);
    launch(Any<T>::queries, rows, 128, shared, c.q.at, c.k.at, c.v.at, c.dcontext.at, c.log_sums.at,
           c.deltas.at, c.dq.at, packed, c.dropout);
    c.compare_all("attention, any width,", tolerance<T>());
}

// The kernels of a set for one type and width, and what their launches are.
#define SET(set, T, name, width)                                                                       \
    template <> struct set##_kernels<T, width> {                                                       \
        static constexpr const char *NAME = #set;                                                      \
        static constexpr auto forward = set::attention_forward_##name##_##width;                       \
        static constexpr auto keys = set::attention_keys_##name##_##width;                             \
        static constexpr auto queries = set::attention_queries_##name##_##width;                       \
        static constexpr int groups[] = {set::forward_shape(width).groups,                             \
                                         set::keys_shape(width).groups,                                \
                                         set::queries_shape(width).groups};                            \
        static constexpr size_t tile = set::Pitch<width>::SIZE * sizeof(T);                            \
        typedef set::Heads Heads;                                                                      \
    };
#define ALL_WIDTHS(set, T, name)                                                                       \
    SET(set, T, name, 32) SET(set, T, name, 64) SET(set, T, name, 96) SET(set, T, name, 128)
#define SETS(set)                                                                                      \
    template <typename T, int WIDTH> struct set##_kernels;                                             \
    ALL_WIDTHS(set, bf16, bf16)                                                                        \
    ALL_WIDTHS(set, f16, f16)
SETS(any_device)
SETS(hopper)

template <typename Set, typename T, int WIDTH>
void try_tiles(Case<T> &c, double allowed) {
    const std::vector<u32> &cells = c.cells;
    std::vector<Tile> tiles;
    for (size_t i = 0; i + 1 < cells.size(); i++) {
        u32 length = cells[i + 1] - cells[i];
        for (u32 first = 0; first < length; first += TABLE_ROWS)
            tiles.push_back({cells[i], length, first});
    }
    Buffer<Tile> tile_buffer(tiles);
    typename Set::Heads heads = {c.num_tokens, c.num_heads, 1 / sqrtf((float)WIDTH)};
    auto run = [&](auto kernel, int groups, int own, auto... arguments) {
        unsigned blocks = tiles.size() * (TABLE_ROWS / (TILE * groups));
        Place grid = {blocks, (unsigned)c.num_heads, 1};
        launch(kernel, grid, groups * GROUP, (own * groups + 4) * Set::tile, arguments...,
               tile_buffer.at, heads, c.dropout);
    };
    run(Set::forward, Set::groups[0], 1, c.q.at, c.k.at, c.v.at, c.context.at, c.log_sums.at);
    delta(c);
    run(Set::keys, Set::groups[1], 2, c.q.at, c.k.at, c.v.at, c.dcontext.at, c.log_sums.at, c.deltas.at,
        c.dk.at, c.dv.at);
    run(Set::queries, Set::groups[2], 2, c.q.at, c.k.at, c.v.at, c.dcontext.at, c.log_sums.at,
        c.deltas.at, c.dq.at);
    c.compare_all((std::string("attention, ") + Set::NAME + ",").c_str(), allowed);
}

template <typename T, int WIDTH>
void try_cores(const std::vector<u32> &cells, int num_heads, bool drops, float far = 0) {
    Case<T> c(cells, num_heads, WIDTH, drops, far);
    // Gradients of scores are rounded to T and multiplied with keys or queries as large as `far`, that
    // cancel each other.
    double allowed = tolerance<T>() * std::max(1.0f, far);
    try_tiles<any_device_kernels<T, WIDTH>, T, WIDTH>(c, allowed);
    c.forget();
    try_tiles<hopper_kernels<T, WIDTH>, T, WIDTH>(c, allowed);
}

static std::vector<u32> starts_of(const std::vector<u32> &lengths) {
    std::vector<u32> starts = {0};
    for (u32 length : lengths) starts.push_back(starts.back() + length);
    return starts;
}

template <typename T, int WIDTH> void try_width(const std::vector<std::vector<u32>> &batches) {
    for (size_t i = 0; i < batches.size(); i++) {
        try_cores<T, WIDTH>(starts_of(batches[i]), 1 + i % 2, i % 3 != 0);
    }
    // Log-sums near −200: what stands where there is no key would be infinite.
    for (bool drops : {false, true}) try_cores<T, WIDTH>({0, 70, 71, 130}, 1, drops, 40 / sqrtf(WIDTH));
}

int main() {
    std::vector<std::vector<u32>> batches = {
        {1}, {5}, {64}, {65}, {1, 7, 1}, {0, 2, 0, 63, 0}, {3, 150, 1, 64, 129}, {200}, {}, {0, 0}};
    for (int i = 0; i < 3; i++) {
        std::vector<u32> lengths;
        for (int n = below(5); n >= 0; n--) lengths.push_back(below(2) ? below(9) : below(180));
        batches.push_back(lengths);
    }
    batches.push_back({127, 128});
    for (size_t i = 0; i < batches.size(); i++) {
        std::vector<u32> starts = starts_of(batches[i]);
        int widths[] = {1, 5, 33, 64, 100, 256};
        int width = widths[i % 6], num_heads = 1 + i % 3;
        try_any<float>(starts, num_heads, width, i % 2);
        try_any<bf16>(starts, num_heads, width, i % 2);
        try_any<f16>(starts, num_heads, width, i % 2);
    }
    try_width<bf16, 32>(batches);
    try_width<f16, 32>(batches);
    try_width<bf16, 64>(batches);
    try_width<f16, 64>(batches);
    batches.erase(batches.begin() + 7, batches.end() - 1);
    try_width<bf16, 96>(batches);
    try_width<f16, 96>(batches);
    try_width<bf16, 128>(batches);
    try_width<f16, 128>(batches);
    printf("attention: %d failures\n", num_failures);
    return num_failures != 0;
}
