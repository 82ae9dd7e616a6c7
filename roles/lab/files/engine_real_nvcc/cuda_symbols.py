"""Give PyTorch's empty libcudart (see torch_without_cuda.py) the names that the real one has, so that extensions of PyTorch are linked and imported.

Usage: cuda_symbols.py TORCH_LIB_DIRECTORY REAL_LIBCUDART
"""

from __future__ import annotations

import pathlib
import sys

from torch_without_cuda import link, symbols


def main(directory: pathlib.Path, cudart: pathlib.Path) -> None:
    link(directory / cudart.name, sorted(symbols(cudart, "defined") - {cudart.name}))
    (directory / "libcudart.so").symlink_to(cudart.name)


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
