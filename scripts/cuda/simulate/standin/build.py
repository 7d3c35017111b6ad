#!/usr/bin/env python3
"""Builds the device that is not there (machine.h) into target/cuda/simulate/standin: libcuda.so.1,
libcublas.so.13, libcublasLt.so.13, libcurand.so.10 and libnccl.so.2 for the loaders of the program's
build with CUDA, and an nvidia-smi for gpu-check. Needs g++, and cargo for where cudarc's sources are.

    scripts/cuda/simulate/standin/build.py

Every function that cudarc knows and that is not written here ends the process and says its name.
Kernels are found in the preprocessed .cu files. Compiles what is older than its source or
than any header.
"""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[3]
KERNELS = ROOT / "src/kernels/cuda"
OUT = ROOT / "target/cuda/simulate/standin"
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parents[1]))
import loaders  # noqa: E402

FLAGS = [
    "-std=c++17", "-O3", "-march=native", "-g1", "-fPIC", "-fno-semantic-interposition", "-Wall", "-Werror",
    "-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-unused-but-set-variable", "-Wno-psabi",
    "-DGENE_BERT_SIMULATE", f"-I{HERE}", f"-I{HERE.parent}", f"-I{KERNELS}",
]  # fmt: skip

# Library: (file, cudarc's name of it, sources besides the kernels, what it is linked with).
DRIVER = ["driver", "memory", "streams", "modules", "images", "candle"]
LIBRARIES = [
    ("libcuda.so.1", "cuda", DRIVER, []),
    ("libcublas.so.13", "cublas", ["cublas"], ["libcuda.so.1"]),
    ("libcublasLt.so.13", "cublasLt", ["cublaslt"], ["libcuda.so.1"]),
    ("libcurand.so.10", "curand", ["curand"], ["libcuda.so.1"]),
    ("libnccl.so.2", "nccl", ["nccl"], ["libcuda.so.1"]),
]

MISSING = """
#include "machine.h"
#define MISSING(name) EXPORT __attribute__((weak)) int name() { die(#name " is not written here"); }
"""

SMI = "#!/bin/sh\necho 'stand-in on the CPU, no driver, no GPU'\n"


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


def names_of(source: Path) -> list[str]:
    """The kernels of a .cu file, in order."""
    text = run(
        "g++", *FLAGS, "-E", "-P", "-DKERNEL=a_kernel", "-x", "c++", source, stdout=subprocess.PIPE, text=True
    ).stdout
    names = re.findall(r"\ba_kernel\s+(\w+)\s*\(", text)
    if not names:
        sys.exit(f"{source}: no kernel in it")
    return names


def is_newer(target: Path, *sources: Path) -> bool:
    """Than `sources`, this script and every header."""
    if not target.exists():
        return False
    headers = [*HERE.glob("*.h"), *HERE.parent.glob("*.h"), *KERNELS.glob("*.cuh")]
    newest = max(path.stat().st_mtime for path in [*sources, *headers, Path(__file__)])
    return target.stat().st_mtime > newest


def compiled(source: Path, target: Path, *flags) -> Path:
    if not is_newer(target, source):
        run("g++", *FLAGS, *flags, "-c", source, "-o", target)
    return target


def kernels(source: Path) -> Path:
    name = source.stem
    target, names = OUT / f"kernel_{name}.o", OUT / f"{name}.names"
    if not is_newer(target, source, HERE / "kernel.cpp"):
        names.write_text("".join(f"KERNEL_NAME({kernel})\n" for kernel in names_of(source)))
        defines = [f'-DSOURCE="{source}"', f'-DNAMES="{names}"', f'-DNAME="{name}"']
        run("g++", *FLAGS, *defines, "-c", HERE / "kernel.cpp", "-o", target)
    return target


def missing(library: str, crate: Path) -> Path:
    source = OUT / f"missing_{library}.cpp"
    stubs = "".join(f"MISSING({name})\n" for name in loaders.functions_of(crate, library))
    if not source.exists() or source.read_text() != MISSING + stubs:
        source.write_text(MISSING + stubs)
    return compiled(source, source.with_suffix(".o"))


def build() -> Path:
    """The folder of the libraries."""
    OUT.mkdir(parents=True, exist_ok=True)
    metadata = run(
        "cargo", "metadata", "--locked", "--format-version", "1", "--features", "cuda", cwd=ROOT,
        stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    crate = loaders.sources_of_cudarc(metadata)
    with ThreadPoolExecutor(4) as pool:
        files = sorted(KERNELS.glob("*.cu"), key=lambda path: -path.stat().st_size)
        ours = [pool.submit(kernels, source) for source in files]
        own = {
            name: pool.submit(compiled, HERE / f"{name}.cpp", OUT / f"{name}.o")
            for _, _, sources, _ in LIBRARIES
            for name in sources
        }
        stubs = {library: pool.submit(missing, library, crate) for _, library, *_ in LIBRARIES}
    for file, library, sources, needs in LIBRARIES:
        objects = [own[name].result() for name in sources] + [stubs[library].result()]
        objects += [kernel.result() for kernel in ours] if library == "cuda" else []
        links = [f"-L{OUT}", *(f"-l:{need}" for need in needs), "-Wl,-rpath,$ORIGIN"]
        run("g++", "-shared", *objects, *links, "-pthread", f"-Wl,-soname,{file}", "-o", OUT / file)
    tries = [HERE / "try.cpp", HERE / "try_products.cpp"]
    run("g++", *FLAGS, *tries, *links, "-l:libcublasLt.so.13", "-l:libcuda.so.1", "-o", OUT / "try")
    smi = OUT / "nvidia-smi"
    smi.write_text(SMI)
    smi.chmod(0o755)
    return OUT


if __name__ == "__main__":
    print(build())
