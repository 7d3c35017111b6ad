#!/usr/bin/env python3
"""Static archives libcuda.a, libcublas.a, … whose functions open the real library when first called.

    cargo metadata --format-version 1 --features nccl | scripts/cuda/loaders.py FOLDER

With FOLDER first on the linker's path, a program that was written to be linked with CUDA's libraries
needs none of them to start. Where one is missing, its functions return the code by which that library
says that it cannot be used. The functions are those that the crate cudarc declares. x86-64 Linux only.

A function is a jump through a slot; the slot first points to code that puts the arguments aside, looks
the name up, fills the slot, and jumps on with the arguments as they were.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

# Library: (module of cudarc that declares its functions, file that is opened, what is returned when
# it is missing: no device, internal error, initialization failed, not initialized, system error).
LIBRARIES = {
    "cuda": ("driver", "libcuda.so.1", 100),
    "nvrtc": ("nvrtc", "libnvrtc.so.13", 11),
    "curand": ("curand", "libcurand.so.10", 203),
    "cublas": ("cublas", "libcublas.so.13", 1),
    "cublasLt": ("cublaslt", "libcublasLt.so.13", 1),
    "nccl": ("nccl", "libnccl.so.2", 2),
}

RESOLVER = """
#include <dlfcn.h>

static const char *const names[] = {{ {names} }};

int gene_bert_{library}_is_missing(void) {{ return {missing}; }}

__attribute__((visibility("hidden"))) void *gene_bert_{library}_find(long index) {{
    static void *handle;
    if (!handle) handle = dlopen("{file}", RTLD_NOW | RTLD_GLOBAL);
    void *found = handle ? dlsym(handle, names[index]) : 0;
    return found ? found : (void *)gene_bert_{library}_is_missing;
}}
"""

# Integer arguments, the number of vector registers used (rax), and the vector arguments.
INTEGERS = ["rdi", "rsi", "rdx", "rcx", "r8", "r9", "rax"]
VECTORS = [f"xmm{i}" for i in range(8)]


def saved(store: bool) -> list[str]:
    """Stores the arguments below the stack pointer's new place, or loads them."""
    lines = []
    for i, register in enumerate(INTEGERS):
        pair = (f"%{register}", f"{8 * i}(%rsp)")
        lines.append("movq " + ", ".join(pair if store else pair[::-1]))
    for i, register in enumerate(VECTORS):
        pair = (f"%{register}", f"{64 + 16 * i}(%rsp)")
        lines.append("movups " + ", ".join(pair if store else pair[::-1]))
    return lines


def assembly(library: str, functions: list[str]) -> str:
    """r11 holds the slot's address: its first word is where to jump, its second the name's index."""
    find = [
        f"find_{library}:", "pushq %rbp", "movq %rsp, %rbp", "andq $-16, %rsp", "subq $208, %rsp",
        *saved(store=True), "movq %r11, 192(%rsp)", "movq 8(%r11), %rdi",
        f"call gene_bert_{library}_find", "movq 192(%rsp), %r11", "movq %rax, (%r11)",
        *saved(store=False), "movq %rbp, %rsp", "popq %rbp", "jmp *(%r11)",
    ]
    code, slots = [], []
    for index, name in enumerate(functions):
        code += [f".globl {name}", f".type {name}, @function", f"{name}: jmp *slot_{name}(%rip)",
                 f"first_{name}: leaq slot_{name}(%rip), %r11", f"jmp find_{library}"]
        slots += [f"slot_{name}: .quad first_{name}", f".quad {index}"]
    tail = ['.section .note.GNU-stack,"",@progbits', ""]
    return "\n".join([".text", *find, *code, ".data", ".balign 8", *slots, *tail])


def functions_of(crate: Path, library: str) -> list[str]:
    """The functions that cudarc's sources, in `crate`, declare of a library."""
    declared = (crate / LIBRARIES[library][0] / "sys" / "mod.rs").read_text()
    return sorted(set(re.findall(r"pub unsafe fn ((?:cu|nccl|nvrtc)\w+)\(", declared)) - {"culib"})


def sources_of_cudarc(metadata: str) -> Path:
    packages = json.loads(metadata)["packages"]
    manifest = next(p["manifest_path"] for p in packages if p["name"] == "cudarc")
    return Path(manifest).parent / "src"


def archive(crate: Path, library: str, folder: Path) -> int:
    _, file, missing = LIBRARIES[library]
    functions = functions_of(crate, library)
    names = ", ".join(f'"{name}"' for name in functions)
    resolver, jumps = folder / f"{library}.c", folder / f"{library}_jumps.s"
    text = RESOLVER.format(names=names, library=library, file=file, missing=missing)
    resolver.write_text(text)
    jumps.write_text(assembly(library, functions))
    objects = []
    for source in (resolver, jumps):
        objects.append(source.with_suffix(".o"))
        subprocess.run(["gcc", "-c", "-O2", "-fPIC", source, "-o", objects[-1]], check=True)
    subprocess.run(["ar", "crs", folder / f"lib{library}.a", *objects], check=True)
    for path in (resolver, jumps, *objects):
        path.unlink()
    return len(functions)


def main() -> None:
    crate = sources_of_cudarc(sys.stdin.read())
    for library in LIBRARIES:
        count = archive(crate, library, Path(sys.argv[1]))
        print(f"  lib{library}.a: {count} functions")


if __name__ == "__main__":
    main()
