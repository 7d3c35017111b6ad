#!/usr/bin/env python3
"""Training steps of `gene-bert bench train` against the same steps in PyTorch, in turn, on one GPU.

Both train the same model from the same weights on the same batches, with dropout, clipping to norm 1
and AdamW. First both take two steps in f32 without dropout, on batches of at most 8 cells, and their
losses must agree; then they are timed in turn, ROUNDS times, each in a process of its own, in bf16. PyTorch runs as

  padded   as the original runs it: cells padded to the longest of the batch, scaled_dot_product_
           attention (flash where there is nothing to mask), the head on every position, AdamW
  packed   no padding: nested (jagged) attention, the head on labelled positions, fused AdamW
  best     packed, through torch.compile

Weights and moments are f32 on both sides; PyTorch rounds under autocast. Reported are real tokens a
second, and the share of PEAK that the model's own operations come to (MFU): 6 per weight of a product
and row that it sees, 12 · width per block and pair of tokens that see each other.

    scripts/bench/train_gpu.py --shape 12,768,12,3072 --batch 64 --length 1024
    scripts/bench/train_gpu.py --batch 64 --length 1024 data/throughput/pool_real_human_cells.h5ad

Has not run on a GPU yet. `--device cpu` tries it without one.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODES = ["padded", "packed", "best"]
LEARNING_RATE = 1e-4
BIN_EDGES = [0.5, 1.5, 2.5, 4.5, 8.5]


def worker(mode, folder, steps, device, precise):
    """Trains in PyTorch, `precise` in f32 without dropout; prints seconds and losses as JSON."""
    import torch
    from safetensors.torch import load_file
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(1)
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    width, heads = config["hidden_size"], config["num_attention_heads"]
    eps = config["layer_norm_eps"]
    drop = 0.0 if precise else config["hidden_dropout_prob"]
    attention_drop = 0.0 if precise else config["attention_probs_dropout_prob"]

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            for name in ["q_lin", "k_lin", "v_lin", "out_lin"]:
                setattr(self, name, nn.Linear(width, width))

        def forward(self, x, where):
            parts = [part(x) for part in (self.q_lin, self.k_lin, self.v_lin)]
            if mode == "padded":
                cells, length, _ = x.shape
                q, k, v = (p.view(cells, length, heads, -1).transpose(1, 2) for p in parts)
                y = F.scaled_dot_product_attention(q, k, v, where, attention_drop)
                return self.out_lin(y.transpose(1, 2).reshape(cells, length, width))
            starts, longest = where
            rows = [p.view(p.shape[0], heads, -1) for p in parts]
            nested = torch.nested.nested_tensor_from_jagged
            q, k, v = (nested(p, starts, max_seqlen=longest).transpose(1, 2) for p in rows)
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=attention_drop)
            return self.out_lin(y.transpose(1, 2).values().reshape(x.shape))

    class FeedForward(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin1 = nn.Linear(width, config["intermediate_size"])
            self.lin2 = nn.Linear(config["intermediate_size"], width)

        def forward(self, x):
            return F.dropout(self.lin2(F.gelu(self.lin1(x))), drop)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.ffn = Attention(), FeedForward()
            self.sa_layer_norm = nn.LayerNorm(width, eps)
            self.output_layer_norm = nn.LayerNorm(width, eps)

        def forward(self, x, where):
            x = self.sa_layer_norm(self.attention(x, where) + x)
            return self.output_layer_norm(self.ffn(x) + x)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            inner = nn.Module()
            inner.embeddings, inner.transformer = nn.Module(), nn.Module()
            pad = config["pad_token_id"]
            tables = inner.embeddings
            tables.word_embeddings = nn.Embedding(config["vocab_size"], width, padding_idx=pad)
            tables.token_type_embeddings = nn.Embedding(config["type_vocab_size"], width)
            tables.LayerNorm = nn.LayerNorm(width, eps)
            blocks = [Block() for _ in range(config["num_hidden_layers"])]
            inner.transformer.layer = nn.ModuleList(blocks)
            self.distilbert = inner
            self.vocab_transform = nn.Linear(width, width)
            self.vocab_layer_norm = nn.LayerNorm(width, eps)
            self.vocab_projector = nn.Linear(width, config["vocab_size"])

        def forward(self, ids, types, rows, labels, where):
            tables = self.distilbert.embeddings
            x = tables.word_embeddings(ids) + tables.token_type_embeddings(types)
            x = F.dropout(tables.LayerNorm(x), drop)
            for block in self.distilbert.transformer.layer:
                x = block(x, where)
            x = x.flatten(0, 1) if rows is None else x[rows]
            x = self.vocab_projector(self.vocab_layer_norm(F.gelu(self.vocab_transform(x))))
            return F.cross_entropy(x.float(), labels, ignore_index=-100)

    def on_device(batch):
        tensor = lambda numbers: torch.tensor(numbers, device=device)
        starts = batch["cu_seqlens"]
        lengths = [b - a for a, b in zip(starts, starts[1:])]
        if mode != "padded":
            rows, labels = zip(*batch["labels"])
            ids, types = tensor(batch["input_ids"]), tensor(batch["token_type_ids"])
            return ids, types, tensor(rows), tensor(labels), (tensor(starts), max(lengths))
        ids = torch.full((len(lengths), max(lengths)), config["pad_token_id"])
        types, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        flat = torch.full((starts[-1],), -100)
        for position, token in batch["labels"]:
            flat[position] = token
        for cell, (start, length) in enumerate(zip(starts, lengths)):
            span = slice(start, start + length)
            ids[cell, :length] = torch.tensor(batch["input_ids"][span])
            types[cell, :length] = torch.tensor(batch["token_type_ids"][span])
            labels[cell, :length] = flat[span]
        real = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        mask = None if real.all() else real[:, None, None, :].to(device)
        return ids.to(device), types.to(device), None, labels.flatten().to(device), mask

    model = Model().train()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    model.to(device)
    run = torch.compile(model) if mode == "best" else model
    fused = {} if mode == "padded" else {"fused": True}
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, **fused)
    batches = [on_device(b) for b in json.loads((folder / "batches.json").read_text())]
    kind = device.split(":")[0]
    cast = contextlib.nullcontext() if precise else torch.autocast(kind, torch.bfloat16)
    wait = torch.cuda.synchronize if kind == "cuda" else lambda: None
    seconds, losses = [], []
    warm_up = 0 if precise else len(batches) + 2
    for step in range(warm_up + steps):
        wait()
        began = time.perf_counter()
        optimizer.zero_grad()
        with cast:
            loss = run(*batches[step % len(batches)])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        wait()
        losses.append(loss.item())
        if step >= warm_up:
            seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() if kind == "cuda" else 0
    print(json.dumps({"step_seconds": seconds, "losses": losses, "peak_bytes": peak}))


def call(command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="h5ad files to take cells from")
    parser.add_argument("--program", default="target/release/gene-bert")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--shape", default="12,768,12,3072", help="blocks,width,heads,inner width")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--ragged", action="store_true", help="cells of different lengths")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", type=float, default=989e12, help="operations a second")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        mode, folder, steps, precise = args.worker
        return worker(mode, folder, int(steps), args.device, precise == "1")

    with tempfile.TemporaryDirectory() as temporary:
        folder, small = Path(temporary) / "model", Path(temporary) / "small"
        ours = [args.program, "bench", "train", *args.files, "--json", "--shape", args.shape]
        ours += ["--device", args.device]
        ours += ["--max_length" if args.files else "--length", args.length]
        ours += ["--bin_edges", *BIN_EDGES] if args.files else []
        ours += ["--ragged"] if args.ragged else []
        none = ["--hidden_dropout_prob", "0", "--attention_probs_dropout_prob", "0"]

        def theirs(mode, steps, precise):
            command = [sys.executable, __file__, "--device", args.device]
            where = small if precise else folder
            return call(command + ["--worker", mode, where, steps, int(precise)])

        few = ours + none + ["--batch", min(args.batch, 8), "--dtype", "f32", "--steps", "1"]
        found = call(few + ["--export", small])["losses"][:2]
        for mode in [mode for mode in args.modes if mode != "best"]:
            expected = theirs(mode, 2, True)["losses"]
            worst = max(abs(a - b) / b for a, b in zip(found, expected))
            print(f"losses of 2 steps without dropout agree to {worst:.1e} with {mode}: {expected}")
            if worst > 1e-3:
                sys.exit("the two programs do not compute the same")
        ours += ["--batch", args.batch]
        call(ours + ["--steps", "1", "--export", folder])
        batches = json.loads((folder / "batches.json").read_text())
        tokens = statistics.mean(len(batch["input_ids"]) for batch in batches)
        rounds = {name: [] for name in ["gene-bert", *args.modes]}
        for _ in range(args.rounds):
            run = ours + ["--dtype", "bf16", "--steps", args.steps]
            rounds["gene-bert"].append(call(run))
            for mode in args.modes:
                rounds[mode].append(theirs(mode, args.steps, False))
        one = rounds["gene-bert"][0]
        flops = one["flops_per_second"] * statistics.median(one["step_seconds"])
        print(f"{tokens:.0f} real tokens a step; medians of {args.rounds} rounds of {args.steps} steps")
        print(f"{'':12}{'tokens/s':>12}{'MFU':>8}{'gene-bert is':>14}")
        medians = {
            name: [statistics.median(run["step_seconds"]) for run in runs]
            for name, runs in rounds.items()
        }
        for name, seconds in medians.items():
            ratio = statistics.median(b / a for a, b in zip(medians["gene-bert"], seconds))
            median = statistics.median(seconds)
            share = flops / median / args.peak
            print(f"{name:12}{tokens / median:>12,.0f}{share:>8.1%}{ratio:>11.2f} ×")


if __name__ == "__main__":
    main()
