#!/usr/bin/env python3
"""Checks that the original program and gene-bert read one another's pre-masked evaluation sets.

    git clone https://github.com/YufanXia999/PerturbGene perturbgene
    pip install torch transformers accelerate anndata numpy scipy braceexpand
    cargo build --release
    python scripts/interop/eval_set.py perturbgene CELLS.h5ad --phenotypes louvain

Ours to theirs: `gene-bert eval-set` masks the cells; the original's EvalJsonDataset must read as
many, its collator must pad them into batches, and each cell with its labels put back must be what
the original's tokenizer makes of it (but where the mask took a gene that the cell does not express,
or left a phenotype out). Theirs to ours: the original's tokens, masked by its torch_mask_tokens,
go through `gene-bert eval`, which must find every label. Exits with 1 where anything differs. Not
part of the build or the tests: nothing of gene-bert needs Python.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import anndata
import numpy as np

EDGES = [0.5, 1.5, 2.5]
MAX_LENGTH = 4096
BATCH = 16
TINY = {"dim": 16, "n_heads": 2, "hidden_dim": 32, "n_layers": 1}


def original(folder):
    """The modules of the original that make and read tokens, without what they do not need."""
    for absent in ["scanpy", "requests"]:
        sys.modules.setdefault(absent, types.ModuleType(absent))
    if not hasattr(np, "string_"):
        np.string_ = np.bytes_
    package = types.ModuleType("perturbgene")
    package.__path__ = [str(folder)]
    sys.modules["perturbgene"] = package
    from perturbgene import data_utils
    from perturbgene.data_utils.data_collators import torch_mask_tokens

    return data_utils, torch_mask_tokens


def to_theirs(data_utils, config, path, cells):
    """The differences between our set, as the original reads it, and its own tokens."""
    found = data_utils.EvalJsonDataset([str(path)], config)
    tokenizer = found.tokenizer
    differences = [] if len(found) == len(cells) else [f"{len(found)} cells of {len(cells)}"]
    mask, pad = (tokenizer.convert_tokens_to_ids(t) for t in ["[MASK]", "[PAD]"])
    absent = tokenizer.convert_tokens_to_ids("bin_0")
    num_labels = 0
    for at, cell in enumerate(cells):
        ours = {key: value.numpy() for key, value in found[at].items()}
        labelled = ours["labels"] != -100
        num_labels += labelled.sum()
        ids, types = ours["input_ids"].copy(), ours["token_type_ids"]
        if not np.all(ids[labelled] == mask):
            differences.append(f"cell {at}: a label where no mask is")
        ids[labelled] = ours["labels"][labelled]
        expected = [value.numpy() for value in (cell["input_ids"], cell["token_type_ids"])]
        left_out = (ids == absent) | (ids == pad)
        if len(ids) != len(expected[0]) or np.any(
            ((ids != expected[0]) | (types != expected[1])) & ~left_out
        ):
            differences.append(f"cell {at}: other tokens")
    collate = data_utils.collate_fn_wrapper(tokenizer)
    for first in range(0, len(found), BATCH):
        batch = collate([found[at] for at in range(first, min(first + BATCH, len(found)))])
        if batch["labels"].shape != batch["input_ids"].shape:
            differences.append(f"batch of cell {first}: labels of another shape")
    print(f"ours to theirs: {len(found)} cells, {num_labels} labels")
    return differences


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("original", help="a clone of PerturbGene")
    parser.add_argument("file", help="an h5ad file of counts")
    parser.add_argument("--phenotypes", nargs="+", required=True, help="columns of obs")
    parser.add_argument("--binary", default="target/release/gene-bert")
    args = parser.parse_args()
    data_utils, torch_mask_tokens = original(Path(args.original).resolve())
    import torch

    torch.manual_seed(1)
    binary, file = (str(Path(path).resolve()) for path in (args.binary, args.file))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)

        def run(*words):
            command = [binary, *map(str, words)]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{' '.join(command)}\n{done.stderr}")

        (folder / "tiny.json").write_text(json.dumps(TINY))
        run("vocab", "build", file, "--phenotypes", *args.phenotypes, "--output", "vocab.json")
        run(
            *["mlm", "--train_data_paths", file, "--vocab_path", "vocab.json", "--max_steps", 2],
            *["--bin_edges", *EDGES, "--max_length", MAX_LENGTH, "--output_dir", "run"],
            *["--included_phenotypes", *args.phenotypes, "--pretrained_model_path", "tiny.json"],
            *["--compat", "perturbgene", "--eval_max_cells", 8],
        )
        model = ["--pretrained_model_path", "run/checkpoint-2"]
        run("eval-set", file, *model, "--output", "ours.json")
        config = types.SimpleNamespace(
            subcommand="mlm",
            vocab_path=folder / "vocab.json",
            bin_edges=EDGES,
            bin_edges_path=None,
            included_phenotypes=args.phenotypes,
            max_length=MAX_LENGTH,
            num_top_genes=10**9,
            shard_size=10_000,
        )
        cells = list(data_utils.IterableAnnDataset([file], config))
        differences = to_theirs(data_utils, config, folder / "ours.json", cells)

        tokenizer = data_utils.GeneTokenizer(config)
        config.num_top_genes = anndata.read_h5ad(file, backed="r").n_vars
        masked, num_genes = [], 0
        for cell in cells:
            batch = {key: value.unsqueeze(0) for key, value in cell.items()}
            torch_mask_tokens(batch, tokenizer, 0.15, 0.5)
            masked.append({key: value.squeeze(0).tolist() for key, value in batch.items()})
            genes = batch["token_type_ids"] >= tokenizer.gene_token_type_offset
            num_genes += int(((batch["labels"] != -100) & genes).sum())
        (folder / "theirs.json").write_text(json.dumps({"metadata": {}, "data": masked}))
        run("eval", "theirs.json", "--checkpoint", "run/checkpoint-2", "--output", "eval")
        found = json.loads((folder / "eval/metrics.json").read_text())
        print(f"theirs to ours: {found['num_cells']} cells, {found['genes']['num_genes']} genes")
        if found["num_cells"] != len(cells) or found["genes"]["num_genes"] != num_genes:
            differences.append(f"theirs to ours: expected {len(cells)} cells, {num_genes} genes")
    for difference in differences[:10]:
        print(difference)
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
