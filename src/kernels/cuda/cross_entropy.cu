// Softmax cross entropy of labelled rows with smoothing and class weights, and its gradient over the
// logits: src/kernels/cross_entropy.rs, whose formula this is. A block has a row, and reads it twice:
// for the loss, whose sum of exponentials is corrected as larger logits come, and for the gradient.
#include "rows.cuh"

struct Shares {
    float label, each, smoothing; // 1 − ε, ε / V, ε
    float by_class;               // ε / V · Σ w where the spread share weighs by class, else < 0
};

// Calls act(column, values) for pieces of a row, which the block's threads share: N numbers at once
// that lie at a multiple of 16 bytes, and one by one what is before and behind those.
template <typename T, typename Act>
__device__ inline void each_piece(const T *row, int width, Act act) {
    const int N = Vector<T>::SIZE;
    int before = (N - (int)(reinterpret_cast<u64>(row) / sizeof(T) % N)) % N;
    before = before < width ? before : width;
    int behind = before + (width - before) / N * N;
    for (int c = threadIdx.x; c < before; c += blockDim.x) {
        float value[1] = {to_float(row[c])};
        act(c, value);
    }
    for (int c = before + threadIdx.x * N; c < behind; c += blockDim.x * N) {
        float values[N];
        load<N>(values, row + c);
        act(c, values);
    }
    for (int c = behind + threadIdx.x; c < width; c += blockDim.x) {
        float value[1] = {to_float(row[c])};
        act(c, value);
    }
}

template <typename T>
__device__ inline void row_loss(T *all, const u32 *labels, const float *weights, Shares shares,
                                const double *gradient_scale, double *losses, int write_gradient,
                                int width) {
    SHARED float scratch[32];
    T *logits = all + (u64)blockIdx.x * width;
    u32 label = labels[blockIdx.x];
    float largest = -INFINITY, total = 0.0f, weighted = 0.0f;
    bool by_class = shares.by_class >= 0.0f;
    each_piece(logits, width, [&](int column, auto &values) {
        float next = largest;
        for (float logit : values) next = fmaxf(next, logit);
        // Nothing yet: any finite number does.
        float base = next > -INFINITY ? next : 0.0f;
        total *= expf(largest - base);
        largest = next;
        for (float logit : values) {
            total += expf(logit - base);
            weighted += by_class ? weights[column] * logit : logit;
            column++;
        }
    });
    float own = largest;
    largest = block_max(own, scratch);
    total *= expf(own - largest);
    float log_sum = largest + logf(block_sum(total, scratch));
    weighted = block_sum(weighted, scratch);
    float weight = weights ? weights[label] : 1.0f;
    float at_label = shares.label * weight;
    float spread = by_class ? shares.by_class : shares.smoothing * weight;
    if (threadIdx.x == 0) {
        double loss = (double)at_label * (double)(log_sum - to_float(logits[label]));
        if (shares.each > 0.0f) {
            float at_each = by_class ? weighted : weight * weighted;
            loss += (double)spread * (double)log_sum - (double)shares.each * (double)at_each;
        }
        losses[blockIdx.x] = loss;
    }
    if (!write_gradient) return;
    __syncthreads();
    float scale = gradient_scale ? (float)*gradient_scale : 1.0f;
    each_piece(logits, width, [&](int first, auto &values) {
        int column = first;
        for (float &value : values) {
            float gradient = expf(value - log_sum) * (at_label + spread);
            gradient -= shares.each * (by_class ? weights[column] : weight);
            if (column == (int)label) gradient -= at_label;
            value = gradient * scale;
            column++;
        }
        store<sizeof(values) / sizeof(float)>(logits + first, values);
    });
}

// losses [rows]; the logits [rows, width] become their gradient if asked, times *gradient_scale
// (1 where that is null).
#define LOSS(T, name)                                                                                  \
    KERNEL cross_entropy_##name(T *logits, const u32 *labels, const float *weights, Shares shares,     \
                                const double *gradient_scale, double *losses, int write_gradient,      \
                                int width) {                                                           \
        row_loss(logits, labels, weights, shares, gradient_scale, losses, write_gradient, width);      \
    }
FOR_EACH_TYPE(LOSS)
