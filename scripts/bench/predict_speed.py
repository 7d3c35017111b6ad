#!/usr/bin/env python3
"""Cells per second of `gene-bert predict` against the same classifier in PyTorch, on the CPU.

Both label the same real cells with the same weights, in turn, ROUNDS times; the probabilities of
their best labels must agree.
gene-bert is timed as a whole process: it starts, reads the h5ad file, tokenises, predicts and
writes a CSV. PyTorch is timed on tokens that lie ready in memory, model loaded and warmed up:

  f32       64 cells at a time, padded to the longest of them, PyTorch's own attention
  sorted    the same, cells of like length together: the least padding
  bf16      sorted, under bf16 autocast
  one       one cell at a time, as the original predicts (on a sample of the cells)

    pip install torch safetensors numpy anndata
    scripts/bench/predict_speed.py data/accuracy/papalexi_lowmoi_20729x299_counts.h5ad perturbation
"""

import argparse
import contextlib
import csv
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODES = ["f32", "sorted", "bf16", "one"]
BATCH = 64
EDGES = [0.5, 1.5, 2.5, 4.5, 8.5]
CLS, EOS, BIN_0 = 0, 1, 4
GENE_0 = 1  # a classifier without phenotypes has no categories


def tokens_of(path, max_length):
    """Token ids and token types of every cell: CLS, expressed genes in the file's order, EOS."""
    import anndata
    import numpy as np
    import scipy.sparse as sp

    x = sp.csr_matrix(anndata.read_h5ad(path).X)
    x.sort_indices()
    cells = []
    for start, end in zip(x.indptr, x.indptr[1:]):
        bins = np.digitize(x.data[start:end], EDGES)
        genes, bins = x.indices[start:end][bins > 0], bins[bins > 0]
        genes, bins = genes[: max_length - 2], bins[: max_length - 2]
        ids = np.concatenate([[CLS], BIN_0 + bins, [EOS]])
        cells.append((ids, np.concatenate([[0], GENE_0 + genes, [0]])))
    return cells


def worker(mode, run, data, options):
    """Predicts in PyTorch; prints seconds and probabilities as JSON."""
    import torch
    from safetensors.torch import load_file
    from torch.nn import functional as F

    torch.set_num_threads(options.threads)
    folder = Path(run) / "checkpoint-1"
    config = json.loads((folder / "config.json").read_text())
    width, heads = config["hidden_size"], config["num_attention_heads"]
    eps = config["layer_norm_eps"]
    weights = load_file(folder / "model.safetensors")

    def linear(x, name):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    def forward(ids, types, mask):
        at = "distilbert.embeddings"
        x = F.embedding(ids, weights[f"{at}.word_embeddings.weight"])
        x = norm(x + F.embedding(types, weights[f"{at}.token_type_embeddings.weight"]),
                 f"{at}.LayerNorm")  # [B, L, D]
        for number in range(config["num_hidden_layers"]):
            at = f"distilbert.transformer.layer.{number}"
            q, k, v = (
                linear(x, f"{at}.attention.{name}_lin").unflatten(2, (heads, -1)).transpose(1, 2)
                for name in "qkv"
            )  # [B, H, L, D/H]
            y = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)
            x = norm(x + linear(y, f"{at}.attention.out_lin"), f"{at}.sa_layer_norm")
            y = linear(F.gelu(linear(x, f"{at}.ffn.lin1")), f"{at}.ffn.lin2")
            x = norm(x + y, f"{at}.output_layer_norm")
        return linear(F.relu(linear(x[:, 0], "pre_classifier")), "classifier")

    def batched(cells):
        longest = max(len(ids) for ids, _ in cells)
        ids = torch.full((len(cells), longest), config["pad_token_id"])
        types, real = torch.zeros_like(ids), torch.zeros(ids.shape, dtype=torch.bool)
        for row, (its_ids, its_types) in enumerate(cells):
            ids[row, : len(its_ids)] = torch.from_numpy(its_ids)
            types[row, : len(its_ids)] = torch.from_numpy(its_types)
            real[row, : len(its_ids)] = True
        return ids, types, None if real.all() else real[:, None, None, :]

    cells = tokens_of(data, options.max_length)
    order = list(range(len(cells)))
    size = 1 if mode == "one" else BATCH
    if mode == "one":
        order = order[:: max(1, len(order) // 500)]
    if mode in ("sorted", "bf16"):
        order.sort(key=lambda cell: len(cells[cell][0]))
    rounded = mode == "bf16"
    cast = torch.autocast("cpu", torch.bfloat16) if rounded else contextlib.nullcontext()
    found = {}
    with torch.inference_mode(), cast:
        forward(*batched(cells[:size]))
        began = time.perf_counter()
        for at in range(0, len(order), size):
            some = order[at : at + size]
            best = forward(*batched([cells[cell] for cell in some])).softmax(1).amax(1)
            found |= zip(some, best.tolist())
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "probabilities": sorted(found.items())}))


def call(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="h5ad file of counts")
    parser.add_argument("column", help="obs column of the classes")
    parser.add_argument("--program", default="target/release/gene-bert")
    parser.add_argument("--arch", default="distilbert_small")
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--worker", nargs=2, metavar=("MODE", "RUN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(*options.worker, options.data, options)

    import anndata
    import pandas

    pandas.set_option("future.infer_string", False)  # anndata writes strings of the older kind
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data, run, out = folder / "cells.h5ad", folder / "run", folder / "labels.csv"
        anndata.read_h5ad(options.data)[: options.cells].copy().write_h5ad(data)
        train = [options.program, "cls", "--phenotype_category", options.column, "--max_steps", 1]
        train += ["--model_arch", options.arch, "--bin_edges", *EDGES, "--gene-order", "file"]
        train += ["--max_length", options.max_length, "--train_data_paths", data]
        train += ["--per_device_train_batch_size", 8, "--eval_fraction", 0, "--output_dir", run]
        call(train)
        predict = [options.program, "predict", data, "--checkpoint", run, "--output", out]
        predict += ["--overwrite", "--threads", options.threads]
        theirs = [sys.executable, __file__, data, options.column, "--threads", options.threads]
        theirs += ["--max-length", options.max_length]

        rates = {name: [] for name in ("gene-bert", "gene-bert, its own clock", *options.modes)}
        differences = {}
        for _ in range(options.rounds):
            began = time.perf_counter()
            done = call(predict)
            seconds = time.perf_counter() - began
            with open(out) as file:
                column = f"{options.column}_predicted_probability"
                found = [float(row[column]) for row in csv.DictReader(file)]
            rates["gene-bert"].append(len(found) / seconds)
            own = re.search(r"\((\d+) cells/s\)", done.stderr)
            rates["gene-bert, its own clock"].append(float(own[1]))
            for mode in options.modes:
                said = json.loads(call([*theirs, "--worker", mode, run]).stdout.splitlines()[-1])
                pairs = said["probabilities"]
                rates[mode].append(len(pairs) / said["seconds"])
                differences[mode] = max(abs(found[cell] - value) for cell, value in pairs)
        lengths = [len(ids) for ids, _ in tokens_of(data, options.max_length)]
        print(f"{len(found)} cells of {Path(options.data).name}, {statistics.mean(lengths):.0f} tokens"
              f" each, {options.arch}, {options.threads} threads, median of {options.rounds} rounds")
        print(f"{'':26}{'cells/s':>10}{'gene-bert is':>16}{'probabilities differ by':>26}")
        ours = rates["gene-bert"]
        for name, of_rounds in rates.items():
            ratio = statistics.median(a / b for a, b in zip(ours, of_rounds))
            most = f"{differences[name]:.1e}" if name in differences else ""
            print(f"{name:26}{statistics.median(of_rounds):>10.1f}{ratio:>15.2f}x{most:>26}")


if __name__ == "__main__":
    main()
