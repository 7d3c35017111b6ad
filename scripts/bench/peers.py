"""One other reader or converter, in a process of its own; `loaders.py` runs it and reads what it prints.

    python scripts/bench/peers.py '{"peer": "scdataset", "files": [...], "batch": 64, ...}'

Every reader delivers batches of rows as sparse matrices where it can, with its authors' settings for
speed, and says how many cells, the fastest of its passes, and, where asked, what came: the sums of the
obs column `number`, of the columns of all values, and of all values.
"""

import json
import os
import sys
import time
import types
import warnings

import numpy

warnings.filterwarnings("ignore")


def rows_of(job, all_rows):
    """The rows that the file job["rows"] lists, or `all_rows`."""
    if not job["rows"]:
        return all_rows
    with open(job["rows"]) as lines:
        return [int(line) for line in lines][:: job.get("every", 1)]


def annloader(job):
    """anndata's own loader over the files, opened lazily: random rows."""
    from anndata.experimental import AnnLoader

    collection = lazily(job["files"])
    view = collection[numpy.array(rows_of(job, range(len(collection))))]
    loader = AnnLoader(
        view,
        batch_size=job["batch"],
        shuffle=True,
        use_default_converter=False,
        num_workers=job["workers"],
    )
    for batch in loader:
        yield batch.X, batch.obs["number"]


def lazily(files):
    import anndata
    from anndata.experimental import AnnCollection

    backed = [anndata.read_h5ad(file, backed="r") for file in files]
    return AnnCollection(backed, join_vars="inner", label="file", index_unique="/")


def scdataset(job):
    """Blocks of 64 cells, 16,384 fetched at once: the setting of its paper."""
    from scdataset import BlockShuffling, scDataset
    from torch.utils.data import DataLoader

    def fetch(collection, rows):
        part = collection[rows].to_adata()
        return part.X.tocsr(), part.obs["number"].to_numpy()

    data = scDataset(
        lazily(job["files"]),
        BlockShuffling(block_size=64),
        batch_size=job["batch"],
        fetch_factor=max(1, 16_384 // job["batch"]),
        fetch_callback=fetch,
        batch_callback=lambda fetched, rows: (fetched[0][rows], fetched[1][rows]),
        seed=int(time.time()),
    )
    more = {"prefetch_factor": 2} if job["workers"] else {}
    yield from DataLoader(
        data, batch_size=None, num_workers=job["workers"], collate_fn=lambda batch: batch, **more
    )


def bionemo(job):
    """Random rows of an SCDL archive."""
    from bionemo.scdl.io.single_cell_memmap_dataset import SingleCellMemMapDataset
    from bionemo.scdl.util.torch_dataloader_utils import collate_sparse_matrix_batch
    from torch.utils.data import DataLoader, Subset

    data = SingleCellMemMapDataset(job["store"])
    rows = rows_of(job, range(len(data)))
    loader = DataLoader(
        Subset(data, rows),
        batch_size=job["batch"],
        shuffle=True,
        num_workers=job["workers"],
        collate_fn=collate_sparse_matrix_batch,
    )
    for batch in loader:
        yield batch, None


def torch_adata(job):
    """Everything in memory, dense: all that it can. Random rows."""
    import anndata
    from torch.utils.data import DataLoader

    # What its demonstrations download with is in no registry; nothing else needs it.
    sys.modules["web_files"] = types.ModuleType("web_files")
    from torch_adata import AnnDataset

    part = anndata.concat([anndata.read_h5ad(file) for file in job["files"]])
    data = AnnDataset(part, use_key="X", silent=True)
    yield None, None  # Loading is not timed.
    loader = DataLoader(data, batch_size=job["batch"], shuffle=True, num_workers=job["workers"])
    for batch in loader:
        yield (batch[0] if isinstance(batch, (list, tuple)) else batch), None


def annbatch(job):
    """From its own store, whose cells are in random order."""
    import anndata
    import zarr
    from annbatch import DatasetCollection, Loader

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})

    def load(group):
        obs = anndata.io.read_elem(group["obs"])[["number"]]
        return anndata.AnnData(X=anndata.io.sparse_dataset(group["X"]), obs=obs)

    loader = Loader(
        batch_size=job["batch"],
        chunk_size=job.get("chunk_cells", 256),
        preload_nchunks=16_384 // job.get("chunk_cells", 256),
        shuffle=True,
        preload_to_gpu=False,
    )
    loader.use_collection(DatasetCollection(job["store"], mode="r"), load_adata=load)
    for batch in loader:
        yield batch["X"], batch["obs"]["number"]


def annbatch_convert(job):
    import anndata
    import zarr
    from annbatch import DatasetCollection

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})

    def load(path):
        lazy = anndata.experimental.read_lazy(path)
        return anndata.AnnData(X=lazy.X, obs=lazy.obs.to_memory(), var=lazy.var.to_memory())

    DatasetCollection(job["store"]).add_adatas(job["files"], load_adata=load, shuffle=True)


def bionemo_convert(job):
    """Three workers, then one archive of all. Named so that they sort as they count."""
    from bionemo.scdl.io.single_cell_collection import SingleCellCollection

    inputs = job["store"] + ".inputs"
    os.mkdir(inputs)
    for at, file in enumerate(job["files"]):
        os.symlink(os.path.abspath(file), f"{inputs}/{at:05}.h5ad")
    collection = SingleCellCollection(job["store"] + ".parts")
    collection.load_h5ad_multi(inputs, max_workers=3, use_processes=True, use_X_not_raw=True)
    job["seconds_of_parts"] = time.perf_counter() - job["began"]
    collection.flatten(job["store"], destroy_on_copy=True)


READERS = {
    "annloader": annloader,
    "scdataset": scdataset,
    "bionemo-scdl": bionemo,
    "torch-adata": torch_adata,
    "annbatch": annbatch,
}
CONVERTERS = {"annbatch": annbatch_convert, "bionemo-scdl": bionemo_convert}


class Sums:
    """What came, in all."""

    def __init__(self):
        self.numbers, self.genes, self.values, self.non_zeros = None, 0, 0.0, 0

    def add(self, rows, numbers):
        if numbers is not None:
            self.numbers = (self.numbers or 0) + int(numpy.asarray(numbers, dtype=numpy.int64).sum())
        if not hasattr(rows, "layout"):  # scipy's
            columns, values = rows.indices, rows.data
        elif str(rows.layout) == "torch.sparse_csr":
            columns, values = rows.col_indices().numpy(), rows.values().numpy()
        else:
            dense = rows.numpy()
            columns = dense.nonzero()[1]
            values = dense[dense != 0]
        self.genes += int(columns.sum(dtype=numpy.int64))
        self.values += float(values.sum(dtype=numpy.float64))
        self.non_zeros += len(values)


def read(job):
    fastest = None
    for _ in range(job["passes"]):
        cells, sums, began = 0, Sums(), time.perf_counter()
        for rows, numbers in READERS[job["peer"]](job):
            if rows is None:
                began = time.perf_counter()
                continue
            cells += rows.shape[0]
            if job["check"]:
                sums.add(rows, numbers)
        seconds = time.perf_counter() - began
        if fastest is None or seconds < fastest:
            fastest = seconds
    return {"cells": cells, "seconds": fastest, **vars(sums)}


def main():
    job = json.loads(sys.argv[1])
    job["began"] = time.perf_counter()
    if job["convert"]:
        CONVERTERS[job["peer"]](job)
        told = {"seconds": time.perf_counter() - job["began"]}
        told["seconds_of_parts"] = job.get("seconds_of_parts")
    else:
        told = read(job)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
