#!/usr/bin/env python3
"""Two ranks under each starter of processes that this machine has: gene-bert launch, torchrun, mpirun, srun
and Ray.

    MPICC=mpicc.mpich cargo build --release --features mpi
    scripts/interop/launchers.py --data CELLS.h5ad --phenotype COLUMN [--torchrun PATH] [--ray-python PATH]

Under each of them: a run trains to its end with the losses of one process that accumulates two batches
(1e-6), and only rank 0 prints; SIGTERM on rank 1 saves once and ends all, and one process goes on from
there to the same last loss (1e-5); after kill -9 of rank 1 every process ends within 30 s, the starter
fails, and the rank is named. `launch` and Ray, which can, start again by themselves after a kill and come
to the same last loss. A starter that is not there is named as not tried. --program takes a build with Open
MPI, too: then launch and mpirun only.
"""
import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEPS = 60
LIMIT = 30.0  # seconds until every process must have ended


class Runs:
    def __init__(self, a, folder):
        self.a, self.folder = a, folder

    def words(self, output, batches=1, *more):
        words = ["mlm", "--train_data_paths", self.a.data, "--included_phenotypes", self.a.phenotype]
        words += ["--bin_edges", 0.5, 2, "--model_arch", "quickstart", "--num_hidden_layers", 1, "--max_length", 200]
        words += ["--per_device_train_batch_size", 8, "--gradient_accumulation_steps", batches, "--max_steps", STEPS]
        words += ["--lr_scheduler_type", "constant", "--learning_rate", 1e-3, "--logging_steps", 1, "--save_steps", 10]
        words += ["--eval_steps", STEPS, "--eval_max_cells", 64, "--threads", 1, "--rank_timeout", 5]
        return [str(word) for word in [*words, "--output_dir", output, *more]]

    def alone(self, output, *more):
        command = [str(self.a.program), *self.words(output, 2, *more)]
        subprocess.run(command, check=True, capture_output=True)


def losses(output):
    """step -> loss."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["event"] == "step"}


def differ(left, right):
    assert left.keys() == right.keys(), (len(left), len(right))
    return max(abs(left[step] / right[step] - 1) for step in left)


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
            names = (b"OMPI_COMM_WORLD_RANK", b"PMI_RANK", b"RANK", b"SLURM_PROCID")
            rank = next((variables[name] for name in names if name in variables), None)
            own = words[0].endswith(b"gene-bert") and len(words) > 1 and words[1] == b"mlm"
            if own and str(output).encode() in words and rank is not None:
                found[int(rank)] = int(entry.name)
    return found


def start(command, log):
    variables = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=variables)


def signalled(command, output, how):
    """Runs, sends rank 1 a signal once the first checkpoint is there; exit code, what was said, seconds."""
    with open(output.with_suffix(".log"), "wb+") as log:
        process = start(command, log)
        while not (output / "checkpoint-10").is_dir():
            assert process.poll() is None, said(log)
            time.sleep(0.02)
        os.kill(ranks_of(output)[1], how)
        took = 0.0  # of this program's own time: the machine may pause everything for a while
        while process.poll() is None or ranks_of(output):
            if how == signal.SIGKILL:
                assert took < LIMIT or "starting all" in said(log), said(log)
            at = time.monotonic()
            time.sleep(0.05)
            took += min(time.monotonic() - at, 0.5)
        return process.returncode, said(log), took


def said(log):
    log.flush()
    log.seek(0)
    return log.read().decode(errors="replace")


def check(name, begin, runs, expected, restart):
    """`begin`: the words of a training command -> the starter's whole command; `restart`: the same, for one
    that starts again, where it can."""
    output = runs.folder / f"{name}-whole"
    with open(output.with_suffix(".log"), "wb+") as log:
        code = start(begin(runs.words(output)), log).wait()
        text = said(log)
    assert code == 0, text
    apart = differ(losses(output), expected)
    assert apart <= 1e-6, apart
    assert text.count("Model: 1 blocks") == 1 and (output / "logs/rank-1.log").is_file(), text

    output = runs.folder / f"{name}-term"
    code, text, _ = signalled(begin(runs.words(output)), output, signal.SIGTERM)
    saved = sorted(int(path.name[11:]) for path in output.glob("checkpoint-[0-9]*"))
    assert code == 0 and saved[-1] == max(losses(output)) < STEPS and len([s for s in saved if s % 10]) <= 1, text
    assert text.count("Saved: ") == 1, text
    subprocess.run([str(runs.a.program), *runs.words(output, 1, "--resume")], check=True, capture_output=True)
    resumed = differ(losses(output), expected)
    assert resumed <= 1e-5, resumed

    output = runs.folder / f"{name}-kill"
    code, text, seconds = signalled(begin(runs.words(output)), output, signal.SIGKILL)
    # MPICH's mpirun kills the others before they can say which rank was lost.
    named = "KILLED|Killed" if name == "mpirun" else r"rank 1 (has died|was lost) after step|rank 1 was killed"
    assert code != 0 and re.search(named, text), text
    report = (f"{name}: losses within {apart:.0e} of one process; SIGTERM saved at step {saved[-1]}, resumed alone "
              f"within {resumed:.0e}; kill -9: all ended in {seconds:.1f} s, code {code}")
    if restart:
        output = runs.folder / f"{name}-restart"
        code, text, _ = signalled(restart(runs.words(output)), output, signal.SIGKILL)
        assert code == 0 and differ(losses(output), expected) <= 1e-6, text
        report += "; started again by itself: same losses"
    print(report, flush=True)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def starters(a):
    """name -> (how to begin, how to begin so that it starts again; None where it cannot, or is not here)."""
    program = [str(a.program)]
    launch = [*program, "launch", "-n", "2"]
    found = {"launch": (lambda words: [*launch, "--", *words],
                        lambda words: [*launch, "--max-restarts", "1", "--", *words])}
    mpirun = shutil.which("mpirun.openmpi" if a.open_mpi else "mpirun.mpich") or shutil.which("mpirun")
    bind = ["--bind-to", "none", "--oversubscribe"] if a.open_mpi else ["-bind-to", "none"]
    found["mpirun"] = mpirun and (lambda words: [mpirun, *bind, "-n", "2", *program, *words], None)
    if not a.open_mpi:
        torchrun = shutil.which(a.torchrun)
        found["torchrun"] = torchrun and (
            lambda words: [torchrun, "--no-python", "--nproc-per-node", "2", "--master-port", str(free_port()),
                           *program, *words], None)
        found["srun"] = shutil.which("srun") and a.srun and (
            lambda words: ["env", "MASTER_ADDR=127.0.0.1", f"MASTER_PORT={free_port()}", "srun", "--mpi=none", "-n",
                           "2", "--kill-on-bad-exit=1", *program, *words], None)
        ray = [str(a.ray_python), str(ROOT / "scripts/ray_train.py"), "--num-processes", "2", "--program", *program]
        has_ray = subprocess.run([a.ray_python, "-c", "import ray"], capture_output=True, check=False).returncode == 0
        found["ray"] = has_ray and (lambda words: [*ray, "--", *words],
                                    lambda words: [*ray, "--max-restarts", "1", "--", *words])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/gene-bert")
    parser.add_argument("--open-mpi", action="store_true", help="the program is built with Open MPI")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--phenotype", required=True)
    parser.add_argument("--torchrun", default="torchrun")
    parser.add_argument("--ray-python", default=sys.executable, help="a Python that has Ray")
    parser.add_argument("--srun", action="store_true", help="a Slurm cluster runs here: try srun")
    parser.add_argument("--only", nargs="+", help="these starters")
    a = parser.parse_args()
    a.program = a.program.resolve()
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(a, Path(folder))
        runs.alone(runs.folder / "one")
        expected = losses(runs.folder / "one")
        for name, starter in starters(a).items():
            if a.only and name not in a.only:
                continue
            if starter:
                check(name, starter[0], runs, expected, starter[1])
            else:
                print(f"{name}: not here, not tried", flush=True)


if __name__ == "__main__":
    main()
