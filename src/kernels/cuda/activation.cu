// Bias, and exact GELU or ReLU, forward and backward: src/kernels/activation.rs.
#include "rows.cuh"

const int RELU = 2; // and GELU: 1

// Of the normal distribution at x: e^(−x² / 2), and the share below x, within 3 · 10⁻⁷, by Abramowitz and
// Stegun's formula 7.1.26 for erf, whose exponential is the first. erff takes three times as long, by
// which the passes over activations would no longer run at the speed of memory.
struct Normal {
    float bell, below;
};
__device__ inline Normal normal_at(float x) {
    float bell = power_of_2(x * x * -0.72134752f);
    float t = reciprocal(1.0f + 0.23164190f * fabsf(x));
    float series = 0.53070271f * t - 0.72657601f;
    series = series * t + 0.71070687f;
    series = series * t - 0.14224837f;
    series = series * t + 0.12741480f;
    float beyond = series * t * bell;
    return {bell, x < 0.0f ? beyond : 1.0f - beyond};
}

__device__ inline float activated(int kind, float x) {
    return kind == RELU ? fmaxf(x, 0.0f) : x * normal_at(x).below;
}
__device__ inline float slope(int kind, float x) {
    if (kind == RELU) return x > 0.0f ? 1.0f : 0.0f;
    Normal normal = normal_at(x);
    return x * 0.39894228f * normal.bell + normal.below;
}

template <int N, typename T>
__device__ inline void add_bias(T *x, const float *bias, T *y, int kind, u64 count, int width) {
    u64 step = (u64)gridDim.x * blockDim.x * N;
    for (u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * N; i < count; i += step) {
        float values[N];
        load<N>(values, x + i);
        if (bias) {
            float more[N];
            load<N>(more, bias + i % width);
            for (int j = 0; j < N; j++) values[j] += more[j];
            store<N>(x + i, values);
        }
        if (kind) {
            // The slope is taken at the rounded number, so the value is too.
            for (int j = 0; j < N; j++) {
                values[j] = activated(kind, to_float(from_float<T>(values[j])));
            }
            store<N>(y + i, values);
        }
    }
}

template <int N, typename T>
__device__ inline void take_back(const T *pre, T *dy, int kind, u64 count) {
    u64 step = (u64)gridDim.x * blockDim.x * N;
    for (u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * N; i < count; i += step) {
        float x[N], g[N];
        load<N>(x, pre + i);
        load<N>(g, dy + i);
        for (int j = 0; j < N; j++) g[j] *= slope(kind, x[j]);
        store<N>(dy + i, g);
    }
}

// x [count / width, width] += bias, unless that is null; y = the activation of that, unless kind is 0.
#define FORWARD(T, name)                                                                               \
    KERNEL bias_activation_##name(T *x, const float *bias, T *y, int kind, u64 count, int width) {     \
        WITH_VECTORS(T, width, (add_bias<N, T>(x, bias, y, kind, count, width)))                       \
    }
FOR_EACH_TYPE(FORWARD)

// dy *= the slope at `pre`, the activation's input.
#define BACKWARD(T, name)                                                                              \
    KERNEL activation_backward_##name(const T *pre, T *dy, int kind, u64 count) {                      \
        WITH_VECTORS(T, count, (take_back<N, T>(pre, dy, kind, count)))                                \
    }
FOR_EACH_TYPE(BACKWARD)
