"""Let PyTorch's PyPI build, which is the CUDA build, be imported without NVIDIA's libraries.

torch/lib names NVIDIA's libraries as needed, so all 3 GB of them must be there to import torch, although nothing here calls them. In
their place go libraries that define the same names: every function returns cudaErrorNoDevice, so that torch.cuda.is_available() is False.

Usage: nvidia_stubs.py TORCH_LIB_DIRECTORY    (needs nm, readelf, as and ld from binutils)
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

ERROR_NO_DEVICE = 100  # cudaErrorNoDevice, CUDA Runtime API
LIBRARY = re.compile(r"lib(cu|nv|nccl)\w*\.so\.\d+")
FUNCTION = re.compile(r"(__)?(cu|nv|nccl)\w*")


def lines_of(*command: str) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def wanted(libraries: list[pathlib.Path]) -> dict[str, dict[str, set[str]]]:
    """The NVIDIA libraries that these need -> a version of symbols, "" for none -> the functions that they want."""
    found, owner, functions = {}, {}, set()
    for library in map(str, libraries):
        for line in lines_of("readelf", "--wide", "--dynamic", library):
            if "(NEEDED)" in line and LIBRARY.fullmatch(name := line.rpartition("[")[2].rstrip("]")):
                found[name] = {}
        for line in lines_of("readelf", "--wide", "--version-info", library):
            if match := re.search(r"File: (\S+)", line):
                file = match[1]
            elif match := re.search(r"Name: (\S+)\s+Flags", line):
                owner[match[1]] = file
        functions |= {line.split()[-1] for line in lines_of("nm", "--dynamic", "--undefined-only", library)}
    first = sorted(found)[0]
    for function in functions:
        name, dummy, version = function.partition("@")
        # The loader looks for a name without a version in all libraries.
        if (library := owner.get(version, first)) in found and (version or FUNCTION.fullmatch(name)):
            found[library].setdefault(version, set()).add(name)
    return found


def link(library: pathlib.Path, versions: dict[str, set[str]]) -> None:
    """Write a shared library that defines the functions and nothing else."""
    lines = ['.section .note.GNU-stack,"",@progbits', ".text"]
    for name in sorted(set().union(*versions.values())):
        lines += [f"{name}: mov ${ERROR_NO_DEVICE}, %eax", "ret", f".globl {name}", f".type {name}, @function"]
    compiled, script = library.with_suffix(".o"), library.with_suffix(".map")
    subprocess.run(["as", "-o", str(compiled), "-"], check=True, input="\n".join(lines) + "\n", text=True)
    named = {version: names for version, names in versions.items() if version}
    script.write_text("".join(f"{version} {{ {'; '.join(sorted(names))}; }};\n" for version, names in named.items()), encoding="utf-8")
    options = ["--version-script", str(script)] if named else []
    subprocess.run(["ld", "-shared", "-soname", library.name, *options, "-o", str(library), str(compiled)], check=True)
    compiled.unlink()
    script.unlink()


def main(directory: pathlib.Path) -> None:
    for name, versions in wanted(sorted(directory.glob("lib*.so"))).items():
        link(directory / name, versions)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
