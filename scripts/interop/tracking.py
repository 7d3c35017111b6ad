#!/usr/bin/env python3
"""Runs of gene-bert arrive in the genuine W&B client, MLflow server and TensorBoard.

    pip install wandb mlflow tensorboard
    scripts/interop/tracking.py --program target/release/gene-bert --data CELLS.h5ad

A small run on CELLS is reported
 * to TensorBoard's files, read by its own EventAccumulator;
 * to W&B offline, stopped and resumed; `wandb sync` sends both parts to a stand-in server on
   loopback (wandb_stand_in.py);
 * to W&B online, to the same stand-in: undisturbed; with answers 500, 429 and dropped connections;
   with the server stalling; with the server down at the start and up later; stopped and resumed;
   down until after the end, then `gene-bert track`;
 * to a real MLflow server (SQLite, artifacts passed on), undisturbed and resumed, and with the
   server killed and started again in the middle.
Every step of metrics.jsonl must have arrived once, with its values; weights must be those of the
run that reports nowhere.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from wandb_stand_in import StandIn  # noqa: E402

BIN = Path(sys.executable).parent


class Runs:
    def __init__(self, program, data, phenotype, folder):
        self.program, self.data, self.folder = Path(program).resolve(), data, Path(folder)
        self.phenotype = phenotype

    def command(self, name, *more):
        return [
            str(self.program), "mlm", "--train_data_paths", str(self.data),
            "--included_phenotypes", self.phenotype, "--bin_edges", "0.5", "2",
            "--model_arch", "quickstart", "--num_hidden_layers", "1", "--max_length", "64",
            "--per_device_train_batch_size", "8", "--logging_steps", "1", "--eval_steps", "20",
            "--eval_max_cells", "64", "--learning_rate", "1e-3", "--save_steps", "20",
            "--output_dir", str(self.folder / name), *more,
        ]

    def start(self, command, out=subprocess.PIPE, **env):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "MLFLOW_"))} | env
        env["NO_PROXY"] = "127.0.0.1"
        return subprocess.Popen(command, env=env, text=True, stdout=out, stderr=subprocess.STDOUT)

    def run(self, name, *more, **env):
        process = self.start(self.command(name, *more), **env)
        said, _ = process.communicate()
        assert process.returncode == 0, said
        return said

    def stop_and_resume(self, name, *more, **env):
        """Stopped by a signal after some steps, then resumed to its end."""
        process = self.start(self.command(name, *more), **env)
        wait_for(lambda: steps_of(self.folder / name) >= 25)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate()
        assert process.returncode == 0, said
        assert steps_of(self.folder / name) < 60, "it was too quick to be stopped"
        resume = [str(self.program), "mlm", "--resume", str(self.folder / name)]
        process = self.start(resume, **env)
        more_said, _ = process.communicate()
        assert process.returncode == 0, more_said
        return said + more_said

    def metrics(self, name):
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        lines = [json.loads(line) for line in lines]
        return {line["step"]: line["loss"] for line in lines if line["event"] == "step"}

    def weights(self, name):
        path = max((self.folder / name).glob("checkpoint-[0-9]*"), key=lambda p: int(p.name[11:]))
        return hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()


def wait_for(condition, seconds=60):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited in vain"
        time.sleep(0.05)


def steps_of(folder):
    path = folder / "metrics.jsonl"
    return path.read_text().count('"event":"step"') if path.exists() else 0


def same(expected, got, what):
    """Step -> loss, both ways."""
    assert sorted(expected) == sorted(got), f"{what}: steps {sorted(expected)[:3]} … {sorted(got)[:3]}"
    for step, loss in expected.items():
        assert math.isclose(loss, got[step], rel_tol=1e-6), f"{what}: step {step}"
    print(f"{what}: all {len(got)} steps, once each")


def tensorboard(runs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runs.stop_and_resume("tb", "--max_steps", "60", "--report-to", "tensorboard")
    reader = EventAccumulator(str(runs.folder / "tb" / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    events = reader.Scalars("train/loss")
    assert len(events) == len({event.step for event in events})
    same(runs.metrics("tb"), {event.step: event.value for event in events}, "TensorBoard")
    tags = reader.Tags()
    print("  tags:", len(tags["scalars"]), "figures; text:", reader.Tags()["tensors"])
    text = reader.Tensors("config/text_summary/text_summary" if "config/text_summary/text_summary"
                          in tags["tensors"] else "config/text_summary")
    assert b'"learning_rate"' in text[0].tensor_proto.string_val[0]


def wandb_offline(runs):
    said = runs.stop_and_resume("off", "--max_steps", "60", "--report-to", "wandb",
                                WANDB_MODE="offline", WANDB_PROJECT="cells", WANDB_RUN_ID="off1",
                                WANDB_TAGS="a,b", WANDB_RUN_GROUP="group")
    assert "warning" not in said, said
    parts = sorted((runs.folder / "off" / "wandb").glob("offline-run-*"))
    assert len(parts) == 2, parts
    server = StandIn()
    env = os.environ | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40, "NO_PROXY": "127.0.0.1",
                        "HOME": str(runs.folder)}
    for part in parts:
        process = subprocess.run([BIN / "wandb", "sync", str(part)], env=env, capture_output=True,
                                 text=True, cwd=runs.folder)
        assert process.returncode == 0, process.stdout + process.stderr
        assert (part / "run-off1.wandb.synced").exists(), process.stdout + process.stderr
    got = {line["_step"]: line["train/loss"] for line in server.history("off1")}
    assert len(got) == len(server.history("off1"))
    same(runs.metrics("off"), got, "wandb sync of an offline run in two parts")
    run = server.runs["off1"]
    assert run["config"]["learning_rate"]["value"] == 1e-3, run["config"].keys()
    assert run["project"] == "cells" and run["groupName"] == "group", "labels"
    assert sorted(run["tags"] or []) == ["a", "b"], run["tags"]
    print("  ends:", run["ends"], "files:", sorted(run["files"]), "asked:", sorted(set(server.asked)))
    assert run["ends"] == [130, 0]
    assert "metrics.jsonl" in run["files"] and "run.toml" in run["files"]
    assert "eval/loss" in server.summary("off1")
    server.stop()


def online(runs, name, said_must, trouble=None, late=False, resume=False, after=False):
    server = StandIn()
    if trouble:
        server.trouble = trouble
    env = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40, "WANDB_NAME": name,
           "WANDB_RUN_ID": name}
    flags = ["--max_steps", "60", "--report-to", "wandb,tensorboard"]
    if late or after:
        server.stop()
    began = time.time()
    if resume:
        said = runs.stop_and_resume(name, *flags, **env)
    elif after:
        said = runs.run(name, *flags, "--report_wait", "2", **env)
        took = time.time() - began
        server_again = StandIn(server.port)
        sent = runs.start([str(runs.program), "track", str(runs.folder / name)], **env)
        more, _ = sent.communicate()
        assert sent.returncode == 0, more
        said += more
        server = server_again
        print(f"  the run took {took:.1f} s in all")
    elif late:
        # The run may be over its steps before anything is sent: it has to have been refused once.
        log = runs.folder / f"{name}.log"
        process = runs.start(runs.command(name, *flags), out=log.open("w"), **env)
        wait_for(lambda: steps_of(runs.folder / name) >= 60 and "warning: wandb" in log.read_text())
        server = StandIn(server.port)
        assert process.wait() == 0, log.read_text()
        said = log.read_text()
    else:
        said = runs.run(name, *flags, **env)
    for part in said_must:
        assert part in said, f"{part!r} is not in:\n{said}"
    history = server.history(name)
    got = {line["_step"]: line["train/loss"] for line in history}
    assert len(got) == len(history), "a step stands there twice"
    same(runs.metrics(name), got, f"W&B online, {name}")
    run = server.runs[name]
    print("  requests:", len(server.requests), "ends:", run["ends"], "files:", sorted(run["files"]))
    assert run["ends"][-1] == 0
    assert run["files"]["metrics.jsonl"] == (runs.folder / name / "metrics.jsonl").read_bytes()
    assert runs.weights(name) == runs.weights("alone"), "other weights than without a tracker"
    server.stop()


def wandb_online(runs):
    online(runs, "undisturbed", ["note: wandb: "])
    faults = {1: 500, 2: "drop", 4: 429, 5: "drop", 6: 503, 8: "drop", 10: 500}
    online(runs, "errors", ["warning: wandb", "answers again"],
           trouble=lambda number, path: faults.get(number))
    online(runs, "stalls", [], trouble=lambda number, path: "stall" if number == 2 else None)
    online(runs, "late", ["warning: wandb", "answers again"], late=True)
    online(runs, "resumed", [], resume=True)
    online(runs, "afterwards", ["has not everything", "gene-bert track"], after=True)


class MlflowServer:
    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [BIN / "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db",
             "--artifacts-destination", str(self.folder / "artifacts"), "--host", "127.0.0.1",
             "--port", str(self.port), "--workers", "1"],
            stdout=open(self.folder / "mlflow.log", "a"), stderr=subprocess.STDOUT,
            start_new_session=True)

        def answers():
            try:
                return urllib.request.urlopen(f"{self.url}/health", timeout=2).status == 200
            except OSError:
                return False
        wait_for(answers, 120)

    def stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def mlflow(runs):
    os.environ["NO_PROXY"] = "127.0.0.1"
    server = MlflowServer(runs.folder)
    try:
        through_mlflow(runs, server)
    finally:
        server.stop()


def through_mlflow(runs, server):
    from mlflow.tracking import MlflowClient

    env = {"MLFLOW_TRACKING_URI": server.url, "MLFLOW_EXPERIMENT_NAME": "blood cells"}
    flags = ["--max_steps", "60", "--report-to", "mlflow", "--report_wait", "200"]
    said = runs.stop_and_resume("ml", *flags, **env)
    assert "warning" not in said, said
    process = runs.start(runs.command("ml_cut", *flags), **env)
    wait_for(lambda: steps_of(runs.folder / "ml_cut") >= 10)
    server.stop()
    wait_for(lambda: steps_of(runs.folder / "ml_cut") >= 60)
    server.start()
    said, _ = process.communicate()
    assert process.returncode == 0, said
    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name("blood cells")
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(found) == ["ml", "ml_cut"], found
    for name, run in found.items():
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert len(history) == len({metric.step for metric in history})
        same(runs.metrics(name), {metric.step: metric.value for metric in history}, f"MLflow, {name}")
        files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
        print("  status:", run.info.status, "parameters:", len(run.data.params), "figures:",
              len(run.data.metrics), "artifacts:", files)
        assert run.info.status == "FINISHED" and "metrics.jsonl" in files
        assert run.data.params["learning_rate"] == "0.001" and "model.hidden_size" in run.data.params
        assert runs.weights(name) == runs.weights("alone")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/gene-bert")
    parser.add_argument("--data", required=True)
    parser.add_argument("--phenotype", default="cell_type")
    parser.add_argument("--only", nargs="*", default=["tensorboard", "wandb_offline", "wandb_online",
                                                      "mlflow"])
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tracking-"))
    runs = Runs(given.program, Path(given.data).resolve(), given.phenotype, folder)
    try:
        runs.run("alone", "--max_steps", "60")
        for name in given.only:
            globals()[name](runs)
    finally:
        shutil.rmtree(folder)
    print("everything arrived")


if __name__ == "__main__":
    main()
