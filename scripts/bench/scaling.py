#!/usr/bin/env python3
"""Predicts how data parallel training scales to many GPUs, from compute per step and bucket sizes.

    scripts/bench/scaling.py                                  # the table in tests/bench/README.md
    scripts/bench/scaling.py --step-ms MEASURED --tokens TOKENS --shape 12,768,3072

The model, as `train::reduce` does it: a step is forward (1/3 of the time), backward (2/3, spread over head,
blocks and embeddings by their FLOPs), then what is left to send, then the optimizer (included in the step's
time). Blocks' gradients go into buckets of at least --bucket-mib in the order of the backward pass; a bucket
starts when its last gradient is there and the one before it is through. The embedding tables travel last, as
the rows that any rank has touched, and nothing hides them. Sending b bytes over n GPUs as a ring takes
2 (n-1)/n b / bandwidth + 2 (n-1) latency within a node, and, over m nodes, the slower of the two rings with
2 (m-1)/m b_per_gpu between nodes (each GPU with its own network card). With --shard-optimizer all weights
are gathered after the step, half the bytes of a sum, and nothing hides them.

Assumptions, all flags: 8 GPUs to a node; 370 GB/s within it and 40 GB/s per GPU between nodes (what nccl-tests
reports as bus bandwidth on H100 nodes with NVLink 4 and 400 Gb/s per GPU, rounded down); 5 and 20 us per hop;
computing is not slowed down by sending (NCCL takes a few of 132 SMs); no straggler; and, unless --step-ms
gives a measured one, a step's time from its FLOPs at --mfu of 989 TFLOP/s. None of these is measured: there
was no machine with several GPUs, so that what this prints is a prediction. Bucket sizes are the program's.
"""
import argparse


def stages(shape, vocab, heads_time=0.02, embedding_time=0.03):
    """(share of the backward time, bytes of dense f32 gradients) in the order of the backward pass."""
    blocks, width, inner = shape
    block = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width
    head = width * width + width + 2 * width + vocab * width + vocab
    share = (1 - heads_time - embedding_time) / blocks
    return [(heads_time, 4 * head), *[(share, 4 * block)] * blocks, (embedding_time, 8 * width)]


def seconds(size, gpus, a):
    """An all-reduce of `size` bytes."""
    if gpus == 1:
        return 0.0
    inside = min(gpus, a.per_node)
    nodes = -(-gpus // a.per_node)
    time = 2 * (inside - 1) / inside * size / (a.inside_gb * 1e9) + 2 * (inside - 1) * a.inside_us * 1e-6
    if nodes > 1:
        part = size / inside  # each GPU carries its share of the sum between nodes
        between = 2 * (nodes - 1) / nodes * part / (a.between_gb * 1e9) + 2 * (nodes - 1) * a.between_us * 1e-6
        time += between
    return time


def step(gpus, a):
    """(seconds of a step, of which not hidden behind computing)."""
    compute = a.step_ms / 1e3
    scale = 0.5 if a.bf16 else 1.0
    now, buckets, size = compute / 3, [], 0
    parts = stages(a.shape, a.vocab)
    for share, weight_bytes in parts:
        now += share * compute * 2 / 3
        size += weight_bytes * scale
        if size >= a.bucket_mib * 2**20 * scale:
            buckets.append((now, size))
            size = 0
    buckets.append((now, size))
    free = 0.0
    for ready, size in buckets:
        free = max(free, ready) + seconds(size, gpus, a)
    free = max(free, compute)
    # Rows of the two tables: more ranks touch more of them, at most all.
    rows = min(a.types, a.rows_per_rank * gpus) + min(a.vocab, a.rows_per_rank)
    free += seconds(4 * scale * rows * a.shape[1], gpus, a)
    if a.shard_optimizer:
        weights = sum(size for _, size in parts) + 4 * (a.types + a.vocab) * a.shape[1]
        free += seconds(weights, gpus, a) / 2
    return free, free - compute


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: [int(n) for n in text.split(",")]
    parser.add_argument("--shape", type=numbers, default=[12, 768, 3072], help="blocks, width, inner width")
    parser.add_argument("--vocab", type=int, default=1000, help="rows of the word table")
    parser.add_argument("--types", type=int, default=58604, help="rows of the token type table (genes)")
    parser.add_argument("--rows-per-rank", type=int, default=30000, help="genes that one rank's batch touches")
    parser.add_argument("--step-ms", type=float, help="one GPU's step; default: from tokens and MFU")
    parser.add_argument("--tokens", type=int, default=128 * 1024, help="per GPU and step")
    parser.add_argument("--mfu", type=float, default=0.4, help="share of 989 TFLOP/s that computes")
    parser.add_argument("--bucket-mib", type=float, default=4)
    parser.add_argument("--bf16", action="store_true", help="gradients travel as bf16")
    parser.add_argument("--shard-optimizer", action="store_true", help="moments are divided over the GPUs")
    parser.add_argument("--per-node", type=int, default=8)
    parser.add_argument("--inside-gb", type=float, default=370)
    parser.add_argument("--between-gb", type=float, default=40)
    parser.add_argument("--inside-us", type=float, default=5)
    parser.add_argument("--between-us", type=float, default=20)
    a = parser.parse_args()
    if a.step_ms is None:
        blocks, width, inner = a.shape
        weights = blocks * (4 * width * width + 2 * width * inner)
        a.step_ms = a.tokens * (6 * weights + 12 * blocks * width * 1024) / (a.mfu * 989e12) * 1e3
        print(f"step of one GPU: {a.step_ms:.1f} ms ({a.tokens} tokens at {a.mfu:.0%} MFU: an assumption)")
    dense = sum(size for _, size in stages(a.shape, a.vocab))
    print(f"dense gradients {dense / 1e6:.0f} MB, rows up to {4 * a.types * a.shape[1] / 1e6:.0f} MB (f32)")
    for gpus in (1, 2, 4, 8, 16, 32, 64):
        total, exposed = step(gpus, a)
        print(f"{gpus:3} GPUs: step {total * 1e3:7.1f} ms, {exposed * 1e3:6.1f} ms not hidden, "
              f"efficiency {a.step_ms / 1e3 / total:.1%}")


if __name__ == "__main__":
    main()
