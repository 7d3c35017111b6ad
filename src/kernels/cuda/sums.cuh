// Sums of f64 in a fixed order, and which tensor of many a chunk of numbers belongs to.
#pragma once
#include "device.cuh"

// Numbers of a block where one launch goes over many tensors.
const u64 CHUNK = 16384;

// The last entry whose first chunk is not after `chunk`.
template <typename S> __device__ inline const S &entry_of(const S *entries, u32 count, u64 chunk) {
    u32 low = 0, high = count;
    while (high - low > 1) {
        u32 middle = (low + high) / 2;
        if (entries[middle].first_chunk <= chunk) low = middle;
        else high = middle;
    }
    return entries[low];
}

// The sum over 256 threads in a fixed order, the same in all of them.
__device__ inline double ordered_sum(double x) {
    SHARED double all[256];
    __syncthreads();
    all[threadIdx.x] = x;
    __syncthreads();
    for (int apart = 128; apart > 0; apart /= 2) {
        if ((int)threadIdx.x < apart) all[threadIdx.x] += all[threadIdx.x + apart];
        __syncthreads();
    }
    return all[0];
}

// The sum of `count` numbers by 256 threads.
__device__ inline double sum_of(const double *numbers, u64 count) {
    double sum = 0.0;
    for (u64 i = threadIdx.x; i < count; i += 256) sum += numbers[i];
    return ordered_sum(sum);
}
