#!/usr/bin/env python3
"""Checks the simple methods of `gene-bert eval --baselines` against scikit-learn's.

    pip install scikit-learn anndata
    cargo build --release
    python scripts/interop/baselines.py CELLS.h5ad --column cell_type
    python scripts/interop/baselines.py TRAIN.h5ad TEST.h5ad --column cell_type

With one file, a fifth of its cells is held out, stratified. A small classifier is trained for a few
steps, for its embeddings. scikit-learn then does on its own what the README says: log1p of counts
scaled to 10,000 (X that is logarithms stays), the 2,000 genes of largest variance, PCA to 50
components, LogisticRegression; and a KNeighborsClassifier of 15 on the vectors of `gene-bert embed`.
Exits with 1 where accuracy or macro F1 differ by more than 0.01. Not part of the build or the tests:
nothing of gene-bert needs Python.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import anndata
import numpy as np
import scipy.sparse
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

ALLOWED = 0.01
TINY = {"dim": 32, "n_heads": 2, "hidden_dim": 64, "n_layers": 1}


def expression(cells):
    x = scipy.sparse.csr_matrix(cells.X).astype(np.float32)
    if np.any(x.data % 1 != 0) and x.data.max() < 25:
        return x.toarray()
    x = x.multiply(1e4 / np.maximum(x.sum(axis=1), 1e-12)).tocsr()
    return np.log1p(x).toarray()


def by_logistic_regression(train, test, y):
    genes = [gene for gene in train.var_names if gene in set(test.var_names)]
    train, test = expression(train[:, genes]), expression(test[:, genes])
    variable = np.sort(np.argsort(-train.var(axis=0, dtype=np.float64), kind="stable")[:2000])
    pca = PCA(min(50, len(train) - 1, len(variable)), svd_solver="covariance_eigh").fit(train[:, variable])
    model = LogisticRegression(max_iter=5000).fit(pca.transform(train[:, variable]), y)
    return model.predict(pca.transform(test[:, variable]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE", help="one h5ad file, or training and test")
    parser.add_argument("--column", required=True, help="the obs column that is predicted")
    parser.add_argument("--binary", default="target/release/gene-bert")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(check(args, Path(folder)))


def check(args, folder):
    cells = [anndata.read_h5ad(file) for file in args.files]
    if len(cells) == 1:
        rows = np.arange(cells[0].n_obs)
        labels = cells[0].obs[args.column].astype(str)
        train, test = train_test_split(rows, test_size=0.2, random_state=0, stratify=labels)
        cells = [cells[0][np.sort(train)].copy(), cells[0][np.sort(test)].copy()]
    train, test = cells
    train.write_h5ad(folder / "train.h5ad")
    test.write_h5ad(folder / "test.h5ad")
    (folder / "tiny.json").write_text(json.dumps(TINY))

    def run(line):
        subprocess.run([Path(args.binary).resolve(), *line.split()], cwd=folder, check=True,
                       stdout=subprocess.DEVNULL)

    run(f"cls --train_data_paths train.h5ad --phenotype_category {args.column} --output_dir run "
        "--pretrained_model_path tiny.json --quantile_bins 8 --max_length 256 --max_steps 20 "
        "--per_device_train_batch_size 16 --learning_rate 1e-3 --eval_fraction 0")
    run("eval test.h5ad --checkpoint run --train-data-paths train.h5ad --baselines --map-cells 0 "
        "--min-gene-overlap 0.01 --output eval")
    for part in ["train", "test"]:
        run(f"embed {part}.h5ad --checkpoint run --min-gene-overlap 0.01 --output {part}.npy")
    column = json.loads((folder / "eval" / "metrics.json").read_text())["columns"][0]
    ours = {method["method"]: method for method in column["baselines"]}

    y, truth = (part.obs[args.column].astype(str).to_numpy() for part in (train, test))
    vectors = [np.load(folder / f"{part}.npy") for part in ("train", "test")]
    answers = {
        "hvg_pca_logistic": by_logistic_regression(train, test, y),
        "knn_on_embeddings": KNeighborsClassifier(15).fit(vectors[0], y).predict(vectors[1]),
    }
    failed = 0
    for method, answer in answers.items():
        theirs = {
            "accuracy": accuracy_score(truth, answer),
            "macro_f1": f1_score(truth, answer, average="macro", zero_division=0),
        }
        for name, value in theirs.items():
            difference = ours[method][name] - value
            wrong = abs(difference) > ALLOWED
            failed += wrong
            print(f"{method:18} {name:9} gene-bert {ours[method][name]:.4f}  scikit-learn {value:.4f}  "
                  f"{difference:+.4f}{'  DIFFERS' if wrong else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    main()
