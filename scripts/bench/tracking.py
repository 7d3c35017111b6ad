#!/usr/bin/env python3
"""What reporting to each tracker costs a training step.

    scripts/bench/tracking.py CELLS.h5ad --phenotype cell_type

The same small model is trained for STEPS steps, every step logged (ten times as often as by
default), reporting nowhere (twice: how much two equal runs differ) and to each tracker in turn,
ROUNDS times, each round beginning with another one. Servers are stand-ins on loopback. Of each run:

  step ms   wall time of a step, by metrics.jsonl: median over steps, then over rounds
  in run    time that the training thread spends on reporting, as the journal's last line tells,
            as a share of the time of all steps
  beside    processor time of the tracker's own threads, as a share of the same time on all cores
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "interop"))
from wandb_stand_in import StandIn  # noqa: E402

THREADS = {"wandb", "wandb-offline", "tensorboard", "mlflow", "system"}


class Mlflow(BaseHTTPRequestHandler):
    """Says yes to everything."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        info = {"run_id": "r", "artifact_uri": "mlflow-artifacts:/0/r/artifacts"}
        data = json.dumps({"experiment": {"experiment_id": "0"}, "run": {"info": info}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = answer


def run(given, name, flags, env):
    """Seconds of each step, seconds of the training thread in reporting, seconds of threads."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            given.program, "mlm", "--train_data_paths", given.data, "--included_phenotypes",
            given.phenotype, "--bin_edges", "0.5", "2", "--model_arch", "quickstart",
            "--max_length", "128", "--per_device_train_batch_size", "16", "--eval_fraction", "0",
            "--logging_steps", "1", "--max_steps", str(given.steps), "--threads",
            str(given.threads), "--output_dir", f"{folder}/run", *flags,
        ]
        process = subprocess.Popen(command, env=os.environ | env, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        beside = {}
        while process.poll() is None:
            for task in Path(f"/proc/{process.pid}/task").glob("*"):
                try:
                    thread = (task / "comm").read_text().strip()
                    if thread in THREADS:
                        nanoseconds = int((task / "schedstat").read_text().split()[0])
                        beside[task.name] = nanoseconds / 1e9
                except OSError:
                    pass
            time.sleep(0.05)
        assert process.returncode == 0, name
        lines = (json.loads(line) for line in open(f"{folder}/run/metrics.jsonl"))
        steps = [l["num_cells"] / l["cells_per_second"] for l in lines if l["event"] == "step"]
        journal = Path(folder, "run/tracking/journal.jsonl")
        spent = 0.0
        if journal.exists():
            spent = json.loads(journal.read_text().splitlines()[-1])["spent_seconds"]
        return steps, spent, sum(beside.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--phenotype", default="cell_type")
    parser.add_argument("--program", default="target/release/gene-bert")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    wandb = StandIn()
    mlflow = ThreadingHTTPServer(("127.0.0.1", 0), Mlflow)
    threading.Thread(target=mlflow.serve_forever, daemon=True).start()
    cases = {
        "nowhere": ([], {}),
        "tensorboard": (["--report-to", "tensorboard"], {}),
        "wandb offline": (["--report-to", "wandb"], {"WANDB_MODE": "offline"}),
        "wandb": (["--report-to", "wandb"], {"WANDB_BASE_URL": wandb.url, "WANDB_API_KEY": "x"}),
        "wandb, down": (["--report-to", "wandb", "--report_wait", "0"],
                        {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "x"}),
        "mlflow": (["--report-to", "mlflow"],
                   {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow.server_port}"}),
        "nowhere again": ([], {}),
    }
    found = {name: [] for name in cases}
    for number in range(given.rounds):
        turn = list(cases.items())
        for name, (flags, env) in turn[number:] + turn[:number]:
            found[name].append(run(given, name, flags, env | {"NO_PROXY": "127.0.0.1"}))
    cores = os.cpu_count()
    print(f"{given.steps} steps, {given.rounds} rounds, {given.threads} compute threads of {cores}")
    print(f"{'':<14}{'step ms':>9}{'of nowhere':>12}{'in run':>10}{'beside':>10}")
    alone = statistics.median(statistics.median(steps) for steps, _, _ in found["nowhere"])
    for name, runs in found.items():
        step = statistics.median(statistics.median(steps) for steps, _, _ in runs)
        spent = statistics.median(spent / sum(steps) for steps, spent, _ in runs)
        beside = statistics.median(b / sum(steps) / cores for steps, _, b in runs)
        print(f"{name:<14}{step * 1e3:>9.3f}{step / alone:>12.3f}{spent:>10.3%}{beside:>10.3%}")


if __name__ == "__main__":
    main()
