"""Many files of real cells, for measurements: the cells of one file, thinned to more of them.

    python scripts/bench/pool.py POOL.h5ad FOLDER [--files 20] [--cells 10000] [--only gzip]

Every file is a random choice of the cells of POOL (counts, compressed by row), each value thinned
binomially (a value v becomes the number of successes of v draws), so that no two cells are alike.
The cells of a file are sorted by the obs column --sort-by, as those of many atlases are: an order
that mixes well here mixes well anywhere; the obs column `number` counts them over all files. Written
twice: FOLDER/gzip_N.h5ad with h5py's gzip and chunks, which is what CELLxGENE ships, and
FOLDER/plain_N.h5ad, uncompressed.
"""

import argparse
import multiprocessing
import os

import anndata
import numpy
import scipy.sparse


def thinned(pool, number, arguments):
    """The cells of file `number`."""
    draw = numpy.random.default_rng([arguments.seed, number])
    cells = draw.choice(pool.n_obs, arguments.cells, replace=arguments.cells > pool.n_obs)
    labels = pool.obs[arguments.sort_by].astype(str).to_numpy()
    cells = cells[numpy.argsort(labels[cells], kind="stable")]
    part = pool[cells].copy()
    part.X = scipy.sparse.csr_matrix(part.X)
    part.X.data = draw.binomial(part.X.data.astype(numpy.int64), arguments.keep)
    part.X.data = part.X.data.astype(numpy.float32)
    part.X.eliminate_zeros()
    part.obs_names = [f"{number}-{at}" for at in range(part.n_obs)]
    part.obs["number"] = numpy.arange(part.n_obs) + number * arguments.cells
    return part


def write(job):
    number, arguments = job
    part = thinned(anndata.read_h5ad(arguments.pool), number, arguments)
    for name, compression in [("gzip", "gzip"), ("plain", None)]:
        if arguments.only not in (None, name):
            continue
        path = os.path.join(arguments.folder, f"{name}_{number}.h5ad")
        part.write_h5ad(path + ".part", compression=compression)
        os.replace(path + ".part", path)
    return part.n_obs, part.X.nnz


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("pool")
    parser.add_argument("folder")
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--cells", type=int, default=10_000, help="cells of each file")
    parser.add_argument("--keep", type=float, default=0.9, help="share of the counts that stays")
    parser.add_argument("--sort-by", default="label", help="obs column")
    parser.add_argument("--only", choices=["gzip", "plain"], help="write these files only")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=4)
    arguments = parser.parse_args()
    os.makedirs(arguments.folder, exist_ok=True)
    jobs = [(number, arguments) for number in range(arguments.files)]
    with multiprocessing.Pool(arguments.processes) as processes:
        written = processes.map(write, jobs, chunksize=1)
    cells = sum(cells for cells, _ in written)
    entries = sum(entries for _, entries in written)
    print(f"{cells} cells, {entries} non-zeros ({entries / cells:.0f} each) in {len(written)} files")


if __name__ == "__main__":
    main()
