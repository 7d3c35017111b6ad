// Softmax cross entropy of labelled rows with smoothing and class weights, and its gradient over the
// logits: src/kernels/cross_entropy.rs, whose formula this is. A block has a row.
#include "device.cuh"

struct Shares {
    float label, each, smoothing; // 1 − ε, ε / V, ε
    float by_class;               // ε / V · Σ w where the spread share weighs by class, else < 0
};

template <typename T>
__device__ inline void row_loss(T *all, const u32 *labels, const float *weights, Shares shares,
                                const double *gradient_scale, double *losses, int write_gradient,
                                int width) {
    SHARED float scratch[32];
    T *logits = all + (u64)blockIdx.x * width;
    u32 label = labels[blockIdx.x];
    float largest = -INFINITY, total = 0.0f, weighted = 0.0f;
    for (int c = threadIdx.x; c < width; c += blockDim.x) largest = fmaxf(largest, to_float(logits[c]));
    largest = block_max(largest, scratch);
    bool by_class = shares.by_class >= 0.0f;
    for (int c = threadIdx.x; c < width; c += blockDim.x) {
        float logit = to_float(logits[c]);
        total += expf(logit - largest);
        weighted += by_class ? weights[c] * logit : logit;
    }
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
    for (int c = threadIdx.x; c < width; c += blockDim.x) {
        float gradient = expf(to_float(logits[c]) - log_sum) * (at_label + spread);
        gradient -= shares.each * (by_class ? weights[c] : weight);
        if (c == (int)label) gradient -= at_label;
        logits[c] = from_float<T>(gradient * scale);
    }
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
