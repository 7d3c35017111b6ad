"""How well gene-bert classifies real cells, next to HVG + PCA + logistic regression.

    python3 -m venv VENV && VENV/bin/pip install anndata h5py numpy scipy scikit-learn
    cargo build --release --locked
    VENV/bin/python scripts/bench/accuracy.py                       # every task, both methods
    VENV/bin/python scripts/bench/accuracy.py --tasks pbmc --seeds 1 2 3 --threads 2
    VENV/bin/python scripts/bench/accuracy.py --tasks pbmc --only ours --set max_length=256

Every fold's training and test cells are written as h5ad files into a temporary folder; gene-bert
trains on the first (`cls`, with the settings of accuracy.toml beside this file; `--set` changes
one) and `predict` labels the second once, at the end: nothing is chosen by the test cells of a run.
The probabilities of all seeds are averaged too ("together"). Genes are ranked among the training
cells (`highly_variable_rank`, which --num_top_genes uses), those that the test file lacks last.

Settings were tried on other folds of the same cells (`--fold-seed 1`); what was not, the log in
tests/bench/README.md says.

The baseline is log1p of counts per 10,000 (data that are logs are left alone), 2000 highly variable
genes, 50 principal components, logistic regression, with the genes chosen in two ways: by the
variance of those values, and as scanpy's flavour seurat_v3 does from counts. Five folds are
stratified, shuffled with seed 0. `$GENE_BERT_SHARED` (by default ../shared) holds the data.

Macro F1 is the mean over folds of the mean over classes that occur in a fold's truth or answers;
"macro F1, 5 cells" leaves classes out of the mean that have fewer cells than there are folds (of
the four tasks: two erythrocytes of cortex), though not their cells. `--reference` tries which
processing gives the figures that others quote: scaled genes, principal components of all cells.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import tomllib
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
warnings.filterwarnings("ignore")

import anndata  # noqa: E402
import numpy as np  # noqa: E402
import scipy.sparse as sp  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.feature_selection import f_classif  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.metrics import accuracy_score, f1_score  # noqa: E402
from sklearn.model_selection import StratifiedKFold  # noqa: E402

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
DATA = Path(os.environ.get("GENE_BERT_SHARED", REPO.parent / "shared")) / "data" / "accuracy"
CORTEX = "AyushBhardwaj261+LoRA-Fine-Tuning-and-Deployment-of-SCimilarity__val.h5ad"

# name: files, obs column, whether X is counts. Two files: train on one, test on the other.
TASKS = {
    "pbmc": (["mudan_sortedPBMC_2140x8863_counts.h5ad"], "sorted_population", True),
    "mixology": (
        ["scmixology_sc_celseq2.h5ad", "scmixology_sc_dropseq.h5ad"],
        "cell_line_demuxlet",
        True,
    ),
    "cortex": ([CORTEX], "cell_type", False),
    "kang": (["kang_ifnb_pbmc_2000x9015_counts.h5ad"], "condition", True),
}

# Where settings for two platforms are tried.
TUNING = [f"scmixology_sc_celseq2_5cl_p{number}.h5ad" for number in (1, 2, 3)]

# Settings that the model keeps from pretraining.
TOKENS = (
    "transform", "bin_edges", "quantile_bins", "max_length", "num_top_genes", "gene_order", "model",
    "init_gene_embeddings",
)


def log_normalised(counts):
    """log1p of values scaled to a sum of 10,000 per cell."""
    total = np.asarray(counts.sum(1)).ravel()
    total[total == 0] = 1
    scaled = (sp.diags(1e4 / total) @ counts).tocsr()
    scaled.data = np.log1p(scaled.data)
    return scaled


def variances(x):
    """Variance of each column."""
    mean = np.asarray(x.mean(0)).ravel()
    return np.asarray(x.multiply(x).mean(0)).ravel() - mean**2


def v3_variances(counts):
    """Variance of clipped, standardised counts, the trend over the mean taken out by a local
    quadratic fit of log variance on log mean (the nearest 30 % of the genes, tricube weights)."""
    n = counts.shape[0]
    mean = np.asarray(counts.mean(0)).ravel()
    var = variances(counts) * n / (n - 1)
    used = var > 0
    x, y = np.log10(mean[used]), np.log10(var[used])
    order = np.argsort(x)
    xs, ys = x[order], y[order]
    k = max(int(0.3 * len(xs)), 10)
    grid = np.linspace(xs[0], xs[-1], 200)
    trend = []
    for at in grid:
        near = np.argsort(np.abs(xs - at))[:k]
        distance = np.abs(xs[near] - at)
        weight = (1 - (distance / max(distance.max(), 1e-9)) ** 3) ** 3
        trend.append(np.polyval(np.polyfit(xs[near] - at, ys[near], 2, w=np.sqrt(weight)), 0))
    deviation = np.ones_like(mean)
    deviation[used] = np.sqrt(10 ** np.interp(x, grid, trend))
    clip = counts.tocsc().copy()
    limit = deviation * np.sqrt(n) + mean
    clip.data = np.minimum(clip.data, np.repeat(limit, np.diff(clip.indptr)))
    total, square = np.asarray(clip.sum(0)).ravel(), np.asarray(clip.multiply(clip).sum(0)).ravel()
    spread = (n * mean**2 + square - 2 * total * mean) / ((n - 1) * deviation**2)
    return np.where(used, spread, 0)


def dispersions(logs):
    """Dispersion of expm1 of the values, standardised within 20 bins of the mean (scanpy's flavour
    seurat)."""
    counts = logs.copy()
    counts.data = np.expm1(counts.data)
    n = counts.shape[0]
    mean = np.maximum(np.asarray(counts.mean(0)).ravel(), 1e-12)
    spread = np.log(np.maximum(variances(counts) * n / (n - 1) / mean, 1e-12))
    edges = np.linspace(*np.log1p([mean.min(), mean.max()]), 21)
    bins = np.clip(np.digitize(np.log1p(mean), edges), 1, 20)
    result = np.zeros_like(mean)
    for number in np.unique(bins):
        own = bins == number
        deviation = spread[own].std(ddof=1) if own.sum() > 1 else 0
        result[own] = (spread[own] - spread[own].mean()) / deviation if deviation else 1
    return result


def reference(task):
    """Genes by dispersion, each scaled and clipped at 10, components of all cells, five folds."""
    (file, *_), column, is_counts = TASKS[task]
    cells = read(file, column)
    labels = cells.obs[column].astype(str).to_numpy()
    logs = log_normalised(cells.X) if is_counts else cells.X.tocsr()
    best = np.argsort(-dispersions(logs), kind="stable")[:2000]
    x = logs[:, best].toarray()
    x = np.clip((x - x.mean(0)) / np.maximum(x.std(0, ddof=1), 1e-12), -10, 10)
    x = PCA(50, svd_solver="randomized", random_state=0).fit_transform(x)
    each = []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(x, labels):
        model = LogisticRegression(max_iter=2000).fit(x[train], labels[train])
        each.append(figures(labels[test], model.predict(x[test]), common(labels)))
    show(task, "logistic regression, scaled genes, components of all cells", np.mean(each, 0))


def common(labels, least=5):
    """The labels of at least so many cells."""
    values, counts = np.unique(labels, return_counts=True)
    return values[counts >= least]


class Fold:
    """Training and test cells of one fold, as matrices and as files."""

    def __init__(self, folder, name, column, is_counts, rank_by, train, test):
        self.name, self.column, self.is_counts = name, column, is_counts
        self.train, self.test = train, test
        self.paths = [folder / f"{name}-train.h5ad", folder / f"{name}-test.h5ad"]
        logs = log_normalised(train.X) if is_counts else train.X
        by_label = rank_by == "label"
        score = f_classif(logs, train.obs[column])[0] if by_label else variances(logs)
        score = np.nan_to_num(score, nan=-1)
        score[~train.var_names.isin(test.var_names)] = -2  # genes that the other file lacks
        rank = np.empty(train.n_vars)
        rank[np.argsort(-score, kind="stable")] = np.arange(train.n_vars)
        train.var["highly_variable_rank"] = rank
        for cells, path in zip((train, test), self.paths):
            cells.write_h5ad(path)

    def truth(self):
        return self.test.obs[self.column].astype(str).to_numpy()

    def baseline(self, genes_by):
        """The figures of the baseline."""
        shared = self.train.var_names.intersection(self.test.var_names)
        train, test = self.train[:, shared].X.tocsr(), self.test[:, shared].X.tocsr()
        counts = train
        if self.is_counts:
            train, test = log_normalised(train), log_normalised(test)
        score = v3_variances(counts) if genes_by == "seurat_v3" else variances(train)
        best = np.argsort(-score, kind="stable")[:2000]
        train, test = train[:, best].toarray(), test[:, best].toarray()
        pca = PCA(50, svd_solver="randomized", random_state=0).fit(train)
        model = LogisticRegression(max_iter=2000)
        model.fit(pca.transform(train), self.train.obs[self.column].astype(str))
        return self.figures(model.predict(pca.transform(test)))

    def figures(self, predicted):
        labels = [*self.train.obs[self.column].astype(str), *self.truth()]
        return figures(self.truth(), predicted, common(labels))


def figures(truth, predicted, common_labels):
    """Accuracy, macro F1, and macro F1 over those of these labels that occur."""
    occur = np.intersect1d(common_labels, [*truth, *predicted])
    return (
        accuracy_score(truth, predicted),
        f1_score(truth, predicted, average="macro"),
        f1_score(truth, predicted, labels=occur, average="macro"),
    )


def read(file, column, values=None):
    """The cells of a file, all of them or those with one of `values` in the column."""
    cells = anndata.read_h5ad(DATA / file)
    if values is not None:
        cells = cells[cells.obs[column].astype(str).isin(values)]
    obs = cells.obs[[column]].copy()
    obs[column] = obs[column].astype(str).astype("category")
    x = sp.csr_matrix(cells.X, dtype=np.float32)
    return anndata.AnnData(x, obs=obs, var=cells.var[[]].copy())


def folds_of(task, folder, rank_by="variance", seed=0):
    """The folds of a task: five stratified ones, or one file for training, the other for test.

    Settings for two platforms are tried on cells of the first in other files (TUNING): from the
    file of the task to each of them and back."""
    files, column, is_counts = TASKS[task]
    cells = [read(file, column) for file in files]
    if len(cells) == 2 and seed:
        values = cells[0].obs[column].cat.categories
        others = [read(file, column, values) for file in TUNING]
        pairs = [pair for other in others for pair in ((cells[0], other), (other, cells[0]))]
    elif len(cells) == 2:
        pairs = [(cells[0], cells[1]), (cells[1], cells[0])]
    else:
        split = StratifiedKFold(5, shuffle=True, random_state=seed)
        labels = cells[0].obs[column].astype(str)
        pairs = [(cells[0][a], cells[0][b]) for a, b in split.split(labels, labels)]
    for number, (train, test) in enumerate(pairs):
        name = f"{task}-{number}"
        yield Fold(folder, name, column, is_counts, rank_by, train.copy(), test.copy())


def settings_of(task, changes):
    """Settings of accuracy.toml for a task, with the changes of --set."""
    with open(HERE / "accuracy.toml", "rb") as file:
        table = tomllib.load(file)
    settings = table["all"] | table.get(task, {})
    for change in changes:
        settings |= tomllib.loads(change)
    return settings


def flags_of(settings):
    """Settings as flags of gene-bert."""
    flags = []
    for key, value in settings.items():
        values = value if isinstance(value, list) else [value]
        flags += [f"--{key}", *map(str, values)]
    return flags


def call(options, arguments, log):
    command = [*options.wrap.split(), options.binary, *map(str, arguments)]
    with open(log, "a") as out:
        print(*command, file=out, flush=True)
        status = subprocess.run(command, stdout=out, stderr=out).returncode
    if status:
        raise RuntimeError(f"{log}: gene-bert failed:\n{Path(log).read_text()[-2000:]}")


def train(options, fold, settings, seed, folder):
    """One run of gene-bert, with pretraining if the settings say so; returns its run folder."""
    run = folder / f"{fold.name}-seed{seed}"
    model, log = folder / f"{run.name}.json", folder / f"{run.name}.log"
    settings = dict(settings)
    shape = json.loads((REPO / "model_configs" / "quickstart.json").read_text())
    model.write_text(json.dumps(shape | settings.pop("model", {})))
    common = {"seed": seed, "threads": options.threads, "dataloader_num_workers": 1}
    common |= {"train_data_paths": fold.paths[0], "logging_steps": 50}
    start = {"pretrained_model_path": model}
    if pretraining := settings.pop("pretrain", None):
        shared = {key: settings.pop(key) for key in TOKENS if key in settings}
        place = {"output_dir": f"{run}-mlm", "eval_fraction": 0, "save_steps": 10**9}
        call(options, ["mlm", *flags_of(shared | pretraining | common | start | place)], log)
        last = max(Path(f"{run}-mlm").glob("checkpoint-[0-9]*"), key=lambda p: int(p.name[11:]))
        start = {"pretrained_model_path": last}
    flags = settings | common | start | {"phenotype_category": fold.column, "output_dir": run}
    flags |= {"eval_fraction": 0, "save_steps": 10**9}
    call(options, ["cls", *flags_of(flags)], log)
    return run


def predict(options, fold, runs, out):
    """What the models say of the test cells, one model or the mean of several."""
    checkpoints = [flag for run in runs for flag in ("--checkpoint", run)]
    # The genes are chosen among those of the training file, some of which the test file may lack.
    reading = ["--min-gene-overlap", "0.05", "--threads", options.threads]
    arguments = ["predict", fold.paths[1], *checkpoints, *reading, "--output", out, "--overwrite"]
    call(options, arguments, f"{runs[0]}.log")
    with open(out) as file:
        return [row[f"{fold.column}_predicted"] for row in csv.DictReader(file)]


def ours(options, fold, settings, folder):
    """Figures of each seed and of all seeds together, on one fold."""
    runs = [train(options, fold, settings, seed, folder) for seed in options.seeds]
    out = folder / f"{fold.name}.csv"
    each = [fold.figures(predict(options, fold, [run], out)) for run in runs]
    together = fold.figures(predict(options, fold, runs, out))
    text = ["/".join(f"{x:.3f}" for x in found) for found in [*each, together]]
    print(f"  {fold.name}", *text[:-1], "together", text[-1], flush=True)
    return [*each, together]


def show(task, what, mean, deviation=None):
    """One line of the table: accuracy and both macro F1."""
    shown = [f"{m:.3f}" + (f" ± {d:.3f}" if deviation is not None else "")
             for m, d in zip(mean, mean if deviation is None else deviation)]
    print(f"| {task} | {what} |", " | ".join(shown), "|", flush=True)


def run_task(options, task, folder):
    settings = settings_of(task, options.set)
    rank_by = settings.pop("rank_by", "label")
    folds = list(folds_of(task, folder, rank_by, options.fold_seed))
    folds = [fold for number, fold in enumerate(folds) if not options.folds or number in options.folds]
    if options.only != "ours":
        for by in ("variance", "seurat_v3") if TASKS[task][2] else ("variance",):
            each = [fold.baseline(by) for fold in folds]
            show(task, f"logistic regression, genes by {by}", np.mean(each, 0))
    if options.only == "baseline":
        return
    with ThreadPoolExecutor(options.jobs) as pool:
        each = list(pool.map(lambda fold: ours(options, fold, settings, folder), folds))
    of_seed = np.mean(each, 0)  # [seeds + 1, 3], the mean over folds
    spread = of_seed[:-1].std(0, ddof=1) if len(options.seeds) > 1 else np.zeros(3)
    show(task, f"gene-bert, mean of {len(options.seeds)} seeds", of_seed[:-1].mean(0), spread)
    if task == "mixology" and len(each) == 2:
        for files, of_fold in zip(("there", "back"), each):
            show(task, f"{files}: mean of seeds", np.mean(of_fold[:-1], 0), np.std(of_fold[:-1], 0))
    show(task, "gene-bert, seeds together", of_seed[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--fold-seed", type=int, default=0, help="1: the folds for tuning")
    parser.add_argument("--folds", nargs="+", type=int, help="only these, from 0")
    parser.add_argument("--only", choices=("ours", "baseline"))
    parser.add_argument("--reference", action="store_true", help="what others' figures come from")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="TOML, each one")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--binary", default=REPO / "target" / "release" / "gene-bert")
    parser.add_argument("--wrap", default="", help="command before gene-bert, such as `nice`")
    options = parser.parse_args()
    print("| task | method | accuracy | macro F1 | macro F1, 5 cells |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for task in options.tasks:
            if not options.reference:
                run_task(options, task, Path(folder))
            elif len(TASKS[task][0]) == 1:
                reference(task)


if __name__ == "__main__":
    main()
