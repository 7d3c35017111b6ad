#!/usr/bin/env python3
"""PyTorch's attention, forward and backward, by each backend that runs here: 16 cells of 1024 tokens, 12
heads of 64, bf16, no dropout. Prints a JSON object: backend → milliseconds, the median of 20.

    scripts/bench/attention_gpu.py --device cuda:0
"""

import argparse
import json
import statistics
import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

BACKENDS = ["FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION"]


def milliseconds(device, backend, shape, repeats):
    on_gpu = device.startswith("cuda")
    q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in "qkv")
    dy = torch.randn(shape, device=device, dtype=torch.bfloat16)

    def once():
        with sdpa_kernel(backend):
            y = scaled_dot_product_attention(q, k, v)
        torch.autograd.grad(y, (q, k, v), dy)

    times = []
    for _ in range(3):
        once()
    for _ in range(repeats):
        if on_gpu:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in "be")
            begin.record()
            once()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            began = time.perf_counter()
            once()
            times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    args = parser.parse_args()
    small = args.device == "cpu"
    shape = (1, 2, 64, 64) if small else (16, 12, 1024, 64)
    found = {}
    for name in ["MATH"] if small else BACKENDS:
        try:
            backend = getattr(SDPBackend, name)
            found[name] = milliseconds(args.device, backend, shape, 2 if small else 20)
        except RuntimeError as error:
            print(f"{name}: {error}", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
