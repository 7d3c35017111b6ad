#!/usr/bin/env python3
"""Trains on a Ray cluster: places one rank per bundle of CPUs and runs gene-bert in each.

    pip install ray
    scripts/ray_train.py --num-processes 4 --cpus-per-process 8 --max-restarts 3 -- \\
        mlm --config run.toml --output_dir /shared/run

gene-bert (on the PATH of every node, or --program) must be built with `--features mpi` and MPICH, or, with
`--gpus-per-process 1`, with `--features nccl`: the ranks find one another by MASTER_ADDR and MASTER_PORT,
and Ray shows each its own GPU. The run folder must be on a file system that all
nodes see. Without a cluster (RAY_ADDRESS) Ray runs on this machine. Ends with the exit code of the rank
that failed first; a lost one (3, or a node that went away) is restarted from the last checkpoint.
"""
import argparse
import glob
import os
import re
import socket
import subprocess
import sys

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

USER_ERROR, LOST = 1, 3


@ray.remote
class Rank:
    """One process of the run, on whichever node Ray has placed it."""

    def address(self):
        """A host and a free port of this node."""
        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), free.getsockname()[1]

    def node(self):
        return ray.get_runtime_context().get_node_id()

    def run(self, program, words, variables):
        """The exit code; what rank 0 prints goes to the driver's terminal, through Ray."""
        return subprocess.run([program, *words], env={**os.environ, **variables}, check=False).returncode


def words_to_resume(words):
    """The command that goes on from the last checkpoint of its run folder, where there is one."""
    folder = next((b for a, b in zip(words, words[1:]) if re.fullmatch("--output[-_]dir", a)), None)
    if folder is None:
        return words
    rest = [w for w in words if not re.fullmatch("--overwrite[-_]output[-_]dir", w)]
    if glob.glob(os.path.join(glob.escape(folder), "checkpoint-[0-9]*")):
        return rest if "--resume" in rest else [*rest, "--resume", folder]
    return [*rest, "--overwrite-output-dir"]


def run_once(arguments, words):
    """Places and runs all ranks; the exit code of the one that failed first, or 0."""
    world = arguments.num_processes
    gpus = arguments.gpus_per_process
    bundle = {"CPU": arguments.cpus_per_process} | ({"GPU": gpus} if gpus else {})
    bundles = placement_group([bundle] * world, strategy="PACK")
    try:
        if not bundles.wait(arguments.placement_timeout):
            sys.exit(f"error: no room for {world} ranks of {bundle}")
        strategy = PlacementGroupSchedulingStrategy(placement_group=bundles)
        options = {"num_cpus": arguments.cpus_per_process, "num_gpus": gpus, "scheduling_strategy": strategy}
        ranks = [Rank.options(**options).remote() for _ in range(world)]
        host, port = ray.get(ranks[0].address.remote())
        nodes = ray.get([rank.node.remote() for rank in ranks])
        running = {}
        for number, rank in enumerate(ranks):
            variables = {
                "RANK": number,
                "WORLD_SIZE": world,
                "LOCAL_RANK": nodes[:number].count(nodes[number]),
                "LOCAL_WORLD_SIZE": nodes.count(nodes[number]),
                "MASTER_ADDR": host,
                "MASTER_PORT": port,
            }
            variables = {name: str(value) for name, value in variables.items()}
            threads = ["--threads", str(arguments.cpus_per_process)] if "--threads" not in words else []
            running[rank.run.remote(arguments.program, [*words, *threads], variables)] = number
        code = 0
        while running:
            (ended,), _ = ray.wait(list(running))
            number = running.pop(ended)
            try:
                status = ray.get(ended)
            except ray.exceptions.RayError as error:
                print(f"rank {number}: {error}", file=sys.stderr)
                status = LOST
            if status and not code:
                code = status if status > 0 else LOST
                print(f"rank {number} ended with {status}", file=sys.stderr)
        return code
    finally:
        remove_placement_group(bundles)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-processes", type=int, required=True)
    parser.add_argument("--cpus-per-process", type=int, default=1)
    parser.add_argument("--gpus-per-process", type=int, default=0)
    parser.add_argument("--max-restarts", type=int, default=0)
    parser.add_argument("--placement-timeout", type=float, default=300, help="seconds")
    parser.add_argument("--program", default="gene-bert")
    parser.add_argument("words", nargs="+", metavar="COMMAND", help="after --: mlm, cls or bincls with flags")
    arguments = parser.parse_args()
    ray.init()
    words = arguments.words
    for restart in range(arguments.max_restarts + 1):
        code = run_once(arguments, words)
        if code in (0, USER_ERROR):
            break
        words = words_to_resume(words)
        if restart < arguments.max_restarts:
            print(f"starting all ranks again (restart {restart + 1})", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
