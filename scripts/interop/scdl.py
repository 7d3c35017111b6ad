#!/usr/bin/env python3
"""SCDL archives written by `gene-bert convert --format scdl` open in bionemo-scdl, and its in ours.

    pip install bionemo-scdl torch h5py
    scripts/interop/scdl.py --program target/release/gene-bert

Two h5ad files of different genes are made up. Ours: one archive of both, each with its own genes;
SingleCellMemMapDataset must give every row, padded or not, every obs and var feature. Theirs: an
archive of each file and one of both, made by SingleCellCollection; `gene-bert bench data --check`
must read as many cells as they have, and values and columns of the same sums. Neighbours: of one file
both write the same bytes; those of both files, in order and shuffled, are what the package reads.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import anndata
import numpy
import pandas
import scipy.sparse
from bionemo.scdl.io.single_cell_collection import SingleCellCollection
from bionemo.scdl.io.single_cell_memmap_dataset import SingleCellMemMapDataset

warnings.filterwarnings("ignore")
pandas.set_option("future.infer_string", False)


def made_up(number, cells, genes, draw):
    """A file of counts; a tenth of its cells are empty."""
    values = draw.poisson(0.3, (cells, genes)).astype(numpy.float32)
    values[::10] = 0
    obs = {
        "cell_type": pandas.Categorical(draw.choice(["T cell", "B cell", "glia"], cells)),
        "age": draw.integers(20, 80, cells),
        "score": draw.random(cells),
        "healthy": draw.random(cells) < 0.5,
    }
    made = anndata.AnnData(
        scipy.sparse.csr_matrix(values),
        obs=pandas.DataFrame(obs, index=[f"{number}-{cell}" for cell in range(cells)]),
        var=pandas.DataFrame(
            {"gene": [f"ENSG{number}{gene:05}" for gene in range(genes)]},
            index=[f"ENSG{number}{gene:05}" for gene in range(genes)],
        ),
    )
    # Up to three neighbours of each cell, not in the order of their numbers.
    degrees = draw.integers(0, 4, cells)
    others = numpy.concatenate([draw.choice(cells, degree, replace=False) for degree in degrees])
    starts = numpy.concatenate([[0], degrees.cumsum()])
    weights = draw.random(len(others)).astype(numpy.float32)
    shape = (cells, cells)
    made.obsp["next_cell_ids"] = scipy.sparse.csr_matrix((weights, others, starts), shape)
    return made


def check(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}")


def ours_in_theirs(program, files, paths, folder, dtype):
    target = folder / f"ours_{dtype}"
    line = [program, "convert", *paths, "--output", target, "--format", "scdl"]
    subprocess.run([*map(str, line), "--genes", "ragged", "--dtype", dtype], check=True)
    archive = SingleCellMemMapDataset(str(target))
    check(archive.header is not None, f"{dtype}: the header is read")
    cells = sum(file.n_obs for file in files)
    check(len(archive) == cells, f"{dtype}: {cells} rows")
    check(archive.number_of_variables() == [f.n_vars for f in files], f"{dtype}: genes of each")
    row = 0
    for file in files:
        dense = file.X.toarray()
        for own in range(file.n_obs):
            (values, columns), var, obs = archive.get_row(
                row, True, ["var_feature_id"], True, ["obs_feature_id", "cell_type", "age"]
            )
            padded, _, _ = archive.get_row_padded(row)
            expected = dense[own]
            same = (padded == expected).all() and (values == expected[columns]).all()
            same &= list(var[0]) == list(file.var_names)
            told = file.obs.iloc[own]
            same &= [obs[0], obs[1], int(obs[2])] == [told.name, told.cell_type, told.age]
            if not same:
                sys.exit(f"FAILED: {dtype}: row {row}")
            row += 1
    print(f"ok: {dtype}: every row, padded or not, with its features")


def neighbours(program, files, paths, folder):
    line = [program, "convert", "--format", "scdl", "--neighbors", "next_cell_ids"]
    line = [*map(str, line), "--genes", "union", "--output"]
    ours, theirs = folder / "neighbours", folder / "their_neighbours"
    subprocess.run([*line, str(ours), str(paths[0])], check=True)
    SingleCellMemMapDataset(str(theirs), str(paths[0]), load_neighbors=True, use_X_not_raw=True)
    for name in ["neighbor_indptr.npy", "neighbor_indices.npy", "neighbor_values.npy"]:
        same = (ours / name).read_bytes() == (theirs / name).read_bytes()
        check(same, f"{name}: the same bytes")
    expected = {}
    for file in files:
        graph = file.obsp["next_cell_ids"]
        for row, cell in enumerate(file.obs_names):
            own = slice(graph.indptr[row], graph.indptr[row + 1])
            expected[cell] = (list(file.obs_names[graph.indices[own]]), list(graph.data[own]))
    for how in [[], ["--shuffle"]]:
        target = folder / f"both_neighbours{len(how)}"
        subprocess.run([*line, str(target), *map(str, paths), *how], check=True)
        archive = SingleCellMemMapDataset(str(target), load_neighbors=True)
        name = lambda row: archive.obs_features().lookup(row, ["obs_feature_id"])[0][0]
        names = [name(row) for row in range(len(archive))]
        check(set(names) == set(expected), f"neighbours {how}: the cells")
        for row, cell in enumerate(names):
            others = [names[other] for other in archive.get_neighbor_indices_for_cell(row)]
            found = (others, list(archive.get_neighbor_weights_for_cell(row)))
            if found != expected[cell] or names[archive.sample_neighbor_index(row)] not in [
                *others,
                *([] if others else [cell]),
            ]:
                sys.exit(f"FAILED: neighbours {how}: row {row}: {found}, not {expected[cell]}")
        check(True, f"neighbours {how}: of every cell, with their weights, and one drawn")


def theirs_in_ours(program, files, paths, folder):
    for at, (file, path) in enumerate(zip(files, paths)):
        target = folder / f"theirs_{at}"
        SingleCellMemMapDataset(str(target), str(path), use_X_not_raw=True)
        sums(program, [file], target)
    inputs = folder / "inputs"
    inputs.mkdir()
    for path in paths:
        (inputs / path.name).symlink_to(path)
    collection = SingleCellCollection(str(folder / "collection"))
    collection.load_h5ad_multi(str(inputs), max_workers=1, use_processes=False, use_X_not_raw=True)
    collection.flatten(str(folder / "theirs"), destroy_on_copy=True)
    sums(program, files, folder / "theirs")


def sums(program, files, target):
    line = [program, "bench", "data", target, "--rows", "--check", "--json", "--passes", "1"]
    line += ["--readers", "2", "--min-gene-overlap", "0", "--entropy", "cell_type"]
    found = json.loads(subprocess.run(map(str, line), stdout=subprocess.PIPE).stdout)[0]
    cells = sum(file.n_obs for file in files)
    check(found["cells"] == cells, f"{target.name}: {cells} cells")
    check(found["non_zeros"] == sum(file.X.nnz for file in files), f"{target.name}: non-zeros")
    total = float(sum(file.X.sum(dtype=numpy.float64) for file in files))
    check(found["sum_of_values"] == total, f"{target.name}: values add up to {total}")
    # Genes are numbered over all files, in order; those of different files differ.
    places, first = 0, 0
    order = sorted(files, key=lambda file: file.obs_names[0])
    for file in order:
        places += int(file.X.indices.sum(dtype=numpy.int64)) + first * file.X.nnz
        first += file.n_vars
    check(found["sum_of_genes"] == places, f"{target.name}: columns add up to {places}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--program", default="target/release/gene-bert", type=Path)
    program = parser.parse_args().program.resolve()
    draw = numpy.random.default_rng(1)
    files = [made_up(1, 120, 300, draw), made_up(2, 80, 270, draw)]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        paths = [folder / f"file_{at}.h5ad" for at in range(len(files))]
        for file, path in zip(files, paths):
            file.write_h5ad(path, compression="gzip")
        for dtype in ["keep", "narrowest", "uint16", "float64"]:
            ours_in_theirs(program, files, paths, folder, dtype)
        neighbours(program, files, paths, folder)
        theirs_in_ours(program, files, paths, folder)


if __name__ == "__main__":
    main()
