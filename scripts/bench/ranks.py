#!/usr/bin/env python3
"""Several ranks on one machine: what they cost, and whether they train as one process does.

    MPICC=mpicc.mpich cargo build --release --features mpi
    scripts/bench/ranks.py --cells FILE.h5ad --phenotype COLUMN --ranks 4 [--arch NAME] [--flags "--dtype bf16"]
    scripts/bench/ranks.py --cells FILE.h5ad --phenotype COLUMN --ranks 2 --losses 50

Times: ranks whose gradients travel in buckets while the backward pass goes on; the same with one bucket,
which travels after it; as many processes that know nothing of one another (the same computing without
communication); and one process of as many threads that takes all cells of a step. Medians over the steps
after the first four; the fastest of the rounds, in each of which all are run in turn.

--losses: the largest relative difference, over so many steps, between the losses of the ranks and of one
process that accumulates as many batches. No dependencies.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ONE_BUCKET = ("--reduce_bucket_mib", 4096)


def words(a, output, batch, threads, steps, *more):
    flags = ["mlm", "--train_data_paths", a.cells, "--included_phenotypes", a.phenotype, "--bin_edges", 0.5, 2]
    flags += ["--model_arch", a.arch, "--max_length", a.length, "--per_device_train_batch_size", batch]
    flags += ["--threads", threads, "--max_steps", steps, "--eval_fraction", 0, "--logging_steps", 1]
    flags += ["--dataloader_num_workers", 0, "--save_steps", 10**6, *more, *a.flags.split(), "--output_dir", output]
    return [str(word) for word in flags]


def run(commands):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    for process in [subprocess.Popen(command, **quiet) for command in commands]:
        _, said = process.communicate()
        if process.returncode:
            sys.exit(said.decode())


def steps_of(output):
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "step"]


def step_ms(outputs):
    """The median step of each run, averaged over runs that went on side by side."""
    medians = [
        statistics.median(1e3 * step["num_tokens"] / step["tokens_per_second"] for step in steps_of(output)[4:])
        for output in outputs
    ]
    return statistics.mean(medians)


def times(a, folder):
    """Variant -> milliseconds of a step over the same number of cells."""
    share = a.threads or max(1, (os.cpu_count() or 1) // a.ranks)
    launch = [str(a.program), "launch", "-n", str(a.ranks), "--"]
    alone = [[str(a.program), *words(a, folder / f"alone{i}", a.batch, share, a.steps)] for i in range(a.ranks)]
    run([[*launch, *words(a, folder / "ranks", a.batch, share, a.steps)]])
    run([[*launch, *words(a, folder / "late", a.batch, share, a.steps, *ONE_BUCKET)]])
    run(alone)
    run([[str(a.program), *words(a, folder / "one", a.batch * a.ranks, share * a.ranks, a.steps)]])
    return {
        f"{a.ranks} ranks × {share} threads": step_ms([folder / "ranks"]),
        "the same, one bucket after the backward pass": step_ms([folder / "late"]),
        "the same without communication": step_ms([folder / f"alone{i}" for i in range(a.ranks)]),
        f"1 process × {share * a.ranks} threads": step_ms([folder / "one"]),
    }


def measure(a):
    found = {}
    for turn in range(a.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds = times(a, Path(folder))
        for name, value in rounds.items():
            found[name] = min(value, found.get(name, value))
        print(f"round {turn + 1}: " + ", ".join(f"{value:.1f}" for value in rounds.values()) + " ms", flush=True)
    for name, value in found.items():
        print(f"{value:8.1f} ms a step: {name}")
    ranks, late, alone, one = found.values()
    print(f"throughput of the ranks / of one process: {one / ranks:.2f}")
    print(f"communication: {ranks - alone:.1f} ms of a step not hidden ({alone / ranks:.1%} efficiency), "
          f"{late - alone:.1f} ms in one bucket")


def compare(a):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        launch = [str(a.program), "launch", "-n", str(a.ranks), "--"]
        run([[*launch, *words(a, folder / "ranks", a.batch, 1, a.losses)]])
        more = ("--gradient_accumulation_steps", a.ranks)
        run([[str(a.program), *words(a, folder / "one", a.batch, a.ranks, a.losses, *more)]])
        pairs = list(zip(steps_of(folder / "ranks"), steps_of(folder / "one"), strict=True))
    assert len(pairs) == a.losses
    worst = max(abs(left["loss"] / right["loss"] - 1) for left, right in pairs)
    first, last = pairs[0][1]["loss"], pairs[-1][1]["loss"]
    print(f"{a.losses} steps, loss {first:.6f} to {last:.6f}: {a.ranks} ranks and 1 process × {a.ranks} "
          f"accumulated batches differ by {worst:.1e} at most")
    return worst > 1e-6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/gene-bert")
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--phenotype", required=True)
    parser.add_argument("--arch", default="quickstart")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8, help="cells per rank")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--threads", type=int, help="per rank; default: the cores shared out")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--losses", type=int, metavar="STEPS", help="compare losses, not times")
    parser.add_argument("--flags", default="", help="more flags of mlm")
    a = parser.parse_args()
    return compare(a) if a.losses else measure(a)


if __name__ == "__main__":
    sys.exit(main())
