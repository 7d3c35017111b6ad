#!/usr/bin/env python3
"""Checks that Python reads the same vocabulary and tokens that gene-bert writes.

    pip install tokenizers anndata
    cargo build --release
    python scripts/interop/tokenizer_json.py                            # cells made up here
    python scripts/interop/tokenizer_json.py CELLS.h5ad --phenotypes cell_type sex
    python scripts/interop/tokenizer_json.py --folder run/checkpoint-100    # tokens only, no cells

`gene-bert vocab build` writes a folder with tokenizer.json, and `gene-bert tokenize --json` makes
the tokens of some cells with it. Against both stands what Python says on its own: the ids follow
from the categories and bins alone, the library `tokenizers` must give each token that id, alone
and in a text of all tokens; a cell's phenotypes are those of obs, and each gene's bin is numpy's
`digitize` of X. The made-up cells have values that are hard to write (quotes, commas, accents).

Exits with 1 and names the first differences where there are any. Not part of the build or the
tests: nothing of gene-bert needs Python.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import anndata
import numpy as np
from tokenizers import Tokenizer

SPECIAL = ["[CLS]", "[EOS]", "[MASK]", "[PAD]"]
EDGES = [0.5, 1.0, 3.0]
MAX_LENGTH = 65536
NUM_ROWS = 50
SHOWN = 10

differences = []


def check(place, expected, found):
    if expected != found:
        differences.append(f"{place}: expected {expected!r}, found {found!r}")


def token_of(value):
    return "[" + value.replace(" ", "_").strip() + "]"


def expected_tokens(saved):
    """Every token by id, from gene_bert.json's categories and number of bin edges."""
    tokens, seen = list(SPECIAL), set()
    for category in sorted(saved["phenotypes"]):
        for token in saved["phenotypes"][category]:
            tokens.append(token if token not in seen else f"{token}@{category}")
            seen.add(token)
    return tokens + [f"bin_{i}" for i in range(saved["num_bin_edges"] + 1)]


def check_vocabulary(folder):
    """Compares tokenizer.json as Python reads it with what its ids must be."""
    saved = json.loads((folder / "gene_bert.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = expected_tokens(saved)
    check(f"{folder}: number of tokens", len(tokens), tokenizer.get_vocab_size())
    for i, token in enumerate(tokens):
        check(f"{folder}: id of {token}", i, tokenizer.token_to_id(token))
        check(f"{folder}: token of id {i}", token, tokenizer.id_to_token(i))
        check(f"{folder}: the text {token}", [i], tokenizer.encode(token).ids)
    everything = tokenizer.encode(" ".join(tokens)).ids
    check(f"{folder}: the text of all tokens", list(range(len(tokens))), everything)
    return saved, tokenizer


def check_cell(cell, place, saved, tokenizer, adata, phenotypes):
    """Compares a line of `tokenize --json` with obs and X."""
    row = cell["row"]
    check(f"{place}: name", adata.obs_names[row], cell["obs_name"])
    categories = sorted(saved["phenotypes"])
    values = [(c, adata.obs[c].iloc[row]) for c in phenotypes]
    texts = [tokenizer.id_to_token(i) for i in cell["input_ids"]]
    types = cell["token_type_ids"]
    end = 1 + len(values)
    check(f"{place}: ends", ("[CLS]", "[EOS]", 0, 0), (texts[0], texts[-1], types[0], types[-1]))
    expected = [token_of(str(value)) for _, value in values]
    check(f"{place}: phenotypes", expected, [t.split("@")[0] for t in texts[1:end]])
    expected = [1 + categories.index(category) for category, _ in values]
    check(f"{place}: types of phenotypes", expected, types[1:end])
    x = adata.X[row]
    x = np.asarray(x.todense() if hasattr(x, "todense") else x, dtype=np.float32).ravel()
    bins = np.digitize(x, EDGES)
    expected = {adata.var_names[i]: f"bin_{bins[i]}" for i in np.flatnonzero(bins)}
    genes = [saved["genes"][t - 1 - len(categories)] for t in types[end:-1]]
    check(f"{place}: number of genes", len(set(genes)), len(genes))
    check(f"{place}: genes", expected, dict(zip(genes, texts[end:-1])))


def run(gene_bert, *words):
    done = subprocess.run([gene_bert, *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"gene-bert {' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def check_file(gene_bert, path, phenotypes, folder, *flags):
    """Builds a vocabulary of `path`, makes tokens with it, checks both. Numbers of both."""
    edges = ["--bin_edges", *EDGES]
    build = ["vocab", "build", path, "--phenotypes", *phenotypes, "--output", folder]
    run(gene_bert, *build, *edges, *flags)
    saved, tokenizer = check_vocabulary(folder)
    adata = anndata.read_h5ad(path)
    rows = np.linspace(0, adata.n_obs - 1, min(NUM_ROWS, adata.n_obs)).astype(int)
    rows = ",".join(map(str, sorted(set(rows.tolist()))))
    words = ["tokenize", path, "--json", "--rows", rows, "--pretrained_model_path", folder]
    lines = run(gene_bert, *words, "--max_length", MAX_LENGTH, *flags).splitlines()
    for line in lines:
        cell = json.loads(line)
        place = f"{path.name}, row {cell['row']}"
        if len(cell["input_ids"]) == MAX_LENGTH:
            sys.exit(f"{place}: truncated at {MAX_LENGTH} tokens, so it cannot be compared")
        check_cell(cell, place, saved, tokenizer, adata, phenotypes)
    return tokenizer.get_vocab_size(), len(lines)


def made_up_cells(path):
    """30 cells x 40 genes; `tissue` and `sex` share the value `unknown`."""
    rng = np.random.default_rng(1)
    hard = ["T cell", "CD4-positive, alpha-beta T cell", "10x 3' v3", 'so-called "B" cell']
    hard += ["β cell", "Müller cell", "细胞", "a/b (c) [d]", "a_b-c.d;e:f", "bin_1", "100%", "A", "a"]
    obs = {
        "cell_type": [hard[i % len(hard)] for i in range(30)],
        "sex": [["male", "female", "unknown"][i % 3] for i in range(30)],
        "tissue": [["lung", "unknown"][i % 2] for i in range(30)],
    }
    x = rng.poisson(1.0, (30, 40)).astype(np.float32)
    adata = anndata.AnnData(x, obs=obs, var={"symbol": [f"G{i}" for i in range(40)]})
    adata.obs_names = [f"cell {i}" for i in range(30)]
    adata.var_names = [f"ENSG{i:011d}" for i in range(40)]
    adata.write_h5ad(path)


def main():
    here = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("file", nargs="?", type=Path, help="h5ad file with gene ids in var's index")
    parser.add_argument("--phenotypes", nargs="+", default=[], help="its obs columns")
    parser.add_argument("--folder", type=Path, help="a checkpoint or another folder to check alone")
    parser.add_argument("--gene-bert", default=str(here / "target/release/gene-bert"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        if args.folder:
            numbers = check_vocabulary(args.folder)[1].get_vocab_size(), 0
        elif args.file:
            if not args.phenotypes:
                parser.error("name obs columns with --phenotypes")
            numbers = check_file(args.gene_bert, args.file, args.phenotypes, scratch / "vocab")
        else:
            path = scratch / "made_up.h5ad"
            made_up_cells(path)
            numbers = check_file(args.gene_bert, path, ["cell_type", "sex"], scratch / "one")
            again = ["--compat", "perturbgene"]
            all_three = ["tissue", "cell_type", "sex"]
            more = check_file(args.gene_bert, path, all_three, scratch / "two", *again)
            numbers = [a + b for a, b in zip(numbers, more)]
    if differences:
        print(f"{len(differences)} differences, the first of them:")
        print(*differences[:SHOWN], sep="\n")
        sys.exit(1)
    print(f"the same: {numbers[0]} tokens, {numbers[1]} cells")


if __name__ == "__main__":
    main()
