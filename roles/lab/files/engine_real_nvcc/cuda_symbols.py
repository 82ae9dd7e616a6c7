"""Give the empty CUDA libraries of torch_without_cuda.py what extensions of PyTorch want besides, so that they can be linked and imported.

Usage: cuda_symbols.py TORCH_LIB_DIRECTORY REAL_LIBTORCH_CUDA REAL_LIBCUDART
"""

from __future__ import annotations

import pathlib
import sys

from torch_without_cuda import REPLACED, link, symbols

ATEN = ("_ZN2at4cuda", "_ZN2at17CUDAGeneratorImpl")  # at::cuda, at::CUDAGeneratorImpl


def main(directory: pathlib.Path, torch_cuda: pathlib.Path, cudart: pathlib.Path) -> None:
    wanted = {name for name in symbols(torch_cuda, "defined") if name.startswith(ATEN)}
    link(directory / REPLACED, sorted(wanted | symbols(directory / REPLACED, "defined")))
    link(directory / cudart.name, sorted(symbols(cudart, "defined") - {cudart.name}))
    (directory / "libcudart.so").symlink_to(cudart.name)


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
