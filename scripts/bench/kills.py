#!/usr/bin/env python3
"""Kills or stops a random rank at a random moment of a small run, many times, and checks that every run
ends cleanly and resumes to the final loss of the undisturbed one.

    cargo build --release --features mpi          # with MPICH: MPICC=mpicc.mpich
    scripts/bench/kills.py --kills 100 --ranks 3

Clean: every process ends within 30 s of the kill, the command fails, it names the rank and the step, and
every checkpoint is whole. A share of the kills (--stops) are SIGSTOP, which no engine sees. No
dependencies.
"""
import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 30.0  # seconds until every process must have ended


def command(arguments, output, more=()):
    files = sorted(arguments.cells.glob("*.h5ad"))
    words = ["mlm", "--train_data_paths", *map(str, files), "--model_arch", "quickstart"]
    words += ["--included_phenotypes", "cell_type", "sex", "--bin_edges", "0.5", "2", "--max_length", "40"]
    words += ["--per_device_train_batch_size", "8", "--learning_rate", "1e-3", "--logging_steps", "1"]
    words += ["--max_steps", str(arguments.steps), "--save_steps", "5", "--eval_steps", str(arguments.steps)]
    words += ["--dataloader_num_workers", "1", "--threads", "1"]
    launch = [str(arguments.program), "launch", "-n", str(arguments.ranks), "--"]
    if "--rank_timeout" not in more:
        more = [*more, "--rank_timeout", "120"]  # nobody is lost here, however busy the machine is
    return [*launch, *words, "--output_dir", str(output), *more]


def start(words, log):
    return subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)


def ranks_of(output):
    """rank -> process id of the ranks that train into `output`."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                variables = dict(v.split(b"=", 1) for v in (entry / "environ").read_bytes().split(b"\0") if b"=" in v)
            except OSError:
                continue
            rank = variables.get(b"RANK", variables.get(b"OMPI_COMM_WORLD_RANK"))
            if str(output).encode() in words and b"launch" not in words and rank is not None:
                found[int(rank)] = int(entry.name)
    return found


def last_loss(output):
    steps = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in steps if line["event"] == "step"]
    return steps[-1]["step"], steps[-1]["loss"]


def check_checkpoints(output):
    """Every folder called checkpoint-N holds all its files, and its tensors have their announced sizes."""
    for folder in output.glob("checkpoint-*"):
        json.loads((folder / "trainer_state.json").read_text())
        for name in ("model.safetensors", "optimizer.safetensors"):
            if name == "optimizer.safetensors" and folder.name == "checkpoint-best":
                continue
            data = (folder / name).read_bytes()
            size = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + size])
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
            assert len(data) == 8 + size + max(ends), f"{folder / name} is cut short"


def disturb(arguments, output, words, draw, whole):
    """Runs, disturbs one rank; what was done, or None where the run was faster."""
    with open(output.with_suffix(".log"), "wb+") as log:
        process = start(words, log)
        began = time.monotonic()
        moment = draw.uniform(0.0, 1.05) * whole
        rank = draw.randrange(arguments.ranks)
        how = signal.SIGSTOP if draw.random() < arguments.stops else signal.SIGKILL
        pid, left = None, {}
        while process.poll() is None and (pid is None or time.monotonic() - began < moment):
            pid = ranks_of(output).get(rank)
            time.sleep(0.02)
        if process.poll() is not None:
            return None
        try:
            os.kill(pid, how)
        except OSError:
            process.wait()
            return None
        took = 0.0  # of this program's own time: the machine may pause everything for a while
        while (code := process.poll()) is None or (left := ranks_of(output)):
            assert took < LIMIT, f"still there after {LIMIT} s: {code} {left}"
            at = time.monotonic()
            time.sleep(0.05)
            took += min(time.monotonic() - at, 0.5)
        log.seek(0)
        said = log.read().decode()
    if code == 0:
        return None  # it was past its last step
    assert re.search(rf"rank {rank}\b", said), f"rank {rank} is not named:\n{said}"
    assert re.search(r"(after step \d+|before the first step)|killed by signal", said), said
    return {"rank": rank, "signal": how.name, "moment": moment, "seconds": took, "code": code}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/gene-bert")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--stops", type=float, default=0.2, help="share of SIGSTOP")
    parser.add_argument("--timeout", type=int, default=10, help="seconds of silence (--rank_timeout)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        arguments.cells = folder / "cells"
        make_cells(arguments)
        undisturbed = folder / "undisturbed"
        began = time.monotonic()
        subprocess.run(command(arguments, undisturbed), check=True, capture_output=True)
        whole = time.monotonic() - began
        expected = last_loss(undisturbed)
        print(f"undisturbed: {whole:.1f} s, step {expected[0]}, loss {expected[1]:.9f}", flush=True)
        done, misses, worst = 0, 0, 0.0
        while done < arguments.kills:
            output = folder / f"run{done}"
            silence = ["--rank_timeout", str(arguments.timeout)]
            report = disturb(arguments, output, command(arguments, output, silence), draw, whole)
            if report is None:
                misses += 1
            else:
                done += 1
                worst = max(worst, report["seconds"])
                check_checkpoints(output)
                steps = sorted(int(p.name[11:]) for p in output.glob("checkpoint-[0-9]*"))
                more = ["--resume", str(output)] if steps else ["--overwrite-output-dir"]
                again = subprocess.run(command(arguments, output, more), capture_output=True, check=False)
                assert again.returncode == 0, again.stderr.decode()
                found = last_loss(output)
                assert found == expected, f"{found}, expected {expected}"
                place = f"resumed from {steps[-1]}" if steps else "begun anew"
                print(f"{done}: {report['signal']} rank {report['rank']} at {report['moment']:.1f} s: all ended "
                      f"in {report['seconds']:.1f} s with code {report['code']}; {place}: same loss", flush=True)
            for path in (output, output.with_suffix(".log")):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        print(f"{done} kills, every one clean and resumed to the same loss; slowest end {worst:.1f} s; "
              f"{misses} came after the end")


def make_cells(arguments):
    """Simulated cells, as quickstart makes them."""
    run = arguments.cells.with_name("quick")
    words = [str(arguments.program), "quickstart", "--output_dir", str(run), "--num_train_epochs", "0.01"]
    subprocess.run(words, check=True, capture_output=True)
    arguments.cells.mkdir()
    for path in run.parent.rglob("*.h5ad"):
        path.rename(arguments.cells / path.name)


if __name__ == "__main__":
    sys.exit(main())
