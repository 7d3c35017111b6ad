#!/usr/bin/env python3
"""What nvcc makes of a file of kernels, without a GPU: registers, spilled bytes, and the instructions of
each kernel's inner loops, by kind.

    eval "$(scripts/cuda-toolkit)"
    scripts/cuda/instructions.py src/kernels/cuda/attention.cu 'bf16_64$' [--target 90]

The loops are counted as they stand, and once more without those parts, between branches, that are mostly
selections: what masks the end of a row or of a cell, which most turns of a loop pass by. Needs nvcc and
cuobjdump on PATH, which the wheel nvidia-cuda-cuobjdump of the Python registry has as well.
"""

import argparse
import collections
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Loops of fewer instructions are copies and the like.
SHORTEST = 100


def said(*command):
    if not shutil.which(command[0]):
        sys.exit(f"scripts/cuda/instructions.py: {command[0]} is missing; see --help")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(done.stdout)
    return done.stdout


def resources(text):
    """Kernel → (registers, spilled bytes), and the compiler's warnings."""
    found, warnings, name, spilled = {}, [], "", 0
    for line in text.splitlines():
        if entry := re.search(r"Compiling entry function '(\w+)'", line):
            name = entry[1]
        elif spill := re.search(r"(\d+) bytes spill stores", line):
            spilled = int(spill[1])
        elif used := re.search(r"Used (\d+) registers", line):
            found[name] = (int(used[1]), spilled)
        elif "warning" in line.lower() or "(C7" in line:
            warnings.append(line.strip())
    return found, warnings


def loops(part):
    """Of a kernel's listing, the opcodes of each loop (from where a branch leads back to, to it), all
    and those of its parts that are not mostly selections."""
    lines = re.findall(r"/\*([0-9a-f]{4,5})\*/\s+([^;]+);", part)
    code = [(int(address, 16), text.strip()) for address, text in lines]
    branches = {}
    for address, text in code:
        if target := re.search(r"BRA.*?0x([0-9a-f]+)", text):
            branches[address] = int(target[1], 16)
    for first, last in sorted({(to, at) for at, to in branches.items() if to < at}):
        parts = [collections.Counter()]
        for address, text in code:
            if first <= address <= last:
                if address in branches.values():
                    parts.append(collections.Counter())
                parts[-1][re.sub(r"^@!?U?P\S+\s+", "", text).split()[0].split(".")[0]] += 1
                if address in branches:
                    parts.append(collections.Counter())
        usual = [part for part in parts if part["FSEL"] < max(8, part.total() / 4)]
        yield sum(parts, collections.Counter()), sum(usual, collections.Counter()).total()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path, help="a .cu file")
    parser.add_argument("kernels", nargs="?", default="", help="only kernels that match this expression")
    parser.add_argument("--target", default="90", help="architecture: 90, 90a (default 90)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cubin = f"{folder}/kernels.cubin"
        target = f"-gencode=arch=compute_{args.target},code=sm_{args.target}"
        how = ["-cubin", "-O3", "-std=c++17", "--expt-relaxed-constexpr", target, "-Xptxas", "-v"]
        found, warnings = resources(said("nvcc", *how, str(args.file), "-o", cubin))
        listing = said("cuobjdump", "-sass", cubin)
    for warning in warnings:
        print(warning)
    for part in listing.split("Function : ")[1:]:
        name = part.split()[0]
        if not re.search(args.kernels, name) or name not in found:
            continue
        registers, spilled = found[name]
        print(f"{name}: {registers} registers, {spilled} bytes spilled")
        for counts, usual in loops(part):
            if counts.total() >= SHORTEST:
                kinds = ", ".join(f"{kind} {count}" for kind, count in counts.most_common(9))
                print(f"    {counts.total()} instructions, {usual} in most turns: {kinds}")


main()
