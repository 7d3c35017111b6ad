// Both attentions, forward and backward, against the textbook's in f64: cells of odd lengths, of one
// token, of many tiles, empty ones in between, with and without dropout.
#include "reference.h"
#include "tiles.cuh"

namespace tensor_cores {
#include "../../../src/kernels/cuda/attention.cu"
}
#undef ATTENTION
#undef WIDTHS
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

template <typename T, int WIDTH> struct Cores;
#define CORES(T, name, width)                                                                          \
    template <> struct Cores<T, width> {                                                               \
        static constexpr auto forward = tensor_cores::attention_forward_##name##_##width;              \
        static constexpr auto keys = tensor_cores::attention_keys_##name##_##width;                    \
        static constexpr auto queries = tensor_cores::attention_queries_##name##_##width;              \
    };
#define ALL_CORES(T, name)                                                                             \
    CORES(T, name, 32) CORES(T, name, 64) CORES(T, name, 96) CORES(T, name, 128)
ALL_CORES(bf16, bf16)
ALL_CORES(f16, f16)

template <typename T, int WIDTH>
void try_cores(const std::vector<u32> &cells, int num_heads, bool drops, float far = 0) {
    Case<T> c(cells, num_heads, WIDTH, drops, far);
    std::vector<Tile> tiles;
    for (size_t i = 0; i + 1 < cells.size(); i++) {
        u32 length = cells[i + 1] - cells[i];
        for (u32 first = 0; first < length; first += TILE) tiles.push_back({cells[i], length, first});
    }
    Buffer<Tile> tile_buffer(tiles);
    tensor_cores::Heads heads = {c.num_tokens, num_heads, 1 / sqrtf((float)WIDTH)};
    Place blocks = {(unsigned)tiles.size(), (unsigned)num_heads, 1};
    size_t tile = TILE * (WIDTH + 8) * sizeof(T);
    launch(Cores<T, WIDTH>::forward, blocks, THREADS, 5 * tile, c.q.at, c.k.at, c.v.at, c.context.at,
           c.log_sums.at, tile_buffer.at, heads, c.dropout);
    delta(c);
    launch(Cores<T, WIDTH>::keys, blocks, THREADS, 6 * tile, c.q.at, c.k.at, c.v.at, c.dcontext.at,
           c.log_sums.at, c.deltas.at, c.dk.at, c.dv.at, tile_buffer.at, heads, c.dropout);
    launch(Cores<T, WIDTH>::queries, blocks, THREADS, 6 * tile, c.q.at, c.k.at, c.v.at, c.dcontext.at,
           c.log_sums.at, c.deltas.at, c.dq.at, tile_buffer.at, heads, c.dropout);
    // Gradients of scores are rounded to T and multiplied with keys or queries as large as `far`, that
    // cancel each other.
    c.compare_all("attention, tensor cores,", tolerance<T>() * std::max(1.0f, far));
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
    batches.resize(7);
    try_width<bf16, 96>(batches);
    try_width<f16, 96>(batches);
    try_width<bf16, 128>(batches);
    try_width<f16, 128>(batches);
    printf("attention: %d failures\n", num_failures);
    return num_failures != 0;
}
