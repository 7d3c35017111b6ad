#!/usr/bin/env python3
"""The program's build with CUDA, whole, on a device that is not there: `standin/machine.h` says what
that is. What Rust asks of the driver and of cuBLAS is so tried before a GPU is at hand: arguments,
grids, types and addresses of every launch, waits, frees, pinned memory, the commands themselves, and
scripts/gpu-check, which then holds no surprises.

    scripts/cuda-simulate --whole [PART …]     parts: those below

itself    the device that is not there: right programs run right, and mistakes are found
unit      every operation against the CPU's, forward and backward, in f32, bf16 and f16; linear maps
          once more where cuBLASLt has no algorithm for them, attention by both sets of its kernels
goldens   the original's goldens on the device
models    whole models, recomputed ones, steps that are not finite, f16's loss scale; with three seeds
          for the order in which streams run
ranks     two and four processes by `gene-bert launch` over a stand-in for NCCL, beside one: divided
          moments, bf16 on the way, processes that are killed, stopped, asked to end, resumed
commands  mlm, cls, embed, predict, eval and bench with --device cuda:0 beside the CPU; runs resumed
check     scripts/gpu-check pack, and scripts/gpu-check run --small

Needs g++, and Python with pip for the compiler (scripts/cuda-toolkit). Logs: target/cuda/simulate/log.
Prints a line for each part; exit code 1 where one failed.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LOGS = ROOT / "target/cuda/simulate/log"
sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent / "standin"))
import build  # noqa: E402


def toolkit():
    """The environment that a build with CUDA needs."""
    command = ["bash", "-c", 'exports=$(scripts/cuda-toolkit) && eval "$exports" && env -0']
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def built(environment):
    """The programs of the tests, and the folder of the fatbins."""
    what = ["--locked", "--features", "nccl", "--message-format", "json", "--lib", "--test", "it"]
    command = ["cargo", "test", "--no-run", *what]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found = {}
    for line in done.stdout.splitlines():
        part = json.loads(line) if line.startswith("{") else {}
        if part.get("reason") == "build-script-executed" and "gene-bert" in part["package_id"]:
            found["fatbins"] = part["out_dir"]
        elif part.get("executable") and part["profile"]["test"]:
            found["unit" if part["target"]["kind"] == ["lib"] else "it"] = part["executable"]
    return found


class Whole:
    def __init__(self):
        self.failures = 0
        folder = build.build()
        self.programs = built(toolkit())
        shared = Path(os.environ.get("GENE_BERT_SHARED", ROOT / "../shared")).resolve()
        libraries = [str(folder)] + [path for path in [os.environ.get("LD_LIBRARY_PATH")] if path]
        self.environment = os.environ | {
            "LD_LIBRARY_PATH": ":".join(libraries),
            "PATH": f"{folder}:{os.environ['PATH']}",
            "STANDIN_FATBINS": self.programs["fatbins"],
            "GENE_BERT_TEST_DEVICE": "cuda:0",
            "GENE_BERT_TEST_SMALL": "1",
            "GENE_BERT_SHARED": str(shared),
        }

    def run(self, name, *command, **more):
        """Runs a command; its log's text and whether it succeeded."""
        log = LOGS / name
        with open(log, "w") as to:
            done = subprocess.run(
                [str(word) for word in command], env=self.environment | more, stdout=to, stderr=subprocess.STDOUT
            )
        return done.returncode == 0, log.read_text(errors="replace")

    def tests(self, name, program, *words, **more):
        began = time.monotonic()
        done, text = self.run(name, self.programs[program], *words, "--nocapture", **more)
        count = re.search(r"(\d+) passed; (\d+) failed", text)
        figure = f"{count[1]} passed, {count[2]} failed" if count else "ended: see the log"
        skipped = "skipped: no GPU" in text
        self.say(name, done and count and count[1] != "0" and not skipped, figure, began)

    def say(self, name, fine, figure, began):
        self.failures += not fine
        seconds = time.monotonic() - began
        print(f"{name:<12} {'ok' if fine else 'FAILED':<7} {figure} ({seconds:.0f} s)", flush=True)

    def itself(self):
        began = time.monotonic()
        done, text = self.run("itself", build.OUT / "try")
        self.say("itself", done, text.strip().splitlines()[-1], began)

    def unit(self):
        self.tests("unit", "unit", "kernels::cuda::", "kernels::device::")
        linear = ["kernels::cuda::linear::", "kernels::cuda::tests::linear_maps"]
        self.tests("passes", "unit", *linear, STANDIN_EPILOGUES="none")
        # Attention once more, by Hopper's own instructions.
        names = ["kernels::cuda::tests::attention", "kernels::cuda::tests::small"]
        self.tests("unit-wgmma", "unit", *names, GENE_BERT_ATTENTION="wgmma")

    def goldens(self):
        self.tests("goldens", "it", "golden_model::", GENE_BERT_REQUIRE_SHARED="1")

    def models(self):
        for seed in ["1", "2", "3"]:
            self.tests(f"models-{seed}", "it", "on_a_device::", STANDIN_SEED=seed)

    def ranks(self):
        self.tests("ranks", "it", "ranks::processes::", "--test-threads", "1")

    def commands(self):
        self.tests("commands", "it", "device_commands::")

    def check(self):
        began = time.monotonic()
        done, text = self.run("pack", "scripts/gpu-check", "pack", GENE_BERT_PROFILE="dev")
        self.say("pack", done, text.strip().splitlines()[-1] if text.strip() else "", began)
        began = time.monotonic()
        done, text = self.run("gpu-check", "scripts/gpu-check", "run", "--small")
        rows = re.findall(r"^   (.*)\[(\w+)\]$", text, re.M)
        failed = [what for what, verdict in rows if verdict == "FAILED"]
        self.say("gpu-check", done and rows and not failed, f"{len(rows)} rows, {len(failed)} failed", began)
        print("".join(f"    {what}FAILED\n" for what in failed), end="")


def main():
    os.chdir(ROOT)
    parts = ["itself", "unit", "goldens", "models", "ranks", "commands", "check"]
    names = sys.argv[1:] or parts
    if set(names) - set(parts):
        sys.exit(__doc__)
    LOGS.mkdir(parents=True, exist_ok=True)
    whole = Whole()
    for name in names:
        getattr(whole, name)()
    if whole.failures:
        sys.exit(f"scripts/cuda-simulate: {whole.failures} parts failed; what they said is in {LOGS}")


if __name__ == "__main__":
    main()
