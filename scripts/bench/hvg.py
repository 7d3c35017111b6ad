#!/usr/bin/env python3
"""`gene-bert genes rank` beside scanpy's highly_variable_genes (seurat_v3) on the same files.

    python scripts/bench/hvg.py 'POOL/gzip_*.h5ad' --program target/release/gene-bert [--batch-key source]

Each is a process of its own, in turn; memory is the most that it held (VmHWM). Both must choose the same
genes. Needs scanpy and scikit-misc.
"""

import argparse
import csv
import glob
import os
import statistics
import subprocess
import sys
import tempfile
import time

SCANPY = """
import sys, warnings
warnings.filterwarnings("ignore")
import anndata, scanpy
files, key, table = sys.argv[3:], sys.argv[1] or None, sys.argv[2]
cells = anndata.concat([anndata.read_h5ad(file) for file in files]) if len(files) > 1 else anndata.read_h5ad(files[0])
scanpy.pp.highly_variable_genes(cells, flavor="seurat_v3", n_top_genes=2000, batch_key=key)
cells.var[["highly_variable", "highly_variable_rank"]].to_csv(table)
"""


def timed(line):
    began = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{line[:3]}: status {status}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("files")
    parser.add_argument("--program", default="target/release/gene-bert")
    parser.add_argument("--batch-key", default="")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    files = sorted(glob.glob(arguments.files))
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = f"{folder}/theirs.csv", f"{folder}/ours.csv"
        rank = [arguments.program, "genes", "rank", *files, "--output", ours, "--overwrite"]
        if arguments.batch_key:
            rank += ["--batch-key", arguments.batch_key]
        scanpy = [sys.executable, "-c", SCANPY, arguments.batch_key, theirs, *files]
        found = {"scanpy": [], "gene-bert": []}
        for _ in range(arguments.rounds):
            found["scanpy"].append(timed(scanpy))
            found["gene-bert"].append(timed(rank))
        with open(theirs) as table:
            chosen = {row[0] for row in csv.reader(table) if row[1] == "True"}
        with open(ours) as table:
            own = list(csv.DictReader(table))
    same = len(chosen & {row["gene"] for row in own if row["highly_variable"] == "true"})
    print(f"{len(files)} files; {same} of the {len(chosen)} genes that scanpy chooses are ours")
    for name, runs in found.items():
        seconds = statistics.median(run[0] for run in runs)
        print(f"{name:<10} {seconds:8.1f} s {max(run[1] for run in runs):10,.0f} MiB")
    times = statistics.median(a[0] / b[0] for a, b in zip(*found.values()))
    memory = max(r[1] for r in found["gene-bert"]) / max(r[1] for r in found["scanpy"])
    print(f"{times:.1f} times as fast, {memory:.3f} of the memory")


if __name__ == "__main__":
    main()
