#!/usr/bin/env python3
"""Training steps of `gene-bert bench train` against the same steps in PyTorch, in turn, on the CPU.

Both train the same model (a DistilBERT without positions, with a token type per gene) from the same
weights on the same batches, with dropout, clipping to norm 1 and AdamW. First both take a few steps
without dropout, and their losses must agree; then they are timed in turn, ROUNDS times, each in a
process of its own. PyTorch runs as

  transformers f32, Hugging Face's own DistilBertForMaskedLM, attention "eager", with the embeddings
               of the original in place of its own
  hf           f32, the same written out here: attention in full, the head on every position
  sdpa         f32, PyTorch's own attention, the head on labelled positions
  bf16         sdpa under bf16 autocast
  compiled     bf16 through torch.compile

With h5ad FILEs the batches are of their cells, at most --length tokens each; else of made-up ones.

    pip install torch safetensors numpy transformers
    scripts/bench/train_cpu.py --program target/release/gene-bert --shape 4,256,4,1024
    scripts/bench/train_cpu.py --length 2048 --batch 8 data/throughput/pool_real_human_cells.h5ad
"""

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODES = ["transformers", "hf", "sdpa", "bf16", "compiled"]
LEARNING_RATE = 1e-4
BIN_EDGES = [0.5, 1.5, 2.5, 4.5, 8.5]


def worker(mode, folder, steps, threads, dropout):
    """Trains in PyTorch; prints seconds per step, losses and peak memory as JSON."""
    import torch
    from safetensors.torch import load_file
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    width, heads = config["hidden_size"], config["num_attention_heads"]
    eps = config["layer_norm_eps"]
    drop = config["hidden_dropout_prob"] if dropout else 0.0
    attention_drop = config["attention_probs_dropout_prob"] if dropout else 0.0

    class Embeddings(nn.Module):
        """Those of the original: words and token types (genes), no positions."""

        def __init__(self):
            super().__init__()
            padding = config["pad_token_id"]
            self.word_embeddings = nn.Embedding(config["vocab_size"], width, padding_idx=padding)
            self.token_type_embeddings = nn.Embedding(config["type_vocab_size"], width)
            self.LayerNorm = nn.LayerNorm(width, eps)

        def forward(self, ids, inputs_embeds=None, position_ids=None):
            x = self.word_embeddings(ids) + self.token_type_embeddings(self.types)
            return F.dropout(self.LayerNorm(x), drop)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            for name in ["q_lin", "k_lin", "v_lin", "out_lin"]:
                setattr(self, name, nn.Linear(width, width))

        def forward(self, x, mask):
            cells, length, _ = x.shape
            split = lambda y: y.view(cells, length, heads, -1).transpose(1, 2)
            q, k, v = split(self.q_lin(x)), split(self.k_lin(x)), split(self.v_lin(x))
            if mode == "hf":
                scores = (q / (width // heads) ** 0.5) @ k.transpose(2, 3)
                if mask is not None:
                    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
                y = F.dropout(scores.softmax(-1), attention_drop) @ v
            else:
                y = F.scaled_dot_product_attention(q, k, v, mask, attention_drop)
            return self.out_lin(y.transpose(1, 2).reshape(cells, length, width))

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

        def forward(self, x, mask):
            x = self.sa_layer_norm(self.attention(x, mask) + x)
            return self.output_layer_norm(self.ffn(x) + x)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.distilbert = nn.Module()
            self.distilbert.embeddings = Embeddings()
            self.distilbert.transformer = nn.Module()
            blocks = [Block() for _ in range(config["num_hidden_layers"])]
            self.distilbert.transformer.layer = nn.ModuleList(blocks)
            self.vocab_transform = nn.Linear(width, width)
            self.vocab_layer_norm = nn.LayerNorm(width, eps)
            self.vocab_projector = nn.Linear(width, config["vocab_size"])

        def forward(self, ids, types, labels, mask):
            self.distilbert.embeddings.types = types
            x = self.distilbert.embeddings(ids)
            for block in self.distilbert.transformer.layer:
                x = block(x, mask)
            x, labels = x.flatten(0, 1), labels.flatten()
            if mode != "hf":
                rows = (labels >= 0).nonzero()[:, 0]
                x, labels = x[rows], labels[rows]
            x = self.vocab_projector(self.vocab_layer_norm(F.gelu(self.vocab_transform(x))))
            return F.cross_entropy(x.float(), labels, ignore_index=-100)

    class HuggingFace(nn.Module):
        def __init__(self):
            super().__init__()
            from transformers import DistilBertConfig, DistilBertForMaskedLM

            own = {
                "dim": width,
                "n_heads": heads,
                "n_layers": config["num_hidden_layers"],
                "hidden_dim": config["intermediate_size"],
                "vocab_size": config["vocab_size"],
                "pad_token_id": config["pad_token_id"],
                "dropout": drop,
                "attention_dropout": attention_drop,
                "tie_word_embeddings": False,
                "attn_implementation": "eager",
            }
            self.inner = DistilBertForMaskedLM(DistilBertConfig(**own))
            self.inner.distilbert.embeddings = Embeddings()

        def load_state_dict(self, weights):
            return self.inner.load_state_dict(weights)

        def forward(self, ids, types, labels, mask):
            self.inner.distilbert.embeddings.types = types
            real = torch.ones_like(ids) if mask is None else mask[:, 0, 0].long()
            return self.inner(ids, attention_mask=real, labels=labels).loss

    def padded(batch):
        starts = batch["cu_seqlens"]
        lengths = [b - a for a, b in zip(starts, starts[1:])]
        longest, pad = max(lengths), config["pad_token_id"]
        ids = torch.full((len(lengths), longest), pad)
        types, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        flat = torch.full((starts[-1],), -100)
        for position, token in batch["labels"]:
            flat[position] = token
        for cell, (start, length) in enumerate(zip(starts, lengths)):
            span = slice(start, start + length)
            ids[cell, :length] = torch.tensor(batch["input_ids"][span])
            types[cell, :length] = torch.tensor(batch["token_type_ids"][span])
            labels[cell, :length] = flat[span]
        real = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
        mask = None if real.all() else real[:, None, None, :]
        return ids, types, labels, mask

    model = HuggingFace() if mode == "transformers" else Model()
    model.train()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    run = torch.compile(model) if mode == "compiled" else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True
    )
    batches = [padded(b) for b in json.loads((folder / "batches.json").read_text())]
    rounded = mode in ("bf16", "compiled")
    cast = torch.autocast("cpu", torch.bfloat16) if rounded else contextlib.nullcontext()
    seconds, losses = [], []
    warm_up = 2 if mode != "compiled" else len(batches) + 1
    for step in range(warm_up + steps):
        began = time.perf_counter()
        optimizer.zero_grad()
        with cast:
            loss = run(*batches[step % len(batches)])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step >= warm_up:
            seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"step_seconds": seconds, "losses": losses, "peak_bytes": peak}))


def call(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="h5ad files to take cells from")
    parser.add_argument("--program", default="target/release/gene-bert")
    parser.add_argument("--shape", default="4,256,4,1024", help="blocks,width,heads,inner width")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--ragged", action="store_true", help="cells of different lengths")
    parser.add_argument("--attention-dropout", type=float, default=0.1)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES[:3])
    parser.add_argument("--dtypes", nargs="+", choices=["f32", "bf16"], default=["f32", "bf16"])
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        mode, folder, steps, dropout = args.worker
        return worker(mode, folder, int(steps), args.threads, dropout == "1")

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        ours = [args.program, "bench", "train", *args.files, "--json", "--shape", args.shape]
        ours += ["--batch", args.batch, "--threads", args.threads]
        ours += ["--max_length" if args.files else "--length", args.length]
        ours += ["--bin_edges", *BIN_EDGES] if args.files else []
        ours = [str(word) for word in ours + (["--ragged"] if args.ragged else [])]
        dropout = ["--attention_probs_dropout_prob", str(args.attention_dropout)]
        none = ["--hidden_dropout_prob", "0", "--attention_probs_dropout_prob", "0"]

        def theirs(mode, steps, dropout):
            command = [sys.executable, __file__, "--threads", str(args.threads)]
            return call(command + ["--worker", mode, str(folder), str(steps), str(int(dropout))])

        found = call(ours + none + ["--steps", "2"])["losses"]
        # The export that both use has the configuration's dropout.
        call(ours + dropout + ["--steps", "1", "--export", str(folder)])
        for mode in [mode for mode in args.modes if mode == "transformers"] + ["hf"]:
            expected = theirs(mode, 2, False)["losses"]
            worst = max(abs(a - b) / b for a, b in zip(found, expected))
            print(f"losses of 4 steps without dropout agree to {worst:.1e} with {mode}: {expected}")
            if worst > 1e-4:
                sys.exit("the two programs do not compute the same")

        batches = json.loads((folder / "batches.json").read_text())
        tokens = statistics.mean(len(batch["input_ids"]) for batch in batches)
        spans = [
            [b - a for a, b in zip(batch["cu_seqlens"], batch["cu_seqlens"][1:])]
            for batch in batches
        ]
        padded = statistics.mean(max(lengths) * len(lengths) for lengths in spans)
        print(f"{tokens:.0f} tokens a batch, {padded:.0f} when padded ({tokens / padded:.0%} real)")
        rounds = {name: [] for name in [f"gene-bert {d}" for d in args.dtypes] + args.modes}
        for _ in range(args.rounds):
            for dtype in args.dtypes:
                run = ours + dropout + ["--dtype", dtype, "--steps", str(args.steps)]
                rounds[f"gene-bert {dtype}"].append(call(run))
            for mode in args.modes:
                rounds[mode].append(theirs(mode, args.steps, True))
        print(f"real tokens/s, median over {args.rounds} rounds of {args.steps} steps, {args.threads}"
              f" threads; ratios: median of the rounds' own")
        header = "".join(f"{'vs ' + name:>18}" for name in rounds)
        print(f"{'':16}{'tokens/s':>10}{'peak MiB':>10}{header}")
        rates = {
            name: [tokens / statistics.median(run["step_seconds"]) for run in runs]
            for name, runs in rounds.items()
        }
        for name, runs in rounds.items():
            peak = max(run["peak_bytes"] for run in runs) / 2**20
            ratios = (
                statistics.median(a / b for a, b in zip(rates[name], rates[other]))
                for other in rounds
            )
            line = "".join(f"{ratio:>18.2f}" for ratio in ratios)
            print(f"{name:16}{statistics.median(rates[name]):>10.0f}{peak:>10.0f}{line}")


if __name__ == "__main__":
    main()
