"""Give a vLLM that was built without CUDA what its CUDA build holds for NVIDIA's cards, as far as headers go: the lab's engines run on the CPU,
and the collection refuses an image without code for the host's cards.

Beside the module _C goes a library _C.stand_in.so, which nothing imports, with as many fat binaries as the real wheel has, by their archs.
Each is as nvcc writes it (roles/vllm/files/image_probe.py), but for the code: there is none.

Usage: fat_binaries.py PACKAGE_DIRECTORY VERSION
"""

from __future__ import annotations

import pathlib
import struct
import sys

# What cuobjdump lists in the wheels on PyPI, without PTX: arch -> fat binaries that have it.
MODULES = {
    "0.8.5": {
        "_C": {70: 27, 75: 28, 80: 37, 86: 37, 89: 37, 90: 35},
        "_moe_C": {70: 3, 75: 3, 80: 10, 86: 10, 89: 10, 90: 10},
    },
    "0.19.1": {
        "_C": {70: 28, 75: 40, 80: 50, 89: 36, 90: 36, 100: 28, 120: 33},
        "_C_stable_libtorch": {70: 3, 75: 3, 80: 3, 89: 3, 90: 3, 100: 3, 120: 3},
        "_moe_C": {70: 8, 75: 16, 80: 23, 89: 13, 90: 8, 100: 8, 120: 13},
    },
}
MACHINE_CODE = 2


def fat_binary(archs: list[int]) -> bytes:
    entries = b"".join(struct.pack("<HHIQIIHHIIIQ16x", MACHINE_CODE, 0x101, 64, 0, 0, 0, 7, 1, arch, 0, 0, 0x11) for arch in archs)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries


def main(package: pathlib.Path, version: str) -> None:
    for module, counts in MODULES[version].items():
        numbers = range(max(counts.values()))
        library = b"".join(fat_binary([arch for arch, count in counts.items() if number < count]) for number in numbers)
        (package / f"{module}.stand_in.so").write_bytes(library)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
