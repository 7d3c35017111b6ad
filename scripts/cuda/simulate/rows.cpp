// Every kernel that works row by row, or number by number, against its formula in f64.
#include "reference.h"
#include "rows.cuh"
#include "sums.cuh"

namespace layer_norm {
#include "../../../src/kernels/cuda/layer_norm.cu"
}
#undef FORWARD
#undef BACKWARD
namespace embedding {
#include "../../../src/kernels/cuda/embedding.cu"
}
#undef FORWARD
#undef SCATTER
namespace reduce {
#include "../../../src/kernels/cuda/reduce.cu"
}
#undef PARTS
namespace activation {
#include "../../../src/kernels/cuda/activation.cu"
}
#undef FORWARD
#undef BACKWARD
namespace gather {
#include "../../../src/kernels/cuda/gather.cu"
}
namespace cross_entropy {
#include "../../../src/kernels/cuda/cross_entropy.cu"
}
namespace adamw {
#include "../../../src/kernels/cuda/adamw.cu"
}
namespace guard {
#include "../../../src/kernels/cuda/guard.cu"
}

static unsigned blocks_of(size_t count, size_t each) { return (unsigned)((count + each - 1) / each); }

// The kernels of a type, by one name each.
template <typename T> struct Of;
#define NAMES(T, name)                                                                                 \
    template <> struct Of<T> {                                                                         \
        static constexpr auto norm_forward = layer_norm::layer_norm_forward_##name;                    \
        static constexpr auto norm_backward = layer_norm::layer_norm_backward_##name;                  \
        static constexpr auto embed = embedding::embedding_forward_##name;                             \
        static constexpr auto scatter_rows = embedding::embedding_scatter_##name;                      \
        static constexpr auto column_parts = reduce::column_parts_##name;                              \
        static constexpr auto bias = activation::bias_activation_##name;                               \
        static constexpr auto activation_backward = activation::activation_backward_##name;            \
        static constexpr auto gather = gather::gather_##name;                                          \
        static constexpr auto scatter = gather::scatter_##name;                                        \
        static constexpr auto drop = gather::dropout_##name;                                           \
        static constexpr auto loss = cross_entropy::cross_entropy_##name;                              \
    };
FOR_EACH_TYPE(NAMES)

struct NormParts {
    Numbers normalized, y, inverse;
};

static NormParts normalize(const Numbers &x, const Numbers &weight, const Numbers &bias, float eps,
                           const Dropout &after, size_t rows, int width) {
    NormParts parts;
    for (size_t r = 0; r < rows; r++) {
        double mean = 0, variance = 0;
        for (int c = 0; c < width; c++) mean += x[r * width + c] / width;
        for (int c = 0; c < width; c++) variance += pow(x[r * width + c] - mean, 2) / width;
        double inverse = 1 / sqrt(variance + eps);
        parts.inverse.push_back(inverse);
        for (int c = 0; c < width; c++) {
            double normalized = (x[r * width + c] - mean) * inverse;
            parts.normalized.push_back(normalized);
            parts.y.push_back((normalized * weight[c] + bias[c]) * factor(after, r, c));
        }
    }
    return parts;
}

template <typename T> void try_layer_norm(size_t rows, int width, bool drops, bool has_residual) {
    Buffer<T> x(random_numbers<T>(rows * width)), residual(random_numbers<T>(rows * width));
    Buffer<T> y(rows * width), dy(random_numbers<T>(rows * width)), dropped(rows * width);
    Buffer<float> weight(random_numbers<float>(width)), bias(random_numbers<float>(width));
    Buffer<float> inverse(rows);
    Dropout before = random_dropout(drops);
    Numbers into, wide_x = x.wide(), wide_residual = residual.wide();
    for (size_t i = 0; i < rows * width; i++) {
        into.push_back(wide_x[i] * factor(before, i / width, i % width) +
                       (has_residual ? wide_residual[i] : 0));
    }
    launch(Of<T>::norm_forward, {blocks_of(rows, 4), 1, 1}, 128, 16 * placed(width), x.at,
           has_residual ? residual.at : nullptr, weight.at, bias.at, 1e-5f, y.at, inverse.at, before,
           (u64)rows, width);
    Numbers w = weight.wide();
    NormParts expected = normalize(into, w, bias.wide(), 1e-5f, {0, 0, 1.0f}, rows, width);
    // One bf16 may lie on the other side of a rounding boundary.
    double allowed = tolerance<T>();
    compare(shape("LayerNorm y", rows, width), y.wide(), expected.y, allowed);
    compare(shape("LayerNorm 1/σ", rows, width), inverse.wide(), expected.inverse, 1e-4);
    compare(shape("LayerNorm x̂", rows, width), x.wide(), expected.normalized, allowed);

    Numbers g = dy.wide(), n = x.wide(), inv = inverse.wide(), dx, ddropped, sums(2 * width, 0.0);
    for (size_t r = 0; r < rows; r++) {
        double mean = 0, along = 0;
        for (int c = 0; c < width; c++) {
            size_t i = r * width + c;
            mean += g[i] * w[c] / width;
            along += g[i] * w[c] * n[i] / width;
            sums[c] += g[i] * n[i];
            sums[width + c] += g[i];
        }
        for (int c = 0; c < width; c++) {
            size_t i = r * width + c;
            dx.push_back(inv[r] * (g[i] * w[c] - mean - n[i] * along));
            ddropped.push_back(dx.back() * factor(before, r, c));
        }
    }
    int each = 6;
    unsigned blocks = blocks_of(rows, each);
    Buffer<float> parts((size_t)blocks * 2 * width);
    launch(Of<T>::norm_backward, {blocks, 1, 1}, 128, 32 * placed(width), dy.at, x.at, inverse.at, weight.at,
           drops ? dropped.at : nullptr, parts.at, before, (u64)rows, width, each);
    compare(shape("LayerNorm dx", rows, width), dy.wide(), dx, 2 * allowed);
    if (drops) compare(shape("LayerNorm dropped", rows, width), dropped.wide(), ddropped, 2 * allowed);
    std::vector<float> start(width, 0.5f);
    Buffer<float> dweight(start), dbias(width);
    launch(reduce::add_parts, {blocks_of(2 * width, 32), 1, 1}, 256, 0, parts.at, (u64)blocks,
           2 * width, width, dweight.at, dbias.at, 1, 0);
    Numbers left(sums.begin(), sums.begin() + width), right(sums.begin() + width, sums.end());
    for (double &x : left) x += 0.5;
    compare(shape("LayerNorm dweight", rows, width), dweight.wide(), left, 1e-4);
    compare(shape("LayerNorm dbias", rows, width), dbias.wide(), right, 1e-4);
}

template <typename T> void try_embedding(size_t rows, int width, bool drops) {
    int num_words = 7, num_types = 19;
    Buffer<float> word(random_numbers<float>(num_words * width));
    Buffer<float> types(random_numbers<float>(num_types * width));
    Buffer<float> weight(random_numbers<float>(width)), bias(random_numbers<float>(width));
    std::vector<u32> ids = random_ids(rows, num_words), type_ids = random_ids(rows, num_types);
    Buffer<u32> id_buffer(ids), type_buffer(type_ids);
    Buffer<T> normalized(rows * width), y(rows * width);
    Buffer<float> inverse(rows);
    Dropout after = random_dropout(drops);
    launch(Of<T>::embed, {blocks_of(rows, 4), 1, 1}, 128, 16 * placed(width), word.at, types.at, id_buffer.at,
           type_buffer.at, weight.at, bias.at, 1e-12f, normalized.at, y.at, inverse.at, after,
           (u64)rows, width);
    Numbers x;
    for (size_t i = 0; i < rows * width; i++) {
        size_t r = i / width, c = i % width;
        x.push_back((double)word.at[ids[r] * width + c] + types.at[type_ids[r] * width + c]);
    }
    NormParts expected = normalize(x, weight.wide(), bias.wide(), 1e-12f, after, rows, width);
    compare(shape("embedding y", rows, width), y.wide(), expected.y, tolerance<T>());
    compare(shape("embedding x̂", rows, width), normalized.wide(), expected.normalized, tolerance<T>());

    // Pieces of 3 tokens, as the host cuts them.
    Buffer<T> dx(random_numbers<T>(rows * width));
    std::map<u32, std::vector<u32>> tokens;
    for (size_t r = 0; r < rows; r++) tokens[ids[r]].push_back(r);
    std::vector<u32> order;
    std::vector<embedding::Piece> pieces;
    std::vector<embedding::Run> runs;
    u32 num_parts = 0, row = 0;
    Numbers sums, wide = dx.wide();
    for (auto &[id, of_id] : tokens) {
        u32 count = of_id.size(), num_pieces = (count + 2) / 3;
        for (u32 i = 0; i < num_pieces; i++) {
            u32 to = num_pieces > 1 ? num_parts + i : row;
            u32 size = std::min(3u, count - 3 * i);
            pieces.push_back({(u32)order.size() + 3 * i, size, to, num_pieces > 1});
        }
        if (num_pieces > 1) runs.push_back({num_parts, num_pieces, row}), num_parts += num_pieces;
        order.insert(order.end(), of_id.begin(), of_id.end());
        for (int c = 0; c < width; c++) {
            double sum = 0;
            for (u32 token : of_id) sum += wide[token * width + c];
            sums.push_back(sum);
        }
        row++;
    }
    Buffer<u32> order_buffer(order);
    Buffer<embedding::Piece> piece_buffer(pieces);
    Buffer<embedding::Run> run_buffer(runs);
    Buffer<float> values((size_t)row * width), parts((size_t)num_parts * width);
    launch(Of<T>::scatter_rows, {(unsigned)pieces.size(), 1, 1}, 64, 0, dx.at, order_buffer.at,
           piece_buffer.at, values.at, parts.at, width);
    launch(embedding::embedding_join, {(unsigned)runs.size(), 1, 1}, 64, 0, parts.at, run_buffer.at,
           values.at, width);
    compare(shape("embedding gradient", rows, width), values.wide(), sums, 1e-5);
}

static double normal_cdf(double x) { return 0.5 * erfc(-x / sqrt(2.0)); }

template <typename T> void try_activation(size_t rows, int width, int kind) {
    Buffer<T> x(random_numbers<T>(rows * width, 2.0)), y(rows * width);
    Buffer<T> dy(random_numbers<T>(rows * width));
    Buffer<float> bias(random_numbers<float>(width));
    Numbers before = x.wide(), b = bias.wide(), with_bias, after, g = dy.wide(), dx;
    launch(Of<T>::bias, {3, 1, 1}, 64, 0, x.at, bias.at, y.at, kind, (u64)(rows * width), width);
    Numbers rounded = x.wide();
    for (size_t i = 0; i < rows * width; i++) {
        with_bias.push_back(before[i] + b[i % width]);
        double v = rounded[i];
        double slope = v > 0 ? 1 : 0;
        if (kind == 1) slope = normal_cdf(v) + v * exp(-v * v / 2) / sqrt(2 * M_PI);
        after.push_back(kind == 1 ? v * normal_cdf(v) : std::max(v, 0.0));
        dx.push_back(g[i] * slope);
    }
    compare(shape("bias", rows, width), rounded, with_bias, tolerance<T>());
    if (!kind) return;
    compare(shape("activation", rows, width), y.wide(), after, tolerance<T>());
    // Numbers that have their bias stay as they are.
    Buffer<T> again(rows * width);
    launch(Of<T>::bias, {3, 1, 1}, 64, 0, x.at, (float *)nullptr, again.at, kind, (u64)(rows * width),
           width);
    compare(shape("activation alone", rows, width), again.wide(), y.wide(), 0);
    compare(shape("its input", rows, width), x.wide(), rounded, 0);
    launch(Of<T>::activation_backward, {2, 1, 1}, 96, 0, x.at, dy.at, kind, (u64)(rows * width));
    compare(shape("activation gradient", rows, width), dy.wide(), dx, tolerance<T>());
}

template <typename T> void try_columns(size_t rows, int width) {
    Buffer<T> x(random_numbers<T>(rows * width));
    int each = 10;
    unsigned blocks = blocks_of(rows, each);
    Buffer<float> parts((size_t)blocks * width), sums(width);
    launch(Of<T>::column_parts, {blocks_of(width, 32), blocks, 1}, 256, 0, x.at, parts.at, (u64)rows,
           width, each);
    launch(reduce::add_parts, {blocks_of(width, 32), 1, 1}, 256, 0, parts.at, (u64)blocks, width,
           width, sums.at, (float *)nullptr, 0, 0);
    Numbers expected(width, 0.0), wide = x.wide();
    for (size_t i = 0; i < rows * width; i++) expected[i % width] += wide[i];
    compare(shape("column sums", rows, width), sums.wide(), expected, 1e-5);
}

template <typename T> void try_gather(size_t rows, size_t picked, int width) {
    Buffer<T> x(random_numbers<T>(rows * width)), y(picked * width);
    std::vector<u32> all(rows);
    for (size_t i = 0; i < rows; i++) all[i] = i;
    std::shuffle(all.begin(), all.end(), randomness);
    std::vector<u32> positions(all.begin(), all.begin() + picked);
    Buffer<u32> at(positions);
    launch(Of<T>::gather, {(unsigned)picked, 1, 1}, 64, 0, x.at, at.at, y.at, width);
    Numbers wide = x.wide(), expected, back(rows * width, 0.0), dropped;
    for (u32 position : positions)
        for (int c = 0; c < width; c++) expected.push_back(wide[position * width + c]);
    compare(shape("gather", picked, width), y.wide(), expected, 0);
    for (size_t i = 0; i < picked; i++)
        for (int c = 0; c < width; c++) back[positions[i] * width + c] = expected[i * width + c];
    memset((void *)x.at, 0, rows * width * sizeof(T));
    std::vector<u32> sorted = positions;
    std::sort(sorted.begin(), sorted.end());
    Buffer<u32> sorted_buffer(sorted);
    Buffer<float> table(random_numbers<float>(rows * width)), more(random_numbers<float>(picked * width));
    Numbers grown = table.wide();
    for (size_t i = 0; i < picked * width; i++) grown[sorted[i / width] * width + i % width] += more.at[i];
    launch(gather::add_rows, {(unsigned)picked, 1, 1}, 64, 0, more.at, sorted_buffer.at, table.at, width);
    compare(shape("add rows", picked, width), table.wide(), grown, 1e-6);
    launch(Of<T>::scatter, {(unsigned)picked, 1, 1}, 64, 0, y.at, at.at, x.at, width);
    compare(shape("scatter", picked, width), x.wide(), back, 0);
    Dropout dropout = random_dropout(true);
    for (size_t i = 0; i < picked * width; i++) {
        dropped.push_back(expected[i] * factor(dropout, i / width, i % width));
    }
    launch(Of<T>::drop, {(unsigned)picked, 1, 1}, 64, 0, y.at, dropout, width);
    compare(shape("dropout", picked, width), y.wide(), dropped, tolerance<T>());
}

template <typename T> void try_cross_entropy(size_t rows, int width, float smoothing, int weighing) {
    Buffer<T> logits(random_numbers<T>(rows * width, 3.0));
    std::vector<u32> labels = random_ids(rows, width);
    std::vector<float> weights;
    for (int c = 0; c < width; c++) weights.push_back(0.5f + c / 8.0f);
    Buffer<u32> label_buffer(labels);
    Buffer<float> weight_buffer(weights);
    Buffer<double> scale(std::vector<double>{4.0, 0.0});
    double total_weight = 0;
    for (float w : weights) total_weight += w;
    bool by_class = weighing == 2;
    float each = smoothing / width;
    cross_entropy::Shares shares = {1 - smoothing, each, smoothing,
                                    by_class ? (float)(each * total_weight) : -1.0f};
    Numbers wide = logits.wide(), gradient, sum(1, 0.0);
    for (size_t r = 0; r < rows; r++) {
        double total = 0, at_label = weighing ? weights[labels[r]] : 1.0;
        const double *row = &wide[r * width];
        for (int c = 0; c < width; c++) total += exp(row[c]);
        double all = 1 - smoothing;
        all *= at_label;
        for (int c = 0; c < width; c++) all += each * (by_class ? weights[c] : at_label);
        for (int c = 0; c < width; c++) {
            double share = each * (by_class ? weights[c] : at_label);
            if (c == (int)labels[r]) share += (1 - smoothing) * at_label;
            sum[0] += share * (log(total) - row[c]);
            gradient.push_back(all * exp(row[c]) / total - share);
        }
    }
    Buffer<double> losses(rows), loss(1);
    launch(Of<T>::loss, {(unsigned)rows, 1, 1}, 128, 0, logits.at, label_buffer.at,
           weighing ? weight_buffer.at : nullptr, shares, weighing ? scale.at : nullptr, losses.at, 1,
           width);
    launch(reduce::sum_parts, {1, 1, 1}, 256, 0, losses.at, (u64)rows, loss.at);
    compare(shape("loss", rows, width), Numbers(loss.at, loss.at + 1), sum, 1e-5);
    if (weighing) {
        for (double &x : gradient) x *= scale.at[0];
    }
    compare(shape("loss gradient", rows, width), logits.wide(), gradient, tolerance<T>());
}

// Tensors of these sizes, the second one as some rows of width 5.
static void try_optimizer(const std::vector<size_t> &counts) {
    std::vector<adamw::Entry> entries;
    std::vector<reduce::Span> spans;
    std::vector<Buffer<float> *> kept;
    auto fresh = [&](size_t count) {
        kept.push_back(new Buffer<float>(random_numbers<float>(count)));
        return kept.back()->at;
    };
    adamw::Update update = {1e-2f, 0.9f, 0.99f, 1.5f, 1e-6f, 0.25f, 1};
    Buffer<adamw::Update> update_buffer(std::vector<adamw::Update>{update});
    u64 chunks = 0;
    double squares = 0;
    Numbers expected;
    std::vector<u32> rows;
    for (size_t row = 0; row < counts[1] / 5; row++) {
        if (row % 3 == 1) rows.push_back(row);
    }
    Buffer<u32> row_buffer(rows);
    Buffer<int> slot_buffer(counts[1] / 5);
    launch(adamw::empty_slots, {blocks_of(slot_buffer.count, 32), 1, 1}, 32, 0, slot_buffer.at,
           (u32)slot_buffer.count);
    launch(adamw::fill_slots, {blocks_of(rows.size(), 32), 1, 1}, 32, 0, row_buffer.at,
           (u32)rows.size(), slot_buffer.at);
    for (size_t t = 0; t < counts.size(); t++) {
        size_t count = counts[t], given = t == 1 ? rows.size() * 5 : count;
        adamw::Entry entry = {fresh(count), fresh(count), fresh(count), fresh(given),
                              t == 1 ? slot_buffer.at : nullptr, count, chunks, 5, 0.99f};
        spans.push_back({entry.gradient, given, 0});
        for (size_t i = 0; i < count; i++) {
            entry.second[i] = fabsf(entry.second[i]);
            double g = 0;
            if (t != 1) g = entry.gradient[i];
            else if (i / 5 % 3 == 1) g = entry.gradient[i / 5 / 3 * 5 + i % 5];
            squares += g * g;
            g *= update.scale;
            double first = 0.9 * entry.first[i] + 0.1 * g, second = 0.99 * entry.second[i] + 0.01 * g * g;
            double step = 1e-2 * first / (sqrt(second) * 1.5 + 1e-6);
            for (double x : {entry.weights[i] * 0.99 - step, first, second}) expected.push_back(x);
        }
        entries.push_back(entry);
        chunks += blocks_of(count, CHUNK);
    }
    u64 span_chunks = 0;
    for (reduce::Span &span : spans) {
        span.first_chunk = span_chunks;
        span_chunks += blocks_of(span.count, CHUNK);
    }
    Buffer<reduce::Span> span_buffer(spans);
    Buffer<double> parts(span_chunks), sum(1);
    launch(reduce::square_parts, {(unsigned)span_chunks, 1, 1}, 256, 0, span_buffer.at,
           (u32)spans.size(), parts.at);
    launch(reduce::sum_parts, {1, 1, 1}, 256, 0, parts.at, span_chunks, sum.at);
    compare("gradient norm", Numbers(sum.at, sum.at + 1), {squares}, 1e-6);
    Buffer<adamw::Entry> entry_buffer(entries);
    auto step = [&] {
        Numbers found;
        launch(adamw::adamw, {(unsigned)chunks, 1, 1}, 256, 0, entry_buffer.at, (u32)entries.size(),
               update_buffer.at);
        for (const adamw::Entry &entry : entries) {
            for (size_t i = 0; i < entry.count; i++) {
                for (float x : {entry.weights[i], entry.first[i], entry.second[i]}) found.push_back(x);
            }
        }
        return found;
    };
    Numbers before;
    update_buffer.at->applies = 0;
    before = step();
    compare("AdamW that is not to move anything", step(), before, 0);
    update_buffer.at->applies = 1;
    Numbers found = step();
    compare("AdamW", found, expected, 1e-6);
    for (Buffer<float> *buffer : kept) delete buffer;
}

// Steps of all kinds by the rule of src/optim/guard.rs.
static void try_guard(bool scales) {
    Buffer<guard::State> state(std::vector<guard::State>{{scales ? 65536.0 : 1.0, 0, 0, 0, 0}});
    Buffer<guard::Update> update(1);
    Buffer<guard::Verdict> verdict(1);
    guard::Rule rule = {0.25, 1.0, 0.1, 0.9, 0.99, 1e-6, scales ? 1.0 : 0.0};
    double loss_scale = state.at->loss_scale, good = 0, applied = 0, skipped = 0, lost = 0;
    for (int step = 0; step < 5000; step++) {
        bool all_lost = step >= 4990;
        int kind = all_lost ? 0 : below(40);
        double norm = kind == 1 ? INFINITY : 8.0 * loss_scale * (kind == 2 ? 0.01 : 1.0);
        double each = kind == 0 ? NAN : 1.5;
        // A loss without a finite number is rarely followed by another, or the run would end.
        if (kind <= 1 && lost == 2 && !all_lost) each = 1.5, norm = 1.0;
        Numbers values(1 + below(600), 0.0), sums = {each, 2.5};
        values[below(values.size())] = norm * norm / 2;
        values[below(values.size())] += norm * norm / 2;
        Buffer<double> parts(values), one(Numbers{sums[0]}), other(Numbers{sums[1]});
        Buffer<const double *> losses(std::vector<const double *>{one.at, other.at});
        launch(guard::decide, {1, 1, 1}, 256, 0, parts.at, (u64)parts.count, losses.at, 2u, rule,
               state.at, update.at, verdict.at);
        double size = norm * 0.25 / loss_scale, mean = (each + 2.5) * 0.25;
        bool finite = std::isfinite(size) && std::isfinite(mean), applies = finite && lost < 3;
        double clip = size > 1.0 ? 1.0 / (size + 1e-6) : 1.0, scale = 0.25 / loss_scale * clip;
        good = finite ? good + 1 : 0;
        if (applies) applied++, lost = 0;
        if (!applies) skipped++;
        if (!finite && !(scales && std::isfinite(mean) && loss_scale > 1)) lost++;
        if (scales && !finite) loss_scale = std::max(1.0, loss_scale / 2);
        if (scales && good == 2000) good = 0, loss_scale = std::min(16777216.0, loss_scale * 2);
        const guard::State &s = *state.at;
        check("state of the guard", s.loss_scale == loss_scale && s.good_steps == good &&
                                        s.applied == applied && s.skipped == skipped &&
                                        s.lost_in_a_row == lost);
        check("verdict", verdict.at->skipped == !applies && verdict.at->lost_in_a_row == lost &&
                             (update.at->applies != 0) == applies);
        if (!applies) continue;
        compare("loss and norm", {verdict.at->loss, verdict.at->norm}, {mean, size}, 1e-12);
        double rate = 0.1 / (1 - pow(0.9, applied)), root = 1 / sqrt(1 - pow(0.99, applied));
        const guard::Update &u = *update.at;
        compare("numbers of the step", {u.rate, u.inverse_root, u.beta1, u.beta2, u.eps},
                {rate, root, 0.9, 0.99, 1e-6}, 1e-6);
        check("scale of the gradients", fabs(u.scale / scale - 1) < 1e-6);
    }
    check("three lost steps in a row end all", lost >= 3 && update.at->applies == 0);
}

// The bits of src/kernels/dropout.rs: `dropout.rs` has the same list.
static void try_dropout_bits() {
    Dropout dropout = {0x0123456789ABCDEFull, 0x40000000u, 4.0f / 3.0f};
    const u64 rows[5] = {0, 1, 2, 1000003, (1ull << 40) + 5};
    const u32 expected[5] = {0x6BFBDEF2, 0x69FAF133, 0xF1DDCD9C, 0xFDBF6D7F, 0xFFFEBFCC};
    for (int i = 0; i < 5; i++) {
        u32 bits = 0;
        for (u32 c = 0; c < 32; c++) {
            bits |= (u32)keeps(dropout.threshold, row_key(dropout, rows[i]), 37 * c) << c;
        }
        check("dropout bits", bits == expected[i]);
    }
    // Queries of the second head of three, of a cell that begins at token 1000, and every fifth key.
    const u32 places[5] = {0, 7, 8, 15, 2003};
    const u32 expected_of[5] = {0xFFEB57FD, 0xFFF5FBB0, 0x7F3F3BFF, 0xFBFF55A7, 0xDFFA7BC9};
    for (int i = 0; i < 5; i++) {
        u32 key = query_key(dropout, 1000, places[i], 3, 1), bits = 0;
        for (u32 j = 0; j < 32; j++) bits |= (u32)(kept_square(dropout, key, places[i], 5 * j) > 0) << j;
        check("dropout bits of attention", bits == expected_of[i]);
    }
}

template <typename T> void try_type() {
    const int widths[] = {1, 5, 8, 24, 64, 100, 260};
    const size_t heights[] = {0, 1, 3, 4, 17, 40};
    for (int width : widths) {
        for (size_t rows : heights) {
            for (bool drops : {false, true}) {
                for (bool residual : {false, true}) {
                    if (width > 1) try_layer_norm<T>(rows, width, drops, residual);
                }
                if (width > 1) try_embedding<T>(rows, width, drops);
            }
            for (int kind : {0, 1, 2}) try_activation<T>(rows, width, kind);
            try_columns<T>(rows, width);
            try_gather<T>(rows, rows / 2, width);
            for (int weighing : {0, 1, 2}) {
                for (float smoothing : {0.0f, 0.3f}) {
                    try_cross_entropy<T>(rows, width, smoothing, weighing);
                }
            }
        }
    }
    // A thread has several pieces of a row, among them larger logits than before.
    try_cross_entropy<T>(3, 5003, 0.3f, 2);
}

// The number types themselves: every f16 and bf16 comes back from f32.
static void try_numbers() {
    bool same = true;
    for (u32 bits = 0; bits < 65536; bits++) {
        f16 half = {(uint16_t)bits};
        bf16 brain = {(uint16_t)bits};
        float wide = to_float(half);
        same &= wide != wide || from_float<f16>(wide).bits == bits;
        wide = to_float(brain);
        same &= wide != wide || from_float<bf16>(wide).bits == bits;
    }
    same &= from_float<f16>(1.0f + 1.0f / 2048).bits == 0x3c00;
    same &= from_float<f16>(1.0f + 3.0f / 2048).bits == 0x3c02;
    same &= from_float<f16>(65520.0f).bits == 0x7c00 && from_float<f16>(65519.0f).bits == 0x7bff;
    check("16-bit numbers", same);
}

int main() {
    try_numbers();
    try_dropout_bits();
    try_type<float>();
    try_type<bf16>();
    try_type<f16>();
    try_optimizer({7, 35, 1, 20000, 33000, 16384});
    try_optimizer({1, 40, 16385});
    try_guard(false);
    try_guard(true);
    printf("row kernels: %d failures\n", num_failures);
    return num_failures != 0;
}
