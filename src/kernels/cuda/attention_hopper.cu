// attention.cu by Hopper's own instructions (sm_90a, compute capability 9.0 alone): the same bodies
// over the products of wgmma.cuh. A block has one or two groups of 128 threads: `*_shape` there.
#include "wgmma.cuh"

#include "attention.cuh"

WIDTHS(bf16, bf16)
WIDTHS(f16, f16)
