"""Replace the CUDA half of PyTorch's PyPI build by empty libraries: the same CPU code in a quarter of the space.

torch on PyPI is a CUDA 12 build (2.6.0, 2.10.0). Its libtorch_python.so names libtorch_cuda.so and NVIDIA's libraries as
needed, so all 4 GB of them must be there to import torch, although an engine on a CPU never calls them. Here every
symbol that the libraries we keep want from them is defined once more:

- a function of CUDA's (cuda*, cu*) returns cudaErrorNoDevice, so that torch.cuda.is_available() is False;
- any other function returns the address of a zeroed page: a valid pointer, and False as a C++ bool, since a page's
  address ends in zeros;
- C++ type information is an empty class with its own name, because pybind11 reads the name on import.

So is what extensions with CUDA code want of at::cuda, so that they are linked and imported too.

Usage: torch_without_cuda.py TORCH_LIB_DIRECTORY    (needs nm, readelf, as and ld from binutils)
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

ERROR_NO_DEVICE = 100  # cudaErrorNoDevice, CUDA Runtime API
KEPT = ("libc10.so", "libc10_cuda.so", "libshm.so", "libtorch.so", "libtorch_cpu.so", "libtorch_python.so", "libtorch_global_deps.so")
REPLACED = "libtorch_cuda.so"
NVIDIA = re.compile(r"\(NEEDED\).*\[(libcu\w*\.so\.\d+)\]")
CUDA_PREFIXES = ("cu", "__cuda")
EXTENSION_PREFIXES = ("_ZN2at4cuda", "_ZN2at17CUDAGeneratorImpl")  # at::cuda, at::CUDAGeneratorImpl


def symbols(library: pathlib.Path, which: str) -> set[str]:
    """Return the names of a library's dynamic symbols, without versions; `which` is "defined" or "undefined"."""
    command = ["nm", "-D", f"--{which}-only", str(library)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {line.split()[-1].partition("@")[0] for line in lines}


def needed(library: pathlib.Path) -> set[str]:
    """Return the names of NVIDIA's libraries that a library cannot be loaded without."""
    command = ["readelf", "--dynamic", "--wide", str(library)]
    return set(NVIDIA.findall(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def definition(name: str) -> list[str]:
    """Return the assembler lines that define one symbol."""
    if name.startswith("_ZTI"):  # type information: the class of the type, and its mangled name
        lines = [".data", ".balign 8", f"{name}:", ".quad _ZTVN10__cxxabiv117__class_type_infoE + 16", f".quad .Lname{name}"]
        return [*lines, ".section .rodata", f'.Lname{name}: .string "{name[4:]}"', f".globl {name}", f".type {name}, @object"]
    if name.startswith("_ZTV"):  # a table of virtual functions that nobody calls
        return [".data", ".balign 8", f"{name}:", ".zero 512", f".globl {name}", f".type {name}, @object"]
    result = f"mov ${ERROR_NO_DEVICE}, %eax" if name.startswith(CUDA_PREFIXES) else "lea page(%rip), %rax"
    return [".text", f"{name}:", result, "ret", f".globl {name}", f".type {name}, @function"]


def link(library: pathlib.Path, names: list[str]) -> None:
    """Write a shared library that defines the names and nothing else."""
    lines = [".bss", ".balign 4096", "page: .zero 4096", '.section .note.GNU-stack,"",@progbits']
    for name in names:
        lines += definition(name)
    compiled = library.with_suffix(".o")
    subprocess.run(["as", "-o", str(compiled), "-"], check=True, input="\n".join(lines) + "\n", text=True)
    subprocess.run(["ld", "-shared", "-soname", library.name, "-o", str(library), str(compiled)], check=True)
    compiled.unlink()


def main(directory: pathlib.Path) -> None:
    removed = [library for library in directory.glob("lib*.so") if library.name not in KEPT]
    cuda = set().union(*(symbols(library, "defined") for library in removed))
    wanted = set().union(*(symbols(directory / name, "undefined") for name in KEPT))
    missing = {name for name in wanted if name in cuda or name.startswith(CUDA_PREFIXES)}
    missing |= {name for name in cuda if name.startswith(EXTENSION_PREFIXES)}
    for library in removed:
        library.unlink()
    link(directory / REPLACED, sorted(missing))
    for name in sorted(set().union(*(needed(directory / name) for name in KEPT))):
        link(directory / name, [])


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
