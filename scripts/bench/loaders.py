#!/usr/bin/env python3
"""`gene-bert bench data` and `convert` beside the other loaders, on the same files, in turn.

    python scripts/bench/pool.py data/throughput/pool_real_human_cells.h5ad POOL --only gzip
    scripts/bench/loaders.py POOL WORK --python PY --python-annbatch PY312 --group shuffled

PY has anndata, torch, scdataset, bionemo-scdl and torch-adata (Python 3.11), PY312 has annbatch[zarrs]
(Python 3.12); Groups of figures, each a run of its own:

    convert   every store is written into WORK, `--rounds` times, and kept for the other groups
    shuffled  batches of 64 and 1024 in mixed order, and as tokens
    random    truly random rows
    cold      shuffled batches of 64 after the files were dropped from the page cache
    readers   ours with 1 and 4 reader threads

First, untimed, every reader delivers everything once: the sums of cell numbers, genes and values must
be the same. Then `--rounds` rounds, in each of which every reader runs in turn, a process of its own
(two passes, the faster counts; one of the slow ones, and where the cache is cold). Shown are medians, and the median over
the rounds of what each is to the reader that stands first in its table. Memory is what a process and
its children hold together (pages that several share are counted once), looked at ten times a second.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENTROPY = ["--entropy", "label"]


class Reader:
    """Something that is run: ours by its flags, another one by its job."""

    def __init__(self, name, flags=None, **job):
        self.name, self.flags, self.job = name, flags, job
        # One pass of these takes long enough.
        self.slow = job.get("peer") in ("scdataset", "annloader", "bionemo-scdl")

    def line(self, arguments, passes, check):
        if self.flags is not None:
            line = [arguments.program, "bench", "data", *self.flags, "--json", "--passes", passes]
            return line + (["--check"] if check and "--rows" in self.flags else [])
        job = {"workers": 0, "rows": None, "convert": False, "passes": passes, "check": check}
        return peer(arguments, job | self.job)


def peer(arguments, job):
    python = arguments.python_annbatch if job["peer"] == "annbatch" else arguments.python
    return [python, HERE / "peers.py", json.dumps(job)]


def run(line):
    """What a process printed last, as JSON, with the most memory it held."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak, done = [0], threading.Event()

    def watch():
        while not done.wait(0.1):
            peak[0] = max(peak[0], sum(map(held, family(process.pid))))

    watching = threading.Thread(target=watch)
    watching.start()
    out, errors = process.communicate()
    seconds = time.perf_counter() - began
    done.set()
    watching.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, line))[:300]}\n{errors[-2000:]}")
    if out.startswith("["):  # `bench data --json`
        told = json.loads(out)[0]
    else:
        last = out.splitlines()[-1:]
        told = json.loads(last[0]) if last and last[0].startswith("{") else {}
    return {"seconds": seconds} | told | {"peak": peak[0]}


def family(pid):
    """A process and what it started."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            parent = int(stat[stat.rindex(")") + 2 :].split()[1])
            children.setdefault(parent, []).append(int(entry))
    found = [pid]
    for at in found:
        found.extend(children.get(at, []))
    return found


def held(pid):
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


def drop_cache(paths):
    """Takes files out of the page cache."""
    os.sync()
    for path in paths:
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        for file in files:
            handle = os.open(file, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def compare(title, readers, arguments, check=True, cold=()):
    """Checks that all deliver the same, then times them in turn."""
    if check and arguments.check != "no":
        same(title, readers, arguments)
    if arguments.check == "only":
        return
    found = {reader.name: [] for reader in readers}
    for _ in range(arguments.rounds):
        for reader in readers:
            drop_cache(cold)
            told = run(reader.line(arguments, 1 if cold or reader.slow else 2, False))
            told["rate"] = told["cells"] / told["seconds"]
            found[reader.name].append(told)
    print(f"\n{title}\n{'':<44} {'cells/s':>10} {'of first':>9} {'peak MiB':>9}  batch entropy")
    first = [told["rate"] for told in found[readers[0].name]]
    for reader in readers:
        own = found[reader.name]
        rates = [told["rate"] for told in own]
        ratio = statistics.median(rate / other for rate, other in zip(rates, first))
        peak = max(told["peak"] for told in own) / 2**20
        mixing = own[-1].get("batch_entropy_bits")
        mixing = f"{mixing / own[-1]['random_batch_entropy_bits']:.1%}" if mixing else ""
        rate = statistics.median(rates)
        print(f"{reader.name:<44} {rate:>10,.0f} {ratio:>9.2f} {peak:>9,.0f}  {mixing}", flush=True)


def same(title, readers, arguments):
    """Every reader delivers the same cells."""
    expected = None
    for reader in readers:
        told = run(reader.line(arguments, 1, True))
        if reader.flags is not None and "--rows" not in reader.flags:
            continue
        names = ["numbers", "genes", "values"]
        if reader.flags is not None:
            names = ["sum_of_cells", "sum_of_genes", "sum_of_values"]
        sums = [told["cells"], *(told[name] for name in names)]
        expected = expected or sums
        differ = [a for a, b in zip(sums, expected) if a is not None and b is not None and a != b]
        if differ:
            raise SystemExit(f"{title}: {reader.name} delivered {sums}, not {expected}")
        print(f"{title}: {reader.name}: the same", flush=True)


def ours(name, files, batch, *more, readers=4, rows=True):
    flags = [*files, "--batch", batch, "--readers", readers, *more]
    if rows:
        return Reader(name, flags=[*flags, "--rows"])
    tokens = ["--max-length", 2048, "--gene-order", "file", "--bin-edges", "0.1"]
    return Reader(name, flags=[*flags, *tokens])


def shuffled(stores, arguments, cold=False):
    files = [str(file) for file in stores.files]
    mixed = ["--buffer_cells", 16384, *ENTROPY]
    for batch in [64] if cold else arguments.batch:
        block = {"peer": "scdataset", "files": files, "batch": batch}
        readers = [
            Reader("annbatch, its own shuffled store", peer="annbatch", store=str(stores.annbatch),
                   batch=batch),
            ours("gene-bert, gzip h5ad", files, batch, *mixed),
            ours("gene-bert, gzip h5ad, default buffer", files, batch, *ENTROPY),
            ours("gene-bert, converted", stores.converted(), batch, *ENTROPY),
            ours("gene-bert, converted, tokens", stores.converted(), batch, rows=False),
            ours("gene-bert, gzip h5ad, tokens", files, batch, rows=False),
            Reader("scDataset, gzip h5ad", **block),
            Reader("scDataset, gzip h5ad, 3 workers", workers=3, **block),
        ]
        if cold:
            del readers[4:6]
            data = [*stores.files, stores.annbatch, *map(Path, stores.converted())]
            compare(f"cold page cache, batches of {batch}", readers, arguments, False, data)
        else:
            compare(f"shuffled batches of {batch}", readers, arguments)


def rows_at_random(stores, arguments):
    files = [str(file) for file in stores.files]
    random.seed(1)
    rows = sorted(random.sample(range(arguments.cells), arguments.random_rows))
    listed = stores.work / "rows.txt"
    listed.write_text("".join(f"{row}\n" for row in rows))
    full = ["--shuffle", "full", "--buffer_cells", arguments.random_rows]
    few = ["--cells", listed, *full]
    scdl = {"peer": "bionemo-scdl", "store": str(stores.scdl), "batch": 64, "rows": str(listed)}
    compare(f"{len(rows)} random rows of an SCDL archive of bionemo-scdl, batches of 64", [
        Reader("bionemo-scdl", **scdl),
        Reader("bionemo-scdl, 3 workers", workers=3, **scdl),
        ours("gene-bert", [stores.scdl], 64, *few),
    ], arguments)
    compare("all rows of the archive in random order", [
        ours("gene-bert", [stores.scdl], 64, "--shuffle", "full"),
    ], arguments, check=False)
    loader = {"peer": "annloader", "files": files, "batch": 64, "rows": str(listed)}
    loader["every"] = 8
    compare("random rows of gzip h5ad, batches of 64", [
        Reader("AnnLoader", **loader),
        ours(f"gene-bert, {len(rows)} rows", files, 64, *few),
        ours("gene-bert, all rows in random order", files, 64, *full),
    ], arguments, check=False)
    one = {"peer": "torch-adata", "files": files[:1], "batch": 64}
    compare("random rows of one file", [
        Reader("torch-adata, dense in memory", **one),
        ours("gene-bert, gzip h5ad, sparse", files[:1], 64, *full),
        ours("gene-bert, converted, sparse", stores.converted()[:1], 64, *full),
    ], arguments, check=False)


def reader_threads(stores, arguments):
    for name, files in [("gzip h5ad", stores.files), ("converted", stores.converted())]:
        compare(f"reader threads, rows, {name}", [
            ours(f"{threads} readers", files, 64, readers=threads) for threads in [1, 4]
        ], arguments, check=False)
        compare(f"reader threads, tokens, {name}", [
            ours(f"{threads} readers", files, 64, readers=threads, rows=False)
            for threads in [1, 4]
        ], arguments, check=False)


def convert(stores, arguments):
    """Every converter in turn, each time anew."""
    files = [str(file) for file in stores.files]
    base = [arguments.program, "convert", *files, "--memory", "300MB", "--output"]
    shuffle = ["--shuffle", "--cells-per-file", arguments.cells // len(files)]
    contiguous = ["--contiguous", "--dtype", "narrowest"]
    scdl = [*base, stores.work / "ours.scdl", "--format", "scdl", "--dtype", "narrowest"]
    jobs = [
        ("annbatch, shuffled", stores.annbatch, lambda: peer(arguments, {
            "peer": "annbatch", "convert": True, "files": files, "store": str(stores.annbatch)})),
        ("bionemo-scdl, in order, 3 workers", stores.scdl, lambda: peer(arguments, {
            "peer": "bionemo-scdl", "convert": True, "files": files, "store": str(stores.scdl)})),
        ("gene-bert, shuffled, contiguous", stores.ours,
         lambda: [*base, stores.ours / "c.h5ad", *shuffle, *contiguous]),
        ("gene-bert, shuffled, gzip:1", stores.work / "gzip1",
         lambda: [*base, stores.work / "gzip1/c.h5ad", *shuffle, "--compression", "gzip:1",
                  "--dtype", "narrowest"]),
        ("gene-bert, SCDL, in order", stores.work / "ours.scdl", lambda: scdl),
        ("gene-bert, SCDL, shuffled", stores.work / "ours.scdl", lambda: [*scdl, "--shuffle"]),
    ]
    found = {name: [] for name, _, _ in jobs}
    for _ in range(arguments.rounds):
        for name, target, line in jobs:
            for left in [target, Path(f"{target}.inputs"), Path(f"{target}.parts")]:
                shutil.rmtree(left, ignore_errors=True)
            if target in (stores.ours, stores.work / "gzip1"):
                target.mkdir()
            os.sync()
            told = run(line())
            told["bytes"] = sum(f.stat().st_size for f in target.rglob("*") if f.is_file())
            found[name].append(told)
            if target not in (stores.annbatch, stores.scdl, stores.ours):
                shutil.rmtree(target)
    first = [told["seconds"] for told in found[jobs[0][0]]]
    print(f"\nconverting {arguments.cells} cells of gzip h5ad")
    print(f"{'':<44} {'seconds':>8} {'of first':>9} {'peak MiB':>9} {'MB written':>11}")
    for name, _, _ in jobs:
        own = found[name]
        seconds = [told["seconds"] for told in own]
        ratio = statistics.median(a / b for a, b in zip(seconds, first))
        peak = max(told["peak"] for told in own) / 2**20
        print(f"{name:<44} {statistics.median(seconds):>8.1f} {ratio:>9.2f} {peak:>9,.0f} "
              f"{own[-1]['bytes'] / 1e6:>11,.0f}", flush=True)
        if own[-1].get("seconds_of_parts"):
            parts = statistics.median(told["seconds_of_parts"] for told in own)
            print(f"{'  of which until there is an archive a file':<44} {parts:>8.1f}")


class Stores:
    """Where everything is."""

    def __init__(self, arguments):
        found = arguments.pool.glob("gzip_*.h5ad")
        number = lambda path: int(path.stem.split("_")[1])
        self.files = sorted(found, key=number)[: arguments.files]
        self.work = arguments.work
        self.annbatch, self.scdl = self.work / "annbatch.zarr", self.work / "theirs.scdl"
        self.ours = self.work / "converted"

    def converted(self):
        files = self.ours.glob("c_*.h5ad")
        return sorted(map(str, files), key=lambda path: int(Path(path).stem.split("_")[1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("pool", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--program", default="target/release/gene-bert")
    parser.add_argument("--python", default="python3")
    parser.add_argument("--python-annbatch", default="python3.12")
    groups = {
        "convert": convert,
        "shuffled": shuffled,
        "random": rows_at_random,
        "cold": lambda stores, arguments: shuffled(stores, arguments, True),
        "readers": reader_threads,
    }
    parser.add_argument("--group", nargs="+", choices=groups, default=list(groups))
    parser.add_argument("--files", type=int, default=20, help="so many of the pool's files")
    parser.add_argument("--cells", type=int, default=200_000, help="cells in them")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--random-rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", choices=["yes", "no", "only"], default="yes",
                        help="whether all deliver the same is looked at, before or only")
    arguments = parser.parse_args()
    arguments.work.mkdir(exist_ok=True)
    stores = Stores(arguments)
    for group in arguments.group:
        groups[group](stores, arguments)


if __name__ == "__main__":
    main()
