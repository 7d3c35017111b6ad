// AdamW over all parameters in one launch, weights and moments in f32: src/kernels/adamw.rs.
#include "sums.cuh"

// One parameter. `slots` (or null) says for each row of `width` numbers which row of the gradient is
// its own, or −1 where the gradient is zero.
struct Entry {
    float *weights, *first, *second;
    const float *gradient;
    const int *slots;
    u64 count, first_chunk;
    u32 width;
    float keep;
};
// The numbers of a step, from the host or from `guard.cu`; the weights stay where `applies` is 0.
struct Update {
    float rate, beta1, beta2, inverse_root, eps, scale;
    u32 applies;
};

// A block of 256 threads for each chunk of CHUNK weights.
KERNEL adamw(const Entry *entries, u32 num_entries, const Update *numbers) {
    const Update update = *numbers;
    if (!update.applies) return;
    const Entry entry = entry_of(entries, num_entries, blockIdx.x);
    u64 begin = (blockIdx.x - entry.first_chunk) * CHUNK;
    u64 end = begin + CHUNK < entry.count ? begin + CHUNK : entry.count;
    for (u64 i = begin + threadIdx.x; i < end; i += 256) {
        float gradient = 0.0f;
        if (entry.slots) {
            int slot = entry.slots[i / entry.width];
            if (slot >= 0) gradient = entry.gradient[(u64)slot * entry.width + i % entry.width];
        } else {
            gradient = entry.gradient[i];
        }
        gradient *= update.scale;
        float first = update.beta1 * entry.first[i] + (1.0f - update.beta1) * gradient;
        float second = update.beta2 * entry.second[i] + (1.0f - update.beta2) * (gradient * gradient);
        float root = sqrtf(second) * update.inverse_root + update.eps;
        entry.first[i] = first;
        entry.second[i] = second;
        entry.weights[i] = entry.weights[i] * entry.keep - update.rate * (first / root);
    }
}

// All slots −1.
KERNEL empty_slots(int *slots, u32 count) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) slots[i] = -1;
}

// slots[rows[i]] = i, after `empty_slots`.
KERNEL fill_slots(const u32 *rows, u32 count, int *slots) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) slots[rows[i]] = (int)i;
}
