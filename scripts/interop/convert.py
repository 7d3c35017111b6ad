"""Checks `gene-bert convert` against anndata: what it writes, anndata opens, and it is the input.

    python scripts/interop/convert.py [--binary target/debug/gene-bert] FILE.h5ad …

Needs anndata, h5py, numpy, scipy and pandas. Each FILE is converted in every way below into a
temporary folder, opened with anndata and compared with FILE cell by cell: values, obs, var.
"""

import argparse
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

warnings.filterwarnings("ignore")
WAYS = [
    [],
    ["--compression", "none"],
    ["--compression", "none", "--contiguous"],
    ["--compression", "gzip:9", "--chunk", "1000"],
    ["--dtype", "narrowest"],
    ["--dtype", "float64"],
    ["--shuffle", "--seed", "7"],
    ["--shuffle", "--memory", "32MiB", "--contiguous", "--compression", "none"],
    ["--cells-per-file", "30", "--shuffle"],
]


def matrix(x):
    """A canonical CSR matrix of doubles."""
    x = sp.csr_matrix(x[:] if not sp.issparse(x) else x).astype(np.float64)
    x.sum_duplicates()
    x.eliminate_zeros()
    return x


def same_column(a, b):
    """Whether two columns hold the same values, missing ones included."""
    missing = a.isna().to_numpy() & b.isna().to_numpy()
    if a.isna().to_numpy().tolist() != b.isna().to_numpy().tolist():
        return False
    if isinstance(a.dtype, pd.CategoricalDtype) != isinstance(b.dtype, pd.CategoricalDtype):
        return False
    if isinstance(a.dtype, pd.CategoricalDtype):
        if a.cat.ordered != b.cat.ordered:
            return False
    left, right = a.astype(object).to_numpy(), b.astype(object).to_numpy()
    equal = [m or x == y or str(x) == str(y) for m, x, y in zip(missing, left, right)]
    return all(equal)


def compare(source, parts, shuffled):
    """What differs between an AnnData object and what it was converted into; empty: nothing."""
    if len(parts) > 1 and not source.var_names.is_unique:
        return []  # anndata cannot put such files together
    joined = parts[0] if len(parts) == 1 else anndata.concat(parts, merge="same")
    found, expected = matrix(joined.X), matrix(source.X)
    wrong = []
    order = np.arange(source.n_obs)
    if shuffled:
        names = source.obs_names
        if not names.is_unique:
            return []
        order = names.get_indexer(joined.obs_names)
        if sorted(order) != list(range(source.n_obs)):
            wrong.append("cells")
        if source.n_obs > 20 and (order == np.arange(source.n_obs)).all():
            wrong.append("not shuffled")
    expected = expected[order]
    same = found.shape == expected.shape and (found.indptr == expected.indptr).all()
    same = same and (found.indices == expected.indices).all()
    if not (same and np.array_equal(found.data, expected.data, equal_nan=True)):
        wrong.append("X")
    if list(joined.var_names) != list(source.var_names):
        wrong.append("var_names")
    if list(joined.obs_names) != list(source.obs_names[order]):
        wrong.append("obs_names")
    if len(parts) == 1:
        for table in ["obs", "var"]:
            old, new = getattr(source, table), getattr(joined, table)
            old = old.iloc[order] if table == "obs" else old
            if list(old.columns) != list(new.columns):
                wrong.append(f"{table} columns {list(old.columns)} {list(new.columns)}")
                continue
            wrong += [f"{table}/{c}" for c in old.columns if not same_column(old[c], new[c])]
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default="target/debug/gene-bert")
    parser.add_argument("files", nargs="+", type=Path)
    args = parser.parse_args()
    failures = 0
    for path in args.files:
        try:
            source = anndata.read_h5ad(path)
            if source.X is None:
                continue
        except Exception as error:  # what anndata itself cannot read is not compared
            print(f"skipped {path.name}: {type(error).__name__}")
            continue
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "out.h5ad"
                command = [args.binary, "convert", str(path), "--output", str(out), *way]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    print(f"FAILED {path.name} {way}: {done.stderr.strip()}")
                    failures += 1
                    continue
                try:
                    parts = [anndata.read_h5ad(p) for p in done.stdout.split("\n") if p]
                    wrong = compare(source, parts, "--shuffle" in way)
                except Exception as error:
                    wrong = [f"{type(error).__name__}: {error}"]
                if wrong:
                    print(f"DIFFERS {path.name} {way}: {wrong}")
                    failures += 1
        print(f"checked {path.name} ({source.n_obs} × {source.n_vars})")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
